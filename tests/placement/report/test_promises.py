"""Promises in the report: loud where the planning model does not see them, and how much of each was used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from placement import place
from placement.report.document import to_json
from placement.report.html import render
from placement.report.promises import planning_notes, promise_cell, promise_entries, promise_text, unsettled_notes
from placement.report.table import print_report
from placement.verify import ColumnVerdict, Verification
from tests.placement.report.test_document import SCHEMA
from tests.placement.synthetic import adapter
from twin.figures.health import Published, Stable
from twin.figures.promises import Kept
from twin.workload.adapter import Slo


class Planning:
    ttft_p99_s = 5.0


def notes(constraint: Any, *, planning: object = Planning, verified: bool = True) -> list[str]:
    return planning_notes([adapter("a", 1.0), adapter("b", 1.0)], constraint, planning, verified=verified)


def test_the_promise_that_planning_was_made_for_needs_no_note() -> None:
    assert notes(Stable()) == notes(Stable(), planning=object()) == []


def test_a_model_that_follows_promises_needs_none_either_where_they_are_judged() -> None:
    class Following:
        follows_promises = True

    odd = Stable(Slo(0.3, itl_mean_ms=40))
    assert notes(odd, planning=Following()) == []
    assert "NOBODY" in notes(odd, planning=Following(), verified=False)[0]
    assert "NOBODY" in notes(Published(Slo(0.3)), planning=Following())[0]


@pytest.mark.parametrize("seconds", [60.0, 0.3])
def test_another_promise_is_noted_loudly(seconds: float) -> None:
    (note,) = notes(Stable(Slo(seconds)))
    assert note.startswith("the planning model assumes a TTFT p99 of 5 s for every adapter")
    assert f"TTFT p99 of {seconds:g} s (2 adapters, e.g. 'a')" in note and "checked by the twin only" in note
    (unverified,) = notes(Stable(Slo(seconds)), verified=False)
    assert "checked by NOBODY, because verify=none" in unverified
    (unjudged,) = notes(Published(Slo(seconds)))
    assert "checked by NOBODY, because constraint=published" in unjudged
    (blind,) = notes(Stable(Slo(seconds)), planning=object())
    assert blind.startswith("the planning model sees no promise; yours")


def test_promises_on_means_and_none_are_noted() -> None:
    (note,) = notes(Stable(Slo(None, itl_mean_ms=40, e2e_mean_s=20)))
    assert "TTFT p99 of none (2" in note and "mean ITL of 40 ms (2 adapters), mean E2E of 20 s (2 adapters)" in note


def test_what_chance_explains_is_said() -> None:
    over = Kept("cold", "e2e_mean_s", 5.0, 7, 6.5, 1.3)
    fine = Kept("hot", "e2e_mean_s", 5.0, 700, 4.0, 0.8)

    def checked(accepted: bool, *promises: Kept) -> Verification:
        return Verification((ColumnVerdict("accepted" if accepted else "refuted", "", (1,), {}, promises=promises),))

    (note,) = unsettled_notes(checked(True, fine, over))
    assert "1 promise could not be settled" in note and "'cold' used 130.0 %" in note and "7 requests" in note
    assert unsettled_notes(checked(True, fine)) == unsettled_notes(checked(False, over)) == unsettled_notes(None) == []


def test_entries_of_a_gpu() -> None:
    items = [adapter("a", 1.0), adapter("b", 1.0)]
    constraint = Stable(Slo(itl_mean_ms=40))
    blank = promise_entries(items, constraint, None)
    assert list(blank) == ["ttft_p99_s", "itl_mean_ms"] and blank["itl_mean_ms"]["use"] is None
    assert promise_cell(blank) == "-" and promise_text("itl_mean_ms", blank["itl_mean_ms"]).endswith("not simulated")
    nothing = float("nan")
    judged = (
        Kept("a", "ttft_p99_s", 5.0, 100, 0.01, 0.2), Kept("b", "ttft_p99_s", 5.0, 0, nothing, nothing),
        Kept("a", "itl_mean_ms", 40.0, 100, 30.0, 0.75), Kept("b", "itl_mean_ms", 40.0, 90, 44.0, 1.1),
    )  # fmt: skip
    found = promise_entries(items, constraint, ColumnVerdict("refuted", "", (1,), {}, promises=judged))
    assert found["itl_mean_ms"]["worst_adapter"] == "b" and found["ttft_p99_s"]["use"] == 0.2
    assert promise_cell(found) == "ITL 110.0 %"
    assert promise_text("itl_mean_ms", found["itl_mean_ms"]) == (
        "mean ITL of 40 ms to 2 adapters: at most 110.0 % used, by b (44 ms, 90 requests)"
    )
    assert (
        promise_text("ttft_p99_s", found["ttft_p99_s"])
        == "TTFT p99 of 5 s to 2 adapters: at most 20.0 % used, by a (1.0 % late, 100 requests)"
    )


def test_a_run_reports_and_judges_its_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same plan, and two promises: one that it keeps and one that it cannot."""
    path = tmp_path / "w.csv"
    head = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens,slo_itl_mean_ms"
    small = [
        "surrogate=analytic", "engine.max_loras=[8]", "engine.max_lora_rank=[16]", "verify.horizon_s=1800",
        "verify.max_rounds=0",
    ]  # fmt: skip
    status = {}
    for limit in (14, 40):
        rows = [f"a{i},8,0.5,200,100,{limit if i < 3 else ''}" for i in range(6)]
        path.write_text("\n".join([head, *rows]) + "\n")
        result = place(path, "gpu_count", solver="greedy", overrides=small)
        status[limit] = result.status
        data = json.loads(to_json(result.to_dict()))
        jsonschema.validate(data, SCHEMA)
        (gpu,) = data["gpus"]
        entry = gpu["promises"]["itl_mean_ms"]
        assert [row["adapter_id"] for row in entry["adapters"]] == ["a0", "a1", "a2"]
        assert all(row["promised"] == limit and row["requests"] > 1000 for row in entry["adapters"])
        assert entry["use"] == max(row["use"] for row in entry["adapters"])
        assert entry["use"] == pytest.approx(gpu["simulated"]["itl_mean_ms"] / limit, rel=0.05)
        assert len(gpu["promises"]["ttft_p99_s"]["adapters"]) == 6
        assert any("mean ITL of" in w and "checked by the twin only" in w for w in result.warnings)
        print_report(data, [])
        assert f"ITL {100 * entry['use']:.1f} %" in capsys.readouterr().out
        assert "mean ITL of" in render(data) and "to 3 adapters: at most" in render(data)
        if limit == 14:
            assert "mean ITL" in gpu["reason"] and "promised 14 ms" in gpu["reason"]
    assert status == {14: "unverified", 40: "verified"}
