"""Step-time law of recorded steps: from a prior where there is one, with intervals by bootstrap over whole runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiling.fit.micro import Row
from profiling.fit.regression import Recipe, regress, relative_errors
from twin.server.laws import STEP_TERMS

Array = NDArray[np.float64]
#: Without a prior: hardly any pull towards zero, and the noise of single classes of steps.
PLAIN = Recipe(ridge=1e-4, huber=0.15, zero=())
FOLDS = 5
DRAWS = 200
#: Share of a typical step that a term must be able to make up, over all rows, to be worth naming.
NOTICEABLE = 0.01
#: A term whose interval is wider than this share of its value is not known well.
WIDE = 1.0

Solve = Callable[[Sequence[Row]], Array]
#: What to record so that a term can be told from the others.
REMEDIES = {
    "base": "batches of one request: batches=[1,...]",
    "seq": "batches of several sizes",
    "prompt": "prompts of several lengths: prompts=[16,256,1024]",
    "kv": "long contexts: larger prompts",
    "cliff": "batches beyond the CUDA graphs",
    "past_graph": "batches and prompts beyond the CUDA graphs",
    "plain_large": "base-model batches above 256 tokens",
    "lora": "batches of the base model beside batches with one adapter",
    "adapter": "batches with several numbers of adapters",
    "adapter_rank": "several max_lora_rank: ranks=[8,32]",
    "lora_rank": "several max_lora_rank: ranks=[8,32]",
    "slot": "several max_loras: slots=[4,16,64]",
    "slot_square": "three max_loras or more: slots=[4,16,64]",
    "slot_token": "several max_loras with small and large batches",
    "lora_token": "small and large batches with one adapter",
    "adapter_token": "large batches with few and with many adapters",
    "adapter_small": "batches below and above 128 tokens with many adapters",
    "adapter_large": "batches beyond the CUDA graphs with many adapters",
    "skipped": "a workload beyond saturation with more adapters than slots",
    "skipped_seq": "a workload beyond saturation with more adapters than slots",
    "queue": "a workload beyond saturation",
}


@dataclass(frozen=True, slots=True)
class Solution:
    """A fitted law.

    Args:
        coefficients: in the order of `STEP_TERMS`, (21,).
        low, high: central 80 % of the bootstrap, (21,).
        error_pct, held_out_error_pct: weighted mean absolute error of rows, and of rows of runs left out of the fit.
        unknown: term -> why it is not known, and the measurement that would tell.
    """

    coefficients: Array
    low: Array
    high: Array
    error_pct: float
    held_out_error_pct: float
    unknown: dict[str, str]


def solve_plain(rows: Sequence[Row]) -> Array:
    """The law without a prior."""
    return regress(rows, PLAIN)


def fitted_law(rows: Sequence[Row], solve: Solve, seed: int = 0) -> Solution:
    """Fits, cross-validates by whole run and draws the bootstrap."""
    best = solve(rows)
    groups = sorted({r.group for r in rows})
    members = {g: [r for r in rows if r.group == g] for g in groups}
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(DRAWS):
        some = rng.choice(groups, len(groups))
        drawn.append(solve([r for g in some for r in members[g]]))
    low, high = np.quantile(np.array(drawn), [0.1, 0.9], axis=0)
    errors = []
    for fold in range(min(FOLDS, len(groups))):
        out = set(groups[fold::FOLDS])
        seen = [r for r in rows if r.group not in out]
        if seen:
            errors.append(([r for r in rows if r.group in out], solve(seen)))
    held = [(r, e) for left, c in errors for r, e in zip(left, np.abs(relative_errors(left, c)), strict=True)]
    return Solution(
        best, low, high, _mean_pct([r.weight for r in rows], np.abs(relative_errors(rows, best))),
        _mean_pct([r.weight for r, _ in held], np.array([e for _, e in held])), unknown_terms(rows, best, low, high),
    )  # fmt: skip


def _mean_pct(weights: Sequence[float], errors: Array) -> float:
    w = np.array(weights)
    return float(100 * (w * errors).sum() / w.sum()) if len(w) else float("nan")


def unknown_terms(rows: Sequence[Row], best: Array, low: Array, high: Array) -> dict[str, str]:
    """Terms that the rows do not tell: never there, never varied, or with a wide interval."""
    x = np.array([r.features for r in rows])
    y = np.array([r.target_ms for r in rows])
    found = {}
    for k, name in enumerate(STEP_TERMS):
        remedy = REMEDIES[name]
        present = x[:, k] > 0
        if not present.any():
            found[name] = f"no step had it; record {remedy}"
        elif name != "base" and np.ptp(x[present, k]) == 0 and present.all():
            found[name] = f"the same in every step; record {remedy}"
        else:
            share = float((x[:, k] * (high[k] - low[k]) / y).mean())
            if share > NOTICEABLE and high[k] - low[k] > WIDE * best[k]:
                found[name] = f"between {low[k]:.4g} and {high[k]:.4g}, it trades with others; record {remedy}"
    return found
