"""What a plan on a derived calibration depends on: which of its coefficients decides the number of GPUs.

The fewest GPUs are proven again, under the settings that the plan uses, with one part of the calibration moved from its
careful to its hopeful end at a time. The part that saves most GPUs decides; of it, the coefficient whose ends differ
most in a typical step is named. That is what is worth measuring.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from placement.config import Run
from placement.problem.build import build_problem
from placement.problem.promises import keepable
from placement.solvers.bounds import certified_minimum
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.derived import PARTS, Derived, largest_coefficient
from twin.server.settings import EngineSetting

log = logging.getLogger(__name__)

#: Most seconds for one proof.
TIME_LIMIT_S = 10.0


def deciding_notes(run: Run, settings: Sequence[EngineSetting]) -> list[str]:
    """What to say of a plan on a derived calibration; nothing on a measured one.

    Args:
        settings: of the plan's GPUs.
    """
    used = tuple(dict.fromkeys(settings))
    types = dict.fromkeys(s.gpu_type for s in settings)
    derived = {name: d for name in types if (d := run.calibrations[name].derived) is not None}
    if not derived or run.replanned is None:
        return []
    careful = fewest(run, run.calibrations, used)
    if careful is None:
        return []
    hopeful = fewest(run, {name: c.at("hopeful") for name, c in run.calibrations.items()}, used)
    saved = {part: _saved(run, derived, part, used, careful) for part in PARTS}
    part = max(saved, key=lambda p: saved[p])
    # Of the type that most GPUs are of.
    most = max(derived, key=lambda name: sum(s.gpu_type == name for s in settings))
    name = largest_coefficient(derived[most], part) + (f" on {most}" if len(types) > 1 else "")
    units = {run.calibrations[t].stamp.tensor_parallel_size for t in types}
    unit, what = (units.pop(), "GPUs") if len(units) == 1 else (1, "servers")
    low = "fewer" if hopeful is None else str(unit * hopeful)
    text = (
        f"with the settings used, the fewest {what} are {unit * careful} on the careful side and {low} on the hopeful"
    )
    if saved[part] == 0:
        return [f"{text}; no part of the calibration changes that by itself, most of it is {PARTS[part]} ({name})"]
    return [
        f"{text}: {PARTS[part]} decide ({unit * saved[part]} fewer by themselves), first of all {name}; measuring "
        "them narrows it (docs/my_gpu_is_not_listed.md)"
    ]


def fewest(run: Run, calibrations: Mapping[str, Calibration], settings: tuple[EngineSetting, ...]) -> int | None:
    """Fewest units of the fleet under calibrations; None where that could not be proven or nothing is healthy."""
    assert run.replanned is not None
    try:
        kept = keepable(run.workload.adapters, settings, calibrations, run.constraint)
        problem = build_problem(
            run.workload,
            run.replanned(calibrations),
            kept.settings,
            run.gpu_types,
            run.objective.terms,
            margin=run.constraint.margin,
            keepable=kept.allowed,
        )
        return certified_minimum(problem, min(TIME_LIMIT_S, run.options.time_limit_s))
    except InputError as error:
        log.info("the fewest GPUs of another side of the calibration: %s", error.problem)
        return None


def _saved(
    run: Run, derived: Mapping[str, Derived], part: str, settings: tuple[EngineSetting, ...], careful: int
) -> int:
    """Units saved by one part at its hopeful end, on all derived types."""
    mixed = {
        name: replace(run.calibrations[name], derived=replace(d, careful=d.mixed(part))).at("careful")
        for name, d in derived.items()
    }
    found = fewest(run, {**run.calibrations, **mixed}, settings)
    return 0 if found is None else max(0, careful - found)
