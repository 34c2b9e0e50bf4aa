"""`python -m profiling derive` and `python -m profiling learn`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from profiling.derive.constants import Constants, learn, mean_of, write_constants
from profiling.derive.request import derived, for_names, kernels_of
from profiling.derive.runs import read_own_runs
from twin.config.entry import App, Outcome
from twin.config.schema import parse, top_level
from twin.files import write_text
from twin.server.calibration import Calibration, load_calibration
from twin.server.groups import HardwareConfig, derivation_request, read_model
from twin.server.laws import STEP_TERMS

#: Calibrations of servers with adapters that the shipped constants are learned from: model and hardware.
MEASURED = (("llama-3.1-8b", "h100-64gb"), ("qwen2.5-7b", "h100-64gb"))
#: Slots and rank of the KV capacity that is shown.
SHOWN_SLOTS, SHOWN_RANK = 32, 16


@dataclass(frozen=True, slots=True)
class Options:
    """Keys of `conf/derive.yaml` outside the groups."""

    out: str | None = None
    runs: str | None = None
    debug: bool = False


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """Of `learn`: the file to write; empty = shown only."""

    out: str = ""


def run(config: dict[str, Any], directory: Path, quiet: bool) -> tuple[int, None]:
    """Derives, shows and, where asked, writes a calibration."""
    options = top_level(Options, config, ("model", "hardware", "engine"))
    model, hardware = read_model(config["model"]), parse(HardwareConfig, config["hardware"], "hardware")
    runs = None if options.runs is None else read_own_runs(options.runs)
    calibration = derived(derivation_request(model, hardware, config["engine"]), runs)
    print("\n".join(description(calibration)))
    if options.out is None:
        print("\nout=<folder, or file.yaml> writes it; placement and twin derive and keep it by themselves")
        return 0, None
    path = Path(options.out)
    path = path if path.suffix == ".yaml" else path / f"{calibration.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(calibration.to_dict(), sort_keys=False))
    print(f"\nwritten to {path}")
    return 0, None


def description(calibration: Calibration) -> list[str]:
    """The calibration in lines for people: every coefficient with its interval."""
    about, derived_ = calibration.stamp, calibration.derived
    assert derived_ is not None
    unit = about.tensor_parallel_size
    gpus = f"{unit} x {about.gpu_type}" if unit > 1 else about.gpu_type
    lines = [
        f"{calibration.name}: {about.model} on {gpus}, vLLM {about.engine_version}",
        f"  {about.source}",
        "",
        f"  {'coefficient':<22}{'value':>12}{'low':>12}{'high':>12}{'careful':>12}",
    ]
    rows = [(f"step.{n}", getattr(calibration.step, n)) for n in STEP_TERMS]
    rows += [(f"load.{n}", getattr(calibration.load, n)) for n in calibration.load.__slots__]
    for key, value in rows:
        low, high = derived_.intervals[key]
        lines.append(f"  {key:<22}{value:>12.4f}{low:>12.4f}{high:>12.4f}{derived_.careful[key]:>12.4f}")
    tokens = [
        max(0, int(c.kv.tokens(SHOWN_SLOTS, SHOWN_RANK, c.model.kv_bytes_per_token)))
        for c in (calibration, calibration.at("careful"), calibration.at("hopeful"))
    ]
    lines += [
        "",
        f"  KV cache with {SHOWN_SLOTS} slots of rank {SHOWN_RANK}: {tokens[0]:,} tokens "
        f"({tokens[1]:,} to {tokens[2]:,})",
        "  what the careful side adds to a step, ms: "
        + ", ".join(f"{name} {value:.2f}" for name, value in derived_.parts.items() if value >= 0.005),
    ]
    return lines


def run_learn(options: LearnOptions) -> None:
    """Learns the constants of every measured calibration and writes their mean."""
    text = write_constants(mean_of([learned(model, hardware) for model, hardware in MEASURED]))
    print(text)
    if options.out:
        write_text(Path(options.out), text)
        print(f"written to {options.out}")


def learned(model: str, hardware: str) -> Constants:
    """The constants of one measured calibration, by names of `conf/`."""
    request = for_names(model, hardware)
    return learn(load_calibration(f"{model}-{hardware}"), request.model, request.device, kernels_of(request))


def _no_table(outcomes: Sequence[Outcome]) -> None:
    """Each job has printed its own result."""


APP = App(
    "profiling derive",
    "derive",
    run,
    _no_table,
    hidden=("commands", "workload", "engine", "surrogate", "constraint", "solver", "verify", "export", "experiment",
            "objective", "calibration"),
)  # fmt: skip
