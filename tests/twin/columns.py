"""Small columns for the tests of the twin."""

from __future__ import annotations

from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths

LLAMA = load_calibration("llama-3.1-8b-h100-64gb")


def column(
    n: int, rates: tuple[float, ...], max_loras: int, *, max_lora_rank: int = 16, rank: int = 16, **fields: float
) -> Column:
    """`n` ShareGPT-like adapters whose rates go round `rates`."""
    adapters = tuple(
        Adapter(f"a{i}", rank, rates[i % len(rates)], Lengths(223, 1.1), Lengths(197, 1.06), **fields) for i in range(n)
    )
    return Column(adapters, EngineSetting(LLAMA.stamp.gpu_type, max_loras, max_lora_rank))
