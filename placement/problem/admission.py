"""What no GPU could serve, said before anything is built: each refusal names its own cause.

In this order: requests longer than the model, settings that do not fit or are unknown, ranks above every setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from surrogates.model.planning import PlanningModel
from twin.engine.input_check import check_lengths
from twin.errors import InfeasibleError, InputError
from twin.server.calibration import Calibration
from twin.server.memory import max_model_len, memory_error
from twin.server.settings import VLLM_RANKS, EngineSetting, labels_of
from twin.workload.adapter import Adapter
from twin.workload.workload import Workload

#: Settings to choose from, however little time there is.
FEW = 4


def admit(
    workload: Workload,
    settings: Sequence[EngineSetting],
    planning: PlanningModel,
    calibrations: Mapping[str, Calibration],
    *,
    late: Callable[[], bool] = lambda: False,
) -> tuple[tuple[EngineSetting, ...], list[str]]:
    """Settings under which vLLM starts and that the planning model knows, and a note on those it does not.

    Args:
        calibrations: of each GPU type by name.
        late: whether to do with the settings that the planning model was asked for so far, at least a few.

    Raises:
        InputError: no setting is left, or the planning model or the served model cannot be asked for such requests.
        InfeasibleError: a rank above every setting that starts.
    """
    longest = max(max_model_len(s, calibrations[s.gpu_type]) for s in settings)
    model_longest = max(c.model.max_model_len for c in calibrations.values())
    check_lengths(workload.adapters, longest=longest, model_longest=model_longest)
    fitting, no_room = _fitting(settings, calibrations)
    asked: list[EngineSetting] = []
    unknown: dict[EngineSetting, InputError] = {}
    for setting in _widest_first(fitting, max(a.rank for a in workload.adapters)):
        if len(asked) - len(unknown) >= FEW and late():
            break
        asked.append(setting)
        if (error := _unknown(setting, planning)) is not None:
            unknown[setting] = error
    known = tuple(s for s in fitting if s in asked and s not in unknown)
    notes = [f"{len(fitting) - len(asked)} of {len(fitting)} engine settings left out: the time was too short for all"]
    notes = [*no_room, *(notes if len(asked) < len(fitting) else [])]
    if not known:
        raise next(iter(unknown.values()))
    _refuse_rank(workload, settings, known, planning, calibrations)
    if not unknown:
        return known, notes
    labels = ", ".join(labels_of(list(unknown)[:4])) + (", ..." if len(unknown) > 4 else "")
    return known, [*notes, f"{len(unknown)} settings left out ({labels}): {next(iter(unknown.values())).problem}"]


def _fitting(
    settings: Sequence[EngineSetting], calibrations: Mapping[str, Calibration]
) -> tuple[tuple[EngineSetting, ...], list[str]]:
    """Settings with which vLLM starts, and a note on each GPU type without any.

    Raises:
        InputError: there is none.
    """
    refused = {s: memory_error(s, calibrations[s.gpu_type]) for s in settings}
    fitting = tuple(s for s, problem in refused.items() if problem is None)
    notes = []
    for name in calibrations:
        own = [s for s in settings if s.gpu_type == name]
        if own and all(refused[s] is not None for s in own):
            smallest = min(own, key=lambda s: s.max_loras * s.max_lora_rank)
            notes.append(f"no engine setting fits into the memory of {name}: {smallest.label}: {refused[smallest]}")
    if not fitting:
        raise InputError(
            notes[0],
            where="engine.max_loras, engine.max_lora_rank",
            remedy="allow fewer slots or lower ranks, a smaller engine.max_model_len, or a GPU with more memory",
        )
    return fitting, [f"{note}; the type is left out" for note in notes]


def _widest_first(settings: Sequence[EngineSetting], rank: int) -> list[EngineSetting]:
    """Settings that every adapter may use first, those of many and of few slots in turn."""
    slots = sorted({s.max_loras for s in settings}, reverse=True)
    turn = {n: min(k, len(slots) - 1 - k) for k, n in enumerate(slots)}

    def order(setting: EngineSetting) -> tuple[bool, int, int]:
        return setting.max_lora_rank < rank, abs(setting.max_lora_rank - rank), -turn[setting.max_loras]

    return sorted(settings, key=order)


def _unknown(setting: EngineSetting, planning: PlanningModel) -> InputError | None:
    """Why the planning model does not know a setting that vLLM starts with; None if it does."""
    try:
        planning.option(setting)
    except InputError as error:
        return error
    return None


def _refuse_rank(
    workload: Workload,
    settings: Sequence[EngineSetting],
    known: Sequence[EngineSetting],
    planning: PlanningModel,
    calibrations: Mapping[str, Calibration],
) -> None:
    """Refuses a rank above every usable setting, with an option that would make room for it."""
    widest = max(workload.adapters, key=lambda a: a.rank)
    if widest.rank <= max(s.max_lora_rank for s in known):
        return
    offered = max(s.max_lora_rank for s in settings)
    problem = f"adapter {widest.adapter_id!r} has rank {widest.rank}"
    error: type[InputError] = InfeasibleError
    if widest.rank > offered:
        problem += f", and engine.max_lora_rank goes up to {offered}"
    else:
        problem += f", and no setting with max_lora_rank {offered} can be used"
        if any(s.max_lora_rank >= widest.rank and memory_error(s, calibrations[s.gpu_type]) is None for s in settings):
            error = InputError  # a surrogate that does not know a setting proves nothing
    raise error(problem, where="engine.max_lora_rank", remedy=_room_for(widest, settings, planning, calibrations))


def _room_for(
    adapter: Adapter,
    settings: Sequence[EngineSetting],
    planning: PlanningModel,
    calibrations: Mapping[str, Calibration],
) -> str:
    """What to change so that an adapter of this rank can be served."""
    rank = next((r for r in VLLM_RANKS if r >= adapter.rank), None)
    if rank is None:
        return f"leave the adapter out: vLLM serves ranks up to {VLLM_RANKS[-1]}"
    slots = sorted({s.max_loras for s in settings})
    counts = [2**k for k in range(slots[-1].bit_length()) if 2**k < slots[0]][::-1]
    of_types = list({s.gpu_type: s for s in settings}.values())
    wider = [replace(s, max_loras=n, max_lora_rank=rank) for n in [*slots, *counts] for s in of_types]
    starting = [s for s in wider if memory_error(s, calibrations[s.gpu_type]) is None]
    if not starting:
        return f"leave the adapter out, or use a GPU with more memory: not even one slot of rank {rank} fits"
    changes = []
    ranks = sorted({s.max_lora_rank for s in settings} | {rank})
    if rank not in {s.max_lora_rank for s in settings}:
        changes.append(f"engine.max_lora_rank=[{','.join(map(str, ranks))}]")
    usable = [s for s in starting if _unknown(s, planning) is None]
    if starting[0].max_loras not in slots:
        changes.append(f"engine.max_loras=[{','.join(map(str, [starting[0].max_loras, *slots]))}]")
    if not usable:
        changes.append("surrogate=analytic, because this one does not know such slots")
    return f"use {' and '.join(changes)}; or leave the adapter out"
