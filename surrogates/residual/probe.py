"""A few fixed columns that show whether the physics is the one that weights were trained with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from surrogates.residual.heads import BOUNDARY_LOADS, boundary_inputs
from surrogates.residual.mixes import PUBLISHED_OUTPUT, PUBLISHED_PROMPT, Draw, Mix
from surrogates.residual.samples import ray_model, states_at
from twin.server.calibration import load_calibration
from twin.server.settings import EngineSetting
from twin.workload.adapter import DEFAULT_TTFT_P99_S, PUBLISHED_OUTPUT_CV, PUBLISHED_PROMPT_CV

Floats = NDArray[np.float64]

CALIBRATION = "llama-3.1-8b-h100-64gb"
#: Adapters, slots and arrival CV of each.
COLUMNS = ((20, 32, 1.0), (200, 64, 1.0), (12, 8, 1.0), (30, 32, 6.0))


def probe() -> Floats:
    """Inputs of the correction of theta* of all columns, (P, len(BOUNDARY_INPUTS)).

    Weights keep them (`physics_probe` in their JSON). If they differ the physics was changed: train again on the same
    rays, `python -m surrogates residual`.
    """
    calibration = load_calibration(CALIBRATION)
    rows = []
    for count, slots, arrival_cv in COLUMNS:
        same: Floats = np.ones(count)
        rates = np.linspace(0.01, 0.01 * count, count)
        mix = Mix(
            rank=16.0 * same,
            rate_req_per_s=rates,
            prompt_mean=PUBLISHED_PROMPT * same,
            prompt_cv=PUBLISHED_PROMPT_CV * same,
            output_mean=PUBLISHED_OUTPUT * same,
            output_cv=PUBLISHED_OUTPUT_CV * same,
            arrival_cv=arrival_cv * same,
            cached_prompt_fraction=0.0 * same,
            length_correlation=0.0 * same,
        )
        drawn = Draw(mix, EngineSetting(calibration.gpu.name, slots, 16), "probe", DEFAULT_TTFT_P99_S, 0)
        model, _ = ray_model(drawn, calibration)
        largest = float(model.largest_loads([np.arange(count)], [drawn.setting])[0])
        rows.append(boundary_inputs(states_at(model, drawn, largest * np.array(BOUNDARY_LOADS))))
    return np.concatenate(rows)
