"""The twin in place of the physics: the same rays, bisected and read in simulated hours (`surrogate=twin`).

A ray is a list of adapters that fills a GPU from light to the largest healthy load. The physics draws the lists and
guesses where they end; the twin plays columns of each list around that guess until it knows where (`Player.played`),
and says what is in the system along it. One hour and one seed a column: at the boundary a neighbouring seed may say
otherwise, which the margin of the pieces and the verification are there for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from surrogates.pieces.rays import FRACTIONS, Rays
from twin.figures.health import Constraint
from twin.figures.prediction import STABLE
from twin.figures.result import SimulationResult
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate_many
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]
Features = Callable[[Sequence[Adapter]], Array]
log = logging.getLogger(__name__)

#: From a guess by this factor, then by its square, its cube ..., until the boundary lies between; how near is enough;
#: most steps until something healthy is found, and in all.
STEP, PRECISION, MOST_STEPS, ROUNDS = 1.15, 1.02, 8, 24
#: A share of an adapter below this is none.
LEAST_SHARE = 1e-3


@dataclass(frozen=True, slots=True)
class Path:
    """Adapters in the order in which a ray adds them, and where it is thought to end.

    Args:
        length: adapters of the guess, the last one in part.
    """

    adapters: tuple[Adapter, ...]
    length: float

    def part(self, length: float) -> tuple[Adapter, ...]:
        """The first `length` adapters, the last one with that share of its rate."""
        whole = min(int(length), len(self.adapters))
        share = length - whole
        if whole == len(self.adapters) or share < LEAST_SHARE:
            return self.adapters[:whole]
        return (*self.adapters[:whole], self.adapters[whole].scaled(share))


def path_of(kinds: Sequence[Adapter], length: float) -> Path:
    """A path of adapters that are told apart: each draws requests of its own. Ends at twice its guess."""
    kept = kinds[: math.ceil(2.0 * length) + 2]
    return Path(tuple(replace(a, adapter_id=f"{a.adapter_id}-{k}") for k, a in enumerate(kept)), length)


@dataclass(frozen=True)
class Player:
    """Columns in the twin under a constraint, each played once.

    Args:
        seed: of the simulated hours. hours: of the figures of a GPU. threads: simulations at a time.
    """

    calibration: Calibration
    constraint: Constraint
    seed: int = 0
    hours: int = 3
    threads: int = 2
    _known: dict[Column, tuple[bool, dict[str, float]]] = field(default_factory=dict, compare=False, repr=False)

    def rows(self, columns: Sequence[Column]) -> list[tuple[bool, dict[str, float]]]:
        """Whether each of P columns is healthy in the hour played, and its figures; the hours that are new at once."""
        new = list(dict.fromkeys(c for c in columns if c not in self._known))
        played = simulate_many(
            new, self.calibration, seeds=(self.seed,), threads=self.threads,
            default_ttft_slo_s=self.constraint.slo.ttft_p99_s,
        )  # fmt: skip
        self._known.update({c: (self.keeps(r), r[0].row) for c, r in zip(new, played, strict=True)})
        return [self._known[c] for c in columns]

    def keeps(self, results: Sequence[SimulationResult]) -> bool:
        """Whether the mean over these hours keeps the constraint."""
        if self.constraint.broken(results):
            return False
        means = [(r, float(r.values.mean())) for r in self.constraint.requirements(results)]
        return all(mean <= r.limit if r.at_most else mean >= r.limit for r, mean in means)

    def ends(self, paths: Sequence[Path], setting: EngineSetting) -> tuple[Array, NDArray[np.bool_]]:
        """Largest healthy length of each path, (R,), and whether it never became unhealthy; all paths at once.

        0 where even a small part of the first adapter is not healthy.
        """
        length = np.array([p.length for p in paths])
        most = np.array([float(len(p.adapters)) for p in paths])
        low, high = np.zeros(len(paths)), np.full(len(paths), np.inf)
        here = np.minimum(length, most)
        for step in range(ROUNDS):
            # A path is done once it is bracketed and halved, or healthy as a whole.
            wide = (low < most) & (high > PRECISION * low) & ((low > 0) | (step < MOST_STEPS))
            if not wide.any():
                break
            where = np.flatnonzero(wide)
            good = np.array(
                [
                    kept
                    for kept, _ in self.rows([Column(paths[r].part(float(here[r])), setting) for r in where.tolist()])
                ]
            )
            low[where[good]], high[where[~good]] = here[where[good]], here[where[~good]]
            low_s, high_s = np.maximum(low, 1e-12), np.where(np.isfinite(high), high, 1.0)
            outwards = np.where(low > 0, low * STEP ** (step + 1), high_s / STEP ** (step + 1))
            here = np.minimum(np.where(np.isfinite(high) & (low > 0), np.sqrt(low_s * high_s), outwards), most)
        return low, low >= most

    def played(self, paths: Sequence[Path], guess: Rays, setting: EngineSetting, features: Features) -> Rays:
        """Rays of the physics with ends and loads of the twin; those that are nowhere healthy are left out.

        Args:
            guess: of the same paths; its kinds of limit are kept.
        """
        found, open_ended = self.ends(paths, setting)
        kept = np.flatnonzero(found > 0).tolist()
        log.info("%s: %d of %d rays played, %d columns so far", setting.label, len(kept), len(paths), len(self._known))
        ends, columns = [], []
        for r in kept:
            ends.append(features(paths[r].part(float(found[r]))).sum(axis=0))
            columns += [Column(paths[r].part(_some(f * found[r])), setting) for f in FRACTIONS]
        rows = [row for _, row in self.rows(columns)]
        return Rays(
            np.array(ends), guess.limits[kept], open_ended[kept],
            np.array([features(c.adapters).sum(axis=0) for c in columns]),
            np.array([in_system(row) for row in rows]),
            np.array([decoding(row, c) for row, c in zip(rows, columns, strict=True)]),
            np.repeat(np.arange(len(kept)), len(FRACTIONS)),
        )  # fmt: skip

    def figures(self, column: Column, theta: float) -> dict[str, float]:
        """Means of some simulated hours of a GPU; `load` is 1 / theta*, bisected in the twin from a guess."""
        results = simulate_many(
            [column], self.calibration, seeds=range(self.seed, self.seed + self.hours), threads=self.threads,
            default_ttft_slo_s=self.constraint.slo.ttft_p99_s,
        )[0]  # fmt: skip
        row = {name: float(np.mean([r.row[name] for r in results])) for name in results[0].row}
        names = ("requests_in_system", "running", "e2e_mean_s", "itl_mean_ms", "ttft_mean_s", "ttft_p99_s")
        return {"load": 1.0 / self.theta(column, theta), **{name: row[name] for name in names}}

    def theta(self, column: Column, guess: float) -> float:
        """Largest factor on all rates with which a column is healthy."""

        def healthy(factor: float) -> bool:
            scaled = replace(column, adapters=tuple(a.scaled(factor) for a in column.adapters))
            return self.rows([scaled])[0][0]

        low, high, here = 0.0, math.inf, guess if math.isfinite(guess) else 1.0
        for step in range(ROUNDS):
            if high <= PRECISION * low or (low == 0.0 and step >= MOST_STEPS):
                break
            low, high = (here, high) if healthy(here) else (low, here)
            bracketed = low > 0.0 and math.isfinite(high)
            here = math.sqrt(low * high) if bracketed else (low or high) * STEP ** ((step + 1) * (1 if low else -1))
        return low or here


def _some(length: float) -> float:
    """Whole adapters along a ray, as the physics reads them, but at least part of one."""
    return float(round(length)) if length > 1.5 else max(length, LEAST_SHARE)


def in_system(row: dict[str, float]) -> float:
    """Requests in the system; NaN where the queue grows: there is no steady state to speak of."""
    return row["requests_in_system"] if row["queue"] == STABLE else math.nan


def decoding(row: dict[str, float], column: Column) -> float:
    """Requests decoding, by Little's law: gaps between tokens per second x their mean length."""
    gaps_per_s = sum(a.rate_req_per_s * (a.output_tokens.mean - 1.0) for a in column.adapters)
    return gaps_per_s * row["itl_mean_ms"] / 1000.0 if row["queue"] == STABLE else math.nan
