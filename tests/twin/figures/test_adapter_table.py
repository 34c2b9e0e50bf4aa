"""Results per adapter and over time agree with the figures of the whole window."""

from __future__ import annotations

import numpy as np
import pytest

from tests.twin.columns import LLAMA, column
from twin.engine.outcome import KernelOutput
from twin.engine.play import run_requests
from twin.errors import InputError
from twin.figures.adapter_table import adapter_table, order_statistic
from twin.figures.metrics import measure
from twin.figures.series import time_series
from twin.server.column import Column
from twin.traffic.arrivals import draw_requests
from twin.workload.requests import Requests

HORIZON_S = 300.0


def played(served: Column, *, trace_steps: int = 0) -> tuple[Requests, KernelOutput, int]:
    requests = draw_requests(served.adapters, horizon_s=HORIZON_S, seed=11, max_model_len=131072)
    out, blocks = run_requests(
        requests, served.adapters, served.setting, LLAMA, horizon_s=HORIZON_S,
        walk=np.arange(len(served.adapters), dtype=np.int32), trace_steps=trace_steps,
    )  # fmt: skip
    return requests, out, blocks


@pytest.mark.parametrize("served", [column(12, (0.2, 0.01), 12), column(24, (1.2, 0.4, 0.02), 8)])
def test_table_adds_up_to_the_window(served: Column) -> None:
    requests, out, blocks = played(served)
    table = adapter_table(served.adapters, requests, out, horizon_s=HORIZON_S)
    slo = np.full(len(served.adapters), 5.0)
    whole = measure(requests, out, horizon_s=HORIZON_S, slo_s=slo, total_blocks=blocks)
    count = np.array([row.requests for row in table])
    assert [row.adapter_id for row in table] == [a.adapter_id for a in served.adapters]
    assert count.sum() == len(requests)
    assert sum(row.completed for row in table) == whole.completed.completed
    some = [row for row in table if row.requests]
    weights = [row.requests for row in some]
    assert np.average([r.ttft_mean_s for r in some], weights=weights) == pytest.approx(whole.row["ttft_mean_s"])
    assert np.average([r.e2e_mean_s for r in some], weights=weights) == pytest.approx(whole.row["e2e_mean_s"])
    assert max(r.ttft_p99_s for r in some) == whole.row["worst_adapter_ttft_p99_s"]
    judged = [r.late_fraction for r in table if not np.isnan(r.late_fraction)]
    assert np.mean(judged) == pytest.approx(whole.row["adapter_late_fraction"])
    tokens = np.bincount(requests.adapter, requests.prompt + requests.output, minlength=len(table))
    served_tokens = sum(r.served_fraction * t for r, t in zip(table, tokens, strict=True) if t)
    assert served_tokens / tokens.sum() == pytest.approx(whole.row["served_fraction"])


def test_adapter_without_requests_has_a_row_without_figures() -> None:
    served = column(4, (2.0, 2.0, 2.0, 0.0001), 4)
    requests, out, _ = played(served)
    last = adapter_table(served.adapters, requests, out, horizon_s=HORIZON_S)[3]
    assert last.requests == 0 and np.isnan(last.ttft_mean_s) and np.isnan(last.served_fraction)
    assert set(last.as_dict()) >= {"adapter_id", "ttft_p99_s", "late_fraction"}


def test_warm_up_leaves_out_early_arrivals() -> None:
    served = column(6, (0.5,), 6)
    requests, out, _ = played(served)
    late = adapter_table(served.adapters, requests, out, horizon_s=HORIZON_S, warmup_s=100.0)
    assert sum(r.requests for r in late) == (requests.arrival_s >= 100.0).sum() < len(requests)


def test_percentiles_are_order_statistics() -> None:
    values = np.arange(1.0, 101.0)
    assert (order_statistic(values, 0.5), order_statistic(values, 0.99)) == (50.0, 99.0)
    assert order_statistic(values[:1], 0.99) == 1.0
    assert np.isnan(order_statistic(values[:0], 0.5))


def test_series_integrate_to_the_window() -> None:
    served = column(24, (1.2, 0.4, 0.02), 8)
    requests, out, blocks = played(served, trace_steps=100_000)
    series = time_series(
        out.trace, horizon_s=HORIZON_S, total_blocks=blocks, busy_s=out.busy_s, first_token_s=out.first_token_s, bins=7
    )
    assert len(series) == len(series.rows()) == 7
    # The last step may reach beyond the window; the window's own figures count it whole.
    beyond = (out.trace[-1, 0] + out.trace[-1, 1] - HORIZON_S) / HORIZON_S
    for name, bins in (("running", out.running_bins), ("waiting", out.waiting_bins)):
        last = out.trace[-1, 6 if name == "running" else 7]
        assert getattr(series, name).mean() == pytest.approx(bins.sum() / HORIZON_S - last * beyond, abs=1e-6)
    assert series.kv_usage.mean() == pytest.approx(out.kv_integral / HORIZON_S / blocks, rel=1e-3)
    assert series.loads_per_s.mean() * HORIZON_S == pytest.approx(out.loads)
    assert series.prompt_tps.mean() * HORIZON_S == pytest.approx(out.features[2], rel=1e-3)
    assert series.busy_share.max() <= 1 + 1e-9
    assert series.active_adapters.max() <= served.setting.max_loras + 1e-9
    # Tokens: those of finished requests, and part of those running.
    done = int(requests.output[out.state == 2].sum())
    running = int(requests.output[out.state == 1].sum())
    assert done * 0.999 <= series.output_tps.mean() * HORIZON_S <= done + running


def test_an_idle_engine_gives_zeros() -> None:
    served = column(1, (0.0001,), 1)
    _, out, blocks = played(served, trace_steps=10)
    series = time_series(out.trace, horizon_s=HORIZON_S, total_blocks=blocks, busy_s=out.busy_s)
    assert not series.running.any() and not series.busy_share.any()


def test_truncated_trace_is_refused() -> None:
    served = column(6, (0.5,), 6)
    _, out, blocks = played(served, trace_steps=10)
    with pytest.raises(InputError, match="10 steps"):
        time_series(out.trace, horizon_s=HORIZON_S, total_blocks=blocks, busy_s=out.busy_s)
    with pytest.raises(InputError, match="bins = 0"):
        time_series(out.trace, horizon_s=HORIZON_S, total_blocks=blocks, bins=0)


def test_bad_table_input_names_the_value() -> None:
    served = column(6, (0.5,), 6)
    requests, out, _ = played(served)
    with pytest.raises(InputError, match="adapter 5, the column has 5"):
        adapter_table(served.adapters[:5], requests, out, horizon_s=HORIZON_S)
    with pytest.raises(InputError, match=r"warmup_s = 300\.0"):
        adapter_table(served.adapters, requests, out, horizon_s=HORIZON_S, warmup_s=300.0)
