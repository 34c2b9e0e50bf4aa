"""Small random workloads that put a scheduler under stress, for the comparison of the twin with vLLM's own code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.workload.requests import Requests


@dataclass(frozen=True, slots=True)
class Scenario:
    """Requests, adapters and an engine, complete enough to run in the twin and in vLLM.

    Args:
        requests: no prefix hits (`cached` is zero); every request fits the KV cache alone.
        slotless: whether an adapter index stands for the base model, (A,).
        walk: order in which a batch's adapters are activated, a permutation, (A,). vLLM walks a Python set.
        max_cpu_loras: adapters kept in host memory, >= max_loras.
        token_budget: `max_num_batched_tokens`, >= max_num_seqs.
        block, blocks: tokens of a KV block, and usable blocks (without vLLM's null block).
        reserve_full_sequence: `scheduler_reserve_full_isl`: admission asks for the blocks of the whole sequence.
        preloaded: adapters named on the command line, which vLLM loads at the start (into host memory and, the last
            ones, into slots); otherwise both caches start empty.
        step_ms: step time `a + b * decodes + c * prompt tokens` of the simulated clock, milliseconds.
        load_ms, disk_ms: milliseconds for each copy host -> slot and disk -> host, (A,).
    """

    seed: int
    requests: Requests
    slotless: tuple[bool, ...]
    walk: tuple[int, ...]
    max_loras: int
    max_cpu_loras: int
    max_num_seqs: int
    token_budget: int
    block: int
    blocks: int
    async_scheduling: bool
    reserve_full_sequence: bool
    preloaded: bool
    step_ms: tuple[float, float, float]
    load_ms: tuple[float, ...]
    disk_ms: tuple[float, ...]

    def describe(self) -> str:
        """The engine in one line, the requests in a second."""
        n = self.requests
        return (
            f"{'async' if self.async_scheduling else 'sync'} engine, max_loras={self.max_loras} "
            f"max_cpu_loras={self.max_cpu_loras} max_num_seqs={self.max_num_seqs} "
            f"max_num_batched_tokens={self.token_budget} block={self.block} x {self.blocks} "
            f"scheduler_reserve_full_isl={self.reserve_full_sequence} preloaded={self.preloaded}\n"
            f"{len(n)} requests of {len(self.slotless)} adapters ({sum(self.slotless)} of them the base model), "
            f"prompts {n.prompt.min()}..{n.prompt.max()}, outputs {n.output.min()}..{n.output.max()} tokens"
        )


def draw_scenario(seed: int) -> Scenario:
    """Few slots, tiny KV caches and budgets, bursts, base-model requests; 5 to 60 requests, some 20 to 200 steps."""
    rng = np.random.default_rng(seed)
    adapters = int(rng.choice([1, 2, 4, 8, 16, 24]))
    n = int(rng.integers(5, 61))
    longest_prompt, longest_output = int(rng.choice([4, 16, 48])), int(rng.choice([3, 12, 32]))
    prompt = rng.integers(1, longest_prompt + 1, n).astype(np.int32)
    output = rng.integers(1, longest_output + 1, n).astype(np.int32)
    # Popularity from even to one hot adapter: the gate skips most where many adapters compete for few slots.
    weights = np.arange(1, adapters + 1) ** -float(rng.choice([0.0, 0.7, 1.5]))
    adapter = rng.choice(adapters, n, p=weights / weights.sum()).astype(np.int32)
    slotless = rng.random(adapters) < rng.choice([0.0, 0.15])
    max_num_seqs = int(rng.choice([1, 2, 4, 8, 16, 32]))
    token_budget = max_num_seqs + int(rng.choice([0, 1, 7, 30, 120]))
    block = int(rng.choice([1, 2, 3, 4, 8, 16, 32]))
    # Room for the longest request alone, up to room for a few.
    most = int((prompt + output).max())
    blocks = -(-most // block) + int(rng.integers(0, 1 + int(rng.choice([1, 3, 8, 40])) * (-(-most // block))))
    max_loras = int(rng.integers(1, max(1, adapters // int(rng.choice([1, 2, 4]))) + 1))
    gaps = rng.exponential(1.0, n) * float(rng.choice([0.0, 0.002, 0.02]))
    gaps[rng.random(n) < rng.choice([0.0, 0.6])] = 0.0  # bursts: many requests at the same instant
    gaps[rng.random(n) < 0.03] += 0.3  # pauses, in which the engine runs empty
    return Scenario(
        seed=seed,
        requests=Requests(np.cumsum(gaps), adapter, prompt, np.zeros(n, np.int32), output),
        slotless=tuple(slotless.tolist()),
        walk=tuple(rng.permutation(adapters).tolist()),
        max_loras=max_loras,
        max_cpu_loras=int(rng.integers(max_loras, max(max_loras, adapters) + 1)),
        max_num_seqs=max_num_seqs,
        token_budget=token_budget,
        block=block,
        blocks=blocks,
        async_scheduling=bool(rng.random() < 0.5),
        reserve_full_sequence=bool(rng.random() < 0.7),
        preloaded=bool(rng.random() < 0.5),
        step_ms=(float(rng.choice([1.0, 4.0])), 0.25, 0.125),
        load_ms=tuple(rng.choice([0.0, 1.5, 6.0], adapters).tolist()),
        disk_ms=tuple(rng.choice([0.0, 2.5, 20.0], adapters).tolist()),
    )


def serving_scenario(seed: int) -> Scenario:
    """A few seconds of a busy server in the proportions of an 8-billion-parameter model, scaled down in time.

    Lengths have the means and spreads of the measured runs (223 and 200 tokens), step times those of
    Llama-3.1-8B; the KV cache is sized so that about half of the servers preempt.
    """
    rng = np.random.default_rng(seed)
    n, adapters = 150, 64
    prompt = np.clip(rng.lognormal(5.0, 0.9, n), 4, 1024).astype(np.int32)
    output = np.clip(rng.lognormal(4.9, 0.9, n), 4, 1000).astype(np.int32)
    max_loras = int(rng.choice([8, 16, 32]))
    return Scenario(
        seed=seed,
        requests=Requests(
            np.cumsum(rng.exponential(1.0 / float(rng.choice([8.0, 16.0, 32.0])), n)),
            rng.integers(0, adapters, n).astype(np.int32),
            prompt,
            np.zeros(n, np.int32),
            output,
        ),
        slotless=(False,) * adapters,
        walk=tuple(rng.permutation(adapters).tolist()),
        max_loras=max_loras,
        max_cpu_loras=int(rng.integers(max_loras, adapters + 1)),
        max_num_seqs=256,
        token_budget=2048,
        block=16,
        blocks=int(rng.integers(200, 1200)),
        async_scheduling=True,
        reserve_full_sequence=True,
        preloaded=True,
        step_ms=(10.5, 0.05, 0.03),
        load_ms=(6.0,) * adapters,
        disk_ms=(30.0,) * adapters,
    )
