"""A law that made a recording is found again from it, and the twin replays what the fit has not seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from profiling.__main__ import main
from profiling.measured.fit import fit_records
from profiling.measured.validate import by_regime, noise, replayed
from profiling.record.files import read_records
from tests.profiling.measured.recording import TRUTH, write_recording
from twin.server.calibration import load_calibration
from twin.server.laws import step_terms

STEP = step_terms(decodes=8, prompt=20, kv_tokens=500, adapters=2, slots=4, rank=16)
DELAY_S = 0.01


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("made"), DELAY_S)


def test_the_law_is_found_again_and_what_no_step_had_is_named(recording: Path) -> None:
    made = fit_records(recording, read_records(recording), hardware="", name="", date="2026-01-01")
    law, truth = made.calibration.step, TRUTH.step
    found, wanted = (sum(getattr(x, n) * v for n, v in STEP.items()) for x in (law, truth))
    assert found == pytest.approx(wanted, rel=0.01)
    assert law.base == pytest.approx(truth.base, rel=0.02)
    assert made.solution.held_out_error_pct < 1
    unknown = made.solution.unknown
    assert {"cliff", "past_graph", "adapter_large"} <= unknown.keys() and "seq" not in unknown
    assert "record batches" in unknown["cliff"]
    assert made.calibration.kv.base_tokens == 65_536 and made.calibration.stamp.engine_version == "0.32.0"


def test_a_prior_holds_where_nothing_was_recorded_and_gives_way_where_something_was(recording: Path) -> None:
    records = read_records(recording)
    by_prior = fit_records(recording, records, hardware="l4", name="", date="2026-01-01")
    # An L4 would take a millisecond: the prior is far off, is said to be, and gives way.
    assert by_prior.start is not None and by_prior.start.widened > 1
    law = by_prior.calibration.step
    found, wanted = (sum(getattr(x, n) * v for n, v in STEP.items()) for x in (law, TRUTH.step))
    assert found == pytest.approx(wanted, rel=0.05)
    # No step was beyond the CUDA graphs: what the data cannot tell stays as derived.
    assert law.cliff > 1


def test_runs_kept_from_the_fit_are_replayed(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", f"records={recording}", f"out={recording / 'made.yaml'}", "plot=true"]) == 0
    assert "not known: cliff" in capsys.readouterr().out
    assert (recording / "made.residuals.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((recording / "made.fit.json").read_text())
    assert report["client_ttft_s"] == pytest.approx(DELAY_S, rel=0.1)
    assert main(["validate", f"records={recording}", f"calibration={recording / 'made.yaml'}"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    row = last["by"]["all"]
    assert row["runs"] == 4 and row["throughput"] < 1 and row["tpot"] < 1 and row["ttft"] < 2 and row["label"] == 1
    assert last["noise"]["runs"] == 4 and last["noise"]["tpot"] < 1e-6


def test_a_wrong_calibration_shows_in_the_table(recording: Path) -> None:
    from dataclasses import replace

    slow = replace(TRUTH, step=replace(TRUTH.step, base=2 * TRUTH.step.base))
    pairs = [replayed(r, slow, DELAY_S) for r in read_records(recording) if r.held_out]
    assert by_regime(pairs)["all"]["tpot"] > 10
    assert noise([p.record for p in pairs]) == {}


def test_mistakes_are_explained(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 2 and "records=<a recording>" in capsys.readouterr().err
    assert main(["fit", f"records={tmp_path}"]) == 2 and "is no recording" in capsys.readouterr().err
    assert main(["fit", f"records={recording}", "hardware=l5"]) == 2 and "'l5' is not known" in capsys.readouterr().err
    words = [f"records={recording}", "calibration=llama-3.1-8b-h100-64gb"]
    assert main(["validate", *words, "runs=some"]) == 2 and "held_out or all" in capsys.readouterr().err


def test_results_of_vllm_bench_serve_become_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.tiny_model import write_tiny_model

    n = 50
    result = {
        "start_times": [100 + 0.1 * i for i in range(n)], "ttfts": [0.05] * n, "itls": [[0.01] * 19] * n,
        "input_lens": [30] * n, "output_lens": [20] * n,
    }  # fmt: skip
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    model, out = write_tiny_model(tmp_path / "tiny"), tmp_path / "rec"
    words = [
        f"bench={path}", f"out={out}", f"model={model}", "gpu=cpu", "version=0.32.0", "kv_cache_tokens=65536",
        "memory_gib=24", "adapters=4", "max_loras=4", "block_size=32",
    ]  # fmt: skip
    assert main(["import", *words]) == 0
    (record,) = read_records(out)
    assert len(record.requests) == n and len(record.adapters) == 4 and not len(record.steps)
    assert np.all(record.finish_s - record.first_token_s == pytest.approx(0.19))
    made = fit_records(out, [record], hardware="l4", name="", date="2026-01-01")
    assert made.rows[0].target_ms == pytest.approx(10.0)
    del result["start_times"]
    path.write_text(json.dumps(result))
    capsys.readouterr()
    assert main(["import", *words]) == 2 and "--save-detailed" in capsys.readouterr().err


def test_the_calibration_is_read_like_any_other(recording: Path) -> None:
    main(["fit", f"records={recording}", "name=mine"])
    assert load_calibration(recording / "mine.yaml").stamp.gpu_type == "cpu"
