"""16 adapters on 8 slots at 0.5 requests/s each: what the slot limit costs, by rule and by cost; and what vLLM does.

Two simulators disagree on this server by a factor of ten and more in TTFT. The table takes this twin apart: the base
model alone; slots for all; 8 slots at the base model's step times ("slots alone"); 8 slots with all costs; and both
once more with head-of-line blocking, where a request that waits for a slot holds up those behind it. `records=` is a
recording of a real server (scripts/cpu-loop): the runs with more adapters than slots, replayed by both rules. The last
line is JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from profiling.measured.command import beside
from profiling.measured.validate import replayed
from profiling.published.fidelity import smape
from profiling.record.files import Record, read_records
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.laws import LoadLaw
from twin.server.rules import EngineRules, rules_of
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.workload.adapter import Adapter, Lengths

ADAPTERS, SLOTS, RATE, RANK = 16, 8, 0.5, 8
#: Terms of a step that only steps with adapters have.
ADAPTER_TERMS = (
    "lora", "lora_rank", "adapter", "adapter_rank", "slot", "slot_square", "slot_token", "lora_token", "adapter_token",
    "adapter_small", "adapter_large",
)  # fmt: skip
FIGURES = {"ttft_mean_s": "mean", "ttft_p50_s": "median", "ttft_p99_s": "p99"}


@dataclass(frozen=True, slots=True)
class Options:
    """Of the benchmark.

    Args:
        prompt, output: mean tokens, with the published spreads.
        records, fitted: a recording of a real server and the calibration fitted to it; empty = the twin alone.
    """

    calibration: str = "llama-3.1-8b-h100-64gb"
    prompt: Annotated[int, Range(1)] = 256
    output: Annotated[int, Range(1)] = 128
    seeds: Annotated[int, Range(1)] = 3
    records: str = ""
    fitted: str = ""


def run(options: Options) -> None:
    """Prints the table; the last line is JSON."""
    calibration = load_calibration(options.calibration)
    free = without_adapter_costs(calibration)
    usual = rules_of(calibration.stamp.engine_version)
    blocking = replace(usual, skip_past=False)
    cases: dict[str, tuple[int, int, Calibration, EngineRules]] = {
        "base model only": (0, SLOTS, calibration, usual),
        "a slot for every adapter": (RANK, ADAPTERS, calibration, usual),
        "8 slots alone (base model's steps, free loads)": (RANK, SLOTS, free, usual),
        "8 slots": (RANK, SLOTS, calibration, usual),
        "8 slots alone, head of line blocks": (RANK, SLOTS, free, blocking),
        "8 slots, head of line blocks": (RANK, SLOTS, calibration, blocking),
    }
    table = {name: _simulated(options, *case) for name, case in cases.items()}
    print(f"{'TTFT, ms':<50}" + "".join(f"{word:>12}" for word in FIGURES.values()) + f"{'served %':>10}")
    for name, row in table.items():
        cells = "".join(f"{1000 * row[key]:>12,.0f}" for key in FIGURES)
        print(f"{name:<50}{cells}{100 * row['served_fraction']:>10.1f}")
    real = _real(options) if options.records else {}
    for name, score in real.items():
        print(f"real vLLM, {score['runs']:.0f} runs with more adapters than slots, {name}: "
              f"TTFT SMAPE {score['ttft']:.1f} %, throughput {score['throughput']:.1f} %")  # fmt: skip
    print(json.dumps({"simulated": table, "real": real}))


def without_adapter_costs(calibration: Calibration) -> Calibration:
    """Steps as long as without adapters, and loads that take no time; the slots' limit stays."""
    step = replace(calibration.step, **dict.fromkeys(ADAPTER_TERMS, 0.0))
    # A calibration without any cost of adapters would count as one that was measured without them.
    return replace(calibration, step=step, load=LoadLaw(1e-9, 1e-9))


def _simulated(
    options: Options, rank: int, slots: int, calibration: Calibration, rules: EngineRules
) -> dict[str, float]:
    prompt, output = Lengths(options.prompt, 1.1), Lengths(options.output, 1.06)
    adapters = tuple(Adapter(f"a{i}", rank, RATE, prompt, output) for i in range(ADAPTERS))
    column = Column(adapters, EngineSetting(calibration.stamp.gpu_type, slots, RANK))
    rows = [simulate(column, calibration, seed=s, rules=rules).row for s in range(options.seeds)]
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in (*FIGURES, "served_fraction")}


def _real(options: Options) -> Mapping[str, Mapping[str, float]]:
    """Both rules against the recorded runs in which adapters compete for slots."""
    calibration = load_calibration(options.fitted)
    delay_s = json.loads(beside(Path(options.fitted)).read_text())["client_ttft_s"]
    records = [r for r in read_records(Path(options.records)) if competes(r)]
    usual = rules_of(calibration.stamp.engine_version, async_scheduling=records[0].about["engine"]["async_scheduling"])
    return {
        "passes by who waits for a slot": _scored(records, calibration, delay_s, usual),
        "head of line blocks": _scored(records, calibration, delay_s, replace(usual, skip_past=False)),
    }


def competes(record: Record) -> bool:
    """Whether more adapters than slots had traffic."""
    return record.about["kind"] == "workload" and len(record.adapters) > int(record.about["engine"]["max_loras"])


def _scored(
    records: Sequence[Record], calibration: Calibration, delay_s: float, rules: EngineRules
) -> dict[str, float]:
    pairs: list[Any] = [replayed(r, calibration, delay_s, rules) for r in records]
    scores: dict[str, float] = {"runs": len(pairs)}
    for name, key in (("ttft", "ttft_mean_s"), ("throughput", "throughput_tps")):
        scores[name] = round(smape([p.simulated[key] for p in pairs], [p.measured[key] for p in pairs]), 2)
    return scores


APP = command("benchmarks.slot_limit", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
