"""`TwinSurrogate`: a surrogate that asks the twin itself. Slow and exact up to seed noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twin.engine.play import HOUR_S
from twin.figures.prediction import Prediction, prediction_from_rows
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.simulation import simulate_many


@dataclass(frozen=True, slots=True)
class TwinSurrogate:
    """Implements `surrogates.model.surrogate.Surrogate` by simulation.

    Args:
        seeds: simulations per column; metrics are averaged over them.
        threads: simulations at the same time.
    """

    calibration: Calibration
    seeds: tuple[int, ...] = (0,)
    horizon_s: float = HOUR_S
    threads: int = 2

    def predict(self, columns: Sequence[Column]) -> Prediction:
        """Metrics of P columns, arrays of shape (P,); a label or flag is that of most seeds."""
        runs = simulate_many(
            columns, self.calibration, seeds=self.seeds, horizon_s=self.horizon_s, threads=self.threads
        )
        rows = []
        for of_column in runs:
            row = {k: float(np.mean([r.row[k] for r in of_column])) for k in of_column[0].row}
            for label in ("queue", "starved"):
                row[label] = float(np.median([r.row[label] for r in of_column]))
            rows.append(row)
        return prediction_from_rows(rows)


def load_surrogate(
    calibration: Calibration, *, seeds: Sequence[int] = (0,), horizon_s: float = HOUR_S, threads: int = 2
) -> TwinSurrogate:
    """A surrogate that simulates every column."""
    return TwinSurrogate(calibration, tuple(seeds), horizon_s, threads)
