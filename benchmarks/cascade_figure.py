"""What `benchmarks.cascade` found, as records and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twin.pictures import blank, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
INK, BLUE, ORANGE, RED, GREEN = "#1c2330", "#3b6ea8", "#d98b2b", "#b3452f", "#2f7d4f"
COLORS = {"stays fast": BLUE, "falls": RED, "stays fast, pushed": ORANGE}


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of the twin, minute by minute: arrays (60,).

    Args:
        requests: in the system. step_ms: mean time of a step. healthy: by the rule `stable`.
    """

    seed: int
    loads_per_s: Array
    requests: Array
    step_ms: Array
    healthy: bool

    def first_slow_minute(self, limit: float) -> int | None:
        """The first minute with more loads per second than this."""
        slow = np.flatnonzero(self.loads_per_s > limit)
        return int(slow[0]) if len(slow) else None


@dataclass(frozen=True, slots=True)
class Load:
    """One request rate: what the steady state says, and hours of the twin.

    Args:
        physics, learned: requests in the system by the steady state, alone and with its residual.
        physics_loads_per_s: adapter loads. second_pace_ms: of a slower state that the physics knows; 0 = none.
        limit: loads per second beyond which a minute is slow.
        hours, pushed: the twin's, as they are and with a minute of more traffic.
    """

    req_per_s: float
    physics: float
    learned: float
    physics_loads_per_s: float
    second_pace_ms: float
    limit: float
    hours: tuple[Hour, ...]
    pushed: tuple[Hour, ...]

    @property
    def fell(self) -> float:
        """Share of the hours with a slow minute."""
        return float(np.mean([h.first_slow_minute(self.limit) is not None for h in self.hours]))

    @property
    def slow_share(self) -> float:
        """Share of slow minutes."""
        return float(np.mean([h.loads_per_s > self.limit for h in self.hours]))

    @property
    def slow_after_push(self) -> float:
        """Slow minutes of a pushed hour, mean."""
        return float(np.mean([(h.loads_per_s > self.limit).sum() for h in self.pushed]))

    def state(self, *, slow: bool) -> tuple[float, float, float]:
        """Mean loads per second, requests and step time (ms) over fast, or slow, minutes without push; NaN: none."""
        names = ("loads_per_s", "requests", "step_ms")
        loads, requests, step_ms = (np.concatenate([getattr(h, name) for h in self.hours]) for name in names)
        which = (loads > self.limit) == slow
        if not which.any():
            return np.nan, np.nan, np.nan
        return float(loads[which].mean()), float(requests[which].mean()), float(step_ms[which].mean())


def cascade_png(
    lines: Mapping[str, Hour], loads: Sequence[Load], largest: Mapping[str, float], rate_req_per_s: float
) -> bytes:
    """Left: hours of one column over time. Right: requests in the system over the request rate. A PNG.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = blank(11.5, 6.2, option="out=", dpi=95)
    grid = figure.add_gridspec(3, 2, width_ratios=(1.25, 1))
    rows = (("loads_per_s", "adapter loads/s"), ("requests", "requests in system"), ("step_ms", "step, ms"))
    for k, (name, label) in enumerate(rows):
        axes = figure.add_subplot(grid[k, 0])
        for line, one in lines.items():
            edges = np.arange(len(one.loads_per_s) + 1.0)
            style = "--" if "pushed" in line else "-"
            axes.stairs(
                getattr(one, name), edges, color=COLORS[line], baseline=None, linewidth=1.6, linestyle=style,
                label=f"seed {one.seed} {line}",
            )  # fmt: skip
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 60)
        if k == 0:
            axes.set_title(f"the same column, {rate_req_per_s:.1f} req/s", loc="left", fontsize=10, color=INK)
            axes.set_ylim(0, 1.6 * max(float(one.loads_per_s.max()) for one in lines.values()))
            axes.legend(frameon=False, fontsize=8, loc="upper right", ncols=3)
        if k < len(rows) - 1:
            axes.tick_params(labelbottom=False)
        _plain(axes)
    axes.set_xlabel("simulated time, min")

    right = figure.add_subplot(grid[:, 1])
    x = [load.req_per_s for load in loads]
    for slow, color, label in ((False, BLUE, "twin, fast minutes"), (True, RED, "twin, slow minutes")):
        right.plot(x, [load.state(slow=slow)[1] for load in loads], "o", color=color, label=label)
    right.plot(x, [load.physics for load in loads], color=INK, linewidth=1.6, label="steady state: physics")
    right.plot(x, [load.learned for load in loads], ":", color=INK, linewidth=1.8, label="with its residual")
    for name, style in (("twin", "-"), ("with_residual", ":"), ("physics", "--")):
        right.axvline(largest[name], color=GREEN, linewidth=1.3, linestyle=style,
                      label=f"largest healthy load, {name.replace('_', ' ')}")  # fmt: skip
    right.set_xlabel("requests per second")
    right.set_ylabel("requests in system")
    # Room for the legend.
    right.set_ylim(0, 1.6 * max([load.state(slow=True)[1] for load in loads if load.slow_share] or [loads[-1].physics]))
    right.set_title("both states, over the load", loc="left", fontsize=10, color=INK)
    right.legend(frameon=True, framealpha=1.0, edgecolor="none", fontsize=8, loc="upper left", ncols=2)
    _plain(right)
    return png(figure)


def _plain(axes: Axes) -> None:
    """A light grid, no box."""
    axes.grid(axis="y", color="#d8dce4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
