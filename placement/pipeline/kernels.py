"""Compiled code, before the clock starts: a first run compiles for a minute, which no limit counts.

Later runs load what was compiled within a second, in a thread.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np

import surrogates
import twin
from placement.config import Run
from placement.pipeline.clock import Progress
from placement.problem.build import build_problem
from twin.compiled import is_compiled
from twin.errors import PlacementError
from twin.server.column import Column

log = logging.getLogger(__name__)

TWIN = Path(str(twin.__file__)).parent / "engine"
MODEL = tuple(Path(str(surrogates.__file__)).parent / name for name in ("steady_state", "residual"))


def kernels(run: Run, progress: Progress) -> threading.Thread:
    """Compiles what was never compiled, then starts to load the twin; join the thread before the twin is needed."""
    if not all(map(is_compiled, MODEL)):
        with progress.stage("compiling the planning model, once after an install"):
            _ask_model(run)
    load = threading.Thread(target=_simulate if run.verifier is not None else _nothing, args=(run,), daemon=True)
    load.start()
    if run.verifier is not None and not is_compiled(TWIN):
        with progress.stage("compiling the twin, once after an install"):
            load.join()
    return load


def _ask_model(run: Run) -> None:
    """One column and one exchange of a problem with a single setting."""
    rank = max(a.rank for a in run.workload.adapters)
    able = [s for s in run.settings if s.max_lora_rank >= rank and s.max_loras > 0] or list(run.settings)
    try:
        problem = build_problem(
            run.workload, run.planning, (able[0],), run.gpu_types, run.objective.terms, margin=run.constraint.margin
        )
        item, nobody = int(np.argmin([a.rate_req_per_s for a in problem.items])), np.array([-1])
        problem.judge.of([[item]], [0])
        problem.judge.exchanged([item], 0, nobody, nobody)
    except PlacementError as error:  # told where the problem is posed
        log.debug("compiling the planning model: %s", error)


def _simulate(run: Run) -> None:
    from twin.simulation import simulate

    lightest = min(run.workload.adapters, key=lambda a: a.rate_req_per_s)
    for setting in run.settings:
        if setting.max_lora_rank < lightest.rank:
            continue
        try:
            simulate(Column((lightest,), setting), run.calibration_of(setting), horizon_s=60.0)
        except PlacementError as error:  # verification meets it again, where it can be told
            log.debug("loading the twin: %s", error)
            continue
        return


def _nothing(run: Run) -> None:
    """`verify=none` needs no twin."""
