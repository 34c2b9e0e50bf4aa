"""What adapters cost: the twin's laws beside the measured tables of arXiv 2508.08343.

    python -m benchmarks.overheads data=FOLDER

One line a table: mean absolute (MAPE), mean and largest error in percent, and whether the calibration was fitted to
these rows. Two campaigns were measured. The micro-benchmarks of vLLM 0.8.5 (`calibration_*.csv`) are of the models and
the engine of the shipped calibrations. The analysis of the publication (`performance_analysis_*.csv`) is of Llama-2
under vLLM 0.5.0, an older engine for which no calibration with adapters exists: of it, what follows from shapes alone
can be compared (memory), and the rest is shown beside the law without a score, with the reason. Tables that are not in
the folder are named and left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from profiling.fit.micro import WORD_PROMPT_TOKENS, features
from profiling.published.runs import records
from twin.config.entry import run_app
from twin.config.program import command
from twin.errors import InputError
from twin.server.calibration import Calibration, load_calibration
from twin.server.slots import ModelShape, reserved_bytes

Array = NDArray[np.float64]
CALIBRATIONS = {
    "llama-3.1-8b-instruct": "llama-3.1-8b-h100-64gb",
    "qwen-2.5-7b-instruct": "qwen2.5-7b-h100-64gb",
}
#: Published shapes of the models of the analysis, and bytes of a KV block of 16 tokens.
SHAPES = {
    "llama-2-7b": ModelShape(32, 4096, 4096, 11008, 32000, adapted_vocab=True),
    "llama-2-13b": ModelShape(40, 5120, 5120, 13824, 32000, adapted_vocab=True),
}
BLOCK_TOKENS = 16
#: The setting that room in the KV cache is counted from, as in `twin.figures.overheads`.
LEAST_SLOTS, LEAST_RANK = 1, 8
#: Scheduler times below this are those of a loop over hardly any queue, which the law counts as part of `base`, ms.
LEAST_SCHEDULER_MS = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    data: str


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one table.

    Args:
        fitted: the calibration saw these rows.
        note: how the comparison was made, or what it shows.
    """

    name: str
    measured: Array
    predicted: Array
    fitted: bool
    note: str = ""

    @property
    def errors_pct(self) -> Array:
        """Predicted / measured - 1, percent."""
        return np.asarray(100.0 * (self.predicted / self.measured - 1.0))

    def told(self) -> dict[str, float]:
        """For the summary."""
        return {"rows": len(self.measured), "mape_pct": round(float(np.abs(self.errors_pct).mean()), 2)}


def memory(table: pd.DataFrame) -> Iterator[Score]:
    """KV blocks that slots take, against one slot of rank 8: nothing is fitted, the shape says it."""
    rows = table[table["lora_enabled"] & (table["gpu_blocks"] > 0)].drop_duplicates(
        ["model", "max_loras", "max_lora_rank", "gpu_blocks"]
    )
    for model, own in rows.groupby("model"):
        shape = SHAPES.get(str(model))
        least = own[(own["max_loras"] == LEAST_SLOTS) & (own["max_lora_rank"] == LEAST_RANK)]
        if shape is None or least.empty:
            continue
        block_bytes = 2 * shape.layers * shape.kv_width * shape.dtype_bytes * BLOCK_TOKENS
        first, start = reserved_bytes(shape, LEAST_SLOTS, LEAST_RANK), float(least["gpu_blocks"].iloc[0])
        more = own[own["max_loras"] > LEAST_SLOTS]
        lost = np.array(
            [
                (reserved_bytes(shape, int(r.max_loras), int(r.max_lora_rank)) - first) / block_bytes
                for r in records(more)
            ]
        )
        left = more["gpu_blocks"].to_numpy(float)
        yield Score(f"KV blocks lost to slots, {model}", start - left, lost, False, "from the model's shape alone")


def compute(table: pd.DataFrame) -> Iterator[Score]:
    """Step time by distinct adapters, and its ratio to the step without adapters."""
    usable = table[(table["experiment"] == "lora") & table["mean_itl_ms"].notna() & table["base_itl_ms"].notna()]
    for model, own in usable.groupby("model"):
        if str(model) not in CALIBRATIONS:
            continue
        law = load_calibration(CALIBRATIONS[str(model)]).step.as_array()[:-1]
        with_adapters, without, distinct = [], [], []
        for r in records(own):
            batch, used = float(r.mean_batch), float(r.n_adapters_used)
            drawn = used * (1.0 - (1.0 - 1.0 / used) ** batch)
            adapters = drawn if pd.isna(r.mean_loras_by_batch) else float(r.mean_loras_by_batch)
            kv = batch * (WORD_PROMPT_TOKENS + r.req_output_len_set / 2)
            slots, rank = float(r.max_loras), float(r.max_lora_rank)
            with_adapters.append(float(features(batch, 0, kv, adapters, slots=slots, rank=rank) @ law))
            without.append(float(features(batch, 0, kv, 0) @ law))
            distinct.append(adapters)
        measured, predicted = own["mean_itl_ms"].to_numpy(float), np.array(with_adapters)
        slopes = [float(np.polyfit(distinct, times, 1)[0]) for times in (measured, predicted)]
        note = f"ms a distinct adapter: measured {slopes[0]:.3f}, law {slopes[1]:.3f}"
        yield Score(f"step time by distinct adapters, {model}", measured, predicted, True, note)
        overhead = measured / own["base_itl_ms"].to_numpy(float)
        yield Score(
            f"step with / without adapters, {model}", overhead, predicted / np.array(without), True,
            f"{overhead.min():.1f} to {overhead.max():.1f} times",
        )  # fmt: skip


def loading(table: pd.DataFrame) -> Iterator[Score]:
    """Time to load an adapter into a slot, and from disk, by rank."""
    for model, own in table.groupby("model"):
        if str(model) not in CALIBRATIONS:
            continue
        law = load_calibration(CALIBRATIONS[str(model)]).load
        serving = own[(own["source"] == "cpu_memory") & ~own["during_server_init"]]
        slot = [law.equal_rank_ms if r.adapter_rank == r.max_lora_rank else law.lower_rank_ms for r in records(serving)]
        yield Score(f"load into a slot, {model}", serving["mean"].to_numpy(float), np.array(slot), True, "means of 50")
        disk = own[own["source"] == "disk"]
        read = np.array([law.disk_ms(int(r.adapter_rank)) for r in records(disk)])
        yield Score(f"load from disk, {model}", disk["median"].to_numpy(float), read, True, "medians of 50")


def scheduler(table: pd.DataFrame) -> Iterator[Score]:
    """Time of `schedule()` by batch and queue, from means of a run: skipped = waiting x (1 - slots / adapters)."""
    law = load_calibration(CALIBRATIONS["llama-3.1-8b-instruct"]).step
    rows = table[table["sched_ms_per_step"] > LEAST_SCHEDULER_MS]
    batch, waiting = (rows[name].to_numpy(float) for name in ("avg_batch_size", "avg_waiting_queue"))
    skipped = waiting * (1.0 - rows["gpu_loras"].to_numpy(float) / rows["cpu_loras"].to_numpy(float))
    measured = rows["sched_ms_per_step"].to_numpy(float)
    terms = {
        "all three terms": law.skipped * skipped / 1e3
        + (law.skipped_seq * skipped + law.queue * waiting) * batch / 1e6,
        "the term of skipped requests": law.skipped * skipped / 1e3,
    }
    for name, told in terms.items():
        together = float(np.corrcoef(told, measured)[0, 1]) if len(measured) > 1 else float("nan")
        note = f"correlation {together:.2f}, law / measured {told.sum() / measured.sum():.2f}"
        yield Score(f"scheduler, {name}", measured, told, False, note)


#: What is compared: file -> comparison.
TABLES: dict[str, Callable[[pd.DataFrame], Iterator[Score]]] = {
    "performance_analysis_memory_overhead.csv": memory,
    "calibration_lora_overhead.csv": compute,
    "calibration_adapter_loading_summary.csv": loading,
    "calibration_scheduler_overhead.csv": scheduler,
}


def older_compute(table: pd.DataFrame, law: Calibration) -> Iterator[str]:
    """Step time by distinct adapters of the older engine, beside the law of another model and engine."""
    step = law.step
    usable = table[table["itl_p50_ms"].notna() & table["mean_loras_by_batch"].notna() & (table["adapters_used"] > 0)]
    slopes = {}
    for rank in sorted(usable["max_lora_rank"].unique().tolist()):
        own = usable[usable["max_lora_rank"] == rank]
        slopes[rank] = float(np.median([_slope(part) for _, part in own.groupby("dataset")]))
    shown = ", ".join(
        f"{slope:.3f} (law {step.adapter + step.adapter_rank * rank / 16:.2f})" for rank, slope in slopes.items()
    )
    yield (
        f"ms a distinct adapter at rank {', '.join(map(str, slopes))}: {shown}. vLLM 0.5.0 ran other LoRA kernels, "
        "whose time hardly depends on how many adapters a batch mixes, and prefilled in steps of their own"
    )


def _slope(part: pd.DataFrame) -> float:
    return float(np.polyfit(part["mean_loras_by_batch"].to_numpy(float), part["itl_p50_ms"].to_numpy(float), 1)[0])


def older_rank(table: pd.DataFrame, law: Calibration) -> Iterator[str]:
    """One slot, no adapter in any batch: the older engine paid for the rank all the same."""
    one = table[(table["max_loras"] == 1) & table["itl_mean_ms"].notna() & (table["dataset"] == "mean")]
    for model, own in one.groupby("model"):
        told = own.sort_values("max_lora_rank")[["max_lora_rank", "itl_mean_ms"]].to_numpy(float)
        times = ", ".join(f"{ms:.1f} ms at rank {rank:.0f}" for rank, ms in told)
        yield (
            f"mean ITL of {model} with one slot and no LoRA request: {times}. vLLM 0.5.0 paid for the rank without an "
            f"adapter in the batch; by the law of {law.name} a step without adapters costs nothing more"
        )


def older_loading(table: pd.DataFrame, law: Calibration) -> Iterator[str]:
    """Loads of the older engine beside the law of another model."""
    later, first = (table[table["phase"] == phase] for phase in ("consecutive_loads", "first_load"))
    ranks = sorted(table["rank"].unique().tolist())
    slot, disk, touch = [], [], []
    for rank in ranks:
        own = later[later["rank"] == rank]
        slot.append(f"{1e3 * own['cpu_to_gpu_s'].median():.1f}")
        disk.append(f"{1e3 * own['disk_to_cpu_s'].median():.0f} (law {law.load.disk_ms(rank):.0f})")
        touch.append(f"{1e3 * first[first['rank'] == rank]['disk_to_cpu_s'].mean():.0f}")
    yield (
        f"Llama-2-7B into a slot at rank {', '.join(map(str, ranks))}: {', '.join(slot)} ms, whatever the rank, as the "
        f"law says (Llama-3.1-8B {law.load.equal_rank_ms:.1f}); from disk {', '.join(disk)} ms, and at the first touch "
        f"{', '.join(touch)}, which the law leaves out. Another model, engine and files: no score"
    )


def older_latency(table: pd.DataFrame, law: Calibration) -> Iterator[str]:
    """End-to-end latencies with one slot: who served them is not known."""
    port = int(table["own_server_port_in_use"].sum())
    yield (
        f"latency with one slot: in {port} of {len(table)} runs another server owned the port, so that the rank label "
        f"is not reliable; and {law.name} knows no one-slot server (valid from {law.valid['max_loras'][0]:.0f} slots)"
    )


#: What is shown without a score, and why: file -> sentences.
SHOWN: dict[str, Callable[[pd.DataFrame, Calibration], Iterator[str]]] = {
    "performance_analysis_compute_overhead.csv": older_compute,
    "performance_analysis_memory_overhead.csv": older_rank,
    "performance_analysis_loading_overhead_loads.csv": older_loading,
    "performance_analysis_loading_overhead_latency.csv": older_latency,
}


def folder_of(data: str) -> Path:
    """The folder that holds at least one of the tables.

    Raises:
        InputError: there is none.
    """
    for folder in (Path(data), Path(data) / "adapter_serving"):
        if any((folder / name).is_file() for name in (*TABLES, *SHOWN)):
            return folder
    raise InputError(
        f"{data!r} holds none of {', '.join(sorted({*TABLES, *SHOWN}))}", where="data",
        remedy="name the folder of measured tables",
    )  # fmt: skip


def run(options: Options) -> int:
    folder = folder_of(options.data)
    scores: list[Score] = []
    print(f"{'error in percent':53s} {'rows':>5s} {'MAPE':>7s} {'bias':>7s} {'worst':>7s}")
    for name, compare in TABLES.items():
        if not (folder / name).is_file():
            print(f"{name}: left out, not in {folder}")
            continue
        for score in compare(pd.read_csv(folder / name)):
            off = score.errors_pct
            print(
                f"{score.name:53s} {len(off):5d} {np.abs(off).mean():7.1f} {off.mean():7.1f} {np.abs(off).max():7.1f}  "
                f"{'fitted' if score.fitted else 'not fitted'}; {score.note}"
            )
            scores.append(score)
    print("\nshown without a score")
    law = load_calibration(CALIBRATIONS["llama-3.1-8b-instruct"])
    for name, show in SHOWN.items():
        if (folder / name).is_file():
            for sentence in show(pd.read_csv(folder / name), law):
                print(f"* {name}: {sentence}.")
    print(json.dumps({score.name: score.told() for score in scores}))
    return 0


APP = command("benchmarks.overheads", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
