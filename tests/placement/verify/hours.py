"""Results of simulated hours that a test makes up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.placement.synthetic import adapter
from twin.figures.prediction import BACKLOGGED, STABLE
from twin.server.column import Column
from twin.server.settings import EngineSetting

COLUMN = Column((adapter("a", 1.0),), EngineSetting("gpu", 8, 8))


def hour(
    late: float = 0.0,
    served: float = 1.0,
    drift: float = 0.0,
    per_adapter: tuple[int, int] | None = None,
    requests: int = 1000,
) -> Any:
    """An hour with this share of late requests, throughput / ideal, and drift of the queue per second."""
    row = {
        "late_fraction": late,
        "adapter_late_fraction": late,
        "waiting_drift_per_s": drift,
        "served_fraction": served,
        "ttft_p99_s": float("nan"),
        "queue": float(BACKLOGGED if drift > 0 else STABLE),
    }
    count, late_count = per_adapter or (requests, 0)
    return SimpleNamespace(
        row=row,
        prediction_row=lambda: row,
        counts=np.array([count]),
        late_counts=np.array([late_count]),
        adapters=COLUMN.adapters,
        adapter_sums=np.zeros((3, 6, 1)),
        arrivals=requests,
        horizon_s=3600.0,
        waiting_series=np.ones(60),
    )
