"""`NeuralSurrogate`: all metrics of a batch of columns in NumPy, with uncertainty. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from surrogates.model.artifact import Artifact, read_artifact, weights_folder
from surrogates.model.context import setting_context, untrained_flags
from surrogates.model.features import FEATURE_NAMES, adapter_features
from surrogates.model.forward import perceptron, perceptron_input
from surrogates.model.metric_scales import from_targets
from surrogates.model.neural_planning import NeuralPlanningModel, load_planning_model
from twin.errors import InputError
from twin.figures.health import RULES, Rule
from twin.figures.prediction import BACKLOGGED, OVERLOADED, STABLE, Prediction
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting

__all__ = ["NeuralPlanningModel", "NeuralSurrogate", "load_planning_model", "load_surrogate"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NeuralSurrogate:
    """All metrics of columns by the free networks of one artifact.

    It ranks and explains; feasibility in a run that prints a bound comes from the planning model alone.
    """

    artifact: Artifact
    calibration: Calibration
    _contexts: dict[EngineSetting, Array] = field(default_factory=dict, compare=False, repr=False)

    def predict(self, columns: Sequence[Column]) -> Prediction:
        """Metrics of P columns, arrays of shape (P,)."""
        return self.predict_features(*self._features(columns))

    def distance(self, columns: Sequence[Column]) -> dict[Rule, tuple[Array, Array]]:
        """log(load / largest healthy load) by rule, mean and standard deviation over the ensemble, (P,) each."""
        members = self.distance_of_features(*self._features(columns))
        return {r: (members[:, :, k].mean(axis=0), members[:, :, k].std(axis=0)) for k, r in enumerate(RULES)}

    def distance_of_features(self, phi: Array, settings: Sequence[EngineSetting]) -> Array:
        """log(load / largest healthy load) by net, column and rule, (E, P, 2)."""
        return self._members("distance", phi, settings)

    def predict_features(self, phi: Array, settings: Sequence[EngineSetting]) -> Prediction:
        """The same from summed features (P, F) and one setting per column: the fast path for solvers."""
        metrics = from_targets(self._members("metrics", phi, settings).mean(axis=0), phi)
        distance = self.distance_of_features(phi, settings).mean(axis=0)
        starved = distance[:, RULES.index("published")] > 0
        # A column beyond the `stable` boundary whose queue grows by over 1 % of the arrivals is backlogged.
        growing = metrics["waiting_drift_per_s"] > 0.01 * phi[:, FEATURE_NAMES.index("rate")]
        growing &= distance[:, RULES.index("stable")] > 0
        queue = np.where(starved, OVERLOADED, np.where(growing, BACKLOGGED, STABLE)).astype(np.float64)
        return Prediction(**metrics, queue=queue, starved=starved.astype(np.float64))

    def _features(self, columns: Sequence[Column]) -> tuple[Array, list[EngineSetting]]:
        sizes = [len(c.adapters) for c in columns]
        every = adapter_features([a for c in columns for a in c.adapters])
        phi = np.zeros((len(columns), len(FEATURE_NAMES)))
        np.add.at(phi, np.repeat(np.arange(len(columns)), sizes), every)
        return phi, [c.setting for c in columns]

    def _members(self, name: str, phi: Array, settings: Sequence[EngineSetting]) -> Array:
        # Batches name few distinct settings: identity is a cheaper key than the value of each.
        rows: dict[int, int] = {}
        distinct: list[EngineSetting] = []
        index = np.empty(len(settings), dtype=np.int64)
        for k, setting in enumerate(settings):
            row = rows.setdefault(id(setting), len(distinct))
            if row == len(distinct):
                distinct.append(setting)
            index[k] = row
        for setting in distinct:
            if setting not in self._contexts:
                untrained = untrained_flags(setting, self.artifact.meta.get("server_flags"))
                if untrained:
                    raise InputError(
                        f"setting {setting.label}: {'; '.join(untrained)}",
                        where=f"engine.{untrained[0].partition(' ')[0]}",
                        remedy="use that value, or ask the twin",
                    )
                self._contexts[setting] = setting_context(setting, self.calibration)
        scaling = self.artifact.scaling
        context = scaling.context(np.array([self._contexts[s] for s in distinct]))[index]
        scale = scaling.feature_scale(np.array([[float(s.max_loras)] for s in distinct]))[index]
        return perceptron(self.artifact.block(name), perceptron_input(phi, context, scale))


def load_surrogate(calibration: Calibration, *, weights: str | Path | None = None) -> NeuralSurrogate:
    """The shipped surrogate of a calibration, or one from a folder of weights.

    Raises:
        InputError: weights are missing, damaged or of another calibration.
    """
    folder = Path(weights) if weights else weights_folder(calibration.name)
    return NeuralSurrogate(read_artifact(folder, calibration), calibration)
