"""The NumPy forward passes equal torch to 1e-5, whatever the weights."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from surrogates.model.forward import facets_of, hinges_of, perceptron  # noqa: E402
from surrogates.model.planning import HingeLoad, Polyhedron  # noqa: E402
from surrogates.training.networks import HingeSum, MaxAffine, Perceptron, stack_blocks  # noqa: E402

FEATURES, CONTEXTS = 21, 8


def tables(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(40, FEATURES)), rng.normal(size=(5, CONTEXTS)), rng.integers(5, size=40)


@pytest.mark.parametrize("seed", range(3))
def test_gauge(seed: int) -> None:
    torch.manual_seed(seed)
    phi, context, setting = tables(seed)
    net = MaxAffine(FEATURES, CONTEXTS, facets=6, hidden=16)
    with torch.no_grad():
        expected = net(torch.tensor(phi).float(), torch.tensor(context).float(), torch.tensor(setting)).numpy()
    found = [
        Polyhedron(*facets_of(net.hyper.block(), context[s], FEATURES)).violation(phi[k : k + 1])[0]
        for k, s in enumerate(setting)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_load(seed: int) -> None:
    torch.manual_seed(seed)
    phi, context, setting = tables(seed)
    net = HingeSum(FEATURES, CONTEXTS, hinges=4, hidden=16, unit=7.0)
    with torch.no_grad():
        expected = net(torch.tensor(phi).float(), torch.tensor(context).float(), torch.tensor(setting)).numpy()
    found = [
        HingeLoad(*hinges_of(net.block(), context[s], FEATURES), 0.0)(phi[k : k + 1])[0] for k, s in enumerate(setting)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_ensemble_in_chunks() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(1100, 12))
    nets = [Perceptron(12, 3, hidden=16) for _ in range(3)]
    ends = {"in_mean": np.ones(12), "in_std": np.full(12, 2.0), "out_mean": np.arange(3.0), "out_std": np.full(3, 0.5)}
    found = perceptron(stack_blocks([n.block() for n in nets]) | ends, x)
    with torch.no_grad():
        scaled = torch.tensor((x - 1) / 2).float()
        expected = np.stack([n(scaled).numpy() for n in nets]) * 0.5 + np.arange(3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_soft_maximum_anneals_to_the_hard_one() -> None:
    phi, context, setting = (torch.tensor(t) for t in tables(1))
    net = MaxAffine(FEATURES, CONTEXTS, facets=6, hidden=16)
    arguments = (phi.float(), context.float(), setting)
    with torch.no_grad():
        gap = [float((net(*arguments, t) - net(*arguments)).abs().max()) for t in (0.3, 0.03, 0.003)]
    assert gap[0] > gap[1] > gap[2]
    assert gap[2] < 0.01
