"""The role of a surrogate: predicts what the twin would say about columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twin.column import Column
from twin.prediction import Prediction


class Surrogate(Protocol):
    """Neural, analytic, or the twin itself."""

    def predict(self, columns: Sequence[Column]) -> Prediction:
        """Metrics of P columns, arrays of shape (P,); NaN where a metric is not given."""
        ...
