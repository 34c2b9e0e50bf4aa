"""A table of one's own runs becomes equations of the fit, or is refused with its row."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiling.derive.constants import shipped_constants
from profiling.derive.derivation import derive, fitted
from profiling.derive.operators import SheetKernels
from profiling.derive.request import for_names
from profiling.derive.runs import COLUMNS, read_own_runs
from profiling.fit.micro import TERMS
from twin.errors import InputError
from twin.server.memory import kv_cache_tokens
from twin.server.settings import EngineSetting

HEAD = ",".join(COLUMNS)
RUN = "200,8000,4000,250000,0.4,64,32,16"


def table(tmp_path: Path, *rows: str, head: str = HEAD) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_a_window_is_a_mean_step(tmp_path: Path) -> None:
    runs = read_own_runs(table(tmp_path, RUN))
    (row,) = runs.rows
    assert row.target_ms == pytest.approx(25.0)
    x = dict(zip(TERMS, row.features, strict=True))
    assert x["seq"] == 200 and x["prompt"] == pytest.approx(100) and x["kv"] == pytest.approx(100)
    # 64 adapters, 32 slots: no more than the slots are in a batch.
    assert x["adapter"] == 32
    assert runs.capacities == ((32, 16, 250_000),)


def test_the_fit_follows_the_runs_and_the_servers_memory(tmp_path: Path) -> None:
    request = for_names("llama-3.1-8b", "h100-sxm")
    kernels = SheetKernels(request.model, request.device)
    before = derive(request, kernels, shipped_constants(), date="")
    x = read_own_runs(table(tmp_path, RUN)).rows[0].features
    slow = float(x @ before.step.as_array()[: len(TERMS)]) * 1.2
    runs = read_own_runs(table(tmp_path, *[f"200,{200_000 / slow},4000,250000,0.4,64,32,16"] * 3))
    after = fitted(request, kernels, shipped_constants(), runs.rows, date="", capacities=runs.capacities)
    assert abs(float(runs.rows[0].features @ after.step.as_array()[: len(TERMS)]) / slow - 1) < 0.05
    setting = EngineSetting("h100-sxm", 32, 16)
    assert kv_cache_tokens(setting, after) == pytest.approx(250_000, rel=1e-3)
    assert kv_cache_tokens(setting, after.at("careful")) > 0.99 * 250_000


@pytest.mark.parametrize(
    ("rows", "head", "said"),
    [
        ((), HEAD, "no row"),
        ((RUN,), HEAD.replace("kv_usage", "usage"), "lacks kv_usage"),
        ((RUN.replace("8000", "fast"),), HEAD, "row 1"),
        ((RUN, RUN.replace("200,", "0,", 1)), HEAD, "row 2"),
    ],
)
def test_what_is_no_table_of_runs_is_refused(tmp_path: Path, rows: tuple[str, ...], head: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_own_runs(table(tmp_path, *rows, head=head))
    with pytest.raises(InputError, match="runs ="):
        read_own_runs(tmp_path / "absent.csv")
