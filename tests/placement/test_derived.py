"""A plan on a derived calibration: made on the careful side, simulated on both, and it says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from placement.command import APP, place
from placement.config import Run, load_run
from placement.export import DeploymentFiles
from placement.verify.ends import BothEnds
from placement.verify.verdict import ColumnVerdict, Verification
from twin.config.compose import compose
from twin.errors import InputError
from twin.figures.health import Stable
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting

OVERRIDES = ("hardware=h100-sxm", "hardware.system=null", "model=qwen3-8b", "engine=server", "surrogate=physics")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTER_PLACEMENT_CALIBRATIONS", str(tmp_path))


def run_of(*more: str) -> Run:
    return load_run(compose(APP, [*OVERRIDES, *more]))


def test_it_is_planned_on_the_careful_side_and_simulated_on_both() -> None:
    run = run_of()
    (careful,) = run.calibrations.values()
    assert careful.derived is not None and careful == careful.at("careful")
    assert isinstance(run.verifier, BothEnds)
    assert run.verifier.hopeful[careful.gpu.name].step.base < careful.step.base
    assert run.verifier.max_rounds == 8 and run.verifier.claim.name == "quick"
    assert any("derived, not measured" in note for note in run.notes)


def test_a_measured_calibration_is_planned_on_as_it_is() -> None:
    run = load_run(compose(APP, ["surrogate=physics"]))
    (calibration,) = run.calibrations.values()
    assert calibration.step == load_calibration("llama-3.1-8b-h100-64gb").step
    assert not isinstance(run.verifier, BothEnds) and run.replanned is None
    assert not any("derived" in note for note in run.notes)


def test_the_report_names_what_decides(tmp_path: Path) -> None:
    table = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens\n"
    (tmp_path / "a.csv").write_text(table + "".join(f"a{i},16,0.4,200,200\n" for i in range(60)))
    result = place(tmp_path / "a.csv", None, verify="none", overrides=OVERRIDES)
    told = " ".join(result.warnings)
    assert "derived, not measured" in told
    assert "fewest GPUs" in told and "careful side" in told and "step." in told


def test_a_server_that_spans_gpus_has_their_price(tmp_path: Path) -> None:
    run = run_of("engine.tensor_parallel_size=2", "hardware.count=9")
    (gpu,) = run.gpu_types
    assert (gpu.price_per_hour, gpu.count) == (2.0, 4)
    assert any("spans 2 GPUs" in note for note in run.notes)
    flags = run.settings[0].flags()
    gpu = {"gpu_id": "g", "gpu_type": "h100-sxm", "setting": flags, "adapters": []}
    script, _ = DeploymentFiles(run.model).write({"gpus": [gpu]}, tmp_path)
    assert "--tensor-parallel-size 2" in script.read_text()


def test_a_calibration_that_is_named_must_exist() -> None:
    with pytest.raises(InputError, match=r"did you mean 'llama-3\.1-8b-h100-64gb'"):
        compose(APP, ["calibration=llama-3.1-8b-h100-64g"])


class _Says:
    """A verifier with one verdict for each calibration that it is asked with."""

    max_rounds = 1

    def __init__(self, **verdicts: str) -> None:
        self.verdicts, self.asked = verdicts, list[str]()

    def columns(
        self, columns: object, calibrations: Mapping[str, Calibration], constraint: object, **_: object
    ) -> Verification:
        (calibration,) = calibrations.values()
        self.asked.append(calibration.name)
        decision = self.verdicts[calibration.name]
        verdict = ColumnVerdict(decision, "" if decision == "accepted" else "too slow", (1,), {})  # type: ignore[arg-type]
        return Verification((verdict,))


@pytest.mark.parametrize(
    ("slow", "fast", "decision", "asked"),
    [
        ("accepted", "accepted", "accepted", 2),
        ("accepted", "refuted", "refuted", 2),
        ("refuted", "accepted", "refuted", 1),
    ],
)
def test_a_gpu_is_accepted_at_both_ends_or_not_at_all(slow: str, fast: str, decision: str, asked: int) -> None:
    ends = [load_calibration(n) for n in ("llama-3.1-8b-h100-64gb", "qwen2.5-7b-h100-64gb")]
    inner = _Says(**{ends[0].name: slow, ends[1].name: fast})
    gpu = ends[0].gpu.name
    column = Column((), EngineSetting(gpu, 8, 8))
    found = BothEnds(inner, {gpu: ends[1]}).columns([column], {gpu: ends[0]}, Stable(), round_=0)
    assert found.gpus[0].decision == decision and len(inner.asked) == asked
    if asked == 2 and decision == "refuted":
        assert found.gpus[0].reason.startswith("on the hopeful side")
