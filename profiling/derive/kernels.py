"""The part of a step-time law that the GPU decides: kernel times of a grid of steps, as coefficients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from profiling.derive.operators import Kernels
from profiling.derive.work import Step
from twin.server.laws import step_terms

Array = NDArray[np.float64]

#: Coefficients of `twin.server.laws.StepTimeLaw` that describe kernels without adapters.
KERNEL_TERMS = ("base", "seq", "prompt", "kv", "cliff", "past_graph")
#: Pull of each term's contribution towards zero: what collinear terms share is split between them.
RIDGE = 1e-4
_DECODES = (1, 4, 16, 32, 64, 128, 192, 256, 384, 512, 640, 800, 1000)
_CONTEXTS = (150, 300, 600)
_MIXED_DECODES = (0, 32, 64, 128, 256, 512, 900)
_PROMPTS = (32, 128, 256, 450, 700, 1000, 1500, 2048)

#: Steps that a law is fitted to: pure decode steps, and steps with prompts within a budget of 2048 tokens.
GRID: tuple[Step, ...] = (
    *(Step(b, 0, c) for b in _DECODES for c in _CONTEXTS),
    *(Step(b, p, c) for b in _MIXED_DECODES for p in _PROMPTS for c in (200, 400) if b + p <= 2100),
)


def features(steps: tuple[Step, ...]) -> Array:
    """The law's terms of steps without adapters, (steps, 6), in the order of `KERNEL_TERMS`."""
    rows = [
        step_terms(decodes=s.decodes, prompt=s.prompt, kv_tokens=s.kv_tokens, adapters=0, slots=0, rank=0)
        for s in steps
    ]
    return np.array([[row[name] for name in KERNEL_TERMS] for row in rows])


def grid_ms(kernels: Kernels) -> Array:
    """Kernel times of `GRID`, ms."""
    return np.array([kernels.step_ms(s) for s in GRID])


def fit_terms(times_ms: Array) -> tuple[dict[str, float], float]:
    """Coefficients >= 0 of `KERNEL_TERMS` for times of `GRID`, by relative least squares, and their MAPE in percent."""
    x = features(GRID) / times_ms[:, None]
    pull = np.sqrt(RIDGE * len(GRID) * (x**2).mean(axis=0))
    found, _ = nnls(np.vstack([x, np.diag(pull)]), np.concatenate([np.ones(len(GRID)), np.zeros(len(KERNEL_TERMS))]))
    error = 100 * float(np.abs(x @ found - 1).mean())
    return dict(zip(KERNEL_TERMS, map(float, found), strict=True)), error
