"""A fit that starts from the derived law and moves it as far as the records say.

Bayesian linear regression (`profiling.derive.posterior`). Where the records contradict the prior, i.e. its posterior
misses them by much more than a fit without it, the prior's covariance is widened step by step until it does not: what
the records tell is then theirs, and what they cannot tell stays as derived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from profiling.derive.architecture import Architecture
from profiling.derive.constants import shipped_constants
from profiling.derive.derivation import doubt_of, law_terms
from profiling.derive.kernels import fit_terms, grid_ms
from profiling.derive.posterior import posterior
from profiling.derive.prior import Prior, prior_of
from profiling.derive.request import device_of, kernels_of
from profiling.derive.target import Request
from profiling.fit.micro import Row
from profiling.fit.regression import relative_errors
from profiling.measured.fitting import Solve, solve_plain
from twin.config.folder import conf_dir
from twin.errors import InputError

#: Factors on the prior's standard deviations that are tried, in this order.
WIDENINGS = tuple(2.0**k for k in range(11))
#: A posterior that misses the records by so much more than a fit without prior contradicts them: factor, and absolute.
WORSE, WORSE_BY = 1.25, 0.01


@dataclass(frozen=True, slots=True)
class Start:
    """Where a fit starts.

    Args:
        name: of the derived calibration.
        widened: factor on its standard deviations; 1 = the records agree with it.
    """

    name: str
    widened: float
    solve: Solve


def request_of_hardware(name: str, model: Architecture, hardware: str, engine: Any) -> Request:
    """What to derive for an option of `conf/hardware`.

    Raises:
        InputError: there is no such option, or its data sheet is not complete.
    """
    path = conf_dir() / "hardware" / f"{hardware}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in Path(conf_dir() / "hardware").glob("*.yaml")))
        raise InputError(f"hardware {hardware!r} is not known", where="hardware", remedy=f"one of: {known}; or none")
    flags = (int(engine[key]) for key in ("tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens"))
    return Request(name, model, device_of(yaml.safe_load(path.read_text())), version_of(engine), *flags)


def version_of(engine: Any) -> str:
    """The engine's version without what a build adds to it: `0.32.0` of `0.32.0+cpu`."""
    return str(engine["version"]).partition("+")[0]


def start_of(request: Request, rows: Sequence[Row]) -> Start:
    """The prior, as wide as the records need it."""
    kernels = kernels_of(request)
    gpu, _ = fit_terms(grid_ms(kernels))
    prior = prior_of(law_terms(request, gpu, shipped_constants()), gpu, doubt_of(request, kernels, shipped_constants()))
    limit = WORSE * _error(rows, solve_plain(rows)) + WORSE_BY
    for factor in WIDENINGS:
        solve = _solver(wider(prior, factor))
        if _error(rows, solve(rows)) <= limit:
            break
    return Start(request.name, factor, solve)


def wider(prior: Prior, factor: float) -> Prior:
    """The prior with all standard deviations times a factor."""
    factors = {name: factor * vector for name, vector in prior.factors.items()}
    return replace(prior, factors=factors, traded=factor**2 * prior.traded)


def _solver(prior: Prior) -> Solve:
    def solve(rows: Sequence[Row]) -> NDArray[np.float64]:
        return posterior(prior, rows)[0]

    return solve


def _error(rows: Sequence[Row], coefficients: NDArray[np.float64]) -> float:
    weight = np.array([r.weight for r in rows])
    return float((weight * np.abs(relative_errors(rows, coefficients))).sum() / weight.sum())
