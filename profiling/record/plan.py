"""What is run: for each server (slots x rank) a grid of batches, then workloads at several loads.

Slots and rank vary independently of each other and of the adapters that have traffic, so that the fit can tell what
each of them costs. A batch is N equal requests that arrive together: one mean length, one number of adapters. A
workload is open loop: Poisson or bursty arrivals, skewed rates, drawn lengths; its load is a share of what the server
could do in its own grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twin.traffic.arrivals import draw_requests
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests

#: Output lengths of a batch: its steps are its measurements.
BATCH_OUTPUT_TOKENS = 32
#: Arrivals of half of the workloads are bursty.
BURSTY_CV = 2.0
#: Rates fall as 1 / (n ** SKEW).
SKEW = 0.7


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """A server: slots, rank they are padded to, and the ranks of the adapters it serves.

    Args:
        names: of the adapters, where they are not `adapter_name`'s: a server that runs already.
    """

    max_loras: int
    max_lora_rank: int
    ranks: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"m{self.max_loras}r{self.max_lora_rank}"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run on a server.

    Args:
        kind: `batch` or `workload`.
        held_out: not for the fit.
        adapters: how many of the server's adapters have traffic; 0 = the base model alone.
        size: requests of a batch.
        load: of a workload, share of what the grid says the server can do.
        prompt, output: mean tokens.
        repeats: the run that this one does again, to tell the machine's noise.
    """

    name: str
    server: ServerPlan
    kind: str
    held_out: bool
    adapters: int
    prompt: int
    output: int
    seed: int
    size: int = 0
    load: float = 0.0
    cv: float = 1.0
    horizon_s: float = 0.0
    repeats: str = ""


@dataclass(frozen=True, slots=True)
class Design:
    """How large a recording is.

    Args:
        servers: to start, in this order.
        batches: sizes of the grid's batches. prompts: their prompt tokens.
        workloads: for the fit, and held_out: kept from it, on each server.
        horizon_s: of a workload.
        loads: of workloads, dealt out in turn.
    """

    servers: tuple[ServerPlan, ...]
    batches: tuple[int, ...]
    prompts: tuple[int, ...]
    workloads: int
    held_out: int
    horizon_s: float
    prompt: int
    output: int
    loads: tuple[float, ...]
    seed: int = 0


def servers_of(slots: Sequence[int], ranks: Sequence[int], adapters: int) -> tuple[ServerPlan, ...]:
    """Every slot count with every rank; adapters' ranks go through those that fit, in turn."""
    made = []
    for m, r in itertools.product(slots, ranks):
        fitting = [x for x in sorted(ranks) if x <= r]
        made.append(ServerPlan(m, r, tuple(fitting[a % len(fitting)] for a in range(adapters))))
    return tuple(made)


def runs_of(design: Design, index: int) -> list[RunPlan]:
    """The runs of the server with this index, in the order in which they are done."""
    server = design.servers[index]
    rng = np.random.default_rng([design.seed, index])
    runs = _grid(design, server, index)
    known = len(server.ranks)
    for k in range(design.workloads + design.held_out):
        held_out = k >= design.workloads
        # Below and beyond the slots, in turn; loads go through the list with another start on each server.
        counts = sorted({min(known, max(1, server.max_loras // 2)), min(known, server.max_loras), known})
        runs.append(
            RunPlan(
                name=f"{server.name}-{'held' if held_out else 'work'}{k:02d}",
                server=server,
                kind="workload",
                held_out=held_out,
                adapters=counts[(k + index) % len(counts)],
                prompt=int(design.prompt * rng.uniform(0.6, 1.4)),
                output=int(design.output * rng.uniform(0.7, 1.3)),
                seed=1000 * index + k + 7919 * design.seed,
                load=design.loads[(k + 2 * index) % len(design.loads)],
                cv=BURSTY_CV if k % 2 else 1.0,
                horizon_s=design.horizon_s,
            )
        )
    again = [r for r in runs if r.kind == "workload" and not r.held_out][:1]
    return [*runs, *(replace(r, name=f"{r.name}-again", repeats=r.name) for r in again)]


def _grid(design: Design, server: ServerPlan, index: int) -> list[RunPlan]:
    """Batches: every size with the base model, one adapter, and as many as fit; prompts in turn."""
    runs = []
    for b, size in enumerate(design.batches):
        counts = {0, 1, min(size, server.max_loras, len(server.ranks))}
        for a in sorted(counts):
            prompt = design.prompts[(b + a + index) % len(design.prompts)]
            runs.append(
                RunPlan(
                    f"{server.name}-batch{size:03d}a{a:02d}p{prompt:04d}", server, "batch", False, a, prompt,
                    BATCH_OUTPUT_TOKENS, 0, size=size,
                )
            )  # fmt: skip
    return runs


def requests_of(run: RunPlan, rate_req_per_s: float, max_model_len: int) -> tuple[tuple[Adapter, ...], Requests]:
    """The adapters of a run, with their rates, and its requests."""
    if run.kind == "batch":
        n, served = run.size, max(1, run.adapters)
        every = np.full(n, 1, np.int32)
        index: NDArray[np.int32] = (np.arange(n) % served).astype(np.int32)
        adapters = adapters_of(run, 1.0)
        zeros = np.zeros(n, np.int32)
        return adapters, Requests(np.zeros(n), index, run.prompt * every, zeros, run.output * every)
    adapters = adapters_of(run, rate_req_per_s)
    return adapters, draw_requests(adapters, horizon_s=run.horizon_s, seed=run.seed, max_model_len=max_model_len)


def adapters_of(run: RunPlan, rate_req_per_s: float) -> tuple[Adapter, ...]:
    """Adapters with traffic; rank 0 is the base model."""
    ranks = run.server.ranks[: run.adapters] or (0,)
    share = np.arange(1, len(ranks) + 1) ** -SKEW
    share /= share.sum()
    prompt, output = Lengths(run.prompt, 0.6), Lengths(run.output, 0.6)
    return tuple(
        Adapter(
            (run.server.names[i] if run.server.names else adapter_name(i)) if r else "base",
            r,
            rate_req_per_s * float(share[i]),
            prompt,
            output,
            arrival_cv=run.cv,
        )
        for i, r in enumerate(ranks)
    )


def adapter_name(index: int) -> str:
    """Name of a server's adapter."""
    return f"a{index:03d}"
