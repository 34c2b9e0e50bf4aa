"""Throughput and latency over the batch limit: by a calibration's law, in the twin, or as measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from placement.batching.closed_loop import LoopResult, Prefill, closed_loop
from placement.batching.lengths import RequestLengths
from placement.batching.step_times import step_times
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.memory import kv_cache_tokens
from twin.server.settings import EngineSetting
from twin.server.sharing import Sharing

Source = Literal["law", "twin", "measured"]
#: A run is repeated with its requests in this many orders: the last ones to finish decide how long it takes, and who
#: meets whom decides whether the fullest moment fits the KV cache.
ORDERS = 6


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One batch limit; of the whole GPU where several servers share it.

    Args:
        batch: `max_num_seqs` of each server.
        itl_ms, tpot_ms: mean gap between tokens, over all tokens and over requests.
        step_ms: time per decode iteration while requests wait; NaN if unknown or none waited.
        kv_peak_tokens: most KV tokens that a server held at once.
        busy_share: share of the time in which the GPU ran kernels; NaN if unknown.
        preempting: requests were preempted, because the KV cache is too small; the point does not count.
    """

    batch: int
    throughput_req_per_s: float
    itl_ms: float
    tpot_ms: float
    step_ms: float
    kv_peak_tokens: float
    busy_share: float
    preempting: bool
    servers: int = 1


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in ascending order of the batch limit."""

    source: Source
    points: tuple[CurvePoint, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def usable(self) -> tuple[CurvePoint, ...]:
        """Points without preemption."""
        return tuple(p for p in self.points if not p.preempting)

    @property
    def dropped(self) -> tuple[int, ...]:
        """Batch limits left out, because requests were preempted."""
        return tuple(p.batch for p in self.points if p.preempting)

    def at(self, batch: int) -> CurvePoint | None:
        """The usable point of a batch limit."""
        return next((p for p in self.usable if p.batch == batch), None)

    def nearest(self, batch: int) -> CurvePoint:
        """The usable point nearest to a batch limit.

        Raises:
            InputError: there is none.
        """
        if not self.usable:
            raise InputError("every batch limit preempts", where="batches", remedy="give smaller batch limits")
        return min(self.usable, key=lambda p: (abs(p.batch - batch), p.batch))


@dataclass(frozen=True, slots=True)
class Server:
    """What is served and how, apart from the batch limit.

    Args:
        prefill: of the law's curve; the twin's engine always prefills in chunks.
        utilization: share of the GPU's memory that all servers together may use.
        max_model_len: longest request; None = the model's.
    """

    calibration: Calibration
    lengths: RequestLengths
    prefill: Prefill
    token_budget: int
    utilization: float
    max_model_len: int | None = None
    sharing: Sharing = "mps"
    seed: int = 0

    def setting(self, batch: int, servers: int = 1) -> EngineSetting:
        """The engine setting of each of `servers` servers."""
        return EngineSetting(
            gpu_type=self.calibration.stamp.gpu_type,
            max_loras=1,
            max_lora_rank=8,
            max_num_seqs=batch,
            max_num_batched_tokens=max(self.token_budget, batch),
            gpu_memory_utilization=self.utilization / servers,
            servers_per_gpu=servers,
            max_model_len=self.max_model_len,
        )

    def orders(self) -> list[RequestLengths]:
        """The requests in several orders."""
        rng = np.random.default_rng([self.seed, 1])
        lengths = self.lengths
        shuffles = [np.arange(len(lengths)), *(rng.permutation(len(lengths)) for _ in range(ORDERS - 1))]
        return [
            RequestLengths(tuple(lengths.prompt[i] for i in s), tuple(lengths.output[i] for i in s)) for s in shuffles
        ]


def law_point(server: Server, batch: int, servers: int = 1) -> CurvePoint:
    """One point by the law: each server runs its share, the GPU is done when the last one is."""
    setting = server.setting(batch, servers)
    times = step_times(
        server.calibration, separate_prefill=server.prefill == "separate", servers=servers, sharing=server.sharing
    )
    capacity = kv_cache_tokens(setting, server.calibration)
    results: list[LoopResult] = []
    durations = []
    for lengths in server.orders():
        own = []
        for part in lengths.parts(servers):
            played = closed_loop(
                part.prompt, part.output, batch=batch, times=times, prefill=server.prefill,
                token_budget=server.token_budget, kv_capacity_tokens=capacity,
            )  # fmt: skip
            own.append(played)
            if own[-1].preempting:
                return CurvePoint(
                    batch, np.nan, np.nan, np.nan, np.nan, own[-1].kv_peak_tokens, np.nan, preempting=True,
                    servers=servers,
                )  # fmt: skip
        results += own
        durations.append(_makespan_s(own, server))
    steps = [r.step_ms for r in results if not np.isnan(r.step_ms)]
    return CurvePoint(
        batch=batch,
        throughput_req_per_s=len(server.lengths) / float(np.mean(durations)),
        itl_ms=float(np.mean([r.itl_ms for r in results])),
        tpot_ms=float(np.mean([r.tpot_ms for r in results])),
        step_ms=float(np.mean(steps)) if steps else float("nan"),
        kv_peak_tokens=max(r.kv_peak_tokens for r in results),
        busy_share=float(np.mean([r.busy_share for r in results])) if times.sharing_law else float("nan"),
        preempting=False,
        servers=servers,
    )


def _makespan_s(results: Sequence[LoopResult], server: Server) -> float:
    """When the last of several servers is done: each one that finishes leaves the GPU to the others."""
    ends = sorted(r.duration_s for r in results)
    servers = len(ends)
    if servers == 1:
        return ends[0]
    running = float(np.mean([r.running_mean for r in results]))
    if np.isnan(running):
        return ends[-1]
    # Steps of the mean batch with half of the peak's KV tokens stand for the run: only their ratio counts.
    kv = float(np.mean([r.kv_peak_tokens for r in results])) / 2
    steps = [
        step_times(
            server.calibration, separate_prefill=server.prefill == "separate", servers=n, sharing=server.sharing
        ).step(running, kv, 0)[0]
        for n in range(1, servers + 1)
    ]
    span = ends[0]
    for done in range(1, servers):
        span += (ends[done] - ends[done - 1]) * steps[servers - done - 1] / steps[-1]
    return span


def law_curve(server: Server, batches: Sequence[int]) -> Curve:
    """The curve of one server by the calibration's law."""
    return Curve("law", tuple(law_point(server, b) for b in sorted(set(batches))))
