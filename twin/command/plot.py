"""`timeseries.png`: requests, KV cache, adapters and tokens over the simulated window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.figures.series import TimeSeries
from twin.pictures import blank, png

Array = NDArray[np.float64]
INK, BLUE, ORANGE, RED, GREEN = "#1c2330", "#3b6ea8", "#d98b2b", "#b3452f", "#2f7d4f"


def time_series_png(series: TimeSeries, *, horizon_s: float, max_loras: int, title: str) -> bytes:
    """Four panels over one time axis, as a PNG.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = blank(10, 9.2, option="plot=true", otherwise=", or leave plot=true out (timeseries.csv needs nothing)")
    panels = figure.subplots(4, 1, sharex=True)
    unit, per = ("min", 60.0) if horizon_s > 300 else ("s", 1.0)
    edges = np.append(series.start_s, horizon_s) / per

    def steps(axes: object, values: Array, color: str, label: str, **style: object) -> None:
        axes.stairs(values, edges, color=color, label=label, linewidth=1.6, baseline=None, **style)  # type: ignore[attr-defined]

    queue, cache, adapters, tokens = panels
    steps(queue, series.running, BLUE, "running")
    steps(queue, series.waiting, RED, "waiting")
    queue.set_ylabel("requests")
    if series.waiting.max() > 20 * max(float(series.running.max()), 1.0):
        # Both a growing queue and what runs beside it stay readable.
        queue.set_yscale("symlog", linthresh=10)

    cache.stairs(100 * series.kv_usage, edges, fill=True, color=BLUE, alpha=0.25)
    steps(cache, 100 * series.kv_usage, BLUE, "KV cache in use")
    steps(cache, 100 * series.busy_share, GREEN, "engine computes", linestyle=":")
    cache.set_ylabel("%")
    cache.set_ylim(0, 104)
    if series.preemptions_per_s.any():
        _marks(cache, edges, series.preemptions_per_s, "preemptions")

    steps(adapters, series.active_adapters, ORANGE, "adapters in the batch (mean)")
    highest = max(float(series.active_adapters.max()), 1.0)
    if max_loras <= 4 * highest:
        adapters.axhline(max_loras, color=INK, linewidth=1, linestyle="--", label=f"max_loras = {max_loras}")
    adapters.set_ylabel("adapters")
    loads = adapters.twinx()
    steps(loads, series.loads_per_s, GREEN, "loads/s (right)", alpha=0.8)
    loads.set_ylabel("loads/s", color=GREEN)
    loads.set_ylim(bottom=0)

    steps(tokens, series.output_tps, BLUE, "output")
    steps(tokens, series.prompt_tps, ORANGE, "prompt")
    tokens.set_ylabel("tokens/s")
    tokens.set_xlabel(f"simulated time, {unit}")

    for axes in panels:
        axes.set_xlim(0, horizon_s / per)
        axes.grid(axis="y", color="#d8dce4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if axes is not cache:
            axes.set_ylim(bottom=0)
        handles, labels = axes.get_legend_handles_labels()
        if axes is adapters:
            more, names = loads.get_legend_handles_labels()
            handles, labels = [*handles, *more], [*labels, *names]
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=9,
                    borderaxespad=0.1)  # fmt: skip
    loads.spines[["top"]].set_visible(False)
    figure.align_ylabels(panels)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return png(figure)


def _marks(axes: object, edges: Array, rate: Array, label: str) -> None:
    """Ticks at the top of a panel where something happened."""
    where = np.flatnonzero(rate)
    middle = (edges[where] + edges[where + 1]) / 2
    axes.plot(middle, np.full(len(where), 101.5), "|", color=RED, markersize=6, label=label)  # type: ignore[attr-defined]
