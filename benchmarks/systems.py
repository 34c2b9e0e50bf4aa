"""GPU systems and models nobody measured: whole runs of the default workload, with the derivation of the calibration.

    python -m benchmarks.systems [systems=[l40s,h100-sxm]] [models=[qwen3-8b]] [objective=gpu_count] [time_limit_s=60]

A row is `python -m placement +objective=... model=... hardware=...` on servers of as few GPUs as the model fits on
(`engine.tensor_parallel_size` 1, 2, 4 or 8), its calibration derived anew (`derived s` of `s`). `CPU s` counts all
processors and the deriving process: on a busy machine the wall clock (`s`) is longer. `GPUs` counts GPUs, not servers;
each has the price 1. Needs the extra `hardware`; without it the data sheets alone (`sheet=true`). Not measured: whether
the calibrations are right (`benchmarks.derive`).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from placement.command import APP, normalised
from placement.config import load_run
from placement.pipeline import run_pipeline
from placement.report.progress import progress
from twin.config.compose import compose
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import DoesNotFitError, InputError
from twin.server.derivation import FOLDER_VARIABLE

SYSTEMS = ("a100-sxm", "h100-sxm", "h200-sxm", "b200-sxm", "l40s", "rtx-pro-6000")
MODELS = ("llama-3.2-3b", "qwen3-8b", "qwen2.5-14b", "mistral-small-24b", "qwen2.5-32b", "llama-3.1-70b")
#: GPUs a server, in the order tried.
SIZES = (1, 2, 4, 8)
HEADER = ("model", "system", "GPUs a server", "GPUs", "status", "bound", "derived s", "s", "CPU s", "")


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    systems: tuple[str, ...] = SYSTEMS
    models: tuple[str, ...] = MODELS
    objective: str = "gpu_count"
    time_limit_s: Annotated[float, Range(above=0, high=86_400, unit="seconds")] = 60.0
    sheet: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One run; seconds with the derivation."""

    model: str
    system: str
    size: int
    gpus: int
    status: str
    bound: float | None
    derived_s: float
    seconds: float
    cpu_s: float
    problem: str = ""


def planned(model: str, system: str, options: Options) -> Row:
    """Plans on servers of as few GPUs as the model fits on."""
    began, cpu = time.perf_counter(), cpu_seconds()
    derived_s, size, problem = 0.0, SIZES[0], ""
    for size in SIZES:
        try:
            made = load_run(compose(APP, normalised(overrides(model, system, size, options))))
            derived_s = time.perf_counter() - began
            result = run_pipeline(made, progress(quiet=True))
        except DoesNotFitError as error:
            problem = error.problem
            continue
        except InputError as error:
            problem = error.problem
            if "no engine setting fits" in problem:
                continue
            break
        return Row(
            model, system, size, size * len(result.gpus), result.status, result.bound, derived_s,
            time.perf_counter() - began, cpu_seconds() - cpu,
        )  # fmt: skip
    return Row(
        model, system, size, 0, "no plan", None, derived_s, time.perf_counter() - began, cpu_seconds() - cpu, problem
    )


def overrides(model: str, system: str, size: int, options: Options) -> list[str]:
    """The options of one run."""
    return [
        f"model={model}", f"hardware={system}", f"engine.tensor_parallel_size={size}", f"objective={options.objective}",
        f"time_limit_s={options.time_limit_s:g}", *(["hardware.system=null"] if options.sheet else []),
    ]  # fmt: skip


def cpu_seconds() -> float:
    """Of this process and those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def cells(row: Row) -> list[str]:
    """One line of the table."""
    bound = "-" if row.bound is None else f"{row.bound:.3g}"
    return [
        row.model, row.system, str(row.size), str(row.gpus), row.status, bound, f"{row.derived_s:.1f}",
        f"{row.seconds:.1f}", f"{row.cpu_s:.1f}", row.problem,
    ]  # fmt: skip


def measure(options: Options) -> dict[str, Any]:
    """All runs; prints the table."""
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER_VARIABLE] = folder
        # Compiled kernels are not what is measured.
        planned(options.models[0], options.systems[0], options)
        for model in options.models:
            for n, system in enumerate(options.systems):
                os.environ[FOLDER_VARIABLE] = f"{folder}/{model}-{n}"
                rows.append(planned(model, system, options))
                print("| " + " | ".join(cells(rows[-1])) + " |", flush=True)
    seconds = sorted(r.seconds for r in rows)
    return {
        "systems": {
            "runs": len(rows),
            "status": dict(Counter(r.status for r in rows)),
            "sizes": dict(Counter(str(r.size) for r in rows)),
            "longest_s": seconds[-1],
            "longest_cpu_s": max(r.cpu_s for r in rows),
            "median_s": seconds[len(seconds) // 2],
            "rows": [asdict(r) for r in rows],
        }
    }


def run(options: Options) -> int:
    """The benchmark."""
    print(json.dumps(measure(options)))
    return 0


COMMAND = command("benchmarks.systems", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(COMMAND, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
