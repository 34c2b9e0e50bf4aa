"""`overheads=true`: where the time of a server goes, and how that changes with adapters, slots and rank."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from twin.figures.overheads import overheads
from twin.pictures import blank, png
from twin.server.column import Column
from twin.server.memory import memory_error

if TYPE_CHECKING:
    from twin.command.options import Command

#: Points of the curves: shares of the adapters, slots, ranks.
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
SLOTS = (8, 16, 32, 64, 96, 128, 192)
RANKS = (8, 16, 32, 64)
COLORS = {
    "base_model": "#3b6ea8", "lora": "#9db7d5", "distinct_adapters": "#d98b2b", "rank": "#e8bf7f", "slots": "#b3452f",
    "loading": "#2f7d4f", "scheduler": "#7a5aa6",
}  # fmt: skip


def variants(column: Column) -> Iterator[tuple[str, int, Column]]:
    """Which curve, its value, and the server there."""
    slotted = [a for a in column.adapters if a.rank > 0]
    base = [a for a in column.adapters if a.rank == 0]
    widest = max((a.rank for a in slotted), default=0)
    for count in sorted({max(1, round(share * len(slotted))) for share in SHARES} if slotted else ()):
        yield "adapters", count, replace(column, adapters=(*slotted[:count], *base))
    for slots in SLOTS:
        yield "max_loras", slots, replace(column, setting=replace(column.setting, max_loras=slots, max_cpu_loras=None))
    for rank in RANKS:
        if rank >= widest:
            yield "max_lora_rank", rank, replace(column, setting=replace(column.setting, max_lora_rank=rank))


def curves(command: Command, column: Column) -> list[dict[str, object]]:
    """A row for every point of the curves; settings that do not start are left out."""
    from twin.simulation import simulate

    options, calibration = command.options, command.calibration
    points = [(name, value, c) for name, value, c in variants(column) if memory_error(c.setting, calibration) is None]

    def row(point: tuple[str, int, Column]) -> dict[str, object]:
        name, value, varied = point
        result = simulate(
            varied, calibration, horizon_s=options.horizon_s, seed=options.all_seeds()[0],
            default_ttft_slo_s=command.judge.slo.ttft_p99_s,
        )  # fmt: skip
        return {"curve": name, "value": value, **overheads([result], varied.setting, calibration).row()}

    with ThreadPoolExecutor(max_workers=options.threads) as pool:
        return list(pool.map(row, points))


def curves_png(rows: list[dict[str, object]]) -> bytes:
    """Milliseconds of a step by cause over adapters, slots and rank, as a PNG.

    Raises:
        InputError: matplotlib is not installed.
    """
    names = list(dict.fromkeys(str(row["curve"]) for row in rows))
    figure = blank(4.2 * len(names), 4.2, option="overheads=true")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        own = [row for row in rows if row["curve"] == name]
        axes.stackplot(
            [float(str(row["value"])) for row in own],
            [[float(str(row[f"{cause}_ms"])) for row in own] for cause in COLORS],
            colors=list(COLORS.values()), labels=[cause.replace("_", " ") for cause in COLORS],
        )  # fmt: skip
        axes.set_xlabel(name)
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms of a step")
    panels[0].set_ylim(0, 1.05 * max(sum(float(str(row[f"{cause}_ms"])) for cause in COLORS) for row in rows))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(COLORS), frameon=False)
    return png(figure)
