"""The busiest windows of a workload whose rates change: what a mean rate hides.

A workload estimated from a log is one number a adapter; a plan for it keeps the rule at that rate. The log itself knows
hours with ten times as many requests. So the plan has to stand the busiest windows of the very requests. Where rates
follow a profile longer than a window, requests are drawn at the busiest time of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from placement.verify.pool import impatient
from placement.verify.verdict import Peak
from placement.verify.windows import busiest_start_s, profile_s, starting_at
from twin.figures.health import Constraint
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.memory import max_model_len
from twin.workload.adapter import Adapter

if TYPE_CHECKING:
    from twin.figures.result import SimulationResult
    from twin.workload.recording import Recording

#: A peak drawn from a profile is broken if most of so many windows at that time are.
DRAWN_WINDOWS = 3
#: Up to so many times the rate planned for, a rate is about that.
MORE = 1.1


def busiest_windows(
    columns: Sequence[Column],
    calibrations: Mapping[str, Calibration],
    constraint: Constraint,
    *,
    recording: Recording | None,
    shares: Sequence[Sequence[float]],
    windows: int,
    window_s: float,
    seed: int,
    threads: int,
) -> tuple[Peak, ...]:
    """Busiest windows of every GPU; empty where no rate is known to change over more than a window.

    Args:
        calibrations: of each GPU type by name.
        recording: the requests that the workload was estimated from; None = there are none.
        shares: of each column's adapters, the share of the adapter's requests that this GPU gets.
        windows: of the recording, for each GPU.
        window_s: length of a window; a shorter recording is replayed as a whole.
    """
    jobs: list[Callable[[], Peak]] = []
    for k, column in enumerate(columns):
        calibration = calibrations[column.setting.gpu_type]
        if recording is not None:
            jobs += _recorded(k, column, calibration, constraint, recording, shares[k], windows, window_s)
        elif profile_s(column) > window_s:
            jobs.append(partial(_drawn, k, column, calibration, constraint, window_s, seed))
    with impatient(threads) as pool:
        return tuple(pool.map(lambda job: job(), jobs))


def _recorded(
    k: int,
    column: Column,
    calibration: Calibration,
    constraint: Constraint,
    recording: Recording,
    shares: Sequence[float],
    windows: int,
    window_s: float,
) -> list[Callable[[], Peak]]:
    from twin.simulation import simulate

    known = set(recording.adapter_ids)
    chosen = [i for i, a in enumerate(column.adapters) if a.adapter_id in known]
    adapters = tuple(column.adapters[i] for i in chosen)
    dealt = [shares[i] for i in chosen]
    if not adapters:
        return []
    recorded_s = min(window_s * recording.speed, recording.span_s)
    if recorded_s <= 0:
        return []
    planned = sum(a.rate_req_per_s for a in adapters)
    served = replace(column, adapters=adapters)

    def job(start_s: float) -> Callable[[], Peak]:
        def run() -> Peak:
            length_s = recorded_s / recording.speed
            requests = recording.requests(
                adapters,
                horizon_s=length_s,
                start_s=start_s,
                max_model_len=max_model_len(column.setting, calibration),
                cut=True,
                shares=dealt,
            )
            result = simulate(
                served,
                calibration,
                horizon_s=length_s,
                requests=requests,
                default_ttft_slo_s=constraint.slo.ttft_p99_s,
            )
            return _peak(k, True, start_s, recorded_s, len(requests) / length_s / planned, [result], constraint)

        return run

    busiest = recording.busiest(adapters, window_s=recorded_s, count=windows, shares=dealt)
    return [job(start) for start, _, _ in busiest]


def _drawn(
    k: int, column: Column, calibration: Calibration, constraint: Constraint, window_s: float, seed: int
) -> Peak:
    from twin.simulation import simulate

    start_s, ratio = busiest_start_s(column, window_s)
    at_peak = starting_at(column, start_s)
    results = [
        simulate(at_peak, calibration, horizon_s=window_s, seed=seed + n, default_ttft_slo_s=constraint.slo.ttft_p99_s)
        for n in range(DRAWN_WINDOWS)
    ]
    return _peak(k, False, start_s, window_s, ratio, results, constraint)


def _peak(
    k: int,
    recorded: bool,
    start_s: float,
    window_s: float,
    ratio: float,
    results: Sequence[SimulationResult],
    constraint: Constraint,
) -> Peak:
    broken = [why for why in map(constraint.broken_window, results) if why]
    # The window that decided, for its figures.
    shown = next((r for r in results if constraint.broken_window(r)), results[0])
    most = 2 * len(broken) > len(results)
    return Peak(
        gpu=k,
        recorded=recorded,
        start_s=start_s,
        window_s=window_s,
        requests=shown.arrivals,
        peak_to_mean=ratio,
        broken=broken[0] if most else "",
        figures=dict(shown.prediction_row()),
    )


def peak_warning(
    peak: Peak,
    broken: int,
    peaks: int,
    recording: Recording | None,
    columns: Sequence[Column],
    options: Mapping[str, Any],
) -> str:
    """What a broken peak means and what would have to be planned for instead.

    Args:
        options: of the workload, as configured: only what it has is advised.
    """
    what = "recorded requests" if peak.recorded else "rates"
    return (
        f"gpu{peak.gpu:03d} does not stand a busy time of the {what}: {clock(peak.window_s)} from "
        f"{clock(peak.start_s)} on have {peak.peak_to_mean:.3g} times the rate planned for, and {peak.broken} "
        f"({broken} of {peaks} busiest windows fail); {_advice(peak, recording, columns[peak.gpu].adapters, options)}"
    )


def clock(seconds: float) -> str:
    """`3 h 20 min`, `45 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _advice(peak: Peak, recording: Recording | None, adapters: Sequence[Adapter], options: Mapping[str, Any]) -> str:
    if not peak.recorded or recording is None:
        if "plan_rate" in options and options["plan_rate"] != "peak":
            return "plan for more than the mean: workload.plan_rate=peak"
    elif "quantile" in options:
        known = set(recording.adapter_ids)
        named = [a for a in adapters if a.adapter_id in known]
        quantile = recording.quantile_covering(named, start_s=peak.start_s, window_s=peak.window_s)
        if quantile is not None and quantile > (options["quantile"] or 0.5):
            return f"the {quantile:g} quantile of every adapter's rate would cover it: workload.quantile={quantile:g}"
    if peak.peak_to_mean >= MORE:
        return f"plan for {peak.peak_to_mean:.2g} times as much"
    return "its rate was planned for, but not how its requests come: leave more room (constraint.margin)"
