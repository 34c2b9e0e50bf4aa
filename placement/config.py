"""The configuration of a run as checked objects; Hydra's containers end here.

`load_run` takes plain containers, checks them, and builds everything that the pipeline needs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from twin.config.components import Components, check_targets
from twin.config.folder import conf_dir
from twin.config.instantiate import build
from twin.config.moved import with_new_names
from twin.config.ranges import Range
from twin.config.schema import parse, top_level
from twin.figures.components import CONSTRAINT
from twin.server.derived import derived_note
from twin.server.flags import GRID_FLAGS, setting_choices, with_wider_slots
from twin.server.gpu_types import GpuTypes, read_gpu_types, read_hardware
from twin.server.groups import ModelConfig, engine_on, read_model
from twin.sources.components import WORKLOAD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pandas import DataFrame

    from placement.export.files import Exporter
    from placement.problem.objectives import Objective
    from placement.problem.problem import Term
    from placement.problem.solver import Solver
    from placement.today.file import Today
    from placement.verify.verifier import Verifier
    from surrogates.model.planning import PlanningModel
    from twin.figures.health import Constraint
    from twin.server.calibration import Calibration
    from twin.server.hardware import GpuType
    from twin.server.settings import EngineSetting
    from twin.workload.workload import Workload

    #: What `placement.place` takes for a group: an option's name, or the object itself.
    WorkloadLike = Workload | DataFrame | str | Path | None
    ObjectiveLike = Objective | Term | str | None
    SolverLike = Solver | str
    VerifierLike = Verifier | str
log = logging.getLogger(__name__)

GROUPS = (
    "workload", "model", "hardware", "engine", "surrogate", "constraint", "solver", "verify", "export",
)  # fmt: skip
DEFAULT_OBJECTIVE = "gpu_count"
#: Flags of which a placement may choose one of several values.
CHOSEN_FLAGS = (*GRID_FLAGS, "max_num_seqs", "servers_per_gpu")
#: Flags that a placement does not choose.
NOT_PLACED = ("max_cpu_loras", "async_scheduling")

_TERMS = tuple(
    f"placement.problem.objectives.{name}" for name in ("GpuCount", "MeanE2E", "MeanItl", "MeanTtft", "TailE2E")
)
#: What a configuration may build, by its place. Anything else has to come from a module in `allow_modules`.
COMPONENTS: Components = {
    **WORKLOAD,
    **CONSTRAINT,
    "objective": ("placement.problem.objectives.objective", *_TERMS),
    "objective.terms.*": _TERMS,
    "surrogate": (
        "surrogates.model.analytic.AnalyticSurrogate", "surrogates.pieces.model.load_planning_model",
        "surrogates.pieces.model.physics_planning", "surrogates.pieces.model.twin_planning",
    ),
    "solver": (
        "placement.solvers.cpsat.CpSat", "placement.solvers.greedy.Greedy",
        "placement.solvers.greedy_published.GreedyPublished", "placement.solvers.milp.MilpSolver",
        "placement.solvers.portfolio.Portfolio",
    ),
    "verify": ("placement.verify.TwinVerifier", "placement.verify.no_verification"),
    "export": ("placement.export.DeploymentFiles", "placement.export.VllmExport", "placement.export.nothing"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """Keys outside the groups."""

    seed: Annotated[int, Range(0, 99_999)] = 0
    time_limit_s: Annotated[float, Range(above=0, high=86_400, unit="seconds")] = 60.0
    allow_modules: tuple[str, ...] = ()
    today: str | None = None
    debug: bool = False


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """The group of keys `report`.

    Args:
        what_if: plan again for other rates, and show GPUs and latency against them.
    """

    what_if: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a run needs, checked and built.

    Args:
        config: the plain configuration, for the provenance.
        notes: what the output must mention, e.g. an assumed objective.
        today: the placement that runs today, to compare with.
        calibrations: of each GPU type by name, on its careful side where it is derived.
        replanned: makes the planning model of other calibrations; only where one is derived.
        planned_for: makes the planning model of another workload; None where it was given as an object.
    """

    workload: Workload
    calibrations: Mapping[str, Calibration]
    settings: tuple[EngineSetting, ...]
    planning: PlanningModel
    constraint: Constraint
    objective: Objective
    solver: Solver
    verifier: Verifier | None
    exporter: Exporter | None
    model: ModelConfig
    options: Options
    config: dict[str, Any]
    notes: tuple[str, ...] = ()
    today: Today | None = None
    replanned: Callable[[Mapping[str, Calibration]], PlanningModel] | None = None
    planned_for: Callable[[Workload], PlanningModel] | None = None
    report: ReportOptions = ReportOptions()

    @property
    def gpu_types(self) -> tuple[GpuType, ...]:
        """With their prices and their stock."""
        return tuple(c.gpu for c in self.calibrations.values())

    def calibration_of(self, setting: EngineSetting) -> Calibration:
        """The calibration of the GPU type that a setting is for."""
        return self.calibrations[setting.gpu_type]


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of the configuration, independent of key order."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def _described(part: Any) -> dict[str, str]:
    """An object that was given in Python, for the hash of the configuration."""
    return {"given": repr(part) if is_dataclass(part) else type(part).__qualname__}


def with_default_objective(config: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Adds `objective: gpu_count` where none is given, and says so."""
    if config.get("objective") is not None:
        return config, ()
    import yaml

    text = (conf_dir() / "objective" / f"{DEFAULT_OBJECTIVE}.yaml").read_text()
    note = f"no objective given: {DEFAULT_OBJECTIVE} (choose another with +objective=...)"
    return {**config, "objective": yaml.safe_load(text)}, (note,)


def load_run(config: dict[str, Any], given: Mapping[str, Any] | None = None) -> Run:
    """Checks a configuration and builds its parts.

    Args:
        given: group -> object that takes the place of what the configuration says (`placement.place`).

    Raises:
        InputError: anything that does not exist, does not fit, or is out of range.
    """
    from placement.problem.objectives import as_objective

    given = given or {}
    described = {group: _described(part) for group, part in given.items()}
    config, notes = with_default_objective(with_new_names({**config, **described}))
    options = top_level(Options, config, GROUPS, known=("objective", "calibration", "report"))
    report = parse(ReportOptions, config.get("report") or {}, "report")
    check_targets(config, COMPONENTS, options.allow_modules)
    model = read_model(config["model"])
    hardware = read_hardware(config["hardware"])
    choices = {
        h.name: setting_choices(engine_on(config["engine"], h), h.name, lists=CHOSEN_FLAGS, without=NOT_PLACED)
        for h in hardware.values()
    }

    def make(group: str, **context: Any) -> Any:
        if group in given:
            return given[group]
        return build(config[group], group, COMPONENTS, options.allow_modules, **context)

    # Cheap parts first: a wrong option should not wait for weights.
    objective = as_objective(make("objective"))
    constraint = make("constraint")
    verifier = make("verify")
    exporter = make("export", model=model)
    types = read_gpu_types(hardware, config.get("calibration"), model, config["engine"])
    calibrations = {name: c.at("careful") for name, c in types.calibrations.items()}
    objective = with_units(objective, types)
    settings = tuple(s for name in calibrations for s in choices[name])
    notes = (*notes, *types.notes, *_derived_notes(types.calibrations))
    workload = make("workload", seed=options.seed)
    log.info("workload %s: %d adapters; %d engine settings", workload.name, len(workload.adapters), len(settings))
    settings, wider = with_wider_slots(settings, max(a.rank for a in workload.adapters))
    notes = (*notes, *wider)
    if exporter is not None:
        exporter = exporter.for_run(workload, settings, calibrations)
    today = _today(options, workload, settings, calibrations)
    solver = make("solver", seed=options.seed)

    def planned(calibrations: Mapping[str, Calibration], workload: Workload = workload) -> PlanningModel:
        def of(calibration: Calibration) -> PlanningModel:
            model: PlanningModel = make(
                "surrogate", calibration=calibration, calibrations=calibrations, workload=workload, health=constraint
            )
            return model

        return fleet_planning(calibrations, of)

    def planned_for(other: Workload) -> PlanningModel:
        return planned(calibrations, other)

    derived = any(c.derived is not None for c in calibrations.values())
    return Run(
        workload=workload,
        calibrations=calibrations,
        settings=settings,
        planning=planned(calibrations),
        constraint=constraint,
        objective=objective,
        solver=solver,
        verifier=_at_both_ends(verifier, types.calibrations),
        exporter=exporter,
        model=model,
        options=options,
        config=config,
        notes=notes,
        today=today,
        replanned=planned if derived and "surrogate" not in given else None,
        planned_for=None if "surrogate" in given else planned_for,
        report=report,
    )


def with_units(objective: Objective, types: GpuTypes) -> Objective:
    """The objective with `per hour` in the place of `GPUs` where GPUs have a price."""
    from placement.problem.objectives import GpuCount

    if all(h.price_per_hour == 1.0 for h in types.hardware):
        return objective
    terms = (replace(t, unit="per hour") if isinstance(t, GpuCount) else t for t in objective.terms)
    return replace(objective, terms=tuple(terms))


def fleet_planning(
    calibrations: Mapping[str, Calibration], of: Callable[[Calibration], PlanningModel]
) -> PlanningModel:
    """The planning model of all GPU types.

    Args:
        of: makes the planning model of one type; one that knows all types itself is taken as it is.
    """
    first, *others = calibrations.values()
    model = of(first)
    if not others:
        return model
    from surrogates.pieces.fleet import FleetModel
    from surrogates.pieces.model import PiecesModel

    models = {first.gpu.name: model, **{c.gpu.name: of(c) for c in others}}
    pieces = {name: m for name, m in models.items() if isinstance(m, PiecesModel)}
    return FleetModel(pieces) if len(pieces) == len(models) else model


def _today(
    options: Options, workload: Workload, settings: tuple[EngineSetting, ...], calibrations: Mapping[str, Calibration]
) -> Today | None:
    if options.today is None:
        return None
    from placement.today.file import read_today

    return read_today(options.today, workload, settings, calibrations)


def _derived_notes(calibrations: Mapping[str, Calibration]) -> list[str]:
    """What a plan says of calibrations that nobody measured, and of servers that span GPUs."""
    notes = []
    for calibration in calibrations.values():
        if calibration.derived is not None:
            note = derived_note(calibration.name, calibration.derived)
            notes.append(f"{note}; planned on its careful side, simulated on both")
    units = {name: c.stamp.tensor_parallel_size for name, c in calibrations.items()}
    for name, unit in units.items():
        if unit > 1:
            server = "each server" if len(units) == 1 else f"each server on {name}"
            notes.append(f"{server} spans {unit} GPUs: a GPU of this report is one server and has the price of {unit}")
    return notes


def _at_both_ends(verifier: Verifier | None, calibrations: Mapping[str, Calibration]) -> Verifier | None:
    if verifier is None or all(c.derived is None for c in calibrations.values()):
        return verifier
    from placement.verify.ends import BothEnds

    return BothEnds(verifier, {name: c.at("hopeful") for name, c in calibrations.items() if c.derived is not None})
