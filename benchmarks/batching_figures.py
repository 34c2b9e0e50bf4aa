"""The publication's figures from the measured rows, with the shipped law beside them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.batching_runs import Run, calibration_of, measured_curve, predicted, server_of
from placement.batching.advice import mean_context
from placement.batching.curves import law_curve
from placement.batching.rules import choose
from twin.pictures import blank, png
from twin.server.roofline import step_parts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#3366aa", "#dd7722", "#338855", "#8855aa")


def write_figures(folder: Path, background: list[Run], advisor: list[Run], shared: list[Run]) -> list[Path]:
    """Writes the figures for which there are rows; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    by_model: dict[str, list[Run]] = defaultdict(list)
    for run in background:
        if calibration_of(run.model, []) is not None:
            by_model[run.model].append(run)
    figures = {}
    if by_model:
        figures["plateau"], figures["step_parts"] = _plateau(by_model), _parts(by_model)
        figures["b_opt"], figures["kv_memory"] = _b_opt(by_model), _memory(by_model)
    usable = [r for r in shared if r.experiment == "replication_overall" and not r.chunked and not r.point.preempting]
    if any(r.servers > 1 for r in usable):
        figures["replication"] = _replication(usable)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        paths[-1].write_bytes(png(figure))
    return paths


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[Any]]:
    figure = blank(width, height, option="figures=")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [a for row in axes for a in row]


def _log_axis(axes: Any, batches: list[int]) -> None:
    axes.set_xscale("log", base=2)
    ticks = [b for b in sorted(set(batches)) if b & (b - 1) == 0]
    axes.set_xticks(ticks, [str(b) for b in ticks])
    axes.set_xlabel("max_num_seqs")
    axes.grid(alpha=0.25)


def _plateau(by_model: dict[str, list[Run]]) -> Figure:
    """Throughput and latency over the batch limit (Figures 2 and 3)."""
    figure, (left, right) = _figure(12, 4.6, 1, 2)
    batches: list[int] = []
    for colour, (model, runs) in zip(COLOURS, by_model.items(), strict=False):
        measured = measured_curve(runs)
        calibration = calibration_of(model, [])
        assert calibration is not None
        own = law_curve(server_of(runs[0], calibration), [p.batch for p in measured.points])
        batches += [p.batch for p in measured.points]
        for axes, key in ((left, "throughput_req_per_s"), (right, "itl_ms")):
            usable, lost = measured.usable, [p for p in measured.points if p.preempting]
            axes.plot([p.batch for p in usable], [getattr(p, key) for p in usable], "o", color=colour, ms=5)
            axes.plot([p.batch for p in lost], [getattr(p, key) for p in lost], "x", color=colour, ms=6)
            axes.plot([p.batch for p in own.usable], [getattr(p, key) for p in own.usable], color=colour, label=model)
    left.plot([], [], "o", color="black", label="measured")
    left.plot([], [], "x", color="black", label="measured, preempting")
    left.plot([], [], "-", color="black", label="law")
    left.set(title="Throughput reaches a plateau", ylabel="requests/s")
    right.set(title="Latency does not", ylabel="mean ITL, ms")
    for axes in (left, right):
        _log_axis(axes, batches)
    left.legend(fontsize=8)
    return figure


def _parts(by_model: dict[str, list[Run]]) -> Figure:
    """Share of launch gap, DRAM and the rest in a decode step, and of compute, which is hidden below DRAM."""
    figure, panels = _figure(3.6 * len(by_model), 4.2, 1, len(by_model))
    names = ("gap_ms", "dram_ms", "compute_ms", "rest_ms")
    labels = ("launch gap", "DRAM at peak bandwidth", "compute beyond it", "other kernel time")
    for axes, (model, runs) in zip(panels, by_model.items(), strict=True):
        calibration = calibration_of(model, [])
        assert calibration is not None and calibration.batching is not None
        context = mean_context(server_of(runs[0], calibration))
        batches = sorted(p.batch for p in measured_curve(runs).usable)
        law, laws = calibration.step, calibration.batching
        bounds = [laws.roofline.bound(b, b * context) for b in batches]
        parts = [
            step_parts(law.base + law.seq * b + law.kv * b * context / 1000, laws.sharing.gap_ms(b), bound)
            for b, bound in zip(batches, bounds, strict=True)
        ]
        base = [0.0] * len(batches)
        for name, label, colour in zip(names, labels, ("#bbbbbb", "#3366aa", "#bb3333", "#ddaa55"), strict=True):
            shares = [100 * getattr(p, name) / p.step_ms for p in parts]
            axes.bar(range(len(batches)), shares, bottom=base, color=colour, label=label, width=0.85)
            base = [b + s for b, s in zip(base, shares, strict=True)]
        axes.set_xticks(range(len(batches)), [str(b) for b in batches], rotation=90, fontsize=8)
        low, high = bounds[0], bounds[-1]
        axes.set(title=f"{model}\nFLOP/byte {low.intensity:.1f} to {high.intensity:.0f}, ridge {high.ridge:.0f}",
                 xlabel="requests in the batch", ylim=(0, 100))  # fmt: skip
    panels[0].set_ylabel("% of a decode step")
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _b_opt(by_model: dict[str, list[Run]]) -> Figure:
    """B_opt under both SLOs (Figure 10): measured efficiency and latency."""
    figure, panels = _figure(4.1 * len(by_model), 4.8, 1, len(by_model))
    for axes, (model, runs) in zip(panels, by_model.items(), strict=True):
        curve = measured_curve(runs)
        batches = [p.batch for p in curve.usable]
        axes.plot(batches, [p.itl_ms for p in curve.usable], "o-", color=COLOURS[0], ms=4, label="ITL (measured)")
        for slo, style in (("strict", "--"), ("relaxed", ":")):
            choice = choose(curve, "efficiency", slo=slo, epsilon=0.1)
            axes.axhline(choice.slo_ms, color="#bb3333", ls=style, lw=1.2, label=f"SLO {slo}, {choice.slo_ms:.1f} ms")
            axes.axvline(choice.point.batch, color=COLOURS[2], ls=style, lw=1.5, label=f"B_opt {choice.point.batch}")
        axes.set(title=model, ylim=(0, None), ylabel="ms")
        _log_axis(axes, batches)
        other = axes.twinx()
        values = choose(curve, "efficiency", slo="relaxed", epsilon=0.1).efficiency
        other.plot(list(values), list(values.values()), "s-", color=COLOURS[1], ms=3, label="T(B) / (B T(1))")
        other.axhline(0.1, color=COLOURS[1], lw=1, ls=":")
        other.set(ylim=(0, 1.1))
        handles = [h for a in (axes, other) for h in a.get_legend_handles_labels()[0]]
        axes.legend(
            handles,
            [h.get_label() for h in handles],
            fontsize=8,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=2,
        )
    panels[-1].figure.axes[-1].set_ylabel("efficiency")
    return figure


def _memory(by_model: dict[str, list[Run]]) -> Figure:
    """KV memory in use at its peak, measured and by the law, against what there is."""
    figure, (axes,) = _figure(7, 4.4, 1, 1)
    batches: list[int] = []
    for colour, (model, runs) in zip(COLOURS, by_model.items(), strict=False):
        calibration = calibration_of(model, [])
        assert calibration is not None
        gib = calibration.model.kv_bytes_per_token / 1024**3
        points = measured_curve(runs).points
        own = law_curve(server_of(runs[0], calibration), [p.batch for p in points])
        batches += [p.batch for p in points]
        axes.plot([p.batch for p in points], [p.kv_peak_tokens * gib for p in points], "o", color=colour, ms=5)
        axes.plot(
            [p.batch for p in own.usable], [p.kv_peak_tokens * gib for p in own.usable], color=colour, label=model
        )
    axes.plot([], [], "o", color="black", label="measured")
    axes.plot([], [], "-", color="black", label="law, without preemption")
    axes.set(title="Peak of the KV cache in use", ylabel="GiB", ylim=(0, None))
    _log_axis(axes, batches)
    axes.legend(fontsize=8)
    return figure


def _replication(runs: list[Run]) -> Figure:
    """Throughput and latency of replicas, measured and by the co-location law."""
    known = [(r, calibration_of(r.model, [])) for r in runs]
    rows = [(r, predicted(r, c)) for r, c in known if c is not None]
    rows.sort(key=lambda pair: (pair[0].model, pair[0].servers, pair[0].sharing, pair[0].point.batch))
    figure, panels = _figure(max(10.0, 1.1 * len(rows) + 2), 4.6, 1, 2)
    labels = [
        f"{r.point.batch} x {r.servers}\n" + ("" if r.servers == 1 else r.sharing.replace("_", "\n")) for r, _ in rows
    ]
    if len({r.model for r, _ in rows}) > 1:
        labels = [f"{r.model}\n{text}" for (r, _), text in zip(rows, labels, strict=True)]
    places = range(len(rows))
    for axes, key, title in (
        (panels[0], "throughput_req_per_s", "Requests/s of the GPU"),
        (panels[1], "itl_ms", "Mean ITL, ms"),
    ):
        measured = [getattr(r.point, key) for r, _ in rows]
        axes.bar([p - 0.2 for p in places], measured, 0.38, color="#3366aa", label="measured")
        axes.bar([p + 0.2 for p in places], [getattr(p, key) for _, p in rows], 0.38, color="#ddaa55", label="law")
        axes.set_xticks(list(places), labels, fontsize=8)
        axes.set(title=title)
        axes.grid(axis="y", alpha=0.25)
    panels[0].legend(fontsize=8)
    return figure
