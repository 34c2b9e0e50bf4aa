"""Inputs of the networks: dimensionless numbers of a steady state, computed in compiled code.

They are `surrogates.steady_state.numbers.STATE_NUMBERS` and a few more. A table says how each is made of fields of
`SteadyState`, so that one loop computes all of them in about a microsecond a column.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.numbers import LEAST
from surrogates.steady_state.state import PLACE, SteadyState
from twin.compiled import compiled

Floats = NDArray[np.float64]

HOUR_S = 3600.0
#: A number is a quotient as it is, its logarithm, the logarithm of 1 + it, or whether it is known.
PLAIN, LOG, LOG_OF_MORE, KNOWN = range(4)


class Number(NamedTuple):
    """`times * a * b / c` of three fields of `SteadyState` ("" = 1), and what is made of it."""

    kind: int
    a: str
    b: str = ""
    c: str = ""
    times: float = 1.0


NUMBERS: dict[str, Number] = {
    "log_pace_in_base_steps": Number(LOG, "pace_s", c="base_s"),
    "elasticity": Number(PLAIN, "elasticity"),
    "log_decoding": Number(LOG, "decoding"),
    "log_decoding_dispersion": Number(LOG, "decoding_variance", c="decoding"),
    "kv_share": Number(PLAIN, "kv_share"),
    "kv_share_spread": Number(PLAIN, "kv_share_spread"),
    "log_kv_wait_chance": Number(LOG, "kv_wait_chance"),
    "slots_share": Number(PLAIN, "distinct_adapters", c="max_loras"),
    "slots_share_spread": Number(PLAIN, "distinct_spread", c="max_loras"),
    "log_slots_full": Number(LOG, "slots_full"),
    "log_slot_wait_in_promises": Number(LOG, "slot_wait_s", c="ttft_slo_s"),
    "log_loads_per_step": Number(LOG, "loads_per_s", "pace_s"),
    "blocked_share": Number(PLAIN, "blocked_share"),
    "log_disk_loads_per_step": Number(LOG, "disk_loads_per_s", "pace_s"),
    "log_adapters_per_slot": Number(LOG, "adapters", c="max_loras"),
    "log_adapters": Number(LOG_OF_MORE, "adapters"),
    "log_max_loras": Number(LOG, "max_loras"),
    "log_escapes_per_h": Number(LOG, "escapes_per_h"),
    "log_late_share": Number(LOG, "late_share"),
    "log_adapter_late_share": Number(LOG, "adapter_late_share"),
    "log_ttft_p99_in_promises": Number(LOG, "ttft_p99_s", c="ttft_slo_s"),
    "budget_use": Number(PLAIN, "budget_use"),
    "seqs_use": Number(PLAIN, "seqs_use"),
    "decode_share": Number(PLAIN, "decode_share"),
    "kv_read_share": Number(PLAIN, "kv_read_share"),
    "prompt_share": Number(PLAIN, "prompt_share"),
    "lora_share": Number(PLAIN, "lora_share"),
    "past_graph_share": Number(PLAIN, "past_graph_share"),
    "log_prompt_tokens_per_decoding": Number(LOG, "prompt_tokens_per_step", c="decoding"),
    "log_stay_in_steps": Number(LOG, "stay_steps"),
    "arrival_cv": Number(PLAIN, "arrival_cv"),
    "log_effective_adapters": Number(LOG, "effective_adapters"),
    "has_steady_state": Number(KNOWN, "pace_s"),
    # Requests in the hour that is judged, steps within the promise, and how many of the requests wait.
    "log_requests_per_hour": Number(LOG, "rate_req_per_s", times=HOUR_S),
    "log_promise_in_steps": Number(LOG, "ttft_slo_s", c="pace_s"),
    "log_in_system_per_running": Number(LOG, "requests_in_system", c="running"),
}
INPUTS: tuple[str, ...] = tuple(NUMBERS)
#: Where the three fields of each number are among a state's figures; -1 = 1.
_PLACES: NDArray[np.int64] = np.array(
    [[n.kind, *(PLACE[f] if f else -1 for f in (n.a, n.b, n.c))] for n in NUMBERS.values()], np.int64
)
_TIMES: Floats = np.array([n.times for n in NUMBERS.values()])


def inputs_of(state: SteadyState) -> Floats:
    """Inputs of P columns, (P, len(INPUTS)); 0 where a number is not known."""
    out = np.empty((len(state), len(INPUTS)))
    _fill(np.ascontiguousarray(state.figures), _PLACES, _TIMES, out)
    return out


@compiled
def _figure(figures: Floats, place: int) -> float:
    return float(figures[place]) if place >= 0 else 1.0


@compiled
def _fill(figures: Floats, places: NDArray[np.int64], times: Floats, out: Floats) -> None:
    for p in range(len(out)):
        for k in range(len(places)):
            kind, a, b, c = places[k]
            value = times[k] * _figure(figures[p], a) * _figure(figures[p], b) / max(_figure(figures[p], c), LEAST)
            if kind == LOG:
                value = math.log(min(max(value, LEAST), 1.0 / LEAST)) if value == value else np.nan
            elif kind == LOG_OF_MORE:
                value = math.log1p(value)
            elif kind == KNOWN:
                value = 1.0 if math.isfinite(value) else 0.0
            out[p, k] = value if math.isfinite(value) else 0.0
