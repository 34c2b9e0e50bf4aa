"""What limits a server: measured facts of a simulation, and a sentence about them.

Whenever requests wait after a step has been scheduled, the scan of the waiting queue ended for one reason
(`SimulationResult.blocked_s`): the token budget of the step was used up, all adapter slots were held by other
adapters, KV blocks ran out, or `max_num_seqs` requests were running. The share of time of each reason says what holds
requests back; where the step time goes says what makes tokens slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from twin.engine.state import GATED, KV_FULL, SCAN, SEQS_FULL, TRACE_COLUMNS
from twin.figures.result import SimulationResult
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.laws import STEP_TERMS
from twin.server.settings import EngineSetting
from twin.wording import percent

#: Requests that wait less of the time than this are held back by nothing worth a name.
SELDOM = 0.02
#: A second reason is named from this share of the waiting time on.
ALSO = 0.2


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """Shares of the window, 0..1, and peaks; means over the simulations that they come from.

    Args:
        busy: the engine computes.
        waiting: requests wait although a step was just scheduled; the sum of the next four.
        token_budget: ... because `max_num_batched_tokens` was used up.
        adapter_slots: ... because `max_loras` other adapters held the slots.
        kv_cache: ... because no KV blocks were free for the next request, or a running one had just been preempted.
        max_num_seqs: ... because so many requests were running.
        slots_held: all `max_loras` slots are held by requests in the batch.
        kv_peak: largest share of the KV blocks in use.
        running_peak, adapters_peak: most requests running, most distinct adapters in a step.
        tokens_per_step: decoded and prompt tokens, mean over steps.
        step_ms: mean duration of a step, and what it is made of (times of the step-time law): `fixed` is what an
            empty step costs, `decode`, `prompt` and `kv` grow with the batch, `lora` is the adapters' computation,
            `loads` copies adapters, `scheduler` is the cost of long queues.
    """

    busy: float
    waiting: float
    token_budget: float
    adapter_slots: float
    kv_cache: float
    max_num_seqs: float
    slots_held: float
    kv_peak: float
    running_peak: float
    adapters_peak: float
    tokens_per_step: float
    step_ms: float
    fixed_ms: float
    decode_ms: float
    prompt_ms: float
    kv_ms: float
    lora_ms: float
    loads_ms: float
    scheduler_ms: float

    def reasons(self) -> list[tuple[str, float]]:
        """Why requests waited, the longest share first."""
        names = ("token_budget", "adapter_slots", "kv_cache", "max_num_seqs")
        return sorted(((n, getattr(self, n)) for n in names), key=lambda item: -item[1])

    @property
    def limit(self) -> str:
        """Name of what holds requests back most, or `none`."""
        return "none" if self.waiting < SELDOM else self.reasons()[0][0]


def _step_parts_ms(features: NDArray[np.float64], law: NDArray[np.float64]) -> dict[str, float]:
    """Total milliseconds of the law's terms, in the groups of `Bottleneck`."""
    # Feature i belongs to the coefficient of the same index.
    ms = dict(zip(STEP_TERMS, features * law[: len(features)], strict=True))
    lora = [value for name, value in ms.items() if name.startswith(("lora", "adapter", "slot"))]
    return {
        "fixed_ms": ms["base"],
        "decode_ms": ms["seq"],
        "prompt_ms": ms["prompt"] + ms["cliff"] + ms["past_graph"] + ms["plain_large"],
        "kv_ms": ms["kv"],
        "lora_ms": np.sum(lora),
        "scheduler_ms": ms["skipped"] + ms["skipped_seq"] + ms["queue"],
    }


def bottleneck(result: SimulationResult, column: Column, calibration: Calibration, total_blocks: int) -> Bottleneck:
    """The facts of one simulation; peaks come from its step trace, which must not be empty if steps were made."""
    horizon, steps = result.horizon_s, max(1, result.steps)
    trace = {name: result.trace[:, i] for i, name in enumerate(TRACE_COLUMNS)}
    duration = trace["duration_s"]
    held = trace["adapters"] >= column.setting.max_loras
    parts = _step_parts_ms(result.step_features, calibration.step.as_array())
    features = dict(zip(STEP_TERMS, result.step_features.tolist(), strict=True))
    made = max(1.0, features["base"])
    # A step that preempted admits nobody: `blocked_s` counts it with those that ended at the token budget.
    preempting = (trace["preemptions"] > 0) & (trace["waiting"] > 0)
    preempting_s = min(float(duration[preempting].sum()), float(result.blocked_s[SCAN]))

    def peak(values: NDArray[np.float64]) -> float:
        return float(values.max()) if len(values) else 0.0

    return Bottleneck(
        busy=result.busy_s / horizon,
        waiting=float(result.blocked_s.sum()) / horizon,
        token_budget=(float(result.blocked_s[SCAN]) - preempting_s) / horizon,
        adapter_slots=float(result.blocked_s[GATED]) / horizon,
        kv_cache=(float(result.blocked_s[KV_FULL]) + preempting_s) / horizon,
        max_num_seqs=float(result.blocked_s[SEQS_FULL]) / horizon,
        slots_held=float(duration[held].sum()) / horizon,
        kv_peak=peak((total_blocks - trace["free_blocks"]) / total_blocks),
        running_peak=peak(trace["running"]),
        adapters_peak=peak(trace["adapters"]),
        tokens_per_step=(features["seq"] + features["prompt"]) / made,
        step_ms=1000 * result.busy_s / steps,
        loads_ms=1000 * (result.load_s + result.disk_s) / steps,
        **{name: float(total) / made for name, total in parts.items()},
    )


def mean_bottleneck(facts: Sequence[Bottleneck]) -> Bottleneck:
    """Mean over simulations."""
    return Bottleneck(**{f.name: math.fsum(getattr(b, f.name) for b in facts) / len(facts) for f in fields(Bottleneck)})


_WAITED_FOR = {
    "token_budget": "for room in the step: its {0.max_num_batched_tokens} tokens (max_num_batched_tokens) were used up",
    "adapter_slots": "for one of the {0.max_loras} adapter slots (max_loras), all held by other adapters",
    "kv_cache": "for KV cache memory",
    "max_num_seqs": "because {0.max_num_seqs} requests (max_num_seqs) were running",
}
_TITLE = {
    "none": "nothing",
    "token_budget": "compute (tokens a step)",
    "adapter_slots": "adapter slots",
    "kv_cache": "KV cache memory",
    "max_num_seqs": "max_num_seqs",
}


def title(limit: str) -> str:
    """A few words for a table."""
    return _TITLE[limit]


def explained(facts: Bottleneck, setting: EngineSetting) -> str:
    """What limits the server, in a sentence or two."""
    if facts.limit == "none":
        use, name = max(
            (facts.kv_peak, "the KV cache"),
            (facts.adapters_peak / setting.max_loras, "max_loras"),
            (facts.running_peak / setting.max_num_seqs, "max_num_seqs"),
        )
        return (
            f"Nothing holds requests back: they had to wait in {percent(facts.waiting)} of the time. Closest to its "
            f"limit came {name}, at most {percent(use)} used; the engine computed {percent(facts.busy)} of the time."
        )
    (first, share), *others = facts.reasons()
    text = f"Limited by {title(first)}: in {percent(share)} of the time requests waited {_WAITED_FOR[first]}".format(
        setting
    )
    for name, also in others:
        if also >= ALSO * facts.waiting and also >= SELDOM:
            text += f"; in {percent(also)} {_WAITED_FOR[name]}".format(setting)
    return f"{text}."
