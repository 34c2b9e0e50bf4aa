"""Replays a measured run in the twin: same flags, rates and request lengths, and the rig's known artefacts.

Rig corrections, each a documented property of the measurement and never used for planning:
* the HTTP frontend opens a tokenizer at an adapter's first request, 0.3 s each (`profiling.published.frontend`);
* the client has 28,232 ephemeral ports or less, so new requests stop reaching the server beyond that;
* the server's event loop stands still while it answers its monitor (`profiling.published.monitor`);
* answers end early where the model emits its end token (served / dataset output length, per model);
* the client sees the first token 7 ms after the engine has produced it (HTTP, tokenizer).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from profiling.published.frontend import Frontend, Intake, take_in
from profiling.published.histogram import LengthHistogram, draw_pair, published_histogram
from profiling.published.monitor import Monitor, Scrapes, chunk_factor, combinations_of, scrapes_of
from profiling.published.runs import MeasuredRun
from twin.engine.outcome import KernelOutput
from twin.engine.play import HOUR_S, check_column, run_requests
from twin.figures.health import STARVATION_THRESHOLD
from twin.figures.metrics import measure
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.rules import EngineRules
from twin.server.settings import EngineSetting
from twin.traffic.arrivals import draw_requests
from twin.traffic.streams import set_order
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests

#: Ephemeral ports that the client could use, by campaign: 28,232 are Linux's default range; in the second campaign
#: running + most waiting + 60 s of completions of overloaded runs stay below 26,800 (median), so others held some.
CLIENT_PORTS = {"twin_validation_real": 28232, "placement_real_test": 26800}
CLIENT_TTFT_MS = 7.0
#: Normal copula of prompt and output lengths with which running requests hold the KV tokens that they held in the runs.
SERVED_COPULA = -0.37
#: Served / dataset output tokens, where the model's own end token cuts answers short: means over healthy runs.
SERVED_SHARE = {"llama-3.1-8b-instruct": 0.990, "qwen-2.5-7b-instruct": 0.956}


@dataclass(frozen=True, slots=True)
class Rig:
    """What is known of the measuring rig.

    Args:
        prompt, output: shapes of the request lengths; a run's own means replace theirs.
        copula: normal-copula parameter between prompt and output lengths.
        served_share: served / dataset output length, by model.
        client_ports: by campaign (table of runs); a campaign that is not named has no limit.
        frontend: delays before a request reaches the engine.
        monitor: what else keeps the server's event loop busy; None = nothing.
    """

    prompt: LengthHistogram = field(default_factory=lambda: published_histogram("prompt"))
    output: LengthHistogram = field(default_factory=lambda: published_histogram("output"))
    copula: float = SERVED_COPULA
    served_share: Mapping[str, float] = field(default_factory=lambda: dict(SERVED_SHARE))
    client_ports: Mapping[str, int] = field(default_factory=lambda: dict(CLIENT_PORTS))
    client_ttft_ms: float = CLIENT_TTFT_MS
    frontend: Frontend = field(default_factory=Frontend)
    monitor: Monitor | None = field(default_factory=Monitor)


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
    """Figures of a replay in the measuring client's definitions, and the simulation behind them.

    Args:
        completed: requests that finished in the window.
        scrape_s: median time that the server takes to answer its monitor.
        refused: requests that found no client port.
        out: the kernel's arrays, of the requests that reached the server.
    """

    throughput_tps: float
    tpot_ms: float
    itl_ms: float
    ttft_ms: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    scrape_s: float
    running: float
    waiting: float
    kv_usage: float
    served_fraction: float
    step_ms: float
    completed: int
    refused: int
    out: KernelOutput

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
    requests = draw_requests(column.adapters, horizon_s=HOUR_S, seed=seed, max_model_len=longest)
    share = rig.served_share[run.model]
    prompt, output = draw_pair(
        rig.prompt.with_mean(run.prompt_mean), rig.output.with_mean(run.output_mean * share), len(requests), rng,
        rig.copula,
    )  # fmt: skip
    requests = replace(requests, prompt=prompt, output=output, cached=np.zeros_like(prompt))
    # The published rule counts dataset lengths of everything sent, also where answers ended early.
    ideal_tps = (float(prompt.sum()) + float(output.sum()) / share) / HOUR_S
    return Script(run, column, requests, ideal_tps, seed)


def replay(
    script: Script,
    calibration: Calibration,
    rig: Rig,
    *,
    time_scale: float = 1.0,
    rules: EngineRules | None = None,
) -> Replay:
    """Simulates one hour of a run.

    Args:
        time_scale: factor on every step's time.
        rules: the engine's rules; None = those of the measured version.
    """
    check_column(script.column, calibration)
    adapters, sent = script.column.adapters, script.requests
    ports = rig.client_ports.get(script.run.table, 0)
    intake = take_in(sent.arrival_s, sent.adapter, rig.frontend, ports)
    reached = _only(sent, intake.accepted)
    walk = set_order([a.adapter_id for a in adapters], script.seed)
    out, blocks = run_requests(
        replace(reached, arrival_s=intake.release_s[intake.accepted]), adapters, script.column.setting, calibration,
        horizon_s=HOUR_S, walk=walk, time_scale=time_scale, client_ports=ports, rules=rules,
    )  # fmt: skip
    # The client's clock starts when it sends, not when the frontend has read the request.
    window = measure(reached, out, horizon_s=HOUR_S, slo_s=np.full(len(adapters), np.inf), total_blocks=blocks)
    row, done = window.row, window.completed
    seen = _seen_by_client(reached, intake, out, rig, len(adapters))
    return Replay(
        throughput_tps=row["throughput_tps"],
        tpot_ms=done.tpot_mean_ms,
        itl_ms=done.itl_mean_ms * seen.chunk_factor,
        ttft_ms=seen.ttft_mean_ms,
        ttft_p50_ms=seen.ttft_p50_ms,
        ttft_p99_ms=seen.ttft_p99_ms,
        scrape_s=seen.scrape_s,
        running=row["running"],
        waiting=row["waiting"],
        kv_usage=row["kv_usage"],
        served_fraction=row["throughput_tps"] / script.ideal_tps,
        step_ms=1000 * row["running"] / row["out_throughput_tps"] if row["out_throughput_tps"] else float("nan"),
        completed=done.completed,
        refused=int((out.state == 4).sum()) + int((~intake.accepted).sum()),
        out=out,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the client sees of completed requests beside the engine's figures."""

    ttft_mean_ms: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    chunk_factor: float
    scrape_s: float


def _seen_by_client(sent: Requests, intake: Intake, out: KernelOutput, rig: Rig, n_adapters: int) -> _Seen:
    """First tokens wait for the event loop, which opens tokenizers and answers the monitor."""
    there, done = out.state != 4, out.finish_s <= HOUR_S
    release_s, first_s = intake.release_s[intake.accepted], out.first_token_s
    chunks, scrape_s = 1.0, 0.0
    if rig.monitor is not None and out.steps:
        step_s = out.busy_s / out.steps
        combinations = combinations_of(
            sent.adapter[there], release_s[there], first_s[there], out.finish_s[there], n_adapters, step_s
        )
        scrapes = scrapes_of(combinations, rig.monitor, HOUR_S)
        chunks = chunk_factor(scrapes, out.running_bins * len(out.running_bins) / HOUR_S, step_s, HOUR_S)
        scrape_s = scrapes.median_s
        # Read late, computed as quickly as before, and sent when the loop is free.
        first_s = scrapes.after(first_s + (scrapes.after(release_s) - release_s))
    opened = Scrapes(intake.busy_s[:, 0], intake.busy_s[:, 1])
    ttft = 1000 * np.sort((opened.after(first_s) - sent.arrival_s)[done]) + rig.client_ttft_ms
    if not len(ttft):
        nan = float("nan")
        return _Seen(nan, nan, nan, chunks, scrape_s)
    p50, p99 = (float(ttft[int(q * (len(ttft) - 1))]) for q in (0.5, 0.99))
    return _Seen(float(ttft.mean()), p50, p99, chunks, scrape_s)


def _only(requests: Requests, kept: NDArray[np.bool_]) -> Requests:
    """The requests with `kept` (N,) set."""
    if kept.all():
        return requests
    arrays = {f.name: getattr(requests, f.name) for f in fields(Requests)}
    return replace(requests, **{name: v[kept] for name, v in arrays.items() if isinstance(v, np.ndarray)})
