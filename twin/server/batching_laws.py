"""What a calibration knows beyond the twin's laws for choosing batch sizes and replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twin.server.roofline import Roofline
from twin.server.sharing import SharingLaw


@dataclass(frozen=True, slots=True)
class SeparatePrefill:
    """Costs of an engine that prefills prompts in steps of their own (vLLM V0 without chunked prefill).

    Args:
        prefill_step_ms: a prefill step without its tokens: weights are read again, no CUDA graph.
        eager_seq_ms: of a decode step, per request beyond `graph_seqs`, the largest batch with a CUDA graph.
    """

    prefill_step_ms: float
    eager_seq_ms: float
    graph_seqs: int


@dataclass(frozen=True, slots=True)
class BatchingLaws:
    """Laws fitted on measurements over batch sizes and co-located servers.

    Args:
        sequence_bytes: memory that the engine sets aside per `max_num_seqs` when it profiles itself (logits and
            sampling buffers); it is taken from the KV cache.
    """

    roofline: Roofline
    sharing: SharingLaw
    prefill: SeparatePrefill
    sequence_bytes: float


def batching_laws(data: Mapping[str, Any] | None) -> BatchingLaws | None:
    """From plain containers; None stays None."""
    if data is None:
        return None
    return BatchingLaws(
        roofline=Roofline(**data["roofline"]),
        sharing=SharingLaw(**data["sharing"]),
        prefill=SeparatePrefill(**data["prefill"]),
        sequence_bytes=float(data["sequence_bytes"]),
    )
