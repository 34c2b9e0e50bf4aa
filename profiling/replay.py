"""Replays a measured run in the twin: same flags, rates and request lengths, and the rig's known artefacts.

Rig corrections, each a documented property of the measurement and never used for planning:
* the client has 28,232 ephemeral ports, so new requests stop reaching the server beyond that;
* answers end early where the model emits its end token (served / dataset output length, per model);
* the client sees the first token 7 ms after the engine has produced it (HTTP, tokenizer).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from profiling.histogram import LengthHistogram, draw_pair, read_histogram
from profiling.runs import MeasuredRun, read_table
from twin.arrivals import Requests, draw_requests
from twin.calibration import Calibration
from twin.column import Column
from twin.metrics import STARVATION_THRESHOLD
from twin.settings import EngineSetting
from twin.simulate import HOUR_S, SimulationResult, simulate
from twin.workload import Adapter, Lengths

CLIENT_PORTS = 28232
CLIENT_TTFT_MS = 7.0


@dataclass(frozen=True, slots=True)
class Rig:
    """What is known of the measuring rig.

    Args:
        served_share: served / dataset output length, by model.
        client_ports: 0 = no limit.
    """

    prompt: LengthHistogram
    output: LengthHistogram
    served_share: dict[str, float]
    client_ports: int = CLIENT_PORTS
    client_ttft_ms: float = CLIENT_TTFT_MS


def read_rig(folder: Path) -> Rig:
    """Length shapes and early stops from a data folder."""
    moments = read_table(folder, "request_length_moments.csv")
    outputs = moments[(moments["kind"] == "output") & moments["served_mean_tokens"].notna()]
    served = dict(zip(outputs["model"], outputs["served_mean_tokens"] / outputs["dataset_mean_tokens"], strict=True))
    return Rig(read_histogram(folder, "prompt"), read_histogram(folder, "output"), served)


def setting_of(run: MeasuredRun, gpu_type: str) -> EngineSetting:
    """Flags of the server; the token budget and block size are vLLM's defaults in these runs."""
    return EngineSetting(gpu_type, run.max_loras, run.max_lora_rank, max_cpu_loras=max(run.num_adapters, run.max_loras))


def column_of(run: MeasuredRun, gpu_type: str, seed: int, rate_factor: float = 1.0) -> Column:
    """The adapters served; which rank an adapter has is drawn, as the server did."""
    ranks = np.array([run.ranks[i % len(run.ranks)] for i in range(run.num_adapters)])
    np.random.default_rng([seed, zlib.crc32(run.run_id.encode())]).shuffle(ranks)
    prompt, output = Lengths(run.prompt_mean, 1.1), Lengths(run.output_mean, 1.06)
    adapters = tuple(
        Adapter(f"{run.run_id}#{i}", int(ranks[i]), run.rates[i % len(run.rates)] * rate_factor, prompt, output)
        for i in range(run.num_adapters)
    )
    return Column(adapters, setting_of(run, gpu_type))


@dataclass(frozen=True, slots=True)
class Replay:
    """Figures of a replay in the measuring client's definitions, and the simulation behind them."""

    throughput_tps: float
    tpot_ms: float
    itl_ms: float
    ttft_ms: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    running: float
    waiting: float
    kv_usage: float
    preemptions: float
    served_fraction: float
    step_ms: float
    simulation: SimulationResult

    @property
    def starved(self) -> bool:
        return self.served_fraction < STARVATION_THRESHOLD


@dataclass(frozen=True, slots=True)
class Script:
    """What a replay plays: the column and the requests sent to it."""

    run: MeasuredRun
    column: Column
    requests: Requests
    ideal_tps: float
    seed: int


def script_of(
    run: MeasuredRun, calibration: Calibration, rig: Rig, *, seed: int = 0, known_arrivals: bool = False
) -> Script:
    """Draws the requests of one hour.

    Args:
        known_arrivals: scale the rates to the number of requests that the run really saw. For fitting only: a
            prediction does not know it.
    """
    factor = 1.0
    if known_arrivals and math.isfinite(run.arrivals):
        factor = run.arrivals / (run.rate_req_per_s * HOUR_S)
    column = column_of(run, calibration.stamp.gpu_type, seed, factor)
    rng = np.random.default_rng([seed, zlib.crc32(run.run_id.encode()), 1])
    longest = calibration.model.max_model_len
    requests = draw_requests(column.adapters, horizon_s=HOUR_S, rng=rng, max_model_len=longest)
    share = rig.served_share[run.model]
    prompt, output = draw_pair(
        rig.prompt.with_mean(run.prompt_mean), rig.output.with_mean(run.output_mean * share), len(requests), rng
    )
    requests = replace(requests, prompt=prompt, output=output, cached=np.zeros_like(prompt))
    # The published rule counts dataset lengths of everything sent, also where answers ended early.
    ideal_tps = (float(prompt.sum()) + float(output.sum()) / share) / HOUR_S
    return Script(run, column, requests, ideal_tps, seed)


def replay(script: Script, calibration: Calibration, rig: Rig, *, time_scale: float = 1.0) -> Replay:
    """Simulates one hour of a run; `time_scale` multiplies every step's time."""
    out = simulate(
        script.column, calibration, seed=script.seed, requests=script.requests, time_scale=time_scale,
        client_ports=rig.client_ports,
    )  # fmt: skip
    row, done = out.row, out.completed
    return Replay(
        throughput_tps=row["throughput_tps"],
        tpot_ms=done.tpot_mean_ms,
        itl_ms=done.itl_mean_ms,
        ttft_ms=1000 * done.ttft_mean_s + rig.client_ttft_ms,
        ttft_p50_ms=1000 * done.ttft_p50_s + rig.client_ttft_ms,
        ttft_p99_ms=1000 * done.ttft_p99_s + rig.client_ttft_ms,
        running=row["running"],
        waiting=row["waiting"],
        kv_usage=row["kv_usage"],
        preemptions=float(out.preemptions),
        served_fraction=row["throughput_tps"] / script.ideal_tps,
        step_ms=1000 * row["running"] / row["out_throughput_tps"] if row["out_throughput_tps"] else float("nan"),
        simulation=out,
    )
