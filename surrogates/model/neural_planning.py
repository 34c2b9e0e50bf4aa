"""Facets, hull rows and loads of a setting, from the trained planning networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.model.artifact import Artifact, read_artifact, weights_folder
from surrogates.model.context import CONTEXT_NAMES, setting_context, untrained_flags
from surrogates.model.features import FEATURE_NAMES, INDEX, TOKEN_S, adapter_features
from surrogates.model.forward import facets_of, hinges_of, member
from surrogates.model.planning import HingeLoad, OptionModel, Polyhedron
from surrogates.model.trained_range import Outside, outside_ranges
from twin.errors import InputError
from twin.figures.health import Rule, check_rule
from twin.server.calibration import Calibration
from twin.server.settings import EngineSetting
from twin.workload.adapter import DEFAULT_TTFT_P99_S, Adapter

Array = NDArray[np.float64]

#: Slack on trained context ranges, in context units (log2 and log): rounding, not extrapolation.
_CONTEXT_SLACK = 1e-6


def gauge_facets(artifact: Artifact, rule: Rule, setting: EngineSetting, calibration: Calibration) -> Polyhedron:
    """Union of the facets of all nets (the maximum: the careful side), without margin, for raw features."""
    scaling, block = artifact.scaling, artifact.block(f"{rule}.gauge")
    context = scaling.context(setting_context(setting, calibration))
    scale = scaling.feature_scale(setting.max_loras)
    nets = [facets_of(member(block, e), context, len(FEATURE_NAMES)) for e in range(len(block["hidden_weight"]))]
    return Polyhedron(np.concatenate([W / scale for W, _ in nets]), np.concatenate([b for _, b in nets]))


def hinge_load(
    artifact: Artifact, rule: Rule, name: str, setting: EngineSetting, calibration: Calibration
) -> HingeLoad:
    """Load `requests_in_system` or `requests_decoding` of one setting for raw features."""
    scaling = artifact.scaling
    context = scaling.context(setting_context(setting, calibration))
    W, b, v, q = hinges_of(artifact.block(f"{rule}.{name}"), context, len(FEATURE_NAMES))
    scale = scaling.feature_scale(setting.max_loras)
    return HingeLoad(W / scale, b, v, q / scale, 0.0)


def token_interval_row(seconds_per_token: float) -> Array:
    """Weights of the `residence_*` features that give the share of time in a slot, (F,).

    Linear in between the trained seconds per token, beyond them the nearest.
    """
    row = np.zeros(len(FEATURE_NAMES))
    taus = np.array(TOKEN_S)
    s = float(np.clip(seconds_per_token, taus[0], taus[-1]))
    upper = int(np.clip(np.searchsorted(taus, s), 1, len(taus) - 1))
    share = (s - taus[upper - 1]) / (taus[upper] - taus[upper - 1])
    row[INDEX[f"residence_{1000 * taus[upper - 1]:g}ms"]] = 1 - share
    row[INDEX[f"residence_{1000 * taus[upper]:g}ms"]] = share
    return row


@dataclass(frozen=True, slots=True)
class NeuralPlanningModel:
    """Implements `surrogates.model.planning.PlanningModel` with the networks of one artifact.

    Args:
        rule: the constraint whose boundary the facets follow.
    """

    artifact: Artifact
    calibration: Calibration
    rule: Rule
    _cache: dict[EngineSetting, OptionModel] = field(default_factory=dict, compare=False, repr=False)

    def features(self, adapters: Sequence[Adapter]) -> Array:
        """Additive features, shape (N, F)."""
        return adapter_features(adapters)

    def outside(self, adapters: Sequence[Adapter]) -> list[Outside]:
        """What no mix of the training data had about a workload's traffic (`surrogates.model.trained_range`)."""
        return outside_ranges(adapters, self.artifact.meta["hull"][self.rule]["ratios"])

    @property
    def ttft_p99_s(self) -> float:
        """TTFT promise of every adapter in the training data: the twin's default. Others are not seen."""
        return DEFAULT_TTFT_P99_S

    def margin(self, setting: EngineSetting) -> float:
        """Distance kept from the boundary, in log(theta): held-out rays are over-promised in 5 % of cases."""
        margins = self.artifact.meta["margins"][self.rule]
        crowded = next(
            c["margin"] for c in margins["crowded"]
            if c["max_loras_up_to"] is None or setting.max_loras <= c["max_loras_up_to"]
        )  # fmt: skip
        return max(float(crowded), float(margins["within_slots"]))

    def option(self, setting: EngineSetting) -> OptionModel:
        """Facets and loads under one setting; the hypernetworks are evaluated once per setting.

        Raises:
            InputError: the setting lies outside the trained ones.
        """
        if setting not in self._cache:
            self._check(setting)
            outer = gauge_facets(self.artifact, self.rule, setting, self.calibration)
            self._cache[setting] = OptionModel(
                setting=setting,
                feasible=outer.shifted(self.margin(setting)),
                outer=outer,
                hull=self._hull(setting),
                requests_in_system=self._load("requests_in_system", setting),
                requests_decoding=self._load("requests_decoding", setting),
                max_adapters=int(self.artifact.meta["max_adapters"]),
            )
        return self._cache[setting]

    def _load(self, name: str, setting: EngineSetting) -> HingeLoad:
        return hinge_load(self.artifact, self.rule, name, setting, self.calibration)

    def _check(self, setting: EngineSetting) -> None:
        if setting.gpu_type != self.calibration.stamp.gpu_type:
            raise InputError(
                f"setting {setting.label} is for GPU type {setting.gpu_type!r}, the surrogate for "
                f"{self.calibration.stamp.gpu_type!r}",
                remedy="choose the surrogate of that GPU's calibration",
            )
        untrained = untrained_flags(setting, self.artifact.meta.get("server_flags"))
        if untrained:
            raise InputError(
                f"setting {setting.label}: {'; '.join(untrained)}",
                where=f"engine.{untrained[0].partition(' ')[0]}",
                remedy="use that value, choose surrogate=analytic, or train with it: "
                "python -m surrogates dataset settings=...",
            )
        context = setting_context(setting, self.calibration)
        for name, value, (low, high) in zip(CONTEXT_NAMES, context, self.artifact.meta["context_ranges"], strict=True):
            if not low - _CONTEXT_SLACK <= value <= high + _CONTEXT_SLACK:
                flag = name.removeprefix("log2_")
                number, least, most = (2.0**x if flag != name else x for x in (value, low, high))
                raise InputError(
                    f"setting {setting.label}: {flag} {number:.4g} is outside {least:.4g}..{most:.4g}, where the "
                    "surrogate was trained",
                    where=f"engine.{flag}" if flag != name else "engine, calibration",
                    remedy="choose surrogate=analytic, leave the setting out, or train with it: "
                    "python -m surrogates dataset settings=...",
                )

    def _hull(self, setting: EngineSetting) -> Polyhedron:
        """Rows `e . phi - limit <= 0`, each divided by its limit or typical size, so that violations compare."""
        meta: dict[str, Any] = self.artifact.meta["hull"][self.rule]
        rows, limits = [], []
        known = self.artifact.tensors[f"hull.{self.rule}.max_loras"]
        upper = self.artifact.tensors[f"hull.{self.rule}.upper"]
        nearest = int(np.argmin(np.abs(np.log(known) - np.log(setting.max_loras))))
        for k in np.flatnonzero(upper[nearest] > 0):
            rows.append(np.eye(len(FEATURE_NAMES))[k] / upper[nearest, k])
            limits.append(1.0)
        for ratio in meta["ratios"]:
            numerator = np.array([float(name in ratio["numerator"]) for name in FEATURE_NAMES])
            denominator = np.array([float(name == ratio["denominator"]) for name in FEATURE_NAMES])
            for sign, bound in ((1.0, ratio["high"]), (-1.0, ratio["low"])):
                if bound is not None:
                    rows.append(sign * (numerator - bound * denominator) / ratio["size"])
                    limits.append(0.0)
        if meta["slot_safety"] is not None:
            rows.append(
                token_interval_row(safe_token_s(meta["slot_safety"], setting))
                / (meta["slot_safety"]["share"] * setting.max_loras)
            )
            limits.append(1.0)
        return Polyhedron(np.array(rows).reshape(-1, len(FEATURE_NAMES)), -np.array(limits))


def safe_token_s(slot_safety: dict[str, Any], setting: EngineSetting) -> float:
    """Seconds per output token at the boundary: exp(c0 + c1 log2 max_loras + c2 log2^2 + c3 log2 max_lora_rank)."""
    slots, rank = np.log2(setting.max_loras), np.log2(setting.max_lora_rank)
    return float(np.exp(np.dot(slot_safety["log_token_s"], [1.0, slots, slots**2, rank])))


def load_planning_model(
    calibration: Calibration, *, constraint: str = "stable", weights: str | Path | None = None
) -> NeuralPlanningModel:
    """The shipped planning model of a calibration, or one from a folder of weights.

    Raises:
        InputError: weights are missing, damaged or of another calibration.
    """
    folder = Path(weights) if weights else weights_folder(calibration.name)
    return NeuralPlanningModel(read_artifact(folder, calibration), calibration, check_rule(constraint))
