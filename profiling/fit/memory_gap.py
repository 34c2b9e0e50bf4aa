"""`python -m profiling memory_gap data=<folder>`: calibrations from the published batch-size measurements.

Reads step_points.csv, kernels.csv, background.csv and replication.csv (arXiv 2503.08311; vLLM V0, no adapters) and
writes one calibration a model. Left out: preempting runs, runs of 50 prompts (`time_wise`), replayed steps (ncu).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from profiling.fit.memory_gap_fit import (
    GRAPH_SEQS,
    SharedRun,
    StepFit,
    StepRows,
    fit_capacity,
    fit_gap,
    fit_sharing,
    fit_steps,
    held_out_pct,
)
from profiling.published.memory_gap_models import DECODERS, ENGINE_VERSION, GPU, Decoder
from twin.errors import InputError
from twin.server.calibration import BatchingLaws, Calibration, SeparatePrefill, Stamp
from twin.server.hardware import GIB
from twin.server.laws import KvCapacityLaw, LoadLaw, StepTimeLaw
from twin.server.sharing import SharingLaw

SOURCE = "published batch-size measurements (arXiv 2503.08311)"
#: Only this model was measured with several servers when the sharing law was fitted.
SHARED_MODEL = "opt-1.3b"


def read(folder: Path, name: str) -> pd.DataFrame:
    """One table of the folder.

    Raises:
        InputError: it is missing or not a table.
    """
    try:
        return pd.read_csv(folder / name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} cannot be read: {error}", where=str(folder), remedy="give data=<folder of the measurements>"
        ) from error


def step_rows(points: pd.DataFrame, background: pd.DataFrame) -> list[StepRows]:
    """The points of each model."""
    rows = []
    for decoder in DECODERS:
        p = points[points["model"] == decoder.name]
        if p.empty:
            raise InputError(f"no step of {decoder.name}", where="step_points.csv")
        separate = (p["source"] == "background").to_numpy()
        b = background[background["model"] == decoder.name]
        prompt_mean = float(b["total_input_tokens"].sum() / b["completed"].sum())
        prompt = p["prompt_per_step"].to_numpy(float)
        # Requests that end in the same step are prefilled together.
        share = np.where(separate, 1.0 - np.exp(-prompt / prompt_mean), 0.0)
        rows.append(
            StepRows(
                model=decoder.name,
                run_id=tuple(p["run_id"]),
                running=p["B"].to_numpy(float),
                kv_tokens=p["kv_tokens"].to_numpy(float),
                prompt_per_step=prompt,
                step_ms=p["step_ms"].to_numpy(float),
                separate=separate,
                profiled=(p["source"] == "offline_nsys").to_numpy(),
                prefill_share=share,
            )
        )
    return rows


def shared_runs(table: pd.DataFrame) -> list[SharedRun]:
    """Runs of co-located servers with the run of one server at the same batch."""
    t = table[
        (table["experiment"] == "replication_overall") & (table["model"] == SHARED_MODEL) & (table["preemptions"] == 0)
    ]
    alone = {
        int(r["max_num_seqs"]): float(r["steady_step_ms"])
        for _, r in t[(t["replicas"] == 1) & ~t["chunked_prefill"].astype(bool)].iterrows()
    }
    return [
        SharedRun(
            servers=int(r["replicas"]),
            sharing="mps" if r["gpu_sharing"] == "mps" else "time_sharing",
            running=float(r["steady_running_mean"]) / int(r["replicas"]),
            alone_ms=alone[int(r["max_num_seqs"])],
            step_ms=float(r["steady_step_ms"]),
        )
        for _, r in t[t["replicas"] > 1].iterrows()
        if int(r["max_num_seqs"]) in alone
    ]


def neighbour_bytes(table: pd.DataFrame, memory_bytes: int) -> float:
    """Memory that each further server costs the first one beyond its smaller share, mean over the runs."""
    t = table[(table["experiment"] == "replication_overall") & (table["model"] == SHARED_MODEL)]
    alone = t[t["replicas"] == 1].groupby("max_num_seqs")["kv_cache_gib_server0"].first()
    taken = [
        alone[r["max_num_seqs"]] * GIB
        - (0.9 - r["gpu_mem_util_per_server"]) * memory_bytes
        - r["kv_cache_gib_server0"] * GIB
        for _, r in t[t["replicas"] > 1].iterrows()
    ]
    return float(np.mean(np.array(taken) / (t[t["replicas"] > 1]["replicas"].to_numpy() - 1)))


def fit_memory_gap(folder: Path, *, date: str, say: Callable[[str], None] = print) -> list[Calibration]:
    """The calibrations of all measured models.

    Raises:
        InputError: a table or a model is missing.
    """
    background, replication = read(folder, "background.csv"), read(folder, "replication.csv")
    rows = step_rows(read(folder, "step_points.csv"), background)
    bandwidth = DECODERS[0].roofline().bandwidth_bytes_per_s
    least_kv_ms = {d.name: 1e6 * d.kv_bytes_per_token / bandwidth for d in DECODERS}
    fit = fit_steps(rows, least_kv_ms)
    kernels = read(folder, "kernels.csv")
    kernels = kernels[kernels["decode_valid"] & kernels["cpu_ms"].notna()]
    base, seq, gap_error = fit_gap(kernels["batch"].to_numpy(float), kernels["cpu_ms"].to_numpy(float))
    runs = shared_runs(replication)
    sharing = fit_sharing(
        runs, (round(base, 4), round(seq, 5)), round(neighbour_bytes(replication, GPU.memory_bytes), -6)
    )
    say(f"launch gap {base:.3f} + {seq:.4f} B ms for all models, error {gap_error:.1f} %")
    for r in runs:
        predicted = sharing.step_ms(r.alone_ms, sharing.gap_ms(r.running), r.servers, r.sharing)
        say(
            f"  {r.servers} x {r.running:.0f} {r.sharing}: step {r.step_ms:.2f} ms, law {predicted:.2f} "
            f"({100 * (predicted / r.step_ms - 1):+.1f} %)"
        )
    calibrations = [
        _calibration(decoder, row, fit, sharing, background, gap_error, len(runs), date)
        for decoder, row in zip(DECODERS, rows, strict=True)
    ]
    for decoder, row in zip(DECODERS, rows, strict=True):
        error = np.abs(fit.errors_pct[decoder.name])
        kinds = {"separate prefill": row.separate, "traced": row.profiled}
        parts = ", ".join(f"{k} {error[m].mean():.2f}" for k, m in kinds.items() if m.any())
        law = " ".join(f"{v:.4f}" for v in fit.laws[decoder.name])
        say(f"{decoder.name}: base seq kv prompt prefill = {law}; MAPE {error.mean():.2f} % ({parts})")
    # One output length of the advisor's runs at a time; their ids are advisor/<output length>/<model>/<batch>.
    for group in sorted({"/".join(i.split("/")[:2]) + "/" for r in rows for i in r.run_id if i.startswith("advisor/")}):
        errors = held_out_pct(rows, least_kv_ms, group)
        say(f"{group} left out of the fit: MAPE " + ", ".join(f"{m} {e:.2f} %" for m, e in errors.items()))
    return calibrations


def _calibration(
    decoder: Decoder,
    rows: StepRows,
    fit: StepFit,
    sharing: SharingLaw,
    background: pd.DataFrame,
    gap_error: float,
    shared: int,
    date: str,
) -> Calibration:
    base, seq, kv, prompt, prefill = (round(float(v), 5) for v in fit.laws[decoder.name])
    b = background[background["model"] == decoder.name]
    tokens, per_seq = fit_capacity(b["max_num_seqs"].to_numpy(float), b["kv_capacity_tokens"].to_numpy(float))
    zero: dict[str, float] = dict.fromkeys(
        ("cliff", "past_graph", "lora", "adapter", "adapter_rank", "slot", "slot_token", "lora_token", "adapter_token",
         "adapter_small", "adapter_large", "skipped", "queue", "skipped_seq", "slot_square", "lora_rank",
         "plain_large"), 0.0,
    )  # fmt: skip
    error = np.abs(fit.errors_pct[decoder.name])
    residuals = {"step_mape_pct": error.mean(), "step_worst_pct": error.max(), "gap_mape_pct": gap_error}
    return Calibration(
        name=decoder.calibration,
        stamp=Stamp(
            gpu_type=GPU.name,
            model=decoder.name,
            engine="vllm",
            engine_version=ENGINE_VERSION,
            date=date,
            source=SOURCE,
            points={"steps": len(error), "co_located_runs": shared},
            residuals={k: round(float(v), 3) for k, v in residuals.items()},
        ),
        gpu=GPU,
        model=decoder.spec(),
        step=StepTimeLaw(base=base, seq=seq, prompt=prompt, kv=kv, **zero),
        load=LoadLaw(0.0, 0.0),
        kv=KvCapacityLaw(base_tokens=round(tokens, 1), tokens_per_slot_rank=0.0),
        # Measured without adapters.
        valid={
            "max_loras": (1, 1),
            "num_adapters": (0, 0),
            "max_num_seqs": (1, int(b[b["preemptions"] == 0]["max_num_seqs"].max())),
            "block_size": (16, 16),
            "gpu_memory_utilization": (0.225, 0.9),
        },
        batching=BatchingLaws(
            roofline=decoder.roofline(),
            sharing=sharing,
            prefill=SeparatePrefill(prefill, round(fit.eager_seq, 5), GRAPH_SEQS),
            sequence_bytes=round(per_seq * decoder.kv_bytes_per_token, -3),
        ),
    )


def write(calibrations: list[Calibration], out: Path) -> list[Path]:
    """Writes them as YAML and returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for calibration in calibrations:
        path = out / f"{calibration.name}.yaml"
        data: dict[str, Any] = calibration.to_dict()
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        paths.append(path)
    return paths
