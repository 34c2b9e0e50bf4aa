"""A model's fit, from runs forced now or kept from before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from profiling.fit.calibration import Fit, fit_calibration, fit_of, law_from, micro_calibration
from profiling.fit.forced_file import read_forced, write_forced
from profiling.fit.micro import read_micro
from profiling.published.models import MeasuredModel
from profiling.published.runs import MeasuredRun
from twin.errors import InputError

log = logging.getLogger(__name__)


def fit_model(
    folder: Path,
    model: MeasuredModel,
    runs: Sequence[MeasuredRun],
    *,
    date: str,
    threads: int,
    cache: str,
    say: Callable[[str], None] = print,
) -> Fit:
    """Fits one model.

    Args:
        cache: folder of forced runs, read if it has this model's and written otherwise; empty = none.

    Raises:
        InputError: the cache lacks some of these runs.
    """
    path = Path(cache) / f"{model.calibration}.json" if cache else None
    if path is None or not path.is_file():
        result = fit_calibration(folder, model, runs, date=date, threads=threads, say=say)
        if path is not None:
            write_forced(path, result.forced)
        return result
    log.info("forced runs of %s from %s", model.calibration, path)
    mine = [r for r in runs if r.usable and r.model == model.spec.name]
    forced, micro = read_forced(path, mine), read_micro(folder, model.spec.name)
    if len(forced) < len(mine):
        raise InputError(
            f"{len(mine) - len(forced)} of {len(mine)} runs are not among the forced ones",
            where=str(path),
            remedy="delete the file, or name another folder",
        )
    calibration, capacity = micro_calibration(folder, model, mine, date=date)
    return fit_of(replace(calibration, step=law_from(forced, micro)), capacity, forced, micro)
