"""GPUs that are alike share simulated hours: a fleet of 500 GPUs has a dozen kinds of them.

Alike are GPUs with the same setting whose adapters differ, name aside, by at most `TOLERANCE` of their tokens and of
their number: solvers deal classes of adapters to GPUs as evenly as whole numbers allow, and what is left over is one
adapter more or less. Adapters of different kinds are different, however similar their sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from twin.figures.promises import limits
from twin.server.column import Column
from twin.workload.adapter import Adapter, Slo

#: Largest difference of two GPUs alike, as a share of their tokens per second and of their adapters.
TOLERANCE = 0.03


def groups_alike(columns: Sequence[Column], default: Slo) -> list[list[int]]:
    """Indices of the columns in groups alike, each group with its busiest column first.

    A column with promises on means is alone: these are judged adapter by adapter.

    Args:
        default: promises of adapters that have none of their own.
    """
    kinds: dict[Adapter, int] = {}
    contents = [Counter(kinds.setdefault(_kind(a), len(kinds)) for a in column.adapters) for column in columns]
    tokens = [_tokens_per_s(kind) for kind in kinds]
    traffic = [sum(n * tokens[k] for k, n in content.items()) for content in contents]
    # Adapters of a kind that no other column has differ from every column: a log with ten thousand adapters has as many
    # kinds, and comparing all pairs of GPUs would take minutes.
    owners = Counter(kind for content in contents for kind in content)
    single = [sum(n for k, n in content.items() if owners[k] == 1) for content in contents]
    most = TOLERANCE * max((content.total() for content in contents), default=0)
    groups: dict[object, list[list[int]]] = {}
    for index in sorted(range(len(columns)), key=lambda i: -traffic[i]):
        alone = single[index] > most or np.isfinite(limits(columns[index].adapters, default)).any()
        same_setting = groups.setdefault(index if alone else columns[index].setting, [])
        for group in same_setting:
            leader = group[0]
            if _alike(contents[leader], contents[index], traffic[leader], tokens):
                group.append(index)
                break
        else:
            same_setting.append([index])
    return [group for of_setting in groups.values() for group in of_setting]


def _kind(adapter: Adapter) -> Adapter:
    return replace(adapter, adapter_id="kind", pinned_gpu=None)


def _tokens_per_s(adapter: Adapter) -> float:
    return adapter.rate_req_per_s * (adapter.prompt_tokens.mean + adapter.output_tokens.mean)


def _alike(a: Counter[int], b: Counter[int], traffic: float, tokens: Sequence[float]) -> bool:
    # Each kind that only one has differs by at least one adapter.
    if len(a.keys() ^ b.keys()) > TOLERANCE * a.total():
        return False
    differing = {k: abs(a[k] - b[k]) for k in a.keys() | b.keys() if a[k] != b[k]}
    return (
        sum(differing.values()) <= TOLERANCE * a.total()
        and sum(n * tokens[k] for k, n in differing.items()) <= TOLERANCE * traffic
    )
