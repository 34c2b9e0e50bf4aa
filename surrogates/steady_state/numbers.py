"""State numbers: dimensionless figures of a steady state that know neither GPU nor model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.state import SteadyState

Floats = NDArray[np.float64]

#: Names of the columns of `state_numbers`, (F,).
STATE_NUMBERS: tuple[str, ...] = (
    "log_pace_in_base_steps",
    "elasticity",
    "log_decoding",
    "log_decoding_dispersion",
    "kv_share",
    "kv_share_spread",
    "log_kv_wait_chance",
    "slots_share",
    "slots_share_spread",
    "log_slots_full",
    "log_slot_wait_in_promises",
    "log_loads_per_step",
    "blocked_share",
    "log_disk_loads_per_step",
    "log_adapters_per_slot",
    "log_adapters",
    "log_max_loras",
    "log_escapes_per_h",
    "log_late_share",
    "log_adapter_late_share",
    "log_ttft_p99_in_promises",
    "budget_use",
    "seqs_use",
    "decode_share",
    "kv_read_share",
    "prompt_share",
    "lora_share",
    "past_graph_share",
    "log_prompt_tokens_per_decoding",
    "log_stay_in_steps",
    "arrival_cv",
    "log_effective_adapters",
    "has_steady_state",
)
#: Logarithms of probabilities and counts are taken of at least this.
LEAST = 1e-9


def state_numbers(state: SteadyState) -> Floats:
    """Numbers of P columns, (P, F), in the order of `STATE_NUMBERS`; 0 where a column has no steady state."""

    def log(values: Floats) -> Floats:
        logs: Floats = np.log(np.clip(values, LEAST, 1 / LEAST))
        return logs

    pace_s = state.pace_s
    rows = {
        "log_pace_in_base_steps": log(pace_s / state.base_s),
        "elasticity": state.elasticity,
        "log_decoding": log(state.decoding),
        "log_decoding_dispersion": log(state.decoding_variance / np.maximum(state.decoding, LEAST)),
        "kv_share": state.kv_share,
        "kv_share_spread": state.kv_share_spread,
        "log_kv_wait_chance": log(state.kv_wait_chance),
        "slots_share": state.distinct_adapters / state.max_loras,
        "slots_share_spread": state.distinct_spread / state.max_loras,
        "log_slots_full": log(state.slots_full),
        "log_slot_wait_in_promises": log(state.slot_wait_s / state.ttft_slo_s),
        "log_loads_per_step": log(state.loads_per_s * pace_s),
        "blocked_share": state.blocked_share,
        "log_disk_loads_per_step": log(state.disk_loads_per_s * pace_s),
        "log_adapters_per_slot": log(state.adapters / state.max_loras),
        "log_adapters": np.log1p(state.adapters),
        "log_max_loras": log(state.max_loras),
        "log_escapes_per_h": log(state.escapes_per_h),
        "log_late_share": log(state.late_share),
        "log_adapter_late_share": log(state.adapter_late_share),
        "log_ttft_p99_in_promises": log(state.ttft_p99_s / state.ttft_slo_s),
        "budget_use": state.budget_use,
        "seqs_use": state.seqs_use,
        "decode_share": state.decode_share,
        "kv_read_share": state.kv_read_share,
        "prompt_share": state.prompt_share,
        "lora_share": state.lora_share,
        "past_graph_share": state.past_graph_share,
        "log_prompt_tokens_per_decoding": log(state.prompt_tokens_per_step / np.maximum(state.decoding, LEAST)),
        "log_stay_in_steps": log(state.stay_steps),
        "arrival_cv": state.arrival_cv,
        "log_effective_adapters": log(state.effective_adapters),
        "has_steady_state": np.isfinite(pace_s).astype(np.float64),
    }
    stacked = np.stack([rows[name] for name in STATE_NUMBERS], axis=1)
    return np.where(np.isfinite(stacked), stacked, 0.0)
