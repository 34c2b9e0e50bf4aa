"""Names that stood in configuration files keep working, with a warning that names the new one."""

from __future__ import annotations

import logging

import pytest
import yaml

from placement.config import COMPONENTS
from twin.config.folder import conf_dir
from twin.config.instantiate import locate
from twin.config.moved import TABLE, with_new_names

#: Every callable that a shipped or documented configuration named before the modules moved.
OLD = [
    "placement.constraints.Published", "placement.constraints.Stable", "placement.export.VllmExport",
    "placement.export.nothing", "placement.objectives.GpuCount", "placement.objectives.MeanE2E",
    "placement.objectives.MeanItl", "placement.objectives.MeanTtft", "placement.objectives.TailE2E",
    "placement.objectives.objective", "placement.solvers.cpsat.CpSat", "placement.solvers.greedy.Greedy",
    "placement.solvers.greedy_published.GreedyPublished", "placement.solvers.milp.MilpSolver",
    "placement.verify.TwinVerifier", "placement.verify.no_verification", "surrogates.analytic.AnalyticSurrogate",
    "surrogates.neural_planning.load_planning_model", "twin.access_log.read_access_log",
    "twin.adapter_file.read_adapters", "twin.arrival_drift.Peaks", "twin.arrival_drift.Reshuffled",
    "twin.arrival_drift.Switching", "twin.arrival_drift.Unpredictable", "twin.synthetic.discrete_rates",
    "twin.synthetic.power_law", "twin.traces.azure.read_azure", "twin.traces.mooncake.read_mooncake",
    "twin.traces.servegen.read_servegen", "twin.workload.Slo", "twin.workload.Workload",
]  # fmt: skip


@pytest.mark.parametrize("target", OLD)
def test_an_old_name_leads_to_its_callable(target: str) -> None:
    config = with_new_names({"a": [{"_target_": target}]})
    name = config["a"][0]["_target_"]
    assert name in {listed for names in COMPONENTS.values() for listed in names}, "it may still be built"
    assert locate(name, "a", {"a": (name,)}).__name__ == target.rpartition(".")[2]


def test_no_entry_names_a_place_that_is_gone() -> None:
    for old, new in yaml.safe_load((conf_dir() / TABLE).read_text()).items():
        try:
            __import__(new)
        except ModuleNotFoundError:
            assert callable(locate(new, "a", {"a": (new,)})), f"{old} -> {new}"


def test_the_warning_names_place_and_new_name_and_the_rest_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    config = {"objective": {"_target_": "a.old.f", "terms": [{"_target_": "a.old.G", "weight": 2}]}, "seed": 0}
    with caplog.at_level(logging.WARNING):
        renamed = with_new_names(config, {"a.old": "a.new", "a.old.G": "b.H"})
    assert renamed == {"objective": {"_target_": "a.new.f", "terms": [{"_target_": "b.H", "weight": 2}]}, "seed": 0}
    assert config["objective"]["_target_"] == "a.old.f"  # type: ignore[index]
    assert [r.getMessage() for r in caplog.records] == [
        "objective.terms[0]: _target_ a.old.G is now called b.H: change it in your configuration",
        "objective: _target_ a.old.f is now called a.new.f: change it in your configuration",
    ]


def test_present_names_and_names_alike_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    config = {"a": {"_target_": "a.older.f"}, "b": {"_target_": "x.a.old"}}
    assert with_new_names(config, {"a.old": "a.new"}) == config
    assert not caplog.records
