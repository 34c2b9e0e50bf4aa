"""Keeps forced runs in a file: they take minutes, and regressions on them seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from profiling.fit.forcing import ForcedRun
from profiling.fit.micro import TERMS
from profiling.published.runs import MeasuredRun
from twin.errors import InputError


def write_forced(path: Path, forced: Sequence[ForcedRun]) -> None:
    """Writes JSON: the terms of the law, and one object a run."""
    rows = [
        {
            "run_id": f.run.run_id,
            "table": f.run.table,
            "scale": f.scale,
            "features": [float(x) for x in f.features],
            "step_ms": f.step_ms,
            "residual": f.residual,
            "running": f.running,
        }
        for f in forced
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"terms": list(TERMS), "runs": rows}))


def read_forced(path: Path, runs: Sequence[MeasuredRun]) -> list[ForcedRun]:
    """Forced runs of these measured ones, in their order; runs that the file lacks are left out.

    Raises:
        InputError: not such a file, or one of another law.
    """
    try:
        data = json.loads(path.read_text())
        known = {(row["table"], row["run_id"]): row for row in data["runs"]}
        terms = tuple(data["terms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"forced runs cannot be read: {error}",
            where=str(path),
            remedy="write them: python -m profiling fit forced=",
        ) from error
    if terms != TERMS:
        raise InputError("the file's law has other terms", where=str(path), remedy="delete it and fit again")
    return [
        ForcedRun(run, row["scale"], np.array(row["features"]), row["step_ms"], row["residual"], row["running"])
        for run in runs
        if (row := known.get((run.table, run.run_id)))
    ]
