"""The named workloads that benchmarks plan, defined once: each a list of options, as the command takes them.

    python -m placement $(python -m benchmarks.workloads power_law_1000_60) +objective=latency

Names end in what sets them apart: number of adapters and, after it, requests per second. Trace workloads need the
folder that holds `azure_llm_2023/` and `servegen/` (`data`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twin.config.compose import compose
from twin.config.entry import run_app
from twin.config.program import command
from twin.errors import InputError
from twin.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Named:
    """Options of `python -m placement` that make a workload.

    Args:
        trace: folder in `data` that it is read from; empty = none.
        large: whether a plan takes minutes: left out of quick suites.
    """

    options: tuple[str, ...]
    trace: str = ""
    large: bool = False

    def overrides(self, data: str = "") -> list[str]:
        """Its options; those of a trace name the trace's folder.

        Raises:
            InputError: a trace is needed, and `data` does not hold it.
        """
        if not self.trace:
            return list(self.options)
        folders = [Path(data) / self.trace, Path(data) / "traces" / self.trace] if data else []
        found = next((f for f in folders if f.is_dir()), None)
        if found is None:
            raise InputError(f"the trace {self.trace} is not in {data!r}", remedy="name the folder of traces: data=...")
        return [*self.options, f"workload.path={found}"]


def _power_law(adapters: int, rate: float, *more: str) -> Named:
    return Named(
        ("workload=power_law", f"workload.n_adapters={adapters}", f"workload.total_rate_req_per_s={rate:g}", *more)
    )


def _published(adapters: int, *more: str, large: bool = False) -> Named:
    return Named(("workload=published", f"workload.n_adapters={adapters}", *more), large=large)


def _servegen(rate: float) -> Named:
    return Named(("workload=servegen", f"workload.total_rate_req_per_s={rate:g}"), trace="servegen")


WORKLOADS: dict[str, Named] = {
    "default": Named(("workload=default",)),
    "power_law_300_30": _power_law(300, 30),
    "power_law_300_75": _power_law(300, 75),
    "power_law_1000_60": _power_law(1_000, 60),
    "power_law_1000_150": _power_law(1_000, 150),
    "power_law_3000_300": _power_law(3_000, 300),
    "published_192": _published(192),
    "published_384": _published(384, "workload.rates=[0.4,0.1,0.0125]"),
    "published_3000": _published(3_000),
    "published_10000": _published(10_000),
    "published_100000": _published(100_000, large=True),
    "servegen_10": _servegen(10),
    "servegen_40": _servegen(40),
    "servegen_100": _servegen(100),
    "azure_conv": Named(("workload=azure", "workload.trace=conv"), trace="azure_llm_2023"),
    "unpredictable": Named(("workload=unpredictable",)),
    "peaks": Named(("workload=peaks",)),
    "long_prompts": _power_law(300, 6, "workload.prompt_mean=3000", "workload.output_mean=300"),
    "rank_64": _power_law(300, 30, "workload.ranks=[64]", "engine.max_lora_rank=[64]"),
    "cold_1500": _power_law(1_500, 3),
    "cv_5": _power_law(300, 30, "workload.arrival_cv=5.0"),
}


def workload_overrides(name: str, data: str = "") -> list[str]:
    """Options of a named workload.

    Raises:
        InputError: no such workload, or its trace is missing.
    """
    if name not in WORKLOADS:
        raise InputError(f"workload {name!r} is not known", remedy=f"choose one of: {', '.join(WORKLOADS)}")
    return WORKLOADS[name].overrides(data)


def composed(name: str, data: str = "", more: Sequence[str] = (), *, objective: str = "gpu_count") -> dict[str, Any]:
    """The configuration of a run on a named workload, in plain containers."""
    from placement.command import APP

    return compose(APP, [f"+objective={objective}", *workload_overrides(name, data), *more])


def named_workload(name: str, data: str = "") -> Workload:
    """The workload itself."""
    from placement.config import load_run

    return load_run(composed(name, data)).workload


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments; the name may stand alone."""

    name: str = ""
    data: str = ""


def run(options: Options) -> int:
    if options.name:
        print(" ".join(workload_overrides(options.name, options.data)))
        return 0
    for name, named in WORKLOADS.items():
        print(f"{name:20s} {' '.join(named.options)}" + (f" (trace {named.trace})" if named.trace else ""))
    return 0


APP = command("benchmarks.workloads", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Prints a workload's options, or all of them; returns the exit code."""
    named = [f"name={a}" if a in WORKLOADS else a for a in arguments]
    return run_app(APP, named)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
