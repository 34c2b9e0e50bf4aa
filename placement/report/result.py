"""What a run found: in memory, and through `to_dict` and `write` as its files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from placement.problem.prices import PriceTable
from placement.problem.problem import GpuAssignment, Placement, PlacementProblem, evaluate
from placement.problem.solver import relative_gap
from placement.report.certificate import Proofs, certificate
from placement.report.details import Details, half_widths, memory_parts, timelines
from placement.report.document import (
    SCHEMA_VERSION,
    Status,
    finite,
    gpu_entries,
    objective_units,
    provenance,
    verification_entry,
    workload_entry,
    write_outputs,
)
from placement.report.frames import adapters_frame, gpus_frame
from placement.report.today import today_entry
from placement.verify.verdict import Verification
from surrogates.pieces.exact import Level
from twin.server.column import Column

if TYPE_CHECKING:
    from pandas import DataFrame

    from placement.config import Run
    from placement.today.comparison import Comparison


@dataclass(slots=True, repr=False)
class Result:
    """Everything that is reported about a run.

    Args:
        run: what was asked.
        problem: the last one solved, tightened by verification.
        original: the one before tightening; bounds and the objective belong to it.
        bound: lower bound for every placement under the planning model with its margin; None = none claimed.
        bound_outer: the same without the margin.
        gap: (objective - bound) / |objective|.
        rounds: times the solver ran. room_asked: times the twin was asked for the room that a workload needs.
        history: per round, GPUs, objective and number of refuted GPUs.
        proven: bound that the solver proved itself.
        bound_columns: columns of the planning model that the bound rests on; None = all of its pieces.
        cut: phases that the clock ended.
        levels: by what the simulated hours of this workload corrected the planning model, for each GPU type; None = it
            agreed.
        today: the placement that runs today, judged beside this one.
        price_tables: what proves `bound` and `bound_outer`, by these names.
        bounded_gpus, bounded_placement: `max_gpus` of the problem that the bounds were computed for, and the placement
            whose columns were among those looked at.
        gap_parts: of the gap to `bound_outer`: `model`, `rounding`, `margin` (docs/bounds.md).
        bound_rests_on: restrictions of the placements that the bounds speak of, where they bind.
        left_out: what the planning model was not asked for or does not know, of the settings that fit.
        what_if: plans for other rates, a row for each factor; None = not asked for.
    """

    run: Run
    status: Status
    termination: str
    solver: str
    problem: PlacementProblem
    original: PlacementProblem
    placement: Placement | None = None
    objective: float = math.nan
    terms: dict[str, float] = field(default_factory=dict)
    bound: float | None = None
    bound_outer: float | None = None
    gap: float | None = None
    simulated_objective: float | None = None
    simulated_terms: dict[str, float] = field(default_factory=dict)
    verification: Verification | None = None
    solver_s: float = 0.0
    runtime_s: float = 0.0
    rounds: int = 0
    room_asked: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    details: dict[str, float | str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    certified_minimum: int | None = None
    proven: float | None = None
    bound_columns: int | None = None
    cut: tuple[str, ...] = ()
    levels: dict[str, Level] | None = None
    today: Comparison | None = None
    price_tables: dict[str, PriceTable] = field(default_factory=dict)
    bounded_gpus: int | None = None
    bounded_placement: Placement | None = None
    gap_parts: dict[str, float] | None = None
    bound_rests_on: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    what_if: list[dict[str, Any]] | None = None

    @property
    def gpus(self) -> tuple[GpuAssignment, ...]:
        """Option and items of each GPU, as indices into `problem`; `columns` has the adapters themselves."""
        return self.placement.gpus if self.placement is not None else ()

    def objective_now(self) -> float:
        """Objective of the placement as it is."""
        return math.nan if self.placement is None else evaluate(self.problem, self.placement)[0]

    @property
    def columns(self) -> list[Column]:
        """Adapters and engine setting of each GPU."""
        return self.placement.columns(self.problem) if self.placement is not None else []

    def to_dict(self) -> dict[str, Any]:
        """What `placement.json` holds (docs/placement.schema.json), in plain containers."""
        run = self.run
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.status,
            "termination": self.termination,
            "objective": finite(self.objective),
            "objective_units": objective_units(run.objective.terms, self.original.context.price),
            "terms": finite(self.terms),
            "bound": finite(self.bound),
            "bound_outer": finite(self.bound_outer),
            "stopped_by_clock": list(self.cut),
            "bound_tightened": finite(self.bound),
            "bound_columns": self.bound_columns,
            "bound_rests_on": list(self.bound_rests_on),
            "gap": finite(self.gap),
            "gap_parts": finite(self.gap_parts),
            "gap_simulated": finite(relative_gap(self.simulated_objective, self.bound)),
            "simulated_objective": finite(self.simulated_objective),
            "simulated_terms": finite(self.simulated_terms),
            "certified_minimum_gpus": self.certified_minimum,
            "solver": self.solver,
            "runtime_s": self.solver_s,
            "total_runtime_s": self.runtime_s,
            "workload": workload_entry(run),
            "gpus": gpu_entries(run, self.problem, self.gpus, self.verification),
            "verification": verification_entry(run, self.verification, rounds=self.rounds, history=self.history),
            "today": today_entry(self.today),
            "warnings": list(self.warnings),
            "provenance": provenance(run, self.verification),
        }

    def gpus_frame(self) -> DataFrame:
        """The GPUs as a pandas DataFrame: type, flags, figures predicted and simulated (`placement.report.frames`)."""
        return gpus_frame(self.to_dict())

    def adapters_frame(self) -> DataFrame:
        """Adapters on GPUs as a pandas DataFrame: where each is, and what became of its promises."""
        return adapters_frame(self.to_dict())

    def certificate(self, document: dict[str, Any]) -> dict[str, Any]:
        """What `certificate.json` holds (docs/proofs.md).

        Args:
            document: what `to_dict` returned.
        """
        proofs = Proofs(self.price_tables, self.bound_rests_on, self.proven)
        return certificate(self.run, self.original, self.gpus, proofs, document)

    def write(self, folder: str | Path) -> list[Path]:
        """Writes `placement.json`, `placement.csv`, `report.html` and what `export` asks for; returns the files."""
        data = self.to_dict()
        return write_outputs(self.run, data, Path(folder), self.report_details(data), self.certificate(data))

    def report_details(self, data: Mapping[str, Any]) -> Details:
        """What the report shows beyond `to_dict()`, which is `data`."""
        columns, prices = self.columns, self.original.context.price
        verdicts = self.verification.gpus if self.verification is not None else ()
        calibrations = [self.run.calibration_of(column.setting) for column in columns]
        loads = [gpu["predicted"].get("load") for gpu in data["gpus"]]
        seeds = [v.seeds[0] if v.seeds else 0 for v in verdicts]
        priced = any(price != 1.0 for price in prices.values())
        return Details(
            cost_per_hour=sum(prices[c.setting.gpu_type] for c in columns) if priced else None,
            memory=[memory_parts(*pair) for pair in zip(columns, calibrations, strict=True)],
            intervals=[half_widths(v.deviations, len(v.seeds)) for v in verdicts],
            timelines=timelines(columns, calibrations, loads, seeds=seeds)
            if verdicts and self.termination != "interrupted"
            else {},
            what_if=self.what_if,
        )

    def __repr__(self) -> str:
        bound = "no bound" if self.bound is None or self.gap is None else f"bound {self.bound:.4g}, gap {self.gap:.2%}"
        return f"<Result: {len(self.gpus)} GPUs, objective {self.objective:.4g}, {bound}, {self.status}>"
