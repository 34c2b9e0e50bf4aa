"""The role of a surrogate: predicts what the twin would say about columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twin.figures.prediction import Prediction
from twin.server.column import Column


class Surrogate(Protocol):
    """Neural, analytic, or the twin itself."""

    def predict(self, columns: Sequence[Column]) -> Prediction:
        """Metrics of P columns, arrays of shape (P,); NaN where a metric is not given."""
        ...
