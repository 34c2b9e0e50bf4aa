"""A recording that the twin made: a server whose law is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.tiny_model import SIZES, write_tiny_model
from profiling.record.files import LOAD_COLUMNS, STEP_COLUMNS, write_run
from profiling.record.plan import Design, RunPlan, requests_of, runs_of, servers_of
from twin.engine.play import play
from twin.engine.state import TRACE_COLUMNS
from twin.server.calibration import Calibration, Stamp
from twin.server.column import Column
from twin.server.hardware import GpuType, ModelSpec
from twin.server.laws import STEP_TERMS, KvCapacityLaw, LoadLaw, StepTimeLaw
from twin.server.settings import EngineSetting

ENGINE = {
    "version": "0.32.0", "memory_bytes": 24 * 10**9, "kv_cache_tokens": 65_536, "block_size": 32, "max_model_len": 1024,
    "max_num_seqs": 16, "max_num_batched_tokens": 512, "async_scheduling": False, "tensor_parallel_size": 1,
}  # fmt: skip
LAW = StepTimeLaw(
    **(dict.fromkeys(STEP_TERMS, 0.0)
       | {"base": 4.0, "seq": 0.1, "prompt": 0.08, "lora": 1.0, "adapter": 0.2, "slot": 0.3, "lora_token": 0.1})
)  # fmt: skip
DESIGN = Design(servers_of((2, 4), (8, 16), 8), (1, 4, 16), (16, 64), 2, 1, 20.0, 32, 32, (0.3, 0.6, 1.5))
TRUTH = Calibration(
    "true", Stamp("cpu", "tiny", "vllm", "0.32.0", "2026-01-01", "made up", {}, {}), GpuType("cpu", 24 * 10**9),
    ModelSpec("tiny", 1024, 4096, 20_000), LAW, LoadLaw(0.0, 0.0), KvCapacityLaw(65_536.0, 0.0), {},
)  # fmt: skip


def write_recording(folder: Path, delay_s: float = 0.0) -> Path:
    """Every run of `DESIGN`, as the twin plays it; clients see tokens `delay_s` later."""
    model = write_tiny_model(folder / "tiny")
    assert SIZES["max_position_embeddings"] >= ENGINE["max_model_len"]
    out = folder / "recording"
    out.mkdir()
    (out / "session.json").write_text(json.dumps({"schema_version": 1, "model": str(model), "gpu": "cpu"}))
    for index in range(len(DESIGN.servers)):
        for run in runs_of(DESIGN, index):
            _write(out, run, delay_s)
    return out


def _write(out: Path, run: RunPlan, delay_s: float) -> None:
    adapters, requests = requests_of(run, 40.0 * run.load, 1024)
    engine = {
        **ENGINE,
        "max_loras": run.server.max_loras,
        "max_lora_rank": run.server.max_lora_rank,
        "max_cpu_loras": 8,
    }
    setting = EngineSetting(
        "cpu", run.server.max_loras, run.server.max_lora_rank, max_num_seqs=16, max_num_batched_tokens=512,
        block_size=32, max_model_len=1024, max_cpu_loras=8, async_scheduling=False,
    )  # fmt: skip
    horizon_s = run.horizon_s or 30.0
    out_ = play(Column(adapters, setting), TRUTH, horizon_s=horizon_s, requests=requests, trace_steps=20_000).out
    trace = pd.DataFrame(out_.trace, columns=list(TRACE_COLUMNS))
    steps = pd.DataFrame(dict.fromkeys(STEP_COLUMNS, np.zeros(len(trace))))
    for name in ("decodes", "kv_tokens", "adapters", "running", "waiting", "skipped", "start_s"):
        steps[name] = trace[name]
    steps["prompt"] = trace["prompt_tokens"]
    steps["end_s"] = trace["start_s"] + trace["duration_s"]
    first, finish = out_.first_token_s + delay_s, out_.finish_s + delay_s
    table = pd.DataFrame(
        {
            "arrival_s": requests.arrival_s, "adapter": requests.adapter, "prompt": requests.prompt,
            "output": requests.output, "first_token_s": np.where(first <= horizon_s, first, np.inf),
            "finish_s": np.where(finish <= horizon_s, finish, np.inf),
        }
    )  # fmt: skip
    about = {
        "kind": run.kind, "held_out": run.held_out, "repeats": run.repeats, "horizon_s": horizon_s, "engine": engine,
        "adapters": [
            {"adapter_id": a.adapter_id, "rank": a.rank, "rate_req_per_s": a.rate_req_per_s, "prompt": 32, "output": 32}
            for a in adapters
        ],
    }  # fmt: skip
    loads = pd.DataFrame(columns=list(LOAD_COLUMNS), dtype=float)
    write_run(out, run.name, about, {"requests": table, "steps": steps, "loads": loads})
