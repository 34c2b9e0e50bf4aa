"""Turns trained blocks into an artifact: hull, margins on held-out rays, and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.model.artifact import Artifact, as_stored
from surrogates.model.context import calibration_hash, server_flags
from surrogates.model.features import INDEX
from surrogates.model.neural_planning import gauge_facets, hinge_load, safe_token_s, token_interval_row
from surrogates.model.prediction import NeuralSurrogate
from surrogates.training.records import Records
from surrogates.training.scores import boundary_scores, ray_crossings, smape
from surrogates.training.training_data import LOG_FACTORS, Tables
from twin.errors import InputError
from twin.figures.health import RULES, Rule
from twin.server.calibration import Calibration

Array = NDArray[np.float64]
Blocks = Mapping[str, Mapping[str, Array]]

#: Settings up to this many slots have a margin of their own where adapters > slots.
FEW_SLOTS = 32
SMALLEST_MARGIN, DEFAULT_CROWDED_MARGIN = 0.01, 0.09
#: Ratios of features that stay in the trained range: numerator (summed), denominator, whether it has a lower end.
RATIOS: tuple[tuple[tuple[str, ...], str, bool], ...] = (
    (("computed_prompt_rate", "cached_prompt_rate"), "rate", True),
    (("output_rate",), "rate", True),
    (("output_square_rate",), "output_rate", False),
    (("kv_rate",), "output_rate", False),
    (("burst_rate",), "rate", False),
)
HULL_QUANTILE, RATIO_QUANTILE = 0.99, 1.0


def check_calibration(records: Records, calibration: Calibration) -> None:
    """Refuses a data set that was simulated with another calibration."""
    if records.calibration_sha256 != calibration_hash(calibration):
        raise InputError(
            f"the data set was simulated with another version of calibration {records.calibration!r}",
            where=f"calibration {calibration.name!r}",
            remedy=f"make it again: python -m surrogates dataset calibration={calibration.name}",
        )


def assemble(
    tables: Tables, calibration: Calibration, blocks: Blocks, *, coverage: float, options: dict[str, Any]
) -> Artifact:
    """Adds everything but the weights.

    Args:
        coverage: share of held-out rays on which the boundary with margin must not promise too much.
    """
    records = tables.records
    used = tables.contexts[np.unique(records.setting)]
    meta: dict[str, Any] = {
        "calibration": calibration.name,
        "calibration_sha256": calibration_hash(calibration),
        "engine_version": calibration.stamp.engine_version,
        "dataset": records.spec,
        "training": options,
        "rays": {"train": int((~tables.held_out).sum()), "held_out": int(tables.held_out.sum())},
        "context_ranges": [[float(low), float(high)] for low, high in zip(used.min(0), used.max(0), strict=True)],
        "server_flags": server_flags(records.settings[i] for i in np.unique(records.setting)),
        "max_adapters": int(records.counts.max()),
        "adapter_ranges": _adapter_ranges(tables),
        "hull": {},
        "margins": {},
        "scores": {},
    }
    scaling = tables.scaling
    tensors = {f"{net}.{name}": array for net, block in blocks.items() for name, array in block.items()}
    tensors |= {f"scaling.{name}": getattr(scaling, name) for name in ("feature", "context_mean", "context_std")}
    for rule in RULES:
        meta["hull"][rule], limits = _hull(tables, rule)
        tensors |= {f"hull.{rule}.{name}": array for name, array in limits.items()}
    artifact = Artifact(as_stored(tensors), meta)
    for rule in RULES:
        meta["margins"][rule], meta["scores"][rule] = _planning_scores(tables, artifact, calibration, rule, coverage)
    meta["scores"]["metrics"] = _metric_scores(tables, artifact, calibration)
    return replace(artifact, meta=meta)


def _adapter_ranges(tables: Tables) -> dict[str, list[float]]:
    """Range of every field of single adapters in columns at the `stable` boundary."""
    records = tables.records
    rays = tables.points["stable"].ray.tolist()
    rows = np.concatenate(
        [records.mixes[r].scaled(float(records.theta["stable"][r])).matrix()[records.mixes[r].rank > 0] for r in rays]
    )
    names = list(type(records.mixes[0]).__dataclass_fields__)
    return {n: [float(low), float(high)] for n, low, high in zip(names, rows.min(0), rows.max(0), strict=True)}


def _hull(tables: Tables, rule: Rule) -> tuple[dict[str, Any], dict[str, Array]]:
    """Upper limits of all features per number of slots, ranges of ratios, and the slot-safety row."""
    records, points = tables.records, tables.points[rule]
    at_boundary = points.phi[:, len(LOG_FACTORS) // 2]
    slots = tables.slots[points.setting]
    known = np.unique(slots)
    upper = []
    for k in range(len(known)):
        near = np.isin(slots, known[max(0, k - 1) : k + 2])
        upper.append(np.quantile(at_boundary[near], HULL_QUANTILE, axis=0))
    ratios = []
    for numerator, denominator, has_low in RATIOS:
        value = at_boundary[:, [INDEX[n] for n in numerator]].sum(axis=1) / at_boundary[:, INDEX[denominator]]
        low, high = np.quantile(value, [1 - RATIO_QUANTILE, RATIO_QUANTILE])
        ratios.append(
            {
                "numerator": list(numerator),
                "denominator": denominator,
                "low": float(low) if has_low else None,
                "high": float(high),
                # Typical size of the numerator at the boundary makes violations of all rows comparable.
                "size": float(np.median(value * at_boundary[:, INDEX[denominator]])),
            }
        )
    counts = np.maximum(np.array(upper)[:, INDEX["count"]], known)
    upper_array = np.array(upper)
    upper_array[:, INDEX["count"]] = np.minimum(counts, records.counts.max())
    safety = _slot_safety(tables, rule, at_boundary)
    return {"ratios": ratios, "slot_safety": safety}, {"max_loras": known, "upper": upper_array}


def _slot_safety(tables: Tables, rule: Rule, at_boundary: Array) -> dict[str, Any] | None:
    """Slots that are busy at the boundary where adapters > slots: a busy slot is never drained for a cold adapter.

    Only for `stable`: the published rule tolerates cold adapters that starve.
    """
    records, points = tables.records, tables.points[rule]
    crowded = (records.counts > records.max_loras)[points.ray]
    if rule != "stable" or crowded.sum() < 20:
        return None
    itl_ms = records.metrics["itl_mean_ms"]
    near = np.isfinite(itl_ms) & (np.abs(np.log(records.factor / records.theta[rule][records.ray])) < 0.1)
    count, total = (np.bincount(records.ray[near], w, minlength=len(records.mixes)) for w in (None, itl_ms[near]))
    usable = crowded & (count[points.ray] > 0)
    itl = total[points.ray] / np.maximum(count[points.ray], 1)
    settings = [records.settings[s] for s in points.setting]
    log_slots = np.log2([s.max_loras for s in settings])
    log_rank = np.log2([s.max_lora_rank for s in settings])
    design = np.stack([np.ones(len(settings)), log_slots, log_slots**2, log_rank], axis=1)
    weights = np.linalg.lstsq(design[usable], np.log(itl[usable] / 1000.0), rcond=None)[0]
    safety = {"log_token_s": weights.tolist(), "share": 1.0}
    busy = np.array(
        [at_boundary[k] @ token_interval_row(safe_token_s(safety, settings[k])) for k in np.flatnonzero(usable)]
    )
    share = np.quantile(busy / tables.slots[points.setting[usable]], 0.95)
    return {**safety, "share": float(min(1.0, share))}


def _planning_scores(
    tables: Tables, artifact: Artifact, calibration: Calibration, rule: Rule, coverage: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    records, points = tables.records, tables.points[rule]
    held = points.select(tables.held_out[points.ray])
    crowded = (records.counts > records.max_loras)[held.ray]
    facets = {
        s: gauge_facets(artifact, rule, records.settings[s], calibration) for s in np.unique(held.setting).tolist()
    }
    at_boundary = held.phi[:, len(LOG_FACTORS) // 2]
    promise = np.array(
        [-facets[s].violation(phi[None])[0] for s, phi in zip(held.setting.tolist(), at_boundary, strict=True)]
    )

    def margin(part: NDArray[np.bool_]) -> float:
        # Too few held-out rays say nothing about a tail: then a careful default.
        if part.sum() < 20:
            return DEFAULT_CROWDED_MARGIN
        return max(SMALLEST_MARGIN, float(np.quantile(promise[part], coverage)))

    few = records.max_loras[held.ray] <= FEW_SLOTS
    margins = {
        "coverage": coverage,
        "within_slots": margin(~crowded),
        "crowded": [
            {"max_loras_up_to": FEW_SLOTS, "margin": margin(crowded & few)},
            {"max_loras_up_to": None, "margin": margin(crowded & ~few)},
        ],
    }
    errors = ray_crossings(records, rule, held.ray, lambda s, phi: facets[s].violation(phi))
    scores: dict[str, Any] = {"convex": boundary_scores(errors, crowded)}
    surrogate = NeuralSurrogate(artifact, calibration)
    index = RULES.index(rule)

    def judge(setting: int, phi: Array) -> Array:
        distances = surrogate.distance_of_features(phi, [records.settings[setting]] * len(phi))
        return np.asarray(distances.mean(axis=0)[:, index])

    scores["mlp"] = boundary_scores(ray_crossings(records, rule, held.ray, judge), crowded)
    use = tables.healthy[rule] & tables.held_out[records.ray]
    for name, target in loads_of(records).items():
        predicted = np.zeros(len(use))
        for s in np.unique(tables.setting[use]).tolist():
            part = use & (tables.setting == s)
            predicted[part] = hinge_load(artifact, rule, name, records.settings[s], calibration)(tables.phi[part])
        scores["convex"][f"{name}_smape"] = smape(predicted[use], target[use])
    return margins, scores


def loads_of(records: Records) -> dict[str, Array]:
    """N = rate x E2E (requests in system) and B = output-token rate x ITL (requests decoding), (C,) each."""
    metrics = records.metrics
    return {
        "requests_in_system": metrics["requests_in_system"],
        "requests_decoding": metrics["out_throughput_tps"] * metrics["itl_mean_ms"] / 1000.0,
    }


def _metric_scores(tables: Tables, artifact: Artifact, calibration: Calibration) -> dict[str, float]:
    """SMAPE of the free networks on held-out columns that are healthy under `stable`, and on all."""
    records = tables.records
    surrogate = NeuralSurrogate(artifact, calibration)
    held = tables.held_out[records.ray]
    settings = [records.settings[s] for s in tables.setting[held]]
    prediction = surrogate.predict_features(tables.phi[held], settings)
    healthy = tables.healthy["stable"][held]
    scores = {}
    for key, name in (
        ("throughput", "throughput_tps"), ("itl", "itl_mean_ms"), ("e2e", "e2e_mean_s"), ("ttft", "ttft_mean_s"),
    ):  # fmt: skip
        predicted, true = np.asarray(getattr(prediction, name)), records.metrics[name][held]
        scores[f"{key}_smape"] = smape(predicted[healthy], true[healthy])
        scores[f"{key}_smape_all"] = smape(predicted, true)
    return scores
