"""Cross-validation never lets a law see the workload it is scored on; what is taken away is really away."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.twin_fidelity import main as fidelity
from profiling.fit import crossval
from profiling.fit.crossval import Evidence, Variant, crossvalidate, with_few_runs
from profiling.fit.forced_file import read_forced, write_forced
from profiling.fit.forcing import ForcedRun
from profiling.fit.micro import TERMS, Row, features
from profiling.fit.regression import Recipe
from profiling.published.models import MEASURED_MODELS
from profiling.published.runs import MeasuredRun, read_all_runs
from tests.profiling.published.test_replay import make_run
from twin.errors import InputError
from twin.server.calibration import Calibration, load_calibration
from twin.server.laws import STEP_TERMS, LoadLaw

LLAMA = MEASURED_MODELS[0]


def forced_runs(count: int = 12) -> tuple[ForcedRun, ...]:
    """Runs of four workloads whose step time is the workload's number times 10 ms."""
    runs = []
    for i in range(count):
        workload = i % 4
        x = features(20.0 + i, 5.0, 5000.0, 8.0, slots=8, rank=16)
        run = make_run(run_id=f"r{i}", group=f"w{workload}", num_adapters=4, rates=(0.02,))
        runs.append(ForcedRun(run, 1.0, x, 10.0 * (workload + 2), 0.0))
    return tuple(runs)


def evidence() -> dict[str, Evidence]:
    """The forced runs, and micro-benchmarks that the shipped law would measure."""
    calibration = load_calibration(LLAMA.calibration)
    micro = []
    for batch, adapters in ((10.0, 0.0), (200.0, 0.0), (50.0, 10.0), (200.0, 100.0), (400.0, 300.0)):
        x = features(batch, 0.0, 100 * batch, adapters, slots=300, rank=8)
        micro.append(Row("lora", "micro", x, float(x @ calibration.step.as_array()[: len(TERMS)])))
    return {LLAMA.spec.name: Evidence(calibration, forced_runs(), tuple(micro))}


def test_every_run_is_scored_once_with_a_law_of_other_workloads(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted_on: list[set[str]] = []

    def spy(self: Evidence, runs: list[ForcedRun], recipe: object = None) -> Calibration:
        fitted_on.append({f.run.group for f in runs})
        return self.calibration

    monkeypatch.setattr(crossval.Evidence, "fitted", spy)
    rows = crossvalidate(evidence(), folds=4, seeds=1, threads=1)
    assert sorted(r.run.run_id for r in rows) == sorted(f.run.run_id for f in forced_runs())
    assert len(fitted_on) == 4 and all(len(groups) == 3 for groups in fitted_on)
    scored = [{r.run.group for r in rows[3 * i : 3 * i + 3]} for i in range(4)]
    assert all(len(s) == 1 and not s & f for s, f in zip(scored, fitted_on, strict=True))


def test_runs_that_a_law_used_are_not_scored() -> None:
    runs = [f.run for f in forced_runs()]
    rows = with_few_runs(evidence(), 5, runs, seeds=1, threads=1)
    assert len(rows) == len(runs) - 5
    other = with_few_runs(evidence(), 5, runs, seeds=1, threads=1, draw=1)
    assert {r.run.run_id for r in rows} != {r.run.run_id for r in other}


def test_a_variant_forces_again_only_where_the_batch_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = evidence()[LLAMA.spec.name]
    terms = ("lora", "adapter", "slot")
    bare = Variant("no LoRA terms", recipe=Recipe(zero=terms))
    assert bare.evidence(given, 1).forced == given.forced
    law = given.fitted(given.forced, bare.recipe).step
    assert law.adapter == law.slot == law.lora == 0.0 < law.base
    asked: list[float] = []

    def spy(runs: list[MeasuredRun], calibration: Calibration, *_: object, **__: object) -> list[ForcedRun]:
        asked.extend([len(runs), calibration.load.equal_rank_ms])
        return list(given.forced)

    monkeypatch.setattr(crossval, "force_all", spy)
    free = Variant("no load cost", load=LoadLaw(0.0, 0.0), force_again=True).evidence(given, 1)
    assert asked == [len(given.forced), 0.0]
    assert free.calibration.load.equal_rank_ms == 0.0 < given.calibration.load.equal_rank_ms


def test_forced_runs_survive_a_file(tmp_path: Path) -> None:
    forced = forced_runs(3)
    write_forced(tmp_path / "deep" / "f.json", forced)
    back = read_forced(tmp_path / "deep" / "f.json", [f.run for f in forced] + [make_run(run_id="unknown")])
    assert [f.run.run_id for f in back] == ["r0", "r1", "r2"]
    np.testing.assert_array_equal(back[1].features, forced[1].features)
    for text in ("{", json.dumps({"runs": []}), json.dumps({"runs": [], "terms": list(TERMS)[:-1]})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=r"read|terms"):
            read_forced(tmp_path / "bad.json", [])


def test_rows_whose_batch_is_not_the_measured_one_count_little() -> None:
    run = forced_runs(1)[0].run
    ones = np.ones(len(STEP_TERMS))
    weights = [ForcedRun(run, 1.0, ones, 10.0, 0.0, running).row().weight for running in (1.0, 1.05, 0.95, 2.0)]
    assert weights == pytest.approx([1.0, 0.5, 0.5, 1 / 401])


def test_a_folder_with_one_table_is_scored_and_the_other_is_named(
    measured_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (measured_data / "adapter_serving" / "placement_real_test.csv").read_text().splitlines()
    (tmp_path / "placement_real_test.csv").write_text("\n".join([lines[0], *lines[1::110]]))
    assert fidelity([f"data={tmp_path}", "seeds=1"]) == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert set(result) == {"placement_real_test", "overall"}
    assert result["placement_real_test"]["overall"]["throughput_smape"] < 5
    assert "twin_validation_real.csv is not in" in out and "published twin" in out
    (tmp_path / "placement_real_test.csv").unlink()
    with pytest.raises(InputError, match="twin_validation_real"):
        read_all_runs(tmp_path)
