"""`python -m profiling derive` shows and writes a calibration, and says what is wrong on one screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiling.__main__ import main
from twin.server.calibration import load_calibration

SPEC = [f"hardware.{k}" for k in ("memory_gib=44.4", "bandwidth=864", "flops=362", "pcie=32")]


def test_any_gpu_by_its_data_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["derive", "model=qwen3-8b", "hardware=spec", *SPEC, f"out={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "derived, not measured: kernel times by the roofline" in shown
    assert "step.adapter_token" in shown and "careful" in shown
    made = load_calibration(tmp_path / "qwen3-8b-spec.yaml")
    assert made.stamp.model == "qwen3-8b" and made.derived is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=llama-3.1-70b", "engine.tensor_parallel_size=3"], "choose one of: 1, 2, 4, 8"),
        (["model=llama-3.1-70b", "hardware=l40s"], "engine.tensor_parallel_size=4"),
        (["model=llama-3.1-7b"], "did you mean 'llama-3.1-"),
        (["hardware=h100-smx"], "did you mean 'h100-sxm'?"),
        (["hardware=spec"], "is missing"),
        (["hardware=spec", *SPEC[:1], "hardware.bandwidth=864e9", *SPEC[2:]], "GB/s"),
        (["model=hf", "model.config=nowhere"], "model.config=<path"),
    ],
)
def test_mistakes_are_explained(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    system = [] if "hardware=spec" in words else ["hardware.system=null"]
    assert main(["derive", *words, *system]) == 2
    assert said in capsys.readouterr().err
