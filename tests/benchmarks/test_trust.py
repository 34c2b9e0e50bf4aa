"""The judge's benchmark: what it measures of the rule before, of plans, and its output."""

from __future__ import annotations

import json

import pytest

from benchmarks import judge_plans, trust
from benchmarks.interruptions import Interruption
from benchmarks.judge_plans import Judged, judged_plans
from benchmarks.judge_power import FAMILIES, old_share, two_state
from benchmarks.workloads import WORKLOADS


def test_the_rule_before_accepted_most_bad_gpus() -> None:
    """What the present rule is there for: a thousand times the 0.1 % that was claimed."""
    for bad, late in FAMILIES:
        assert old_share(two_state(bad, late), 60, 1) > 0.3


def test_a_plan_is_judged_by_both_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {name: WORKLOADS[name] for name in ("published_192", "azure_conv")}
    monkeypatch.setattr(judge_plans, "WORKLOADS", chosen)
    judged = list(judged_plans("quick", ["greedy"], "", 10.0))
    assert [j.workload for j in judged] == ["published_192", "azure_conv"]
    plan, missing = judged
    assert plan.gpus == plan.accepted + plan.refuted + plan.undecided
    assert plan.old_accepted <= plan.gpus
    assert plan.hours >= 3 * plan.gpus
    assert "azure" in missing.problem


def test_large_workloads_are_left_to_the_full_suite(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, str]] = []

    def judge(name: str, solver: str, data: str, limit: float) -> Judged:
        seen.append((name, solver))
        return Judged(name, solver, 2, 2, 1, 1, 0, 0, 120, 1.0, 1.0)

    monkeypatch.setattr(judge_plans, "_judged", judge)
    assert trust.main(["part=plans"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["plans"] == len(seen) == 2 * (len(WORKLOADS) - 1)
    assert summary["refuted"] == len(seen)
    assert not any(WORKLOADS[name].large for name, _ in seen)
    assert trust.main(["part=plans", "suite=full"]) == 0
    assert ("published_100000", "cpsat") in seen
    assert trust.main(["suite=huge"]) == 2


def test_interruptions_are_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Interruption("default", 1.0, 1, 130, 0.2, True, ""),
        Interruption("default", 2.0, 2, None, 10.0, False, "Traceback (most recent call last):"),
    ]
    monkeypatch.setattr(trust, "interruptions", lambda *_: iter(rows))
    assert trust.main(["part=interrupts"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["interrupts"], summary["readable"], summary["noisy"], summary["longest_s"]) == (2, 1, 1, 10.0)
    assert summary["exit_codes"] == {"130": 1, "None": 1}
