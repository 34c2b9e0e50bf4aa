"""Names that users import from the packages: adding one is a decision, losing one breaks somebody."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "twin": {
        "Adapter", "Calibration", "Column", "EngineSetting", "Failure", "Fleet", "GpuType", "InfeasibleError",
        "InputError", "Lengths", "ModelSpec", "NoSolutionError", "PlacementError", "Prediction", "Published",
        "Recording", "Requests", "Server", "SimulationResult", "Slo", "Stable", "Workload", "compare", "decide_label",
        "decide_limit", "empirical_lengths", "estimate", "judge", "load_calibration", "read_access_log",
        "read_adapters", "read_recording", "runner", "simulate", "simulate_fleet", "simulate_many",
    },
    "surrogates": {
        "AnalyticSurrogate", "CorrectedModel", "HingeLoad", "OptionModel", "PiecesModel", "PlanningModel", "Polyhedron",
        "SteadyState", "SteadyStateModel", "affine_load", "largest_load", "load_planning_model", "physics_planning",
        "read_residual", "steady_state", "steady_state_model",
    },
    "surrogates.residual": {
        "CorrectedLoads", "CorrectedModel", "CorrectedState", "Residual", "corrected", "corrected_largest_load",
        "corrected_model", "random_calibration", "read_residual",
    },
    "surrogates.steady_state": {
        "ColumnSums", "LIMITS", "STATE_NUMBERS", "SteadyState", "SteadyStateModel", "largest_load", "state_numbers",
        "steady_state", "steady_state_model",
    },
    "profiling": set(),
    "placement": {
        "Capabilities", "GpuAssignment", "GpuCount", "InfeasibleError", "InputError", "MeanE2E", "MeanItl", "MeanTtft",
        "NoSolutionError", "Objective", "ObjectiveContext", "Placement", "PlacementError", "PlacementProblem", "Result",
        "SolveReport", "Solver", "TailE2E", "Term", "evaluate", "place", "violations",
    },
    "placement.problem": {
        "Capabilities", "ColumnRows", "GpuAssignment", "GpuCount", "ItemClasses", "MeanE2E", "MeanItl", "MeanTtft",
        "Objective", "ObjectiveContext", "Placement", "PlacementProblem", "SolveReport", "Solver", "TailE2E", "Term",
        "build_problem", "column_rows", "evaluate", "item_classes", "objective", "relative_gap", "tighten",
        "violations",
    },
    "placement.report": {"Result", "failure", "print_report", "render", "to_csv", "to_json", "write_outputs"},
    "placement.solvers": {
        "CpSat", "Greedy", "GreedyPublished", "MilpSolver", "certified_minimum", "infeasible_error",
        "prove_bound", "refuse",
    },
}  # fmt: skip


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_exports_its_public_names_and_no_others(package: str) -> None:
    module = importlib.import_module(package)
    assert set(getattr(module, "__all__", ())) == PUBLIC[package]
    for name in PUBLIC[package]:
        assert name.isupper() or getattr(module, name).__name__ == name


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_says_what_it_is(package: str) -> None:
    assert len((importlib.import_module(package).__doc__ or "").splitlines()) >= 4


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(importlib.import_module("twin"), "nonsense")  # noqa: B009
