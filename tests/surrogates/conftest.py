"""A closed-form stand-in for the twin, and an artifact trained on it in seconds: no kernel, no shipped weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from surrogates.model.artifact import Artifact
from surrogates.model.features import INDEX, adapter_features
from surrogates.training.dataset import METRICS, DatasetSpec, make_dataset
from surrogates.training.records import Records, read_records
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting, setting_grid

SLOTS, RANKS = (8, 32, 128), (8, 16)


def use_of_gpu(column: Column) -> float:
    """Share of an imaginary GPU that a column uses; 1 = the boundary of `published`."""
    phi = adapter_features(column.adapters).sum(axis=0)
    slots, rank = column.setting.max_loras, column.setting.max_lora_rank
    capacity_tps = 9000.0 / (1.0 + slots * rank / 4000.0)
    tokens = phi[INDEX["computed_prompt_rate"]] + phi[INDEX["output_rate"]]
    return float(max(tokens / capacity_tps, phi[INDEX["residence_30ms"]] / slots))


def fake_simulate(column: Column, seed: int) -> Any:
    """Fields of a `SimulationResult` that verdicts and data sets read. `stable` ends at a use of 0.9."""
    use = use_of_gpu(column)
    n = len(column.adapters)
    output_tps = sum(a.rate_req_per_s * a.output_tokens.mean for a in column.adapters)
    itl_ms = 15.0 / max(0.05, 1.1 - use) if use < 1 else 150.0
    row = dict.fromkeys(METRICS, 0.1 + use)
    row |= {
        "served_fraction": min(1.0, 0.9 / use) if use > 0 else 1.0,
        "queue": 2.0 if use > 1 else 0.0,
        "starved": float(use > 1),
        "itl_mean_ms": itl_ms,
        "out_throughput_tps": output_tps * min(1.0, 1 / max(use, 1e-9)),
        "requests_in_system": output_tps * itl_ms / 1000,
        "tpot_mean_ms": itl_ms if use > 0.1 else float("nan"),
    }
    late = np.full(n, 50 if use > 0.9 else 0)
    return SimpleNamespace(
        row=row, counts=np.full(n, 100), late_counts=late, adapters=column.adapters, adapter_sums=np.zeros((3, 6, n))
    )


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    return load_calibration("llama-3.1-8b-h100-64gb")


@pytest.fixture(scope="session")
def settings(calibration: Calibration) -> tuple[EngineSetting, ...]:
    return setting_grid([calibration.stamp.gpu_type], SLOTS, RANKS)


@pytest.fixture(scope="session")
def records(
    tmp_path_factory: pytest.TempPathFactory, calibration: Calibration, settings: tuple[EngineSetting, ...]
) -> Records:
    folder: Path = tmp_path_factory.mktemp("dataset")
    make_dataset(folder, DatasetSpec(rays=60, columns=10, pooled_seeds=1), settings, calibration, fake_simulate)
    return read_records(folder)


@pytest.fixture(scope="session")
def column_phi(records: Records) -> np.ndarray:
    """Summed features of the simulated columns, (C, F)."""
    return records.column_features()


@pytest.fixture(scope="session")
def artifact(records: Records, calibration: Calibration) -> Artifact:
    pytest.importorskip("torch", reason="training needs the extra `train`")
    from surrogates.training.train import TrainingOptions, train

    options = TrainingOptions(
        gauges=2, facets=3, hinges=2, perceptrons=2, hidden=6, perceptron_hidden=16, gauge_steps=200, load_steps=150,
        perceptron_steps=120, batch_size=256,
    )  # fmt: skip
    return train(records, calibration, options)
