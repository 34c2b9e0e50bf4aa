"""A few runs bring a derived law to the truth; without any it stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from profiling.derive.constants import shipped_constants
from profiling.derive.derivation import doubt_of, fitted, law_terms
from profiling.derive.kernels import fit_terms, grid_ms
from profiling.derive.operators import SheetKernels
from profiling.derive.posterior import posterior
from profiling.derive.prior import Prior, law_ends, prior_of, typical_features
from profiling.derive.request import for_names
from profiling.fit.micro import Row, features

REQUEST = for_names("llama-3.1-8b", "h100-sxm")
KERNELS = SheetKernels(REQUEST.model, REQUEST.device)


@pytest.fixture(scope="module")
def prior() -> Prior:
    gpu, _ = fit_terms(grid_ms(KERNELS))
    constants = shipped_constants()
    return prior_of(law_terms(REQUEST, gpu, constants), gpu, doubt_of(REQUEST, KERNELS, constants))


def rows(truth: NDArray[np.float64], count: int, seed: int) -> list[Row]:
    """Runs of random load under a true law, with 2 % of noise."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        batch, slots = float(rng.uniform(5, 600)), float(rng.choice([8, 32, 96, 192]))
        x = features(
            batch, 0.3 * batch, 300 * batch, min(slots, batch), slots=slots, rank=16, waiting=float(rng.uniform(0, 500))
        )
        made.append(Row("run", "", x, float(x @ truth) * float(1 + 0.02 * rng.standard_normal())))
    return made


def error(law: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    tests = rows(truth, 200, 99)
    return float(np.mean([abs(r.features @ law / (r.features @ truth) - 1) for r in tests]))


def test_without_runs_the_prior_stays(prior: Prior) -> None:
    mean, covariance = posterior(prior, [])
    assert np.array_equal(mean, prior.mean)
    assert np.allclose(covariance, prior.covariance, atol=1e-2)


@pytest.mark.parametrize("seed", range(4))
def test_runs_bring_the_law_to_the_truth(prior: Prior, seed: int) -> None:
    rng = np.random.default_rng(seed)
    moved = sum(1.5 * rng.standard_normal() * v for v in prior.factors.values())
    truth = np.maximum(0.0, prior.mean + moved)
    errors = [error(posterior(prior, rows(truth, n, seed))[0], truth) for n in (0, 3, 20)]
    assert errors[2] < 0.025 and errors[2] <= errors[0] + 0.01
    assert errors[1] < max(0.06, errors[0])


def test_coefficients_keep_their_signs(prior: Prior) -> None:
    truth = prior.mean * 0.4
    law, _ = posterior(prior, rows(truth, 20, 5))
    assert law.min() >= 0


def test_the_interval_shrinks_with_runs_but_never_to_nothing(prior: Prior) -> None:
    f = typical_features()
    widths = []
    for n in (0, 3, 20, 200):
        law, covariance = posterior(prior, rows(prior.mean, n, 1))
        slow, fast = law_ends(law, covariance)
        widths.append(float((slow - fast) @ f / (law @ f)))
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0.03


def test_a_fitted_calibration_counts_its_runs(prior: Prior) -> None:
    made = fitted(REQUEST, KERNELS, shipped_constants(), rows(prior.mean, 3, 0), date="")
    assert made.stamp.points == {"runs": 3} and "3 measured runs" in made.stamp.source
    assert made.derived is not None
