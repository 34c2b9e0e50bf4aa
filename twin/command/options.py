"""The configuration of `python -m twin` as checked objects; Hydra's containers end here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from twin.config.components import Components, check_targets
from twin.config.instantiate import build
from twin.config.moved import with_new_names
from twin.config.ranges import Range, check
from twin.config.schema import parse, top_level
from twin.errors import InputError
from twin.figures.components import CONSTRAINT
from twin.server.flags import single_setting
from twin.server.groups import HardwareConfig, engine_on, matching_calibration, read_model
from twin.sources.components import WORKLOAD
from twin.workload.adapter import Slo
from twin.workload.selection import Selection, select

if TYPE_CHECKING:
    from twin.server.calibration import Calibration
    from twin.server.settings import EngineSetting
    from twin.workload.workload import Workload

log = logging.getLogger(__name__)

GROUPS = ("workload", "model", "hardware", "engine", "constraint", "adapters")
#: What a configuration may build, by its place. Anything else has to come from a module in `allow_modules`.
COMPONENTS: Components = {**WORKLOAD, **CONSTRAINT}


@dataclass(frozen=True, slots=True)
class Failure:
    """One entry of `failures`: a GPU that is away from `at_s` to `back_s` (None: for ever).

    The router sends it requests for `detect_s` more, or until it is back; then they and its unfinished ones start
    again.
    """

    gpu: Annotated[int, Range(0, 1_000_000)]
    at_s: Annotated[float, Range(0, unit="seconds")]
    back_s: Annotated[float | None, Range(above=0, unit="seconds")] = None
    detect_s: Annotated[float, Range(0, unit="seconds")] = 0.0


@dataclass(frozen=True, slots=True)
class Options:
    """Keys of `conf/twin.yaml` outside the groups."""

    placement: str | None = None
    router: Literal["shares", "least_loaded"] = "shares"
    failures: tuple[Any, ...] = ()
    rate_scale: Annotated[float, Range(above=0, high=1e6)] = 1.0
    horizon_s: Annotated[float, Range(above=0, high=31_536_000, unit="seconds")] = 3600.0
    seed: Annotated[int, Range(0, 99_999)] = 0
    requests: Annotated[int | None, Range(1, 100_000_000, unit="requests")] = None
    concurrency: Annotated[int | None, Range(1, 1_000_000, unit="requests at a time")] = None
    trace: str | tuple[str, ...] | None = None
    seeds: Annotated[int | tuple[int, ...], Range(0, 1_000_000)] = 1
    threads: Annotated[int, Range(1, 256, unit="threads")] = 2
    json: bool = False
    adapters_csv: bool = False
    plot: bool = False
    chrome_trace: bool = False
    overheads: bool = False
    trace_from_s: Annotated[float, Range(0, unit="seconds")] = 600.0
    trace_for_s: Annotated[float, Range(above=0, high=3600, unit="seconds")] = 20.0
    require_healthy: bool = False
    side: Literal["typical", "careful", "hopeful"] = "typical"
    allow_modules: tuple[str, ...] = ()
    debug: bool = False

    def all_seeds(self) -> tuple[int, ...]:
        """Seeds of the simulations, in order."""
        if not isinstance(self.seeds, int):
            if not self.seeds:
                raise InputError("seeds is empty", where="seeds", remedy="give a number, or a list such as [0,1,2]")
            return tuple(dict.fromkeys(self.seeds))
        hint = "seeds=5 simulates five times, 'seeds=[7]' with seed 7"
        check(self.seeds, "seeds", Range(1, 1000, whole=True, unit="simulations", hint=hint), where="seeds")
        return tuple(range(self.seed, self.seed + self.seeds))


@dataclass(frozen=True, slots=True)
class Judge:
    """By which rule a server counts as healthy, and what is promised to adapters without promises of their own."""

    rule: str
    slo: Slo = field(default_factory=Slo)


@dataclass(frozen=True, slots=True)
class Command:
    """Everything that `python -m twin` needs, checked and built.

    Args:
        workload: what the server gets; with a placement all of it.
        setting: the server's; not used with a placement.
        placement: file of the placement to simulate instead.
        config: the plain configuration, for the provenance.
    """

    workload: Workload
    calibration: Calibration
    setting: EngineSetting
    judge: Judge
    options: Options
    failures: tuple[Failure, ...]
    placement: Path | None
    config: dict[str, Any]


def load_command(config: dict[str, Any]) -> Command:
    """Checks a configuration and builds its parts; cheap parts first.

    Raises:
        InputError: anything that does not exist, does not fit, or is out of range.
    """
    config = with_new_names(config)
    options = top_level(Options, config, GROUPS, known=("calibration",))
    options.all_seeds()
    _check_trace_window(options)
    _check_finite(options)
    check_targets(config, COMPONENTS, options.allow_modules)
    model = read_model(config["model"])
    hardware = parse(HardwareConfig, config["hardware"], "hardware")
    setting = single_setting(_single_values(engine_on(config["engine"], hardware)), hardware.name)
    selection = parse(Selection, config["adapters"], "adapters")
    failures = tuple(parse(Failure, f, f"failures[{i}]") for i, f in enumerate(options.failures))
    placement = None if options.placement is None else Path(options.placement).expanduser()
    _check_fleet(placement, failures, options, selection)
    calibration = matching_calibration(config.get("calibration"), model, hardware, config["engine"])
    if options.side != "typical":
        calibration = calibration.at(options.side)
    workload: Workload = build(config["workload"], "workload", COMPONENTS, options.allow_modules, seed=options.seed)
    workload = select(workload, selection, seed=options.seed)
    if options.rate_scale != 1:
        note = f"All request rates times {options.rate_scale:g}."
        workload = replace(workload.scaled(options.rate_scale), notes=(*workload.notes, note))
    log.info("workload %s: %d adapters", workload.name, len(workload.adapters))
    # Last: the thresholds come with the compiled twin.
    judge = _judge(config["constraint"], options.allow_modules)
    return Command(
        workload=workload,
        calibration=calibration,
        setting=setting,
        judge=judge,
        options=options,
        failures=failures,
        placement=placement,
        config=config,
    )


def _single_values(engine: Mapping[str, Any]) -> Mapping[str, Any]:
    for key, value in engine.items():
        if isinstance(value, (list, tuple)):
            first = value[len(value) // 2] if value else 32
            raise InputError(
                f"engine.{key} = {list(value)} is a grid; the twin simulates one server with one value",
                where=f"engine.{key}",
                remedy=f"give engine.{key}={first}, or sweep: -m engine.{key}={','.join(map(str, value))}",
            )
    return engine


def _judge(node: Mapping[str, Any], allow_modules: Sequence[str]) -> Judge:
    """The rule's name and the default promises; the thresholds are those of `twin.figures.health`."""
    from twin.figures.health import Published, Stable

    constraint = build(node, "constraint", COMPONENTS, allow_modules)
    if not isinstance(constraint, (Stable, Published)):
        raise InputError(
            f"constraint {node.get('_target_')!r} is not one that the twin judges by",
            where="constraint",
            remedy="choose constraint=stable or constraint=published",
        )
    usual = type(constraint)()
    for key in ("late_share", "adapter_late_share"):
        value, fixed = getattr(constraint, key, None), getattr(usual, key, None)
        if value != fixed:
            raise InputError(
                f"constraint.{key} = {value!r} differs from {fixed}, which the twin's verdict uses",
                where=f"constraint.{key}",
                remedy="leave it out; metrics.json has late_fraction and adapter_late_fraction to judge by",
            )
    return Judge(constraint.rule, constraint.slo)


def _check_trace_window(options: Options) -> None:
    if options.chrome_trace and options.trace_from_s >= options.horizon_s:
        raise InputError(
            f"trace_from_s = {options.trace_from_s:g} lies beyond horizon_s = {options.horizon_s:g}",
            where="trace_from_s",
            remedy="start the trace within the simulated window, e.g. trace_from_s=0",
        )


def _check_finite(options: Options) -> None:
    """A finite load is one server's, and it takes the time that it takes."""
    given = [name for name in ("requests", "concurrency", "trace") if getattr(options, name) is not None]
    if given and options.placement is not None:
        raise InputError(
            f"{given[0]} is a load of one server, placement one of a fleet",
            where=given[0],
            remedy="leave one of the two out",
        )
    if given and options.overheads:
        raise InputError(
            f"overheads=true compares windows of traffic, and {given[0]} is a finite load",
            where="overheads",
            remedy="leave one of the two out",
        )


def _check_fleet(placement: Path | None, failures: tuple[Failure, ...], options: Options, selection: Selection) -> None:
    if placement is None:
        if failures or options.router != "shares":
            key = "failures" if failures else "router"
            raise InputError(f"{key} is given without a placement", where=key, remedy="add placement=placement.json")
        return
    if not selection.everything:
        raise InputError(
            "adapters.* selects adapters for one server, a placement says itself where each adapter is",
            where="adapters",
            remedy="leave adapters.* or placement out",
        )
    for index, failure in enumerate(failures):
        if failure.back_s is not None and failure.back_s <= failure.at_s:
            raise InputError(
                f"failures[{index}]: back_s {failure.back_s:g} is not after at_s {failure.at_s:g}",
                where=f"failures[{index}]",
                remedy="give the time at which the GPU serves again, or leave back_s out for never",
            )
