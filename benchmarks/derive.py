"""Derived calibrations against real servers: with no run, and with a few.

    python -m benchmarks.derive data=<folder> [every=8] [sizes=0,3,10,20] [draws=3] [seeds=1] [threads=2]

Both measured models get a derived calibration: kernels from the operator times of an H100 SXM and the card's data
sheet, host, adapters, loads and memory learned from the *other* model, nothing from their own measurements. Then 3, 10
and 20 random runs of their own (teacher-forced with the derived calibration) are added by Bayesian regression
(`profiling.derive.posterior`); micro-benchmarks are not used. All other runs, every n-th, are replayed freely, as in
`python -m profiling crossvalidate`. `careful`: share of runs whose simulated ITL at the careful end is at least the
measured one, and how much longer that ITL is than at the mean. The last line is JSON.

The forms of the law, of the roofline and of the scaling were chosen with these two models in view; the numbers in them
were not fitted to the model that is scored, except for the prior's spreads, which were set once with both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from profiling.derive.command import MEASURED, learned
from profiling.derive.constants import Constants
from profiling.derive.derivation import derive, fitted
from profiling.derive.operators import Kernels
from profiling.derive.request import for_names, kernels_of
from profiling.derive.target import Request
from profiling.fit.forcing import ForcedRun, force
from profiling.published.fidelity import Comparison, compare_all, scores
from profiling.published.models import MEASURED_MODELS
from profiling.published.replay import Rig
from profiling.published.reports import print_scores
from profiling.published.runs import MeasuredRun, read_all_runs, thin
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError
from twin.server.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Options:
    """Of this benchmark."""

    data: str
    every: Annotated[int, Range(1)] = 8
    sizes: str = "0,3,10,20"
    draws: Annotated[int, Range(1, 100)] = 3
    seeds: Annotated[int, Range(1, 100)] = 1
    threads: Annotated[int, Range(1, 256, unit="threads")] = 2


@dataclass(slots=True)
class Case:
    """One model: its derived calibration, and its runs at their measured step times, forced when first asked for."""

    request: Request
    kernels: Kernels
    constants: Constants
    runs: list[MeasuredRun]
    derived: Calibration
    forced: dict[int, ForcedRun] = field(default_factory=dict)

    def with_runs(self, chosen: Sequence[int]) -> Calibration:
        """The calibration after these runs, given by index."""
        for i in chosen:
            if i not in self.forced:
                self.forced[i] = force(self.runs[i], self.derived, Rig())
        rows = [self.forced[i].row() for i in chosen]
        return fitted(self.request, self.kernels, self.constants, rows, date="")


def cases(folder: Path) -> dict[str, Case]:
    """Both models, each with the constants of the other."""
    runs = [r for r in read_all_runs(folder) if r.usable and r.starved is not None]
    found = {}
    for (model, hardware), (other, other_hardware) in zip(MEASURED, reversed(MEASURED), strict=True):
        (spec,) = (m.spec for m in MEASURED_MODELS if m.calibration == f"{model}-{hardware}")
        request = replace(for_names(model, hardware), model_name=spec.name)
        kernels, constants = kernels_of(request), learned(other, other_hardware)
        mine = [r for r in runs if r.model == spec.name]
        found[spec.name] = Case(request, kernels, constants, mine, derive(request, kernels, constants, date=""))
    return found


def drawn(all_cases: Mapping[str, Case], size: int, draw: int) -> tuple[dict[str, Calibration], set[str]]:
    """Calibrations of every model after `size` random runs, and the ids of those runs."""
    calibrations, used = {}, set()
    for number, (name, case) in enumerate(sorted(all_cases.items())):
        order = np.random.default_rng([draw, size, number]).permutation(len(case.runs))
        chosen = [int(i) for i in order[:size]]
        calibrations[name] = case.with_runs(chosen) if size else case.derived
        used |= {f"{case.runs[i].table}/{case.runs[i].run_id}" for i in chosen}
    return calibrations, used


def careful_figures(mean: Sequence[Comparison], careful: Sequence[Comparison]) -> dict[str, float]:
    """How often the careful end's ITL is at least the measured one, and by how much it is longer than the mean's."""
    pairs = [(m, c) for m, c in zip(mean, careful, strict=True) if np.isfinite(c.predicted["itl"])]
    slower = [c.predicted["itl"] >= c.measured["itl"] for _, c in pairs]
    longer = [c.predicted["itl"] / m.predicted["itl"] - 1 for m, c in pairs]
    starved = [c.starved for _, c in pairs if c.starved_measured]
    return {
        "careful_slower_pct": round(100 * float(np.mean(slower)), 1),
        "careful_longer_pct": round(100 * float(np.median(longer)), 1),
        "careful_starved_found_pct": round(100 * float(np.mean(starved)), 1) if starved else 100.0,
    }


def run(options: Options) -> None:
    """Prints the scores by number of runs; JSON last."""
    sizes = [int(word) for word in options.sizes.split(",") if word.strip().isdigit()]
    if not sizes:
        raise InputError(f"sizes={options.sizes} names no number of runs", remedy="use e.g. sizes=0,3,10,20")
    all_cases = cases(Path(options.data))
    scored = thin([r for case in all_cases.values() for r in case.runs], options.every)
    table: dict[str, dict[str, float]] = {}
    for size in sizes:
        means: list[Comparison] = []
        ends: list[Comparison] = []
        for draw in range(options.draws if size else 1):
            calibrations, used = drawn(all_cases, size, draw)
            rest = [r for r in scored if f"{r.table}/{r.run_id}" not in used]
            means += compare_all(rest, calibrations, Rig(), options.seeds, options.threads)
            careful = {name: c.at("careful") for name, c in calibrations.items()}
            ends += compare_all(rest, careful, Rig(), options.seeds, options.threads)
        table[f"{size} runs"] = scores(means) | careful_figures(means, ends)
        for name in all_cases:
            own = [i for i, row in enumerate(means) if row.run.model == name]
            mine = [means[i] for i in own]
            table[f"  {name[:5]}"] = scores(mine) | careful_figures(mine, [ends[i] for i in own])
        print_scores(f"derived calibrations, {size} runs, SMAPE %", dict(list(table.items())[-3:]))
        print(f"  careful side: {json.dumps(careful_figures(means, ends))}", flush=True)
        table |= {f"{size} runs, {name[:5]}": table.pop(f"  {name[:5]}") for name in all_cases}
    print(json.dumps(table))


APP = command("benchmarks.derive", Options, run, about=__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
