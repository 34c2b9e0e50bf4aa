"""Step times of a server without adapters, alone or next to equal servers, from a calibration."""

from __future__ import annotations

from dataclasses import dataclass

from twin.errors import InputError
from twin.server.calibration import Calibration, SeparatePrefill
from twin.server.laws import StepTimeLaw
from twin.server.memory import sharing_law
from twin.server.sharing import Sharing, SharingLaw


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Times in ms; `step` and `prefill_step` return (step, part of it in which the GPU runs kernels of any server).

    Args:
        law: of a server alone.
        sharing_law: None = unknown; then one server only, and no gap.
        separate: costs of prefill steps; None = prompts share steps with decodes.
    """

    law: StepTimeLaw
    sharing_law: SharingLaw | None
    separate: SeparatePrefill | None
    servers: int = 1
    sharing: Sharing = "mps"

    def alone(self, running: float, kv_tokens: float, prompt_tokens: float) -> tuple[float, float]:
        """(step, launch gap) of this server with the GPU to itself; the gap is 0 where it was not measured."""
        law, tokens = self.law, running + prompt_tokens
        ms = law.base + law.seq * running + law.prompt * prompt_tokens + law.kv * kv_tokens / 1000.0
        if tokens > law.graph_tokens:
            ms += law.cliff + law.past_graph * (tokens - law.graph_tokens)
        gap = self.sharing_law.gap_ms(running) if self.sharing_law else 0.0
        if self.separate is not None:
            # Launched one by one: the host is what takes longer.
            eager = self.separate.eager_seq_ms * max(0.0, running - self.separate.graph_seqs)
            ms, gap = ms + eager, gap + eager
        return ms, gap

    def step(self, running: float, kv_tokens: float, prompt_tokens: float) -> tuple[float, float]:
        """A decode step, with chunks of prompts in it."""
        ms, gap = self.alone(running, kv_tokens, prompt_tokens)
        return self._shared(ms, gap)

    def prefill_step(self, prompt_tokens: float, running: float) -> tuple[float, float]:
        """A step that prefills whole prompts and decodes nothing."""
        assert self.separate is not None
        ms = self.separate.prefill_step_ms + self.law.prompt * prompt_tokens
        gap = 0.0
        return self._shared(ms, gap)

    def _shared(self, ms: float, gap: float) -> tuple[float, float]:
        if self.sharing_law is None:
            return ms, ms
        shared = self.sharing_law.step_ms(ms, gap, self.servers, self.sharing)
        return shared, shared * self.sharing_law.busy_share(ms, gap, self.servers, self.sharing)


def step_times(
    calibration: Calibration, *, separate_prefill: bool, servers: int = 1, sharing: Sharing = "mps"
) -> StepTimes:
    """Step times by a calibration.

    Raises:
        InputError: separate prefill or several servers were not measured with it.
    """
    laws = calibration.batching
    if separate_prefill and laws is None:
        raise InputError(
            f"calibration {calibration.name!r} holds no measurement of prefill steps of their own",
            where="prefill",
            remedy="use prefill=chunked",
        )
    return StepTimes(
        law=calibration.step,
        sharing_law=sharing_law(calibration) if servers > 1 else (laws.sharing if laws else None),
        separate=laws.prefill if laws and separate_prefill else None,
        servers=servers,
        sharing=sharing,
    )
