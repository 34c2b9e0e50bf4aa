"""A result as DataFrames: the numbers of the document, one row a GPU, one an adapter and GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from placement import place
from placement.report.frames import adapters_frame, gpus_frame

QUICK = ["surrogate=analytic", "engine.max_loras=[8,16]", "engine.max_lora_rank=[16]", "verify.horizon_s=600"]


def workload() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "adapter_id": [*(f"a{i}" for i in range(8)), "hot", "base"],
            "rank": [8, 16] * 4 + [8, 0],
            "rate_req_per_s": [0.1] * 8 + [80.0, 0.5],
            "prompt_tokens": 200,
            "output_tokens": 100,
            "slo_itl_mean_ms": [None] * 9 + [500.0],
        }
    )


def test_frames_hold_what_the_document_holds() -> None:
    result = place(workload(), "gpu_count", solver="greedy", overrides=QUICK)
    document = json.loads(json.dumps(result.to_dict()))
    gpus, hosts = result.gpus_frame(), result.adapters_frame()
    pd.testing.assert_frame_equal(gpus_frame(document), gpus)
    pd.testing.assert_frame_equal(adapters_frame(document), hosts)
    assert gpus.index.tolist() == [gpu["gpu_id"] for gpu in document["gpus"]]
    for gpu in document["gpus"]:
        row = gpus.loc[gpu["gpu_id"]]
        assert row["simulated_e2e_mean_s"] == gpu["simulated"]["e2e_mean_s"]
        assert row["predicted_e2e_mean_s"] == gpu["predicted"]["e2e_mean_s"]
        assert row["max_loras"] == gpu["setting"]["max_loras"]
    rates = hosts.groupby("adapter_id")["rate_req_per_s"].sum()
    assert rates.to_dict() == pytest.approx(workload().set_index("adapter_id")["rate_req_per_s"].to_dict())
    assert hosts.groupby("adapter_id")["share"].sum().tolist() == pytest.approx([1.0] * 10)
    assert (hosts["adapter_id"] == "hot").sum() > 1, "too much for one GPU"
    assert gpus["adapters"].sum() == (hosts["rank"] > 0).sum()
    promised = hosts.set_index("adapter_id")["itl_mean_ms_promised"].dropna()
    assert promised.to_dict() == {"base": 500.0}
    assert (hosts["ttft_p99_s_promised"] == 5.0).all()


def test_what_nobody_simulated_is_not_a_number() -> None:
    result = place(workload()[:8], "gpu_count", solver="greedy", verify="none", overrides=QUICK[:3])
    hosts = result.adapters_frame()
    assert hosts["ttft_p99_s_use"].isna().all() and hosts["ttft_p99_s_use"].dtype == float
    assert not any(name.startswith("simulated_") for name in result.gpus_frame())
    empty = {"gpus": []}
    assert (len(gpus_frame(empty)), gpus_frame(empty).index.name) == (0, "gpu_id")
    assert adapters_frame(empty).columns.tolist()[:2] == ["adapter_id", "gpu_id"]


def test_a_stored_plan_gives_the_same(tmp_path: Path) -> None:
    result = place(workload()[:8], "gpu_count", solver="greedy", verify="none", overrides=QUICK[:3])
    result.write(tmp_path)
    stored = json.loads((tmp_path / "placement.json").read_text())
    pd.testing.assert_frame_equal(gpus_frame(stored), result.gpus_frame())
