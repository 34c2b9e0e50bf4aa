"""A closed-form stand-in for the twin, rays that it labels, and a residual trained on them in seconds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from surrogates.residual.rays import RaySpec, make_rays
from surrogates.residual.shards import METRICS, Ray, read_rays
from surrogates.residual.weights import Residual
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column

GRID = {"max_loras": [8, 64], "max_lora_rank": [8, 16]}
SPEC = RaySpec(
    calibrations=("llama-3.1-8b-h100-64gb",), rays=6, around=1, rays_around=4, grid=GRID, shard_size=2, inside=2
)


def fake_simulate(column: Column, calibration: Calibration, seed: int, slo_s: float) -> Any:
    """Fields of a `SimulationResult` that are read. A server here does 4,000 tokens/s per 10 ms of its base step."""
    tokens = sum(a.rate_req_per_s * (a.prompt_tokens.mean + a.output_tokens.mean) for a in column.adapters)
    use = tokens * calibration.step.base / 40_000.0
    luck = 1.0 + 0.02 * np.random.default_rng([seed, len(column.adapters)]).standard_normal()
    row = dict.fromkeys(METRICS, 0.1 + use * luck)
    row |= {"queue": 2.0 if use * luck > 1 else 0.0, "late_fraction": min(1.0, 0.01 * use**8)}
    late = np.full(len(column.adapters), 50 if use * luck > 1 else 0)
    n = len(late)
    return SimpleNamespace(
        row=row, counts=np.full(n, 100), late_counts=late, adapters=column.adapters, adapter_sums=np.zeros((3, 6, n))
    )


def shipped(spec: RaySpec = SPEC) -> list[Calibration]:
    return [load_calibration(name) for name in spec.calibrations]


@pytest.fixture(scope="session")
def rays(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Ray], dict[str, Calibration], dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("rays")
    spec = RaySpec(SPEC.calibrations, rays=30, around=1, rays_around=10, grid=GRID, shard_size=20, inside=2)
    make_rays(folder, spec, shipped(), fake_simulate)
    return read_rays(folder)


@pytest.fixture(scope="session")
def residual(rays: tuple[list[Ray], dict[str, Calibration], dict[str, Any]]) -> Residual:
    pytest.importorskip("torch", reason="training needs the extra `train`")
    from surrogates.residual.training import ResidualOptions, train_residual

    options = ResidualOptions(hidden=12, boundary_steps=40, column_steps=40, batch_size=64, logger="none")
    return train_residual(*rays, options)
