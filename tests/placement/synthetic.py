"""A small planning model written by hand, and problems on it with answers that can be derived on paper.

Features of an adapter: request rate, slots in use `1 - exp(-5 rate)`, output-token rate, count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from placement.problem.objectives import GpuCount, MeanE2E
from placement.problem.problem import ObjectiveContext, PlacementProblem, Term
from surrogates.model.planning import HingeLoad, OptionModel, Polyhedron
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths

RATE_LIMIT = 20.0


def adapter(name: str, rate: float, rank: int = 8, output: float = 200.0) -> Adapter:
    return Adapter(name, rank, rate, Lengths(220, 1.1), Lengths(output, 1.06))


def features(adapters: Sequence[Adapter]) -> np.ndarray:
    rate = np.array([a.rate_req_per_s for a in adapters])
    slot = np.array([a.rank > 0 for a in adapters], dtype=float)
    output = np.array([a.output_tokens.mean for a in adapters])
    return np.stack([rate, slot * (1 - np.exp(-5 * rate)), rate * output / 200, np.ones(len(adapters))], axis=1)


def option(
    max_loras: int, max_lora_rank: int, gpu_type: str = "gpu", speed: float = 1.0, margin: float = 0.02
) -> OptionModel:
    """More and wider slots cost throughput: limit = RATE_LIMIT * speed / (1 + slots * rank / 4000) req/s."""
    limit = RATE_LIMIT * speed / (1 + max_loras * max_lora_rank / 4000)
    facets = np.array(
        [[0.6 / limit, 0.0, 0.4 / limit, 0.0], [0.5 / limit, 0.5 / max_loras, 0.0, 0.0], [0.0, 1 / max_loras, 0.0, 0.0]]
    )
    outer = Polyhedron(facets, np.array([-1.0, -1.1, -1.0]))
    busy = np.array([[0.5, 0.0, 0.5, 0.0]])
    return OptionModel(
        setting=EngineSetting(gpu_type=gpu_type, max_loras=max_loras, max_lora_rank=max_lora_rank),
        feasible=outer.shifted(margin),
        outer=outer,
        hull=Polyhedron(np.array([[0.0, 0.0, 0.0, 1.0]]), np.array([-384.0])),
        requests_in_system=HingeLoad(
            np.repeat(busy, 2, axis=0), np.array([-0.4 * limit, -0.7 * limit]), np.array([6.0, 12.0]),
            np.array([2.0, 0.5, 1.0, 0.0]), 0.2,
        ),
        requests_decoding=HingeLoad(
            busy, np.array([-0.5 * limit]), np.array([6.0]), np.array([1.5, 0.2, 1.0, 0.0]), 0.1
        ),
        max_adapters=384,
    )  # fmt: skip


def problem(
    adapters: Sequence[Adapter],
    *,
    terms: tuple[Term, ...] = (GpuCount(),),
    options: Sequence[OptionModel] | None = None,
    stock: dict[str, int] | None = None,
    price: dict[str, float] | None = None,
    max_gpus: int | None = None,
    shares: dict[str, int] | None = None,
    banned: tuple[tuple[int, frozenset[int]], ...] = (),
) -> PlacementProblem:
    """A problem over the given adapters; `shares` splits the named adapters into so many equal replicas."""
    if options is None:
        options = [option(a, r) for a in (8, 32, 96) for r in (8, 32)]
    items, owner, share = [], [], []
    for index, a in enumerate(adapters):
        parts = (shares or {}).get(a.adapter_id, 1)
        for _ in range(parts):
            items.append(a.scaled(1 / parts))
            owner.append(index)
            share.append(1 / parts)
    types = tuple(dict.fromkeys(o.setting.gpu_type for o in options))
    return PlacementProblem(
        items=tuple(items),
        item_adapter=np.array(owner),
        item_share=np.array(share),
        phi=features(items),
        options=tuple(options),
        allowed=np.array([[a.rank <= o.setting.max_lora_rank for o in options] for a in items]),
        option_type=np.array([types.index(o.setting.gpu_type) for o in options]),
        gpu_types=types,
        stock=np.array([(stock or {}).get(t, 10**6) for t in types]),
        max_gpus=max_gpus,
        terms=terms,
        context=ObjectiveContext(
            total_rate_req_per_s=sum(a.rate_req_per_s for a in adapters),
            total_output_tokens_per_s=sum(a.rate_req_per_s * a.output_tokens.mean for a in adapters),
            price=price or dict.fromkeys(types, 1.0),
        ),
        banned=banned,
    )


def power_law(n: int, seed: int = 0, total: float | None = None, ranks: Sequence[int] = (8, 16, 32)) -> list[Adapter]:
    """Skewed rates 1/k^0.9 summing to `total` req/s (default n / 10), mixed ranks and output lengths."""
    rng = np.random.default_rng(seed)
    rates = 1.0 / np.arange(1, n + 1) ** 0.9
    rates = np.minimum(rates * (n / 10 if total is None else total) / rates.sum(), 8.0)
    return [
        adapter(f"a{i}", float(r), int(rng.choice(np.array(ranks))), float(rng.uniform(120, 300)))
        for i, r in enumerate(rates)
    ]


LATENCY = (MeanE2E(),)
WEIGHTED = (GpuCount(), MeanE2E(scale=2.0))
