"""Scores of runs that a law has not seen: whole workloads left out, few runs used, mechanisms taken away.

A fold leaves whole workloads out (rates, ranks and model), refits the step-time law on the others, and *replays* the
left-out runs freely. Teacher-forced features are shared by all folds: they belong to the measured step times, and
hardly depend on the law that the search started from. Memory and load laws come from their own tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from profiling.fit.calibration import RECIPE, law_from
from profiling.fit.forcing import ForcedRun, force_all
from profiling.fit.micro import Row
from profiling.fit.regression import Recipe
from profiling.published.fidelity import Comparison, compare_all
from profiling.published.replay import Rig
from profiling.published.runs import MeasuredRun, fold_of
from twin.server.calibration import Calibration
from twin.server.laws import LoadLaw
from twin.server.rules import EngineRules


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one model's law is fitted to.

    Args:
        calibration: its memory and load laws are used; its step-time law is replaced by each fit.
        forced: runs at their measured step time.
        micro: rows of micro-benchmarks.
    """

    calibration: Calibration
    forced: tuple[ForcedRun, ...]
    micro: tuple[Row, ...]

    def fitted(self, runs: Sequence[ForcedRun], recipe: Recipe = RECIPE) -> Calibration:
        """The calibration with the law of these runs and all micro-benchmarks."""
        return replace(self.calibration, step=law_from(runs, self.micro, recipe))


@dataclass(frozen=True, slots=True)
class Variant:
    """A twin without one of its parts.

    Args:
        recipe: `zero` names terms that the law does without.
        rules: other scheduling rules than those measured; None = the measured ones.
        load: other load times; None = the measured ones.
    """

    name: str
    recipe: Recipe = RECIPE
    rig: Rig = field(default_factory=Rig)
    rules: EngineRules | None = None
    load: LoadLaw | None = None
    force_again: bool = False

    def evidence(self, evidence: Evidence, threads: int) -> Evidence:
        """The evidence as this twin sees it: forced again where it would fill other batches."""
        calibration = evidence.calibration
        if self.load is not None:
            calibration = replace(calibration, load=self.load)
        if not self.force_again:
            return replace(evidence, calibration=calibration)
        runs, starts = [f.run for f in evidence.forced], [f.scale for f in evidence.forced]
        forced = force_all(runs, calibration, self.rig, starts=starts, threads=threads, rules=self.rules)
        return replace(evidence, calibration=calibration, forced=tuple(forced))


def crossvalidate(
    evidence: Mapping[str, Evidence], folds: int, seeds: int, threads: int, variant: Variant | None = None
) -> list[Comparison]:
    """Every forced run, replayed with a law of the other workloads; evidence by model."""
    variant = variant or Variant("full")
    seen = {model: variant.evidence(e, threads) for model, e in evidence.items()}
    runs = [f.run for e in seen.values() for f in e.forced]
    rows: list[Comparison] = []
    for i in range(folds):
        inside, outside = fold_of(runs, f"{i}/{folds}")
        ids = {(r.table, r.run_id) for r in outside}
        calibrations = {
            model: e.fitted([f for f in e.forced if (f.run.table, f.run.run_id) in ids], variant.recipe)
            for model, e in seen.items()
        }
        rows += compare_all(inside, calibrations, variant.rig, seeds, threads, rules=variant.rules)
    return rows


def with_few_runs(
    evidence: Mapping[str, Evidence], size: int, scored: Sequence[MeasuredRun], seeds: int, threads: int, draw: int = 0
) -> list[Comparison]:
    """Runs replayed with a law of micro-benchmarks and `size` random runs a model, which are not scored."""
    calibrations: dict[str, Calibration] = {}
    used: set[tuple[str, str]] = set()
    for number, (model, e) in enumerate(sorted(evidence.items())):
        rng = np.random.default_rng([draw, size, number])
        chosen = [e.forced[int(i)] for i in rng.permutation(len(e.forced))[:size]]
        used |= {(f.run.table, f.run.run_id) for f in chosen}
        calibrations[model] = e.fitted(chosen)
    rest = [r for r in scored if (r.table, r.run_id) not in used]
    return compare_all(rest, calibrations, Rig(), seeds, threads)
