"""Random engines with their requests: few slots, tiny caches and budgets, bursts, prefix hits, all rules on and off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.twin.columns import LLAMA
from twin.engine.outcome import KernelOutput
from twin.engine.play import run_requests
from twin.engine.state import TRACE_COLUMNS
from twin.server.calibration import Calibration
from twin.server.laws import KvCapacityLaw, LoadLaw
from twin.server.rules import EngineRules
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests

#: Cases are drawn from a seed: hypothesis' own draws favour small values, and what is rare needs several large ones.
SEEDS = st.integers(0, 2**32 - 1)
TRACE = {name: i for i, name in enumerate(TRACE_COLUMNS)}
MOST_EVENTS, MOST_STEPS = 2_000_000, 100_000
RANK = 16


@dataclass(frozen=True)
class Case:
    """One engine with its requests."""

    requests: Requests
    adapters: tuple[Adapter, ...]
    setting: EngineSetting
    calibration: Calibration
    rules: EngineRules
    walk: np.ndarray
    horizon_s: float
    client_ports: int = 0

    @property
    def slotless(self) -> np.ndarray:
        return np.array([a.rank == 0 for a in self.adapters])

    def run(self, requests: Requests | None = None, *, horizon_s: float | None = None) -> tuple[KernelOutput, int]:
        return run_requests(
            requests or self.requests, self.adapters, self.setting, self.calibration,
            horizon_s=horizon_s or self.horizon_s, walk=self.walk, rules=self.rules, client_ports=self.client_ports,
            trace_steps=MOST_STEPS, events=MOST_EVENTS,
        )  # fmt: skip


def draw_lengths(rng: np.random.Generator, mean: float, cv: float, n: int) -> np.ndarray:
    sigma = np.sqrt(np.log1p(cv**2))
    return np.maximum(1, np.round(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, n))).astype(np.int32)


def random_case(seed: int, *, drains: bool = False) -> Case:
    """Wide: one adapter to 60, idle to flooded, long and short, tiny caches and budgets, every rule.

    Args:
        drains: every request fits into the KV cache, so that the queue empties in the end.
    """
    rng = np.random.default_rng(seed)

    def one_of(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    n_adapters = int(one_of(1, 2, 5, 20, rng.integers(1, 61)))
    horizon_s = one_of(1.0, 3.0, 8.0)
    asked = one_of(0, 3, 10, 40, 80)
    skew = one_of(0.0, 1.0, 2.5)
    cv = one_of(0.3, 1.0, 4.0)
    base_share = one_of(0.0, 0.0, 0.3, 1.0)
    ranks = np.where(rng.random(n_adapters) < base_share, 0, rng.choice([8, RANK], n_adapters))
    weights = rng.random(n_adapters) * np.arange(1, n_adapters + 1, dtype=float) ** -skew
    rates = np.maximum(1e-3, weights / weights.sum() * asked / horizon_s)
    mean_in, mean_out = one_of((3, 20), (20, 5), (25, 25), (80, 2))
    spread = one_of(0.0, 1.0, 2.0)
    times, who = [], []
    for a in range(n_adapters):
        # Gamma gaps until the window is over; bursts for cv > 1.
        gaps = rng.gamma(1 / cv**2, cv**2 / rates[a], 4 + int(4 * rates[a] * horizon_s))
        arrived = np.cumsum(gaps) * rng.random()
        times.append(arrived[arrived < horizon_s])
        who.append(np.full(len(times[-1]), a, np.int32))
    arrival, adapter = np.concatenate(times), np.concatenate(who)
    order = np.argsort(arrival, kind="stable")
    n = len(order)
    prompt, output = draw_lengths(rng, mean_in, spread, n), draw_lengths(rng, mean_out, spread, n)
    prompt, output = np.minimum(prompt, 250), np.minimum(output, 100)
    share = one_of(0.0, 0.0, 0.5, 0.99)
    cached = np.minimum((prompt * share * rng.random(n)).astype(np.int32), prompt - 1).astype(np.int32)

    budget = one_of(1, 8, 64, 512)
    block = one_of(1, 4, 16)
    max_loras = int(one_of(1, 2, 4, rng.integers(1, 25)))
    largest = int((prompt + output).max()) if n else 1
    tokens = one_of(60, 300, 2_000, 100_000)
    if drains or one_of(True, False):
        tokens = max(tokens, largest)
    blocks = -(-tokens // block) + 1  # one is the null block
    host = one_of(None, 0, 3)
    adapters = tuple(
        Adapter(f"a{i}", int(ranks[i]), float(rates[i]), Lengths(mean_in, spread), Lengths(mean_out, spread))
        for i in range(n_adapters)
    )
    most_seqs = min(budget, 64)
    setting = EngineSetting(
        LLAMA.stamp.gpu_type, max_loras, RANK, max_num_seqs=int(one_of(most_seqs, rng.integers(1, most_seqs + 1))),
        max_num_batched_tokens=budget, block_size=block, max_cpu_loras=None if host is None else max_loras + host,
    )  # fmt: skip
    calibration = replace(
        LLAMA, kv=KvCapacityLaw(float(blocks * block), 0.0), load=LoadLaw(7.0, 9.0, disk_base_ms=20.0, disk_rank_ms=1.0)
    )
    rules = EngineRules("drawn", *(bool(rng.random() < p) for p in (0.5, 0.5, 0.8, 0.8)))
    return Case(
        Requests(arrival[order], adapter[order], prompt, cached, output), adapters, setting, calibration, rules,
        rng.permutation(n_adapters).astype(np.int32), horizon_s,
        client_ports=0 if drains else one_of(0, 0, 0, 10),
    )  # fmt: skip
