"""What each mechanism and each term of the step-time law is worth.

    python -m benchmarks.twin_ablation data=<folder> [every=8] [folds=5] [threads=2] [forced=<folder>] [only=a,b]

A part is taken away, the law is fitted again without it (runs are also teacher-forced again where the part changes
the batch), and every run is replayed with a law of *other workloads*. So a row tells what a twin without the part could
do at its best, not what breaks if it is ripped out. One seed; differences below 0.1 (throughput, TPOT, ITL) or 0.3
(TTFT) are noise. `every=8` uses every 8th run. Not measured: interactions of parts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from profiling.fit.calibration import RECIPE
from profiling.fit.crossval import Evidence, Variant, crossvalidate
from profiling.fit.evidence import fit_model
from profiling.fit.micro import TERMS
from profiling.published.fidelity import scores
from profiling.published.frontend import Frontend
from profiling.published.histogram import constant_length, gamma_shape, lognormal_shape
from profiling.published.models import MEASURED_MODELS
from profiling.published.replay import Rig
from profiling.published.reports import print_scores
from profiling.published.runs import read_all_runs, thin
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError
from twin.server.laws import LoadLaw
from twin.server.rules import VLLM_0_8

LORA_TERMS = tuple(name for name in TERMS if name.startswith(("lora", "adapter", "slot")))
#: Mean and standard deviation of the served data set, tokens; each run keeps its own means.
PROMPT, OUTPUT = (223.0, 247.0), (198.0, 208.0)


def without(name: str, *terms: str, keep: Sequence[str] = ()) -> Variant:
    """A law without some terms."""
    zero = {*RECIPE.zero, *terms} - set(keep)
    return Variant(name, recipe=replace(RECIPE, zero=tuple(sorted(zero))))


def variants() -> list[Variant]:
    """The full twin first."""
    rig = Rig()
    rest = set(LORA_TERMS)
    return [
        Variant("full"),
        without("law: no LoRA terms", *LORA_TERMS),
        without("law: n only", *(rest - {"lora", "adapter"})),
        without("law: n and n R", *(rest - {"lora", "adapter", "adapter_rank"})),
        without("law: n, n R and M T", *(rest - {"lora", "adapter", "adapter_rank", "slot_token"})),
        without("law: no step below 128 tokens", "adapter_small"),
        without("law: no cliff past 512 tokens", "cliff", "past_graph"),
        without("law: no KV term", "kv"),
        without("law: no prompt term", "prompt"),
        without("law: no scheduler or queue cost", "skipped", "skipped_seq", "queue"),
        without("law: no skipped x decodes", "skipped_seq"),
        without("law: no square of the slots", "slot_square"),
        without("law: no cost of the rank alone", "lora_rank"),
        without("law: none of these three", "skipped_seq", "slot_square", "lora_rank"),
        without("law: all 21 terms", keep=RECIPE.zero),
        Variant("no load cost", load=LoadLaw(0.0, 0.0), force_again=True),
        Variant("no reload cascade", rules=replace(VLLM_0_8, reload_cascade=False), force_again=True),
        Variant("head of line instead of skip-past", rules=replace(VLLM_0_8, skip_past=False), force_again=True),
        Variant("no client port limit", rig=replace(rig, client_ports={}), force_again=True),
        Variant(
            "lengths: constant",
            rig=replace(rig, prompt=constant_length(PROMPT[0]), output=constant_length(OUTPUT[0])),
            force_again=True,
        ),
        Variant("lengths: independent", rig=replace(rig, copula=0.0), force_again=True),
        Variant(
            "lengths: gamma",
            rig=replace(rig, prompt=gamma_shape(*PROMPT), output=gamma_shape(*OUTPUT)),
            force_again=True,
        ),
        Variant(
            "lengths: lognormal",
            rig=replace(rig, prompt=lognormal_shape(*PROMPT), output=lognormal_shape(*OUTPUT)),
            force_again=True,
        ),
        Variant("rig: monitor not modelled", rig=replace(rig, monitor=None)),
        Variant("rig: first requests are free", rig=replace(rig, frontend=Frontend(0.0, 0.0)), force_again=True),
    ]


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    data: str
    every: Annotated[int, Range(1)] = 8
    folds: Annotated[int, Range(2)] = 5
    threads: Annotated[int, Range(1)] = 2
    forced: str = ""
    only: str = ""


def run(options: Options) -> int:
    folder, threads = Path(options.data), options.threads
    chosen = [v for v in variants() if not options.only or v.name in ("full", *options.only.split(","))]
    if len(chosen) < 2:
        raise InputError(
            f"only={options.only} names no variant", remedy=f"one of: {', '.join(v.name for v in variants())}"
        )
    runs = thin(read_all_runs(folder), options.every)
    evidence: dict[str, Evidence] = {}
    for model in MEASURED_MODELS:
        made = fit_model(folder, model, runs, date="", threads=threads, cache=options.forced)
        evidence[model.spec.name] = Evidence(made.calibration, made.forced, made.micro)
    result: dict[str, Any] = {}
    for variant in chosen:
        start = time.perf_counter()
        rows = crossvalidate(evidence, options.folds, 1, threads, variant)
        result[variant.name] = scores(rows)
        print_scores(f"{variant.name} ({time.perf_counter() - start:.0f} s)", {variant.name: result[variant.name]})
    print_scores("workloads left out of the fit, SMAPE %", result)
    print(json.dumps(result, allow_nan=False))
    return 0


APP = command("benchmarks.twin_ablation", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
