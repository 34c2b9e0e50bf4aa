"""Promises in a report: what the planning model does not know of them, and how much of each was used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from placement.verify.verdict import ColumnVerdict, Verification
from twin.figures.health import Constraint
from twin.figures.promises import limit_of
from twin.wording import counted, number, percent
from twin.workload.adapter import DEFAULT_TTFT_P99_S, PROMISES, Adapter

#: Values that a note lists.
MOST_NAMED = 4


def planning_notes(
    adapters: Sequence[Adapter], constraint: Constraint, planning: object, *, verified: bool
) -> list[str]:
    """Loud notes on promises that the planning model was not made for: a plan does not follow them by itself.

    Args:
        planning: its `ttft_p99_s` is the TTFT promise that it was made for; without one it knows none.
        verified: the twin judges the plan.
    """
    if getattr(planning, "follows_promises", False) and constraint.rule == "stable" and verified:
        return []
    slo = constraint.slo
    made_for: float | None = getattr(planning, "ttft_p99_s", None)
    known = DEFAULT_TTFT_P99_S if made_for is None else made_for
    ttft = limit_of("ttft_p99_s", adapters, slo)
    parts = []
    other = np.flatnonzero(ttft != known)
    if len(other):
        values = sorted({float(v) for v in ttft[other]})
        shown = ", ".join("none" if math.isinf(v) else f"{v:g} s" for v in values[:MOST_NAMED])
        shown += f", ... {values[-1]:g} s" if len(values) > MOST_NAMED else ""
        parts.append(
            f"TTFT p99 of {shown} ({counted(len(other), 'adapter')}, e.g. {adapters[int(other[0])].adapter_id!r})"
        )
    for name in PROMISES:
        promised = limit_of(name, adapters, slo)
        mine = np.flatnonzero(np.isfinite(promised))
        if name != "ttft_p99_s" and len(mine):
            unit = name.rsplit("_", 1)[1]
            span = _span(promised[mine].tolist())
            parts.append(f"{PROMISES[name]} of {span} {unit} ({counted(len(mine), 'adapter')})")
    if not parts:
        return []
    sees = f"assumes a TTFT p99 of {known:g} s for every adapter and sees no other promise"
    text = f"the planning model {'sees no promise' if made_for is None else sees}; yours, {', '.join(parts)}, are"
    if constraint.rule != "stable":
        return [f"{text} checked by NOBODY, because constraint={constraint.rule} judges no promise"]
    if not verified:
        return [f"{text} checked by NOBODY, because verify=none leaves the twin out"]
    return [f"{text} checked by the twin only: the plan may have more GPUs than they need, or be refused"]


def unsettled_notes(verification: Verification | None) -> list[str]:
    """A note on promises that adapters of accepted GPUs seem to break, where chance explains it: too few requests."""
    verdicts = () if verification is None else verification.gpus
    over = [k for verdict in verdicts if verdict.accepted for k in verdict.promises if k.use > 1]
    if not over:
        return []
    worst = max(over, key=lambda k: k.use)
    what = "late requests" if worst.promise == "ttft_p99_s" else PROMISES[worst.promise]
    return [
        f"{counted(len(over), 'promise')} could not be settled, because the simulated hours held too few requests of "
        f"the adapters: adapter {worst.adapter_id!r} used {percent(worst.use)} of what is allowed ({what}, "
        f"{counted(worst.requests, 'request')}), which chance explains"
    ]


def promise_entries(
    adapters: Sequence[Adapter], constraint: Constraint, verdict: ColumnVerdict | None
) -> dict[str, dict[str, Any]]:
    """For each promise that an adapter of a GPU has: how much the worst uses, and every adapter's figures.

    `use` is the share of what is allowed, late share / allowed late share or mean / promise; None where nothing was
    simulated, or no request tells.
    """
    judged = {(k.adapter_id, k.promise): k for k in verdict.promises} if verdict is not None else {}
    entries: dict[str, dict[str, Any]] = {}
    for name in PROMISES:
        limit = limit_of(name, adapters, constraint.slo)
        rows = []
        for adapter, promised in zip(adapters, limit.tolist(), strict=True):
            if math.isfinite(promised):
                found = judged.get((adapter.adapter_id, name))
                rows.append(
                    {
                        "adapter_id": adapter.adapter_id,
                        "promised": promised,
                        "requests": None if found is None else found.requests,
                        "simulated": None if found is None else found.simulated,
                        "use": None if found is None else found.use,
                    }
                )
        if rows:
            worst = max(rows, key=lambda row: _known(row["use"]))
            told = _known(worst["use"]) >= 0
            entries[name] = {
                "use": worst["use"] if told else None,
                "worst_adapter": worst["adapter_id"] if told else None,
                "adapters": rows,
            }
    return entries


def _known(use: float | None) -> float:
    return use if use is not None and math.isfinite(use) else -1.0


def promise_cell(promises: dict[str, dict[str, Any]]) -> str:
    """The promise of which most is used, for a table: `ITL 78 %`; `-` where nothing was simulated."""
    used = {name: entry["use"] for name, entry in promises.items() if entry["use"] is not None}
    if not used:
        return "-"
    worst = max(used, key=lambda name: used[name])
    return f"{PROMISES[worst].removeprefix('mean ').removesuffix(' p99')} {percent(used[worst])}"


def promise_text(name: str, entry: dict[str, Any]) -> str:
    """`mean ITL: 78 % used by 'a3' (31.2 of 40 ms), 12 adapters` for one promise of a GPU."""
    rows, unit = entry["adapters"], name.rsplit("_", 1)[1]
    text = f"{PROMISES[name]} of {_span([row['promised'] for row in rows])} {unit} to {counted(len(rows), 'adapter')}"
    if entry["use"] is None:
        return f"{text}: not simulated"
    row = next(row for row in rows if row["adapter_id"] == entry["worst_adapter"])
    late = f"{percent(row['simulated'])} late" if name == "ttft_p99_s" else f"{number(row['simulated'])} {unit}"
    return f"{text}: at most {percent(entry['use'])} used, by {row['adapter_id']} ({late}, {row['requests']} requests)"


def _span(values: Sequence[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"
