"""The data sheet's roofline against measured operator times: how good is a GPU that nobody measured?

    python -m benchmarks.operator_times [every=1]

Needs the extra `hardware`. Six dense models on every GPU with operator times of vLLM, where they fit; decode steps, and
steps with prompts. `profiling.derive.work.Efficiency` is fitted to all of them (the shipped `TYPICAL` is that, rounded)
and to all GPUs but one, whose times it predicts: the spread of that is what a data sheet alone is worth. The last
line is JSON. Not measured: the host, adapters, GPUs by other makers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from profiling.derive.architecture import Architecture
from profiling.derive.device import Device
from profiling.derive.operators import measured_kernels, measured_systems, systems
from profiling.derive.request import for_names
from profiling.derive.work import TYPICAL, Efficiency, Step, step_ms
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range

Array = NDArray[np.float64]

MODELS = ("qwen3-0.6b", "qwen3-1.7b", "qwen3-8b", "llama-3.1-8b", "qwen3-32b", "llama-3.1-70b")
STEPS = (
    *(Step(b, 0, c) for b in (1, 8, 32, 128, 256, 512, 1000) for c in (200, 500, 1500)),
    *(Step(b, p, 400) for b in (1, 64, 256) for p in (128, 512, 1024, 1800)),
)
#: Models with more parameters are also split over 2 and 4 GPUs.
LARGE = 2e10
LOW = Efficiency(0.3, 0.3, 0.2, 0.1, 0.1, 0.2, 1.0, 0.1)
HIGH = Efficiency(1.0, 1.0, 1.0, 1.0, 1.0, 20.0, 60.0, 1.2)


@dataclass(frozen=True, slots=True)
class Options:
    """Of this benchmark."""

    every: Annotated[int, Range(1)] = 1


@dataclass(frozen=True, slots=True)
class Time:
    """One step of a model on GPUs of a system, and its kernel time in ms."""

    model: Architecture
    device: Device
    tensor_parallel: int
    step: Step
    measured_ms: float

    def sheet_ms(self, reached: Efficiency) -> float:
        return step_ms(self.model, self.step, self.device, self.tensor_parallel, reached)


def times(every: int) -> list[Time]:
    """All steps that fit."""
    found = []
    for system in measured_systems():
        device = systems()[system]
        for name in MODELS:
            model = for_names(name, "h100-sxm").model
            for size in (1, 2, 4) if model.parameters > LARGE else (1,):
                if model.dtype_bytes * model.parameters / size > 0.9 * device.memory_bytes:
                    continue
                kernels = measured_kernels(model, device, size)
                found += [Time(model, device, size, s, kernels.step_ms(s)) for s in STEPS[::every]]
    return found


def errors(rows: Sequence[Time], reached: Efficiency) -> Array:
    """Logarithm of the sheet's time / the measured one, (rows,)."""
    return np.log([row.sheet_ms(reached) / row.measured_ms for row in rows])


def fit(rows: Sequence[Time]) -> Efficiency:
    """The shares of the peaks that fit best, robustly (soft L1 beyond 10 %)."""
    found = least_squares(
        lambda x: errors(rows, Efficiency(*x)), astuple(TYPICAL), bounds=(astuple(LOW), astuple(HIGH)),
        loss="soft_l1", f_scale=0.1,
    )  # fmt: skip
    return Efficiency(*(float(v) for v in found.x))


def row_of(error: Array) -> dict[str, float]:
    """Figures of the errors of some steps, percent."""
    return {
        "steps": len(error),
        "mape_pct": round(100 * float(np.abs(np.expm1(error)).mean()), 1),
        "bias_pct": round(100 * float(np.expm1(error.mean())), 1),
        "spread_pct": round(100 * float(error.std()), 1),
    }


def run(options: Options) -> None:
    """Prints the fit and what it predicts of GPUs that it has not seen; JSON last."""
    rows = times(options.every)
    whole = fit(rows)
    print("fitted: " + ", ".join(f"{f.name} {getattr(whole, f.name):.3f}" for f in fields(Efficiency)))
    shipped = row_of(errors(rows, TYPICAL))
    result: dict[str, dict[str, float]] = {"all, shipped": shipped}
    for system in sorted({row.device.name for row in rows}):
        others = [row for row in rows if row.device.name != system]
        left_out = [row for row in rows if row.device.name == system]
        reached = fit(others)
        for kind, chosen in (
            ("", [r for r in left_out if r.tensor_parallel == 1]),
            (" split", [r for r in left_out if r.tensor_parallel > 1]),
        ):
            if chosen:
                result[system + kind] = row_of(errors(chosen, reached))
    print(f"{'GPU left out of the fit':<28}{'steps':>8}{'MAPE %':>8}{'bias %':>8}{'spread %':>10}")
    for name, row in result.items():
        print(f"{name:<28}{row['steps']:>8}{row['mape_pct']:>8}{row['bias_pct']:>8}{row['spread_pct']:>10}")
    print(json.dumps(result))


APP = command("benchmarks.operator_times", Options, run, about=__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
