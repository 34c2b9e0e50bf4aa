"""Training tables: points along rays for the boundary, healthy columns for the loads, all columns for the metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surrogates.model.context import setting_context
from surrogates.model.features import FEATURE_NAMES
from surrogates.model.forward import Scaling
from surrogates.training.records import Records
from twin.figures.health import RULES, Rule
from twin.server.calibration import Calibration

Array = NDArray[np.float64]

#: log(theta / theta*) of the points along each ray, and the width of their weight.
LOG_FACTORS = np.linspace(-0.4, 0.4, 17)
WEIGHT_WIDTH = 0.2


@dataclass(frozen=True, slots=True)
class RayPoints:
    """Points near the boundary of R rays under one rule.

    Args:
        ray: index into the records, (R,).
        setting: index of the setting, (R,).
        phi: raw features at `theta* exp(LOG_FACTORS)`, (R, T, F).
        adapter_phi: features of one random adapter of the ray at theta*, times the number of adapters, (R, F).
    """

    ray: NDArray[np.int64]
    setting: NDArray[np.int64]
    phi: Array
    adapter_phi: Array

    def select(self, mask: NDArray[np.bool_]) -> RayPoints:
        return RayPoints(self.ray[mask], self.setting[mask], self.phi[mask], self.adapter_phi[mask])


@dataclass(frozen=True, slots=True)
class Tables:
    """Everything the training reads.

    Args:
        held_out: rays kept for calibration of margins and for scores, (R_all,).
        contexts: raw contexts of the settings, (S, C).
        points: points along rays by rule.
        phi: features of the simulated columns, (C, F).
        setting: setting of each column, (C,).
        healthy: the column lies below the boundary of its ray, by rule, (C,) each.
    """

    records: Records
    held_out: NDArray[np.bool_]
    contexts: Array
    scaling: Scaling
    points: dict[Rule, RayPoints]
    phi: Array
    setting: NDArray[np.int64]
    healthy: dict[Rule, NDArray[np.bool_]]

    @property
    def slots(self) -> Array:
        """`max_loras` of every setting, (S,)."""
        return np.array([s.max_loras for s in self.records.settings], dtype=np.float64)


def split_rays(count: int, share: float, seed: int) -> NDArray[np.bool_]:
    """True for held-out rays, (count,); every point and column of a ray is on the same side."""
    held_out = np.zeros(count, dtype=bool)
    held_out[np.random.default_rng([seed, 7]).permutation(count)[: round(share * count)]] = True
    return held_out


def _ray_points(records: Records, rule: Rule, seed: int) -> RayPoints:
    rays = np.flatnonzero(np.isfinite(records.theta[rule]))
    phi = np.empty((len(rays), len(LOG_FACTORS), len(FEATURE_NAMES)))
    single = np.empty((len(rays), len(FEATURE_NAMES)))
    for k, ray in enumerate(rays.tolist()):
        theta = float(records.theta[rule][ray])
        for t, log_factor in enumerate(LOG_FACTORS.tolist()):
            phi[k, t] = records.features(ray, theta * np.exp(log_factor))
        mix = records.mixes[ray]
        index = int(np.random.default_rng([seed, ray, 3]).integers(len(mix)))
        one = records.adapter_features(ray, theta)[index]
        single[k] = one * len(mix)
    return RayPoints(rays, records.setting[rays], phi, single)


def build_tables(records: Records, calibration: Calibration, *, held_out_share: float, seed: int) -> Tables:
    """Computes all features once; a few seconds for 1,500 rays."""
    held_out = split_rays(len(records.mixes), held_out_share, seed)
    contexts = np.stack([setting_context(s, calibration) for s in records.settings])
    used = contexts[records.setting]
    spread = used.std(axis=0)
    points = {rule: _ray_points(records, rule, seed) for rule in RULES}
    slots = np.array([s.max_loras for s in records.settings], dtype=np.float64)
    stable = points["stable"].select(~held_out[points["stable"].ray])
    at_boundary = stable.phi[:, len(LOG_FACTORS) // 2]
    unit = Scaling(np.ones(len(FEATURE_NAMES)), np.zeros(contexts.shape[1]), np.ones(contexts.shape[1]))
    per_slot = at_boundary / unit.feature_scale(slots[stable.setting][:, None])
    size = np.sqrt((per_slot**2).mean(axis=0))
    scaling = Scaling(np.where(size > 0, size, 1.0), used.mean(axis=0), np.where(spread > 1e-9, spread, 1.0))
    healthy = {
        # Lone columns (no boundary) are left out of the loads: their health is not known from pooled seeds.
        rule: np.nan_to_num(records.factor / records.theta[rule][records.ray], nan=np.inf) <= 1.0
        for rule in RULES
    }
    return Tables(
        records, held_out, contexts, scaling, points, records.column_features(), records.setting[records.ray], healthy
    )
