"""Fits the laws of batch-size measurements: step time, launch gap, KV capacity, co-located servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear, minimize_scalar

from twin.errors import InputError
from twin.server.sharing import Sharing, SharingLaw

Array = NDArray[np.float64]
#: Residuals below this share count as equal in the least-absolute-error iterations.
_ABSOLUTE_FLOOR = 0.005
#: Largest batch with a CUDA graph in that engine.
GRAPH_SEQS = 256


@dataclass(frozen=True, slots=True)
class StepRows:
    """Steps of one model, one a run; all (N,).

    Args:
        separate: prompts were prefilled in steps of their own.
        profiled: the run was traced by nsys, which adds time to each step.
        prefill_share: prefill steps per decode step (separate prefill), else 0.
    """

    model: str
    run_id: Sequence[str]
    running: Array
    kv_tokens: Array
    prompt_per_step: Array
    step_ms: Array
    separate: NDArray[np.bool_]
    profiled: NDArray[np.bool_]
    prefill_share: Array


@dataclass(frozen=True, slots=True)
class StepFit:
    """`base + seq B + kv K/1000 + prompt P`, and what an engine with separate prefill adds, per model; ms.

    Args:
        laws: model -> (base, seq, kv, prompt, prefill step).
        eager_seq, profiler: shared by all models: per request past the largest CUDA graph; of a traced step.
        errors_pct: model -> signed error of each row, (N,).
    """

    laws: dict[str, Array]
    eager_seq: float
    profiler: float
    errors_pct: dict[str, Array]


def fit_steps(rows: Sequence[StepRows], least_kv_ms: dict[str, float], *, without: str = "") -> StepFit:
    """Least absolute relative error over all models at once, coefficients >= 0.

    Running requests and KV tokens rise together in these runs, so that their coefficients trade against each other.
    KV tokens therefore cost at least what the DRAM's peak bandwidth allows (`least_kv_ms`, ms per 1000 tokens); the
    attention kernels alone were measured at 1.08 to 1.12 times that.

    Args:
        without: runs whose id starts with this are left out of the fit; their errors are those of a prediction.
    """
    models = [r.model for r in rows]
    blocks, target, scale = [], [], []
    for k, r in enumerate(rows):
        own = np.column_stack((
            np.ones(len(r.step_ms)), r.running, r.kv_tokens / 1000.0, r.prompt_per_step, r.prefill_share,
        ))  # fmt: skip
        shared = np.column_stack((np.maximum(r.running - GRAPH_SEQS, 0.0), r.profiled.astype(float)))
        block = np.zeros((len(own), 5 * len(rows) + 2))
        block[:, 5 * k : 5 * k + 5], block[:, -2:] = own, shared
        blocks.append(block)
        target.append(r.step_ms - least_kv_ms[r.model] * own[:, 2])
        scale.append(r.step_ms)
    x, y, t = np.concatenate(blocks), np.concatenate(target), np.concatenate(scale)
    used = np.array([not (without and i.startswith(without)) for r in rows for i in r.run_id])
    weight = used.astype(float)
    for _ in range(60):
        found = lsq_linear(x / t[:, None] * weight[:, None], y / t * weight, bounds=(0, np.inf)).x
        weight = used / np.sqrt(np.maximum(np.abs((x @ found - y) / t), _ABSOLUTE_FLOOR))
    error = 100.0 * (x @ found - y) / t
    laws, errors, start = {}, {}, 0
    for k, (model, r) in enumerate(zip(models, rows, strict=True)):
        laws[model] = found[5 * k : 5 * k + 5] + np.array([0, 0, least_kv_ms[model], 0, 0])
        errors[model] = error[start : start + len(r.step_ms)]
        start += len(r.step_ms)
    return StepFit(laws, float(found[-2]), float(found[-1]), errors)


def held_out_pct(rows: Sequence[StepRows], least_kv_ms: dict[str, float], run_ids: str) -> dict[str, float]:
    """MAPE by model of the runs whose id starts with `run_ids`, by laws that have not seen them."""
    fit = fit_steps(rows, least_kv_ms, without=run_ids)
    left_out = {r.model: np.array([i.startswith(run_ids) for i in r.run_id]) for r in rows}
    return {m: float(np.abs(e[left_out[m]]).mean()) for m, e in fit.errors_pct.items() if left_out[m].any()}


def fit_gap(batch: Array, gap_ms: Array) -> tuple[float, float, float]:
    """(base, per request, error in per cent) of the GPU's idle time in a decode step; relative least squares."""
    x = np.column_stack((np.ones(len(batch)), batch)) / gap_ms[:, None]
    base, seq = np.linalg.lstsq(x, np.ones(len(batch)), rcond=None)[0]
    return float(base), float(seq), float(100 * np.abs(x @ np.array([base, seq]) - 1).mean())


@dataclass(frozen=True, slots=True)
class SharedRun:
    """Steps of co-located servers, and of one server alone at the same batch."""

    servers: int
    sharing: Sharing
    running: float
    alone_ms: float
    step_ms: float


def fit_sharing(runs: Sequence[SharedRun], gap: tuple[float, float], neighbour_bytes: float) -> SharingLaw:
    """One number for MPS and one for time sharing, least squares of the relative error of the step time.

    Raises:
        InputError: no run under MPS or none under time sharing.
    """
    law = SharingLaw(gap[0], gap[1], mps_share=1.0, time_sharing_stretch=1.0, neighbour_bytes=neighbour_bytes)
    fitted: dict[Sharing, float] = {}
    limits: dict[Sharing, tuple[float, float]] = {"mps": (0.0, 1.0), "time_sharing": (1.0, 2.0)}
    for sharing, bounds in limits.items():
        chosen = [r for r in runs if r.sharing == sharing and r.servers > 1]
        if not chosen:
            raise InputError(f"no measurement of co-located servers under {sharing}", where="replication.csv")

        def loss(value: float, sharing: Sharing = sharing, chosen: Sequence[SharedRun] = chosen) -> float:
            trial = _with(law, sharing, value)
            errors = [
                trial.step_ms(r.alone_ms, trial.gap_ms(r.running), r.servers, sharing) / r.step_ms - 1 for r in chosen
            ]
            return float(np.square(errors).sum())

        fitted[sharing] = float(minimize_scalar(loss, bounds=bounds, method="bounded").x)
    for sharing, value in fitted.items():
        law = _with(law, sharing, round(value, 4))
    return law


def _with(law: SharingLaw, sharing: Sharing, value: float) -> SharingLaw:
    mps = value if sharing == "mps" else law.mps_share
    stretch = value if sharing == "time_sharing" else law.time_sharing_stretch
    return SharingLaw(law.gap_base_ms, law.gap_seq_ms, mps, stretch, law.neighbour_bytes)


def fit_capacity(max_num_seqs: Array, tokens: Array) -> tuple[float, float]:
    """(tokens at a batch limit of 0, tokens taken by each request of the limit), least squares."""
    slope, base = np.polyfit(max_num_seqs, tokens, 1)
    return float(base), max(0.0, float(-slope))
