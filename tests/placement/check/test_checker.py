"""`placement.check` takes what is right, rejects what is not, and knows no solver."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from benchmarks.mutations import GOOD, MUTATIONS, Base, bases, tried
from placement.__main__ import main as placement_main
from placement.check.__main__ import main
from placement.check.checker import Report, judge_by_twin
from placement.check.exact import rounded_up
from placement.problem.prices import prices_of, proven_worth
from placement.verify.verdict import ColumnVerdict, Verification

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def runs() -> list[Base]:
    """Linear model: latency, GPU count, both, tail; and the neural one."""
    return [*bases(range(4)), *bases(range(8, 10))]


@pytest.mark.parametrize("kind", MUTATIONS)
def test_what_is_damaged_is_rejected(runs: list[Base], kind: str) -> None:
    cases = [tried(base, kind, np.random.default_rng(seed)) for base in runs for seed in range(2)]
    found = [case for case in cases if case is not None]
    assert found, "no run has a case of this kind"
    assert [case for case in found if case.accepted] == []
    assert all(case.said for case in found)


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_right_is_accepted(runs: list[Base], kind: str) -> None:
    cases = [tried(base, kind, np.random.default_rng(seed)) for base in runs for seed in range(2)]
    found = [case for case in cases if case is not None]
    assert found, "no run has a case of this kind"
    assert [case for case in found if not case.accepted] == []


def test_what_is_stored_is_what_the_run_proved(runs: list[Base]) -> None:
    for base in runs:
        problem = base.result.original
        for name, table in base.result.price_tables.items():
            entry = base.proof["lists"][name]
            assert entry["worth"] == proven_worth(problem, table)
            total = sum(n * p for n, p in zip(base.proof["classes"]["items"], entry["prices"], strict=True))
            assert total == pytest.approx(float(prices_of(problem, table).sum()), rel=1e-12)
            assert base.document[name] >= entry["bound"]


def test_parts_of_the_gap_add_up(runs: list[Base]) -> None:
    known = [base for base in runs if base.document["gap_parts"] is not None]
    assert known
    for base in known:
        gap = (base.document["objective"] - base.document["bound_outer"]) / base.document["objective"]
        assert sum(base.document["gap_parts"].values()) == pytest.approx(max(gap, 0.0), abs=1e-12)
        assert min(base.document["gap_parts"].values()) >= 0


def test_only_whole_gpus_are_rounded_up() -> None:
    assert rounded_up(Fraction(29, 10), None) == Fraction(29, 10)
    assert rounded_up(Fraction(29, 10), Fraction(1)) == 3
    assert rounded_up(Fraction(3) + Fraction(1, 10**7), Fraction(1)) == 3


@pytest.fixture
def written(tmp_path: Path, small: list[str]) -> Path:
    """Files of a run of the command."""
    assert placement_main([*small, "+objective=latency", "verify=none", f"hydra.run.dir={tmp_path}/out"]) == 0
    return tmp_path / "out" / "placement.json"


def test_the_command(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"placement={written}"]) == 0
    said = capsys.readouterr().out
    assert "for every placement, in exact arithmetic" in said
    assert said.splitlines()[-1] == "all holds"
    document = json.loads(written.read_text())
    document["gpus"][0]["adapters"].pop()
    written.write_text(json.dumps(document))
    assert main([f"placement={written}"]) == 1
    said = capsys.readouterr().out
    assert "placed 0 times" in said
    assert "another placement" in said
    other = tmp_path / "other.csv"
    other.write_text("adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens\na0,8,0.1,200,100\n")
    assert main([f"placement={written}", f"workload={other}"]) == 1
    assert "another workload" in capsys.readouterr().out


def test_the_twin_is_asked_again(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"placement={written}", "twin=true", "columns=10"]) == 0
    gpus = json.loads(written.read_text())["gpus"]
    said = capsys.readouterr().out
    assert all(f"{gpu['gpu_id']}: accepted by the twin, 60 hours" in said for gpu in gpus)


def test_what_the_twin_refutes_is_wrong() -> None:
    report, gpus = Report(), [{"gpu_id": "gpu0"}, {"gpu_id": "gpu1"}]
    seen = {"refuted": "3 of 3 hours broke the rule", "undecided": "too close"}
    verdicts = [ColumnVerdict(decision=d, reason=r, seeds=(), simulated={}, hours=3) for d, r in seen.items()]
    judge_by_twin(report, {"gpus": gpus}, Verification(tuple(verdicts)))
    assert report.wrong == ["gpu0: the twin refutes it: 3 of 3 hours broke the rule"]
    assert report.sampled == ["gpu1: undecided by the twin, 3 hours"]


def test_bad_input(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = written.with_name("certificate.json")
    good = json.loads(proof.read_text())
    for text in ("", "[]", "{", json.dumps({k: v for k, v in good.items() if k != "config"})):
        proof.write_text(text)
        assert main([f"placement={written}"]) == 2
    proof.write_text(json.dumps({**good, "lists": {"bound": {"margin": True}}}))
    assert main([f"placement={written}"]) == 2
    assert main(["placement=/no/such/placement.json"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_certificate_names_no_callables_of_strangers(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = written.with_name("certificate.json")
    data = json.loads(proof.read_text())
    data["config"] |= {"allow_modules": ["os"], "objective": {"_target_": "os.getcwd"}}
    proof.write_text(json.dumps(data))
    assert main([f"placement={written}"]) == 2
    assert "os.getcwd" in capsys.readouterr().err


def test_it_loads_no_solver(written: Path) -> None:
    script = (
        "import sys\nfrom placement.check.__main__ import main\n"
        f"assert main(['placement={written}', 'columns=10']) == 0\n"
        "print([name for name in sys.modules if name.startswith(('placement.solvers', 'highspy', 'ortools', 'pyomo'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_spreadsheet_of_the_docs() -> None:
    """docs/proofs.md: prices are what features are worth at least; their sum less the fleet is the bound."""
    text = (ROOT / "docs" / "examples" / "prices" / "prices.csv").read_text()
    rows = list(csv.reader(text.splitlines()))
    blank = [k for k, row in enumerate(rows) if not row]
    classes, settings, fleet = rows[: blank[0]], rows[blank[0] + 1 : blank[1]], rows[blank[1] + 1 :]
    features = [
        k for k, name in enumerate(classes[0]) if name == "slot" or (name.startswith("f") and name[1:].isdigit())
    ]
    price = classes[0].index("price")
    total = Fraction(0)
    for row in classes[1:]:
        psi = [Fraction(float(row[k])) for k in features]
        worth = []
        for s, setting in enumerate(settings[1:]):
            beta = [Fraction(float(setting[k])) for k in features]
            if row[price + 1 + s]:
                worth.append(sum((b * x for b, x in zip(beta, psi, strict=True)), Fraction(0)))
                assert float(row[price + 1 + s]) == pytest.approx(float(worth[-1]), rel=1e-12)
        assert Fraction(float(row[price])) <= min(worth)
        assert float(row[price]) == pytest.approx(float(min(worth)), rel=1e-9)
        total += int(row[1]) * Fraction(float(row[price]))
    sigma, every = Fraction(float(fleet[0][3])), Fraction(float(fleet[1][3]))
    gpus = int(fleet[1][1])
    opening = [Fraction(float(row[-1])) + sigma + every for row in settings[1:]]
    deficit = max([Fraction(0), *(-s for s in opening)])
    bound = total - int(fleet[0][1]) * sigma - gpus * (every + deficit)
    assert Fraction(float(fleet[2][1])) <= bound
    assert float(fleet[2][1]) == pytest.approx(float(bound), rel=1e-9)
