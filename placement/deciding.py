"""What a plan on a derived calibration depends on: which of its coefficients decides the number of GPUs.

The fewest GPUs are proven again, under the settings that the plan uses, with one part of the calibration moved from its
careful to its hopeful end at a time. The part that saves most GPUs decides; of it, the coefficient whose ends differ
most in a typical step is named. That is what is worth measuring.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from placement.config import Run
from placement.problem.build import build_problem
from placement.problem.promises import keepable
from placement.solvers.bounds import certified_minimum
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.derived import PARTS, largest_coefficient
from twin.server.settings import EngineSetting

log = logging.getLogger(__name__)

#: Most seconds for one proof.
TIME_LIMIT_S = 10.0


def deciding_notes(run: Run, settings: Sequence[EngineSetting]) -> list[str]:
    """What to say of a plan on a derived calibration; nothing on a measured one, or of several types of GPU.

    Args:
        settings: of the plan's GPUs.
    """
    if len(run.calibrations) > 1:
        return []  # the fewest GPUs are not what decides between types
    (calibration,) = run.calibrations.values()
    derived = calibration.derived
    if derived is None or run.replanned is None or not settings:
        return []
    used = tuple(dict.fromkeys(settings))
    careful = fewest(run, calibration, used)
    if careful is None:
        return []
    hopeful = fewest(run, calibration.at("hopeful"), used)
    saved = {part: _saved(run, calibration, part, used, careful) for part in PARTS}
    part = max(saved, key=lambda p: saved[p])
    name = largest_coefficient(derived, part)
    unit = calibration.stamp.tensor_parallel_size
    low = "fewer" if hopeful is None else str(unit * hopeful)
    text = f"with the settings used, the fewest GPUs are {unit * careful} on the careful side and {low} on the hopeful"
    if saved[part] == 0:
        return [f"{text}; no part of the calibration changes that by itself, most of it is {PARTS[part]} ({name})"]
    return [
        f"{text}: {PARTS[part]} decide ({unit * saved[part]} fewer by themselves), first of all {name}; measuring "
        "them narrows it (docs/my_gpu_is_not_listed.md)"
    ]


def fewest(run: Run, calibration: Calibration, settings: tuple[EngineSetting, ...]) -> int | None:
    """Fewest units of the fleet under a calibration; None where that could not be proven or nothing is healthy."""
    assert run.replanned is not None
    try:
        kept = keepable(run.workload.adapters, settings, {calibration.gpu.name: calibration}, run.constraint)
        problem = build_problem(
            run.workload,
            run.replanned({calibration.gpu.name: calibration}),
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


def _saved(run: Run, calibration: Calibration, part: str, settings: tuple[EngineSetting, ...], careful: int) -> int:
    """Units saved by one part at its hopeful end."""
    assert calibration.derived is not None
    mixed = replace(calibration.derived, careful=calibration.derived.mixed(part))
    found = fewest(run, replace(calibration, derived=mixed).at("careful"), settings)
    return 0 if found is None else max(0, careful - found)
