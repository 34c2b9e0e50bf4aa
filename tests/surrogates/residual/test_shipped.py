"""The weights that ship belong to this physics, and their recorded scores are what the page promises."""

from __future__ import annotations

import numpy as np
import pytest

from surrogates.residual.probe import probe
from surrogates.residual.weights import Residual, read_residual


@pytest.fixture(scope="module")
def shipped() -> Residual:
    return read_residual()


def test_the_physics_is_the_one_that_the_weights_were_trained_with(shipped: Residual) -> None:
    """If not: `python -m surrogates residual`; the rays stay as they are."""
    np.testing.assert_allclose(probe(), shipped.meta["physics_probe"], rtol=1e-6, atol=1e-6)


def test_the_correction_helps_on_rays_left_out(shipped: Residual) -> None:
    scores = shipped.meta["scores_of_rays_left_out"]
    for regime, hybrid in scores["hybrid"].items():
        for name in ("theta_error_median_pct", "theta_error_p90_pct"):
            assert hybrid[name] < scores["physics"][regime][name], (regime, name)
    for name in ("requests_in_system", "running", "itl_mean_s", "ttft_mean_s", "ttft_p99_s"):
        key = f"{name}_error_median_pct"
        assert scores["hybrid"]["all"][key] < scores["physics"]["all"][key]


def test_intervals_hold_nine_tenths(shipped: Residual) -> None:
    for name, percent in shipped.meta["scores_of_rays_left_out"]["interval_90_pct_holds_pct"].items():
        assert percent == pytest.approx(90.0, abs=2.0), name


def test_the_weights_are_small(shipped: Residual) -> None:
    arrays = shipped.boundary.arrays("b") | shipped.column.arrays("c")
    assert sum(a.nbytes for a in arrays.values()) < 500_000
