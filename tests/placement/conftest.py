"""A small workload on a small grid of settings, for runs of the whole program in a fraction of a second."""

from __future__ import annotations

from pathlib import Path

import pytest

HEADER = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens"


@pytest.fixture
def adapters_csv(tmp_path: Path) -> Path:
    """Twelve adapters, 1.5 requests/s in all."""
    path = tmp_path / "adapters.csv"
    rows = [f"a{i},{(8, 16)[i % 2]},{(0.05, 0.2)[i % 2]},200,100" for i in range(12)]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.fixture
def small(adapters_csv: Path) -> list[str]:
    """Overrides of a small run."""
    return [
        "workload=file",
        f"workload.path={adapters_csv}",
        "surrogate=analytic",
        "engine.max_loras=[8,16]",
        "engine.max_lora_rank=[16]",
        "time_limit_s=10",
    ]
