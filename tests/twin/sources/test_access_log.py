"""Access logs: traffic of known shape is estimated as that shape, and what is wrong is pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from twin.errors import InputError
from twin.sources.access_log import read_access_log
from twin.sources.estimates import ARRIVAL_CV_RANGE, FEW_REQUESTS
from twin.workload.adapter import Slo
from twin.workload.workload import Workload

HEADER = "timestamp,adapter_id,prompt_tokens,output_tokens"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    file = tmp_path / "registry.csv"
    file.write_text("adapter_id,rank\na,8\nb,16\nbase,0\n")
    return file


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


def write(log: Path, rows: Sequence[tuple[object, ...]], header: str = HEADER) -> Path:
    log.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return log


def gamma_arrivals(rate: float, cv: float, count: int, rng: np.random.Generator) -> list[float]:
    return np.cumsum(rng.gamma(1 / cv**2, cv**2 / rate, count)).tolist()


def by_id(workload: Workload) -> dict[str, tuple[int, float]]:
    return {a.adapter_id: (a.rank, a.rate_req_per_s) for a in workload.adapters}


def test_known_traffic_is_recovered(log: Path, registry: Path) -> None:
    """Rates, burstiness, lengths, their correlation and cache hits of two adapters of different kind."""
    rng = np.random.default_rng(1)
    rows: list[tuple[object, ...]] = []
    for name, rate, cv in (("a", 2.0, 1.0), ("b", 1.0, 3.0)):
        times = gamma_arrivals(rate, cv, int(4000 * rate), rng)
        z = rng.multivariate_normal([0, 0], [[1, -0.5], [-0.5, 1]], len(times))
        prompt, output = np.ceil(np.exp(5 + 0.5 * z[:, 0])), np.ceil(np.exp(4 + 0.3 * z[:, 1]))
        rows += [(t, name, int(p), int(o), int(p / 4)) for t, p, o in zip(times, prompt, output, strict=True)]
    rng.shuffle(rows)  # order does not matter
    workload = read_access_log(write(log, rows, HEADER + ",cached_tokens"), registry)
    a, b = workload.adapters
    assert (a.rank, b.rank) == (8, 16)
    assert a.rate_req_per_s == pytest.approx(2.0, rel=0.06)
    assert b.rate_req_per_s == pytest.approx(1.0, rel=0.12)
    assert a.arrival_cv == pytest.approx(1.0, rel=0.06)
    assert b.arrival_cv == pytest.approx(3.0, rel=0.12)
    for adapter in (a, b):
        assert adapter.prompt_tokens.mean == pytest.approx(np.exp(5 + 0.125), rel=0.04)
        assert adapter.prompt_tokens.cv == pytest.approx(np.sqrt(np.expm1(0.25)), rel=0.1)
        assert adapter.output_tokens.mean == pytest.approx(np.exp(4 + 0.045), rel=0.04)
        assert adapter.length_correlation == pytest.approx(-0.48, abs=0.06)
        assert adapter.cached_prompt_fraction == pytest.approx(0.25, rel=0.02)


def test_total_rate_is_requests_over_time(log: Path, registry: Path) -> None:
    """N requests a second apart are one request a second, not N / (N - 1)."""
    workload = read_access_log(write(log, [(i, "ab"[i % 2], 10, 10) for i in range(100)]), registry)
    assert workload.total_rate_req_per_s == pytest.approx(1.0)
    assert workload.adapters[0].arrival_cv == ARRIVAL_CV_RANGE[0], "a clock is cut to the lower limit"
    assert any("cut to that range" in note for note in workload.notes)


def test_the_covered_time_can_be_given(log: Path, registry: Path) -> None:
    rows = [(100, "a", 10, 20)]
    workload = read_access_log(write(log, rows), registry, duration_s=3600, cold="leave_out")
    assert by_id(workload) == {"a": (8, pytest.approx(1 / 3600))}
    with pytest.raises(InputError, match="same time"):
        read_access_log(log, registry)
    with pytest.raises(InputError, match="shorter than the log"):
        read_access_log(write(log, [*rows, (200, "a", 10, 20)]), registry, duration_s=50)


def test_a_single_request_borrows_the_spreads_of_the_log_and_keeps_its_own_means(log: Path, registry: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(float(i), "a", int(p), 50) for i, p in enumerate(rng.integers(1, 200, 200))]
    workload = read_access_log(write(log, [*rows, (100.5, "b", 77, 88)]), registry)
    a, b = workload.adapters
    assert (b.prompt_tokens.mean, b.output_tokens.mean, b.arrival_cv) == (77, 88, 1.0)
    assert b.prompt_tokens.cv == pytest.approx(a.prompt_tokens.cv, rel=0.05)
    assert b.rate_req_per_s == pytest.approx(a.rate_req_per_s / 200)
    assert any(f"1 adapter with fewer than {FEW_REQUESTS} requests" in note for note in workload.notes)


def test_quantile_plans_for_busy_windows_but_never_below_the_mean(log: Path, registry: Path) -> None:
    """`a` sends 1 req/s in one window of ten and `b` 0.1 req/s always; b's tenth window is its busiest by 2."""
    rows: list[tuple[object, ...]] = [(300 + i, "a", 10, 10) for i in range(100)]
    rows += [(10 * i, "b", 10, 10) for i in range(100)]
    rows += [(900 + i, "b", 10, 10) for i in (1, 2)]
    rows.append((1000, "b", 10, 10))
    write(log, rows)

    def rates(quantile: float | None) -> dict[str, float]:
        workload = read_access_log(log, registry, quantile=quantile, window_s=100)
        return {name: rate for name, (_, rate) in by_id(workload).items()}

    assert rates(None) == {"a": pytest.approx(0.1, rel=0.01), "b": pytest.approx(0.103, rel=0.01)}
    assert rates(1.0) == {"a": pytest.approx(1.0), "b": pytest.approx(0.12)}
    assert rates(0.5) == rates(None), "the median of a is 0: its mean is used"


def test_many_adapters_and_windows_are_worked_through_in_blocks(tmp_path: Path, log: Path) -> None:
    """Quantiles agree with a direct computation where the table of counts is split."""
    rng = np.random.default_rng(5)
    n, span = 300, 20_000
    who, times = rng.integers(0, n, 3000), np.sort(rng.integers(0, span, 3000))
    times[0], times[-1] = 0, span
    write(log, [(int(t), f"a{w}", 5, 5) for t, w in zip(times, who, strict=True)])
    names = tmp_path / "many.csv"
    names.write_text("adapter_id,rank\n" + "".join(f"a{i},8\n" for i in range(n)))
    workload = read_access_log(log, names, quantile=0.9999, window_s=1)
    found = {a.adapter_id: a.rate_req_per_s for a in workload.adapters}
    for i in range(0, n, 37):
        counts = np.bincount(times[(who == i) & (times < span)], minlength=span)
        expected = max(float(np.quantile(counts, 0.9999)), np.count_nonzero(who == i) / (span * 3000 / 2999))
        assert found.get(f"a{i}", 0.0) == pytest.approx(expected)


def test_seconds_and_iso_times_agree(log: Path, registry: Path) -> None:
    rows = [(1_700_000_000 + 0.5 * i, "a", 10 + i, 20) for i in range(40)]
    plain = read_access_log(write(log, rows), registry).adapters
    for form in ("2023-11-14T22:13:{:06.3f}", "2023-11-14 22:13:{:06.3f}Z", "2023-11-14T23:13:{:06.3f}+01:00"):
        iso = [(form.format(20 + 0.5 * i), *row[1:]) for i, row in enumerate(rows)]
        assert read_access_log(write(log, iso), registry).adapters == plain


def test_base_model_traffic_and_promises_come_from_the_registry(log: Path, registry: Path) -> None:
    registry.write_text(
        "adapter_id,rank,slo_ttft_p99_s,slo_e2e_mean_s,pinned_gpu,owner\nbase,0,,,,x\na,8,2.5,9,gpu-3,y\n"
    )
    workload = read_access_log(write(log, [(0, "base", 10, 10), (1, "a", 10, 10)]), registry)
    base, a = workload.adapters
    assert (base.rank, base.slo, base.pinned_gpu) == (0, None, None)
    assert (a.rank, a.slo, a.pinned_gpu) == (8, Slo(2.5, e2e_mean_s=9), "gpu-3")
    assert any("not used: owner" in note for note in workload.notes)


def test_registered_adapters_without_requests_are_deployed_as_cold_ones_or_left_out(log: Path, registry: Path) -> None:
    write(log, [(float(i), "a", 10, 10) for i in range(10)])
    workload = read_access_log(log, registry)
    assert by_id(workload) == {"a": (8, pytest.approx(1.0)), "b": (16, pytest.approx(0.05))}, "half a request in 10 s"
    assert workload.reading is not None
    assert workload.reading.cold_adapters == ("b",), "the base model needs no slot"
    assert any("(b)" in text and "deployed all the same" in text for text in workload.reading.sentences())
    without = read_access_log(log, registry, cold="leave_out")
    assert [a.adapter_id for a in without.adapters] == ["a"]
    assert without.reading is not None
    assert any("left out, as told" in text for text in without.reading.sentences())
    rates = by_id(read_access_log(log, registry, idle_rate_req_per_s=0.001))
    assert (rates["b"], rates["base"]) == ((16, 0.001), (0, 0.001))


def test_cold_adapters_share_what_was_seen_once(log: Path, tmp_path: Path) -> None:
    """Good and Turing: three adapters seen once among a hundred requests, six never."""
    rows = [(float(i), "hot", 10, 10) for i in range(97)] + [(97.0 + i, f"once{i}", 10, 10) for i in range(3)]
    names = tmp_path / "names.csv"
    never = [f"never{i}" for i in range(6)]
    names.write_text("adapter_id,rank\n" + "".join(f"{n},8\n" for n in ["hot", "once0", "once1", "once2", *never]))
    workload = read_access_log(write(log, rows), names)
    assert sum(a.rate_req_per_s for a in workload.adapters if a.adapter_id in never) == pytest.approx(3 / 100)


def test_requests_without_output_tokens_are_left_out_and_counted(log: Path, registry: Path) -> None:
    rows = [(0, "a", 10, 0), (1, "a", 10, 3), (2, "a", 0, 5), (3, "a", "NULL", "")]
    workload = read_access_log(write(log, rows), registry)
    assert workload.adapters[0].output_tokens.mean == 4
    assert workload.reading is not None
    assert workload.reading.left_out == {"without token counts": 1, "without output tokens": 1}
    assert any("1 length of 0 tokens" in note for note in workload.notes)


@pytest.mark.parametrize(
    ("rows", "line", "column", "says"),
    [
        ([(0, "a", 1, 1), (1, "zz", 1, 1)], 3, "adapter_id", "'zz' is not in the registry"),
        ([(0, "a", 1, 1), (1, "y", 1, 1), (1, "z", 1, 1)], 3, "adapter_id", "and 1 other adapters"),
        ([(0, "a", 1, 1), (1, "", 1, 1)], 3, "adapter_id", "empty"),
        ([(0, "a", 1, 1), ("soon", "a", 1, 1)], 3, "timestamp", "'soon'"),
        ([(0, "a", 1, 1), ("nan", "a", 1, 1)], 3, "timestamp", "'nan'"),
        ([(0, "a", 1, 1), (1_700_000_000_000, "a", 1, 1)], 3, "timestamp", "(ms?)"),
        ([("yesterday", "a", 1, 1)], 2, "timestamp", "ISO 8601"),
        ([("2023-01-01", "a", 1, 1), (5, "a", 1, 1)], 3, "timestamp", "'5'"),
        ([("2023-01-01", "a", 1, 1), ("2023-01-01T01:00Z", "a", 1, 1)], 3, "timestamp", "UTC offset"),
        ([(0, "a", -1, 1)], 2, "prompt_tokens", "'-1'"),
        ([(0, "a", 1, "many")], 2, "output_tokens", "'many'"),
    ],
)
def test_a_wrong_value_is_named_with_line_and_column(
    log: Path, registry: Path, rows: list[tuple[object, ...]], line: int, column: str, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_access_log(write(log, rows), registry)
    assert says in caught.value.problem
    assert caught.value.where == f"{log}, line {line}, column {column!r}"
    assert caught.value.remedy


def test_more_cached_than_prompt_tokens_are_refused(log: Path, registry: Path) -> None:
    write(log, [(0, "a", 10, 1, 3), (1, "a", 10, 1, 11)], HEADER + ",cached_tokens")
    with pytest.raises(InputError, match="cached_tokens 11 is more than prompt_tokens 10") as caught:
        read_access_log(log, registry)
    assert "line 3" in caught.value.where


def test_a_misspelt_optional_column_is_not_taken_for_one_to_ignore(log: Path, registry: Path) -> None:
    write(log, [(0, "a", 10, 1, 3)], HEADER + ",cached_token")
    with pytest.raises(InputError, match="did you mean 'cached_tokens'"):
        read_access_log(log, registry)


def test_wrong_files_and_options_are_refused(log: Path, registry: Path, tmp_path: Path) -> None:
    write(log, [(0, "a", 10, 10), (100, "a", 10, 10)])
    for options, says in (
        ({"quantile": 0.0}, "workload.quantile"),
        ({"quantile": 1.5}, "workload.quantile"),
        ({"quantile": 0.9}, "less than one window of 600 s"),
        ({"window_s": 0.0}, "workload.window_s"),
        ({"duration_s": -1.0}, "workload.duration_s"),
        ({"idle_rate_req_per_s": 0.0}, "workload.idle_rate"),
    ):
        with pytest.raises(InputError, match=says):
            read_access_log(log, registry, **options)
    with pytest.raises(InputError, match="does not exist"):
        read_access_log(tmp_path / "none.csv", registry)
    with pytest.raises(InputError, match=r"registry .* does not exist"):
        read_access_log(log, tmp_path / "none.csv")
    with pytest.raises(InputError, match="no registry"):
        read_access_log(log, "")
    registry.write_text("adapter_id,rank\na,8\na,8\n")
    with pytest.raises(InputError, match="line 2 and line 3"):
        read_access_log(log, registry)
