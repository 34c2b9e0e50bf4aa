r"""Planning model in closed form: the calibration's step law, linearised. No training.

At a design step time s (seconds per output token) a GPU carries a column if one step takes at most s:

.. math:: c_0 + c_n n(s) + 1000\, s\, u \le 1000\, s

with :math:`c_0` the step's fixed milliseconds, :math:`n(s) = \sum_i (1 - e^{-r_i o_i s})` the adapters in a step and
u the share of a second that tokens cost: each request brings prompt and output tokens, and keeps KV tokens resident.
KV memory and slots are linear as well: the requests that are resident at step time s must fit. Design times lie where
a GPU is well used but not yet ruled by queues; the model is convex, monotone and cautious, not accurate: errors of
10-30 % against the twin are normal. Used for tests, and by name (`surrogate=analytic`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surrogates.model.features import FEATURE_NAMES, INDEX, TOKEN_S, adapter_features
from surrogates.model.planning import HingeLoad, OptionModel, Polyhedron
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.memory import kv_cache_tokens, memory_error
from twin.server.settings import DEFAULT_MAX_NUM_SEQS, EngineSetting
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]

#: Share of its time that a GPU spends on tokens (the rest are fixed costs of steps) at the design step time.
DESIGN_SHARE = 0.6
#: Share of the KV cache and of the slots that may be in use on average.
FILL = 0.85
#: Compute fills between which the extra decoding time is taken as linear; beyond the last it grows `OVERLOAD` times
#: as fast as before.
KNOTS = (0.0, 0.4, 0.7, 0.9, 1.0)
OVERLOAD = 4.0
#: Lengths of the reference mix that says how many requests a full GPU decodes, tokens.
REFERENCE_PROMPT, REFERENCE_OUTPUT = 225.0, 200.0
MOST_ADAPTERS = 384


@dataclass(frozen=True, slots=True)
class AnalyticSurrogate:
    """Closed-form `PlanningModel`.

    Args:
        calibrations: of each GPU type name.
        margin: share of a GPU that feasibility keeps free; `outer` keeps none.
        slot_margin: slots that the slot-safety row keeps free, as a share of the slots.
    """

    calibrations: Mapping[str, Calibration]
    margin: float = 0.08
    slot_margin: float = 0.1

    def features(self, adapters: Sequence[Adapter]) -> Array:
        """Additive features, (N, F); see `surrogates.model.features`.

        Raises:
            InputError: an adapter needs a slot, and a calibration was measured without adapters.
        """
        if any(a.rank > 0 for a in adapters):
            for calibration in self.calibrations.values():
                if not calibration.has_adapter_costs:
                    raise InputError(
                        f"calibration {calibration.name!r} was measured without adapters",
                        where="surrogate=analytic",
                        remedy="serve base-model requests only (rank 0), or choose a calibration with adapter costs",
                    )
        return adapter_features(adapters)

    def option(self, setting: EngineSetting) -> OptionModel:
        """Facets and loads of one setting.

        Raises:
            InputError: no calibration for the GPU type, or the server would not start.
        """
        calibration = self.calibrations.get(setting.gpu_type)
        if calibration is None:
            raise InputError(
                f"no calibration for GPU type {setting.gpu_type!r}",
                where="surrogate=analytic",
                remedy=f"choose one of: {', '.join(sorted(self.calibrations))}",
            )
        reason = memory_error(setting, calibration)
        if reason is not None:
            raise InputError(f"setting {setting.label} does not start: {reason}", remedy="leave the setting out")
        if setting.servers_per_gpu > 1:
            raise InputError(
                f"setting {setting.label}: servers_per_gpu {setting.servers_per_gpu} is not 1, what the closed form is "
                "for",
                where="engine.servers_per_gpu",
                remedy="use servers_per_gpu=1; python -m placement.batching advises on replicas",
            )
        step_s, fixed_ms = design_step(setting, calibration)
        busy = _share_of_time(setting, calibration)
        active = _active_adapters(step_s)
        room_ms = 1000 * step_s - fixed_ms
        compute = (1000 * step_s * busy + _per_adapter(setting, calibration) * active) / room_ms
        memory = step_s * _resident_kv() / (FILL * kv_cache_tokens(setting, calibration))
        rows = [compute, memory]
        if setting.max_num_seqs < DEFAULT_MAX_NUM_SEQS:
            rows.append(_unit(output_rate=step_s) / setting.max_num_seqs)
        outer = Polyhedron(np.stack(rows), np.full(len(rows), -1.0))
        slots = Polyhedron((active / setting.max_loras)[None], np.array([-(1.0 - self.slot_margin)]))
        decoding, in_system = _loads(compute, fixed_ms / 1000, step_s, busy)
        return OptionModel(
            setting=setting,
            feasible=outer.shifted(self.margin),
            outer=outer,
            hull=slots,
            requests_in_system=in_system,
            requests_decoding=decoding,
            max_adapters=setting.max_cpu_loras or MOST_ADAPTERS,
        )


def design_step(setting: EngineSetting, calibration: Calibration) -> tuple[float, float]:
    """Step time at the design point, seconds, and a step's fixed milliseconds.

    Slots cost time whether used or not, so larger settings are designed for longer steps.
    """
    law = calibration.step
    slots = setting.max_loras
    fixed = law.base + law.lora + law.lora_rank * setting.max_lora_rank / 16
    fixed += law.slot * slots + law.slot_square * slots**2 / 1000
    half_active = _per_adapter(setting, calibration) * setting.max_loras / 2
    return float(np.clip((fixed + half_active) / 1000 / (1 - DESIGN_SHARE), TOKEN_S[0], TOKEN_S[-1])), fixed


def _per_adapter(setting: EngineSetting, calibration: Calibration) -> float:
    """Milliseconds of a step per distinct adapter in it."""
    return calibration.step.adapter + calibration.step.adapter_rank * setting.max_lora_rank / 16


def _unit(**weights: float) -> Array:
    vector = np.zeros(len(FEATURE_NAMES))
    for name, weight in weights.items():
        vector[INDEX[name]] = weight
    return vector


def _resident_kv() -> Array:
    """KV tokens resident per second of step time: prompt for all steps, output for half of them on average."""
    return _unit(kv_rate=1.0, output_square_rate=0.5)


def _share_of_time(setting: EngineSetting, calibration: Calibration) -> Array:
    """Seconds of GPU time per second that tokens cost: features -> u."""
    law = calibration.step
    per_token = law.slot_token * setting.max_loras / 1000 + law.lora_token
    milliseconds = (
        _unit(output_rate=law.seq + per_token)
        + _unit(computed_prompt_rate=law.prompt + per_token)
        + law.kv / 1000 * _resident_kv()
    )
    return milliseconds / 1000


def _active_adapters(step_s: float) -> Array:
    """Expected adapters with a running request at a step time, interpolated between the residence features."""
    grid = np.array(TOKEN_S)
    upper = int(np.clip(np.searchsorted(grid, step_s), 1, len(grid) - 1))
    weight = (step_s - grid[upper - 1]) / (grid[upper] - grid[upper - 1])
    names = [f"residence_{1000 * tau:g}ms" for tau in grid]
    return _unit(**{names[upper - 1]: 1 - weight, names[upper]: weight})


def _loads(fill: Array, idle_s: float, design_s: float, busy: Array) -> tuple[HingeLoad, HingeLoad]:
    """Requests decoding (B) and in system (N) as hinges of the compute fill f.

    A token takes `idle_s / (1 - f (1 - idle_s / design_s))`: `idle_s` when idle, `design_s` when full. The requests
    that this adds to B are taken from the reference mix and made piecewise linear.
    """
    reference = _unit(
        output_rate=REFERENCE_OUTPUT,
        computed_prompt_rate=REFERENCE_PROMPT,
        kv_rate=REFERENCE_OUTPUT * REFERENCE_PROMPT,
        output_square_rate=REFERENCE_OUTPUT**2,
    )
    # output tokens per second of the reference mix that fill a GPU
    full_rate = DESIGN_SHARE / float(busy @ reference) * REFERENCE_OUTPUT
    knots = np.array(KNOTS)
    extra = knots * full_rate * (idle_s / (1 - knots * (1 - idle_s / design_s)) - idle_s)
    slopes = np.append(np.diff(extra) / np.diff(knots), 0.0)
    slopes[-1] = OVERLOAD * slopes[-2]
    W, b, v = np.repeat(fill[None], len(knots), axis=0), -knots, np.diff(slopes, prepend=0.0)
    decoding = HingeLoad(W, b, v, _unit(output_rate=idle_s), 0.0)
    # a new request waits for the step under way, then for its prompt
    return decoding, HingeLoad(W, b, v, _unit(output_rate=idle_s, rate=1.5 * design_s), 0.0)
