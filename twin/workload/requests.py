"""Requests: what a client sends to a server, drawn (`twin.traffic`) or replayed (`twin.workload.recording`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Requests:
    """N requests in order of arrival.

    Args:
        arrival_s: arrival times, seconds from the start of the window, ascending, (N,).
        adapter: index into the column's adapters, (N,).
        prompt: prompt tokens, (N,).
        cached: prompt tokens found in the prefix cache, < prompt, (N,).
        output: output tokens, (N,).
    """

    arrival_s: NDArray[np.float64]
    adapter: NDArray[np.int32]
    prompt: NDArray[np.int32]
    cached: NDArray[np.int32]
    output: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.arrival_s)
