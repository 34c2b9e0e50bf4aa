"""The two pages of a made-up run, with every section."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from placement.report.details import Details
from placement.report.html import render
from placement.report.sweep import write_sweep
from twin.files import write_text

NAMES = ["<b>x</b>", "support[v2]", "team[/prod]", "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>"]


def _kept(names: list[str]) -> dict[str, Any]:
    rows = [
        {"adapter_id": n, "promised": 5.0, "requests": 40, "simulated": 0.001 * k, "use": 0.01 * k}
        for k, n in enumerate(names)
    ]
    return {"ttft_p99_s": {"use": rows[-1]["use"], "worst_adapter": names[-1], "adapters": rows}}


def _gpu(index: int, names: list[str]) -> dict[str, Any]:
    predicted = {
        "rate_req_per_s": 5.0, "load": 0.6 + 0.2 * index, "throughput_tps": 3000.0, "e2e_mean_s": 6.0,
        "itl_mean_ms": 30.0 + index, "ttft_mean_s": 0.1, "ttft_p99_s": 0.3,
    }  # fmt: skip
    return {
        "gpu_id": f"gpu{index:03d}", "gpu_type": "h100 <i>64</i>", "setting": {"max_loras": 8, "max_lora_rank": 16},
        "adapters": [{"adapter_id": n, "rank": 8, "share": 1.0, "rate_req_per_s": 0.1} for n in names],
        "predicted": predicted, "simulated": predicted | {"late_fraction": 0.001}, "promises": _kept(names),
        "accepted": index == 0, "decision": "accepted" if index == 0 else "refuted",
        "reason": "" if index == 0 else "adapter '<b>x</b>' starves", "seeds": [1, 2, 3],
    }  # fmt: skip


def document() -> dict[str, Any]:
    """Of two GPUs with 120 adapters."""
    gpus = [_gpu(0, NAMES), _gpu(1, [f"tenant-{i}" for i in range(115)])]
    judged = [
        {"decision": g["decision"], "accepted": g["accepted"], "hours": 60, "bad_hours": 0, "window_s": 3600.0,
         "gpus_alike": 1, "adapters_with_few_requests": 0} for g in gpus
    ]  # fmt: skip
    figures = {
        "gpus": 3, "e2e_mean_s": 7.0, "itl_mean_ms": 31.0, "late_fraction": 0.02, "worst_adapter": "<b>x</b>",
        "worst_adapter_e2e_s": 9.0, "starved_gpus": 0, "starved": False,
    }  # fmt: skip
    return {
        "status": "unverified", "termination": "gap", "objective": 5.0, "objective_units": {"gpu_count": "$/h"},
        "terms": {"gpu_count": 5.0},
        "bound": 4.5, "bound_outer": 4.2, "bound_columns": 1234, "bound_rests_on": [], "gap": 0.1,
        "simulated_objective": 5.0, "certified_minimum_gpus": 2, "solver": "greedy", "runtime_s": 1.0,
        "workload": {"name": "<i>shop</i>", "adapters": 120, "ranks": [8], "rate_req_per_s": 10.0,
                     "output_tokens_per_s": 1800.0, "reading": None,
                     "notes": ["120 adapters, read from a <b>file</b>."],
                     "peak_to_mean": {"ratio": 2.0, "window_s": 60.0, "changing_adapters": 3}},
        "gpus": gpus,
        "verification": {"method": "twin", "gpus": judged, "claim": None, "peaks": [], "rounds": 1},
        "today": {"path": "today.csv", "windows": 3, "window_s": 3600.0, "figures": figures,
                  "plan": figures | {"gpus": 2}, "accepted_gpus": 3, "gpus": []},
        "warnings": ["a note on team[/prod] and <b>x</b>"],
        "provenance": {"config_hash": "0" * 64, "seeds": {"run": 0}, "surrogate": {"bound_level": None},
                       "gpu_types": [{"name": "h100", "price_per_hour": 2.5, "count": None}]},
    }  # fmt: skip


def details() -> Details:
    minutes = [m / 2 for m in range(120)]
    wave = [5 + math.sin(m) for m in minutes]
    hour = {"minute": minutes, "running": wave, "waiting": wave, "adapters": wave, "kv": wave}
    memory = {"weights": 16e9, "slots": 1e9, "kv": 30e9, "other": 10e9}
    row = {"gpus": 2, "e2e_mean_s": 6.0, "kept_e2e_mean_s": 6.0, "kept_load": 0.8}
    return Details(
        cost_per_hour=5.0,
        memory=[memory, memory],
        intervals=[{"itl_mean_ms": 0.4}, {"itl_mean_ms": math.nan}],
        timelines={"gpu000": hour | {"limit": "Nothing."}, "gpu001": hour | {"limit": "Limited by slots."}},
        what_if=[{"factor": 0.5, **row}, {"factor": 2.0, **row, "kept_e2e_mean_s": None, "gpus": None}],
    )


def write_pages(folder: Path) -> Path:
    """Writes `report.html` and `sweep/` below the folder and returns it."""
    write_text(folder / "report.html", render(document(), details(), ["placement.json", "deploy/gpu000.sh"]))
    found = {"status": "verified", "cost_per_hour": None, "objective": "latency 6 s", "bound": 5.0, "gap": 0.1,
             "itl_mean_ms": 30.0, "simulated_e2e_mean_s": 6.0, "runtime_s": 1.0}  # fmt: skip
    jobs: list[Any] = [
        (
            ("solver=greedy", f"name=<b>{n}</b>"),
            0,
            str(folder / "sweep" / str(n)),
            {**found, "gpus": n, "e2e_mean_s": 9.0 - n},
        )
        for n in (1, 2, 3)
    ]
    jobs.append((("solver=milp", "name=$x_{2}$"), 3, str(folder / "sweep" / "4"), None))
    write_sweep(jobs)
    return folder
