"""A calibration from a recording: law, loads, memory, and a report of what is known and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profiling.derive.architecture import Architecture, read_config
from profiling.fit.micro import Row
from profiling.measured.fitting import Solution, fitted_law, solve_plain
from profiling.measured.prior import Start, request_of_hardware, start_of, version_of
from profiling.measured.rows import rows_of
from profiling.record.files import LOAD_COLUMNS, Record, read_session
from twin.errors import InputError
from twin.server.calibration import Calibration, Stamp
from twin.server.hardware import GpuType, ModelSpec
from twin.server.laws import STEP_TERMS, KvCapacityLaw, LoadLaw, StepTimeLaw
from twin.server.slots import reserved_bytes, slot_bytes_per_rank

#: Tokens up to which a GPU's steps are CUDA graphs; a CPU has none.
GRAPH_TOKENS = 512.0
SOURCE = "recorded with python -m profiling record"
#: Loads above this quantile are left out of the mean: the machine did something else.
LOAD_QUANTILE = 0.98


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration and how it came about.

    Args:
        start: the prior; None = without one.
    """

    calibration: Calibration
    solution: Solution
    rows: tuple[Row, ...]
    start: Start | None


def fit_records(folder: Path, records: Sequence[Record], *, hardware: str, name: str, date: str) -> Fitted:
    """Fits everything from the runs that are not held out.

    Args:
        hardware: an option of `conf/hardware` whose derived calibration is the prior; empty = no prior.
        name: of the calibration; empty = `<model>-<gpu>`.

    Raises:
        InputError: no run is left for the fit, the engines' versions differ, or no prior can be derived.
    """
    session = read_session(folder)
    runs = [r for r in records if not r.held_out]
    versions = sorted({r.about["engine"]["version"] for r in runs})
    if len(versions) != 1:
        raise InputError(
            f"the runs for the fit are of {len(versions)} versions of vLLM: {', '.join(versions) or 'none'}",
            where=str(folder),
            remedy="record with one version",
        )
    model = read_config(session["model"])
    engine = runs[0].about["engine"]
    rows = rows_of(runs, GRAPH_TOKENS)
    model_name = Path(session["model"]).name
    start = start_of(request_of_hardware(model_name, model, hardware, engine), rows) if hardware else None
    solution = fitted_law(rows, solve_plain if start is None else start.solve)
    law = StepTimeLaw(**dict(zip(STEP_TERMS, np.round(solution.coefficients, 6).tolist(), strict=True)),
                      graph_tokens=GRAPH_TOKENS)  # fmt: skip
    unit = int(engine["tensor_parallel_size"])
    calibration = Calibration(
        name=name or f"{model_name}-{session['gpu']}",
        stamp=Stamp(
            gpu_type=session["gpu"],
            model=model_name,
            engine="vllm",
            engine_version=version_of(engine),
            date=date,
            source=f"{SOURCE}{'' if start is None else ', prior: ' + start.name}",
            points={"runs": len(runs), "steps": sum(len(r.steps) for r in runs), "rows": len(rows)},
            residuals={
                "row_mape_pct": round(solution.error_pct, 3),
                "row_held_out_mape_pct": round(solution.held_out_error_pct, 3),
            },
            tensor_parallel_size=unit,
        ),
        gpu=GpuType(session["gpu"], int(engine["memory_bytes"])),
        model=ModelSpec(
            model_name,
            int(engine["max_model_len"]),
            2 * model.dtype_bytes * model.layers * model.shape(unit).kv_width,
            unit * slot_bytes_per_rank(model.shape()),
        ),
        step=law,
        load=load_law(records),
        kv=capacity_law(model, runs, unit),
        valid=valid_ranges(runs),
    )
    return Fitted(calibration, solution, tuple(rows), start)


def load_law(records: Sequence[Record]) -> LoadLaw:
    """Mean times of the recorded loads; of ranks below the slots' where there are some."""
    equal: list[float] = []
    lower: list[float] = []
    disk: list[tuple[float, float]] = []
    for record in records:
        top = record.about["engine"]["max_lora_rank"]
        for start_s, end_s, from_disk, rank in record.loads[list(LOAD_COLUMNS)].to_numpy(np.float64).tolist():
            ms = 1000 * (end_s - start_s)
            if from_disk:
                disk.append((rank, ms))
            else:
                (equal if rank >= top else lower).append(ms)
    slot, padded = _trimmed(equal or lower), _trimmed(lower or equal)
    base = per_rank = 0.0
    if disk:
        ranks, times = np.array(disk).T
        if len(set(ranks.tolist())) > 1:
            per_rank, base = (max(0.0, float(v)) for v in np.polyfit(ranks, times, 1))
        else:
            base = _trimmed(times.tolist())
    return LoadLaw(round(slot, 4), round(padded, 4), round(base, 4), round(per_rank, 5))


def _trimmed(values: Sequence[float]) -> float:
    if not values:
        return 0.0
    array = np.array(values)
    return float(array[array <= np.quantile(array, LOAD_QUANTILE)].mean())


def capacity_law(model: Architecture, records: Sequence[Record], unit: int) -> KvCapacityLaw:
    """What the servers said: one number whatever the slots (a fixed cache), else free memory less weights and slots."""
    engines = [r.about["engine"] for r in records]
    said = {(e["max_loras"], e["max_lora_rank"]): int(e["kv_cache_tokens"]) for e in engines}
    tokens = sorted(said.values())
    if len(said) == 1 or tokens[0] == tokens[-1]:
        return KvCapacityLaw(base_tokens=float(tokens[0]), tokens_per_slot_rank=0.0)
    shape = model.shape(unit, extra_vocab=0)
    per_token = 2 * model.dtype_bytes * model.layers * shape.kv_width
    free = sorted(t * per_token + reserved_bytes(shape, m, r) for (m, r), t in said.items())
    return KvCapacityLaw(float(tokens[-1]), 0.0, free_bytes=int(free[len(free) // 2]), shape=shape)


def valid_ranges(records: Sequence[Record]) -> dict[str, tuple[float, float]]:
    """Ranges of the flags that were recorded."""
    engines = [r.about["engine"] for r in records]
    names = ("max_loras", "max_lora_rank", "max_num_seqs", "max_num_batched_tokens", "block_size")
    ranges = {n: (float(min(e[n] for e in engines)), float(max(e[n] for e in engines))) for n in names}
    ranges["max_num_seqs"] = (1.0, ranges["max_num_seqs"][1])
    counts = [len(r.adapters) for r in records]
    return {**ranges, "num_adapters": (float(min(counts)), float(max(counts))), "gpu_memory_utilization": (0.9, 0.9)}
