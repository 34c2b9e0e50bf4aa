"""The options that every source of adapters with constant rates has: length_shape, drift, plan_rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twin.traffic.drift import apply_drift
from twin.traffic.length_shapes import length_note, with_length_shape
from twin.workload.adapter import Adapter


def with_traffic_options(
    adapters: Sequence[Adapter], length_shape: str, drift: Any, plan_rate: str | float
) -> tuple[tuple[Adapter, ...], tuple[str, ...]]:
    """Applies the options that every source of constant rates has; adapters, and notes on what changed.

    Raises:
        InputError: an option is wrong.
    """
    shaped = with_length_shape(adapters, length_shape)
    changed, notes = apply_drift(shaped, drift, plan_rate)
    return changed, (length_note(length_shape), *notes) if length_shape != "gamma" else notes
