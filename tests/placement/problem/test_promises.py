"""What no GPU can keep is refused at once, by name and with the promise that could be kept; the rest is left alone."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from placement.problem.alone import Asked, late_shares, least_means, ttft_p99_s
from placement.problem.promises import Keepable, keepable
from twin.errors import InfeasibleError
from twin.figures.health import Published, Stable
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting, setting_grid
from twin.simulation import simulate
from twin.workload.adapter import Adapter, Lengths, Slo

LLAMA = load_calibration("llama-3.1-8b-h100-64gb")
GPU = LLAMA.stamp.gpu_type
TYPES = {GPU: LLAMA}
GRID = setting_grid([GPU], (8, 384), (8, 16))


def adapter(name: str = "a", prompt: float = 2000, output: float = 200, slo: Slo | None = None, **more: Any) -> Adapter:
    fields: dict[str, Any] = {"rank": 8, "rate_req_per_s": 0.2} | more
    return Adapter(
        name, prompt_tokens=Lengths(prompt, 1.1), output_tokens=Lengths(output, 1.06), slo=slo, **fields
    )  # fmt: skip


def asked(*adapters: Adapter, constraint: Any = None) -> Keepable:
    return keepable(adapters, GRID, TYPES, constraint or Stable())


def refused(*adapters: Adapter, constraint: Any = None) -> InfeasibleError:
    with pytest.raises(InfeasibleError) as error:
        asked(*adapters, constraint=constraint)
    assert error.value.exit_code == 3
    return error.value


def test_usual_promises_change_nothing() -> None:
    found = asked(adapter(), adapter("b", rank=16), adapter("base", rank=0))
    assert found.settings == GRID and found.notes == []
    assert found.allowed.tolist() == [[True] * 4, [False, True] * 2, [True] * 4]


def test_the_field_case_is_refused_with_a_promise_that_can_be_kept() -> None:
    slo = Slo(0.02)
    error = refused(*(adapter(f"a{i}", slo=slo) for i in range(6)))
    assert "'a0' (and 5 more)" in error.problem and "within 0.02 s" in error.problem
    assert error.where == "slo_ttft_p99_s: 'a0', 'a1', 'a2', 'a3', ..."
    promise = float(re.search(r"TTFT p99 of at least ([\d.]+) s", error.remedy)[1])  # type: ignore[index]
    assert asked(*(adapter(f"a{i}", slo=Slo(promise)) for i in range(6))).settings[0] == GRID[0], "the advice works"
    assert refused(adapter(), constraint=Stable(Slo(0.02))).where == "constraint.slo.ttft_p99_s: 'a'"


@pytest.mark.parametrize(
    ("slo", "said", "keeps"),
    [
        (Slo(itl_mean_ms=10), "a mean ITL of 10 ms, but requests alone on an idle GPU have at least 13.3 ms", 14),
        (Slo(tpot_mean_ms=10), "a mean TPOT of 10 ms", 14),
        (Slo(e2e_mean_s=1), "a mean E2E of 1 s, but requests alone on an idle GPU have at least 2.6", 2.8),
    ],
    ids=["itl", "tpot", "e2e"],
)
def test_promises_on_means(slo: Slo, said: str, keeps: float) -> None:
    error = refused(adapter(slo=slo))
    assert said in error.problem
    (name,) = (n for n in ("itl_mean_ms", "tpot_mean_ms", "e2e_mean_s") if getattr(slo, n))
    assert asked(adapter(slo=replace(slo, **{name: keeps}))).allowed[:, 0].all()
    assert re.search(rf"at least ({keeps:g}|2\.7) m?s", error.remedy)


def test_a_lone_request_in_the_twin_breaks_what_is_refused() -> None:
    """One request at a time, for hours: the twin's figures are above the bounds, and not by much."""
    rare = adapter(rate_req_per_s=0.02)
    setting = EngineSetting(GPU, 8, 8)
    bounds = {
        name: least_means(name, Asked([rare], [setting], TYPES, Slo(itl_mean_ms=1, tpot_mean_ms=1, e2e_mean_s=1)))
        for name in ("itl_mean_ms", "tpot_mean_ms", "e2e_mean_s")
    }
    result = simulate(Column((rare,), setting), LLAMA, horizon_s=400_000.0, default_ttft_slo_s=0.2)
    for name, bound in bounds.items():
        assert 0.95 * result.row[name] < bound[0, 0] < result.row[name] * 1.02, name
    share = float(late_shares(Asked([rare], [setting], TYPES, Slo(0.2)))[0, 0])
    assert 0.9 * result.row["late_fraction"] < share < result.row["late_fraction"] * 1.02
    assert result.row["ttft_p99_s"] < 1.05 * ttft_p99_s(rare, [setting], TYPES)


def test_cached_prompts_are_faster() -> None:
    for cached, at_least in ((0.0, 0.9), (0.9, 0.0)):
        one = adapter(cached_prompt_fraction=cached)
        assert (late_shares(Asked([one], GRID, TYPES, Slo(0.04))) >= at_least - 0.4).all()
    whole, rest = (late_shares(Asked([adapter(cached_prompt_fraction=c)], GRID, TYPES, Slo(0.04))) for c in (0.0, 0.9))
    assert (rest < whole).all()


def test_a_setting_too_slow_for_one_is_not_offered_to_it() -> None:
    """A step with 384 slots takes 25 ms alone, one with 8 slots 13 ms."""
    strict, loose = adapter("strict", slo=Slo(itl_mean_ms=18)), adapter("loose")
    found = asked(strict, loose)
    assert found.settings == GRID and found.notes == []
    assert found.allowed.tolist() == [[True, True, False, False], [True] * 4]
    alone = asked(strict)
    assert [s.max_loras for s in alone.settings] == [8, 8]
    assert alone.notes == ["2 settings left out, no promise could be kept there: 384x8, 384x16"]
    assert alone.allowed.shape == (1, 2)


def test_what_the_rule_lets_pass_is_said_and_not_refused() -> None:
    """A twentieth of an adapter's requests may be late, and a hundredth of all."""
    hot = adapter("hot", prompt=100, rate_req_per_s=5.0)
    few = adapter("few", slo=Slo(0.35))
    (note,) = asked(hot, few).notes
    assert "TTFT promise of 1 adapter cannot be kept for 99 % of requests: adapter 'few'" in note
    assert "lets 5.0 % of an adapter's requests be late" in note
    error = refused(adapter("hot", prompt=100, rate_req_per_s=0.01), few)
    assert "of all requests break their TTFT promise even alone" in error.problem and "tolerates 1.0 %" in error.problem
    assert "'few'" in error.where and "promise 'few' a TTFT p99" in error.remedy
    assert len(asked(hot, few, constraint=Stable(adapter_late_share=0.2)).notes) == 1
    assert refused(hot, few, constraint=Stable(adapter_late_share=0.005))


def test_the_published_rule_judges_no_promise() -> None:
    assert asked(adapter(slo=Slo(0.001)), constraint=Published()).settings == GRID


def test_promises_that_need_different_settings() -> None:
    """Prompts need large chunks, tokens few slots: each promise can be kept, but not both under one setting."""
    few = EngineSetting(GPU, 8, 8, max_num_batched_tokens=256, max_num_seqs=256)
    wide = EngineSetting(GPU, 64, 8, max_num_batched_tokens=8192)
    for slo in (Slo(1.5), Slo(itl_mean_ms=14.0)):
        assert keepable([adapter(prompt=6000, slo=slo)], [few, wide], TYPES, Stable(late_share=0.2)).allowed.any()
    with pytest.raises(InfeasibleError, match="'a' is promised more than any one setting can keep"):
        keepable([adapter(prompt=6000, slo=Slo(1.5, itl_mean_ms=14.0))], [few, wide], TYPES, Stable())


def test_many_adapters_at_once() -> None:
    many = [adapter(f"a{i}", prompt=50 + i) for i in range(300)]
    assert not late_shares(Asked(many, GRID, TYPES, Slo())).any()
    assert np.isfinite(least_means("e2e_mean_s", Asked(many, GRID, TYPES, Slo(e2e_mean_s=9)))).all()
