"""NumPy gives what torch gives, uncertainty is calibrated, a seed gives the same weights, no input names a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from surrogates.residual.forward import LEAST_LOG_SCALE, MOST_LOG_SCALE
from surrogates.residual.heads import BOUNDARY_INPUTS
from surrogates.residual.inputs import INPUTS
from surrogates.residual.networks import Ensemble
from surrogates.residual.scores import coverage
from surrogates.residual.shards import Ray
from surrogates.residual.training import ResidualOptions, fit, folds_of, train_residual
from surrogates.residual.weights import Residual, read_residual
from twin.errors import InputError
from twin.server.calibration import Calibration, calibration_dir

Made = tuple[list[Ray], dict[str, Calibration], dict[str, Any]]
OPTIONS = ResidualOptions(hidden=16, batch_size=256, logger="none", dropout=0.0)


def synthetic(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (P, 3) and targets (P, 2) whose spread depends on the inputs; a tenth of the second is unknown."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (samples, 3))
    spread = np.exp(1.5 * x[:, 1])
    y = np.stack([np.sin(2 * x[:, 0]) + 0.1 * spread * rng.laplace(size=samples), x[:, 2] ** 2], axis=1)
    y[rng.random(samples) < 0.1, 1] = np.nan
    return x, y


def test_evaluation_without_torch_gives_what_torch_gives() -> None:
    torch.manual_seed(0)
    net = Ensemble(members=4, inputs=11, outputs=3, hidden=24, dropout=0.3).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = np.random.default_rng(0).normal(size=(700, 11))
    fitted = fit(x, np.zeros((700, 3)), folds_of(700, 4, 0), _tiny(4), steps=1, name="test").network
    network = replace(fitted, **net.arrays())
    scaled = (np.clip(x, network.in_low, network.in_high) - network.in_mean) / network.in_std
    with torch.no_grad():
        mean, log_scale = net(torch.as_tensor(scaled, dtype=torch.float32))
    ours, limits = network.members(x), (LEAST_LOG_SCALE, MOST_LOG_SCALE)
    np.testing.assert_allclose(ours[..., :3], mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.clip(ours[..., 3:], *limits), log_scale, rtol=1e-5, atol=1e-5)
    predicted, scale = network.predict(x)
    of_all = mean.numpy().mean(0)
    expected = of_all * network.out_std + network.out_mean
    np.testing.assert_allclose(predicted, np.clip(expected, network.out_low, network.out_high), atol=1e-5)
    spread = np.exp(log_scale.numpy()).mean(0) + np.abs(mean.numpy() - of_all).mean(0)
    np.testing.assert_allclose(scale, spread * network.out_std, rtol=1e-4)


def _tiny(folds: int) -> ResidualOptions:
    return ResidualOptions(members=folds, folds=folds, hidden=24, logger="none")


def test_uncertainty_is_calibrated_where_the_spread_varies() -> None:
    x, y = synthetic(3000, 0)
    options = replace(OPTIONS, hidden=32, rate=0.01)
    fitted = fit(x, y, folds_of(len(x), 5, 0), options, steps=1000, name="test")
    fresh_x, fresh_y = synthetic(3000, 1)
    mean, scale = fitted.network.predict(fresh_x)
    limits = [fitted.network.quantile(mean[:, 0], scale[:, 0], 0, q) for q in (0.05, 0.95)]
    assert coverage(fresh_y[:, 0], *limits) == pytest.approx(90.0, abs=3.0)
    noisy = fresh_x[:, 1] > 0.5
    for part in (noisy, fresh_x[:, 1] < -0.5):
        assert coverage(fresh_y[part, 0], limits[0][part], limits[1][part]) == pytest.approx(90.0, abs=6.0)
    assert np.median(scale[noisy, 0]) > 2 * np.median(scale[~noisy, 0])
    assert np.nanmedian(np.abs(fresh_y[:, 1] - mean[:, 1])) < 0.1


def test_the_same_rays_and_seed_give_the_same_weights(rays: Made, residual: Residual, tmp_path: Path) -> None:
    again = train_residual(*rays, ResidualOptions(**residual.meta["options"]))
    for name, array in residual.boundary.arrays("b").items():
        np.testing.assert_array_equal(again.boundary.arrays("b")[name], array)
    residual.write(tmp_path)
    read = read_residual(tmp_path)
    for name, array in residual.column.arrays("c").items():
        np.testing.assert_array_equal(read.column.arrays("c")[name], array)
    assert read.meta["rays"]["spec"] == residual.meta["rays"]["spec"]


def test_no_input_names_a_gpu_or_a_model() -> None:
    words = {w for path in calibration_dir().glob("*.yaml") for w in path.stem.replace(".", "-").split("-")}
    for name in (*INPUTS, *BOUNDARY_INPUTS):
        assert not words & set(name.split("@")[0].split("_")), name


def test_members_tell_about_rays_that_they_left_out() -> None:
    """With targets that are pure noise, known only by heart, held-out errors must not be smaller than the noise."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 8)), rng.normal(size=(60, 1))
    fitted = fit(x, y, folds_of(60, 5, 0), OPTIONS, steps=400, name="test")
    assert np.mean(np.abs(y - fitted.mean)) > 0.7 * np.mean(np.abs(y - np.median(y)))
    by_heart, _ = fitted.network.predict(x)
    assert np.mean(np.abs(y - by_heart)) < np.mean(np.abs(y - fitted.mean))


def test_calibrations_left_out_are_named(rays: Made) -> None:
    with pytest.raises(InputError, match="of which there are no rays"):
        train_residual(*rays, OPTIONS, without=["qwen2.5-7b-h100-64gb"])
    with pytest.raises(InputError, match="0 rays are too few"):
        train_residual(*rays, OPTIONS, without=["llama-3.1-8b-h100-64gb"])


def test_logs_of_a_fit_are_written(tmp_path: Path) -> None:
    x, y = synthetic(100, 0)
    options = ResidualOptions(hidden=4, batch_size=50, logger="csv")
    fit(x, y, folds_of(100, 5, 0), options, steps=25, name="column", logs=tmp_path)
    assert "loss" in (tmp_path / "column" / "version_0" / "metrics.csv").read_text()
    with pytest.raises(InputError, match="logger 'paper' is not known"):
        ResidualOptions(logger="paper")
