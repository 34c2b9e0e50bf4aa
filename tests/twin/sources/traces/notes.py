"""What tests of traces ask of a workload."""

from __future__ import annotations

import numpy as np

from twin.workload.workload import Workload


def mean_over_requests(workload: Workload, side: str) -> float:
    rates = [a.rate_req_per_s for a in workload.adapters]
    return float(np.average([getattr(a, side).mean for a in workload.adapters], weights=rates))


def says(workload: Workload, text: str) -> bool:
    return any(text in note for note in workload.notes)
