"""Runs of the published batch-size measurements, and the same runs by the shipped calibrations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from placement.batching.curves import Curve, CurvePoint, Server, law_point
from placement.batching.lengths import LengthConfig, request_lengths
from placement.batching.measured import column, point, read_runs
from twin.errors import InputError
from twin.server.calibration import Calibration, calibration_dir, load_calibration
from twin.server.sharing import Sharing
from twin.sources.table import Table

HARDWARE = "h100-64gb"
#: Spread of the ShareGPT output lengths by model family, from the mean KV tokens of a running request:
#: `E[o (p + o/2)] / E[o]` = 392 (OPT) and 369 (Llama 2) tokens at small batches, minus half a block.
OUTPUT_CV = {"opt": 0.96, "llama": 0.76}
PROMPT_CV = 1.1
#: Longest request of the runs that did not say it.
DEFAULT_MODEL_LEN = 2048
CHUNKED_BUDGET, WHOLE_BUDGET = 512, 2048


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run and what is needed to predict it.

    Args:
        group: runs that form one curve: the model, with the output length where it was fixed.
        usable: no preemption, no error.
        kv_tokens, running, prompt_per_step: of the steady part, means; NaN if not recorded.
    """

    group: str
    model: str
    experiment: str
    chunked: bool
    servers: int
    sharing: Sharing
    point: CurvePoint
    lengths: LengthConfig
    requests: int
    token_budget: int
    max_model_len: int
    running: float
    kv_tokens: float
    prompt_per_step: float


def read_all(folder: Path, name: str) -> list[Run]:
    """All finished runs of a table; [] where the file is not there.

    Raises:
        InputError: the table is malformed.
    """
    if not (folder / name).is_file():
        return []
    table = read_runs(folder / name)
    return [run for row in range(len(table)) if (run := _run(table, row, name)) is not None]


def _text(table: Table, name: str, row: int, default: str = "") -> str:
    return table.texts(name, required=False)[row] if name in table else default


def _run(table: Table, row: int, name: str) -> Run | None:
    def number(key: str, default: float = math.nan) -> float:
        value = float(column(table, key)[row])
        return default if math.isnan(value) else value

    experiment = _text(table, "experiment", row, name.removesuffix(".csv"))
    if math.isnan(number("req_throughput_rps")) or "time_wise" in experiment:
        return None
    model, chunked = _text(table, "model", row), _text(table, "chunked_prefill", row) == "True"
    output_len, requests = number("output_len"), int(number("completed"))
    prompt_mean = number("total_input_tokens") / requests
    fixed = not math.isnan(output_len)
    cv = 0.0 if fixed else next((v for k, v in OUTPUT_CV.items() if model.startswith(k)), 1.0)
    step_ms, running = number("steady_step_ms"), number("steady_running_mean")
    servers = int(number("replicas", 1))
    rate = number("steady_prompt_tok_s") * step_ms / 1000 / servers
    return Run(
        group=f"{model}@{output_len:.0f}" if fixed else model,
        model=model,
        experiment=experiment,
        chunked=chunked,
        servers=servers,
        sharing="time_sharing" if _text(table, "gpu_sharing", row) == "time_sharing" else "mps",
        point=point(table, row),
        lengths=LengthConfig(
            prompt_mean=round(prompt_mean) if fixed else prompt_mean,
            output_mean=number("total_output_tokens") / requests,
            prompt_cv=0.0 if fixed else PROMPT_CV,
            output_cv=cv,
        ),
        requests=requests,
        token_budget=int(number("max_num_batched_tokens", CHUNKED_BUDGET)) if chunked else WHOLE_BUDGET,
        max_model_len=int(number("max_model_len", DEFAULT_MODEL_LEN)),
        running=running / servers,
        kv_tokens=number("steady_kv_usage_mean") * number("kv_capacity_tokens") / servers,
        prompt_per_step=rate,
    )


def calibration_of(model: str, skipped: list[str]) -> Calibration | None:
    """The shipped calibration of a model; None, noted, if there is none."""
    name = f"{model}-{HARDWARE}"
    if not (calibration_dir() / f"{name}.yaml").is_file():
        note = f"{model}: no shipped calibration"
        if note not in skipped:
            skipped.append(note)
        return None
    return load_calibration(name)


def server_of(run: Run, calibration: Calibration) -> Server:
    """What was measured, as the advisor sees it."""
    return Server(
        calibration=calibration,
        lengths=request_lengths(run.lengths, requests=run.requests, max_model_len=run.max_model_len, seed=0),
        prefill="chunked" if run.chunked else "separate",
        token_budget=run.token_budget,
        utilization=0.9,
        max_model_len=run.max_model_len,
        sharing=run.sharing,
    )


def predicted(run: Run, calibration: Calibration) -> CurvePoint:
    """The run by the calibration's law."""
    return law_point(server_of(run, calibration), run.point.batch, run.servers)


def measured_curve(runs: list[Run]) -> Curve:
    return Curve("measured", tuple(sorted((r.point for r in runs), key=lambda p: p.batch)))


def step_ms(run: Run, calibration: Calibration) -> float:
    """Time of a decode iteration by the shipped coefficients, at the measured batch, KV tokens and prompt tokens."""
    law, laws = calibration.step, calibration.batching
    if laws is None:
        raise InputError(f"calibration {calibration.name!r} has no batching laws")
    ms = law.base + law.seq * run.running + law.kv * run.kv_tokens / 1000 + law.prompt * run.prompt_per_step
    if run.chunked:
        return ms
    prefills = 1 - np.exp(-run.prompt_per_step / run.lengths.prompt_mean)
    eager = max(0.0, run.running - laws.prefill.graph_seqs)
    return float(ms + prefills * laws.prefill.prefill_step_ms + laws.prefill.eager_seq_ms * eager)
