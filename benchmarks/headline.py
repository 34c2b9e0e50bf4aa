"""The first publication's claim on its own shapes: GPUs that its workloads need here, and by what operators do today.

    python -m benchmarks.headline [data=FOLDER] [constraint=stable|published] [baselines=[LPT]] [hours=6]

384 adapters each; rates and ranks are those of the real runs in `data` (`adapter_serving/placement_real_optimum.csv`,
Llama-3.1-8B, up to `most_req_per_s` requests/s), or of one named workload without. A number of GPUs is enough where the
twin accepts every GPU by the rule of `verify=quick`. Baselines (`benchmarks.baselines`) are tried on as many GPUs as
this pipeline needs: where those are accepted on one fewer until they are not, else on more, by bisection up to twice as
many. Latencies are those on as many GPUs as this pipeline needs, the same simulated hours for all.

Not measured: real GPUs; how a baseline's GPUs would do under other engine settings than an operator's rule of thumb.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from benchmarks.baselines import BASELINES, Baseline, Planned, place
from benchmarks.judging import Judged, accepted, judged
from placement.config import Run, load_run
from placement.pipeline import run_pipeline
from placement.report.progress import progress
from placement.report.result import Result
from placement.verify.verifier import TwinVerifier
from twin.config.compose import compose
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError
from twin.server.column import Column
from twin.wording import number, percent

ADAPTERS = 384
MODEL = "llama-3.1-8b-instruct"
#: Rates and ranks without a folder of measurements: `published_384` of `benchmarks.workloads`.
NAMED = {"0.4-0.1-0.0125, 8-16-32": ("0.4 0.1 0.0125", "8 16 32")}
PLAN, FASTEST = "this pipeline", "this pipeline, objective latency"
#: A baseline's latency counts as no worse up to this factor.
AS_GOOD = 1.01


@dataclass(frozen=True, slots=True)
class Row:
    """One way to place on one shape.

    Args:
        enough: fewest GPUs that the twin accepts; None = none up to twice those of the plan.
        same: on as many GPUs as the plan; None = it has no placement there.
        accepted: whether the twin accepts all of those.
    """

    enough: int | None
    same: Judged | None
    accepted: bool


def shapes(data: str, most_req_per_s: float) -> dict[str, tuple[str, str]]:
    """Name -> rates and ranks, as texts with blanks; adapter i has rate i modulo their number.

    Raises:
        InputError: the folder has no such file.
    """
    if not data:
        return NAMED
    names = ("placement_real_optimum.csv", "adapter_serving/placement_real_optimum.csv")
    path = next((p for n in names if (p := Path(data) / n).is_file()), None)
    if path is None:
        raise InputError(f"{names[0]} is not in {data!r}", remedy="name the folder of measurements: data=...")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(r["rates"], r["ranks"]) for r in csv.DictReader(file) if r["model"] == MODEL]
    found = {f"{rates.replace(' ', '-')}, {ranks.replace(' ', '-')}": (rates, ranks) for rates, ranks in rows}
    total = {name: ADAPTERS * float(np.mean([float(r) for r in rates.split()])) for name, (rates, _) in found.items()}
    for name in (n for n in found if total[n] > most_req_per_s):
        print(f"left out: {name}, {total[name]:.0f} requests/s", file=sys.stderr)
    return {name: shape for name, shape in found.items() if total[name] <= most_req_per_s}


def shape_run(rates: str, ranks: str, constraint: str, more: Sequence[str] = ()) -> Run:
    """The run of `python -m placement` on a shape."""
    from placement.command import APP

    listed = {"workload.rates": rates, "workload.ranks": ranks}
    overrides = [f"{key}=[{','.join(text.split())}]" for key, text in listed.items()]
    if not any(o.startswith("+objective") for o in more):
        overrides.append("+objective=gpu_count")
    fixed = ["workload=published", f"workload.n_adapters={ADAPTERS}", "engine=published", f"constraint={constraint}"]
    return load_run(compose(APP, [*fixed, *overrides, *more]))


def plan(rates: str, ranks: str, constraint: str, more: Sequence[str] = ()) -> Result:
    """What this pipeline places, verified."""
    return run_pipeline(shape_run(rates, ranks, constraint, more), progress(quiet=False))


def rows_of(rates: str, ranks: str, options: Options) -> dict[str, Row]:
    """Every way to place on one shape."""
    planned = plan(rates, ranks, options.constraint)
    run, gpus = planned.run, len(planned.gpus)
    (calibration,) = run.calibrations.values()
    verifier = run.verifier
    assert isinstance(verifier, TwinVerifier)

    def judge(columns: Sequence[Column]) -> Judged:
        return judged(columns, calibration, run.constraint, hours=options.hours)

    def accepts(found: Planned) -> bool:
        return accepted(found.placement.columns(found.problem), calibration, run.constraint, verifier)

    verified = planned.status == "verified"
    found = {PLAN: Row(gpus if verified else None, judge(planned.columns), verified)}
    fastest = plan(rates, ranks, options.constraint, ["+objective=latency", f"hardware.count={gpus}"])
    verified = fastest.status == "verified"
    found[FASTEST] = Row(len(fastest.gpus) if verified else None, judge(fastest.columns), verified)
    for name in options.baselines or BASELINES:
        baseline = BASELINES[name]
        same = place(planned.original, baseline, gpus, options.seed)
        good = same is not None and accepts(same)

        def enough(count: int, baseline: Baseline = baseline) -> bool:
            tried = place(planned.original, baseline, count, options.seed)
            return tried is not None and accepts(tried)

        found[name] = Row(
            fewest(enough, gpus, good), judge(same.placement.columns(same.problem)) if same is not None else None, good
        )
    return found


def fewest(enough: Callable[[int], bool], around: int, good: bool) -> int | None:
    """Fewest GPUs that are enough, `around` being `good` or not; None if not even twice as many and two are.

    More GPUs are taken to be no worse where they are not tried.
    """
    if good:
        while around > 1 and enough(around - 1):
            around -= 1
        return around
    low, high = around, 2 * around + 2
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def cell(row: Row) -> str:
    """`4; 12.1 s`: GPUs that are enough, and mean E2E on the plan's number of GPUs, or what is wrong with it there."""
    there = "none"
    if row.same is not None:
        there = "starved" if row.same.starved else f"{number(row.same.e2e_s)} s"
        if not row.same.starved and not row.accepted:
            there += (
                f", not accepted ({percent(row.same.bad_hours)} bad hours)" if row.same.bad_hours else ", not accepted"
            )
    return f"{row.enough if row.enough is not None else 'more than twice'}; {there}"


def table(found: dict[str, dict[str, Row]]) -> str:
    """Markdown: one row a way to place, one column a shape."""
    ways = list(next(iter(found.values())))
    lines = [
        f"| GPUs that are enough; mean E2E on the plan's GPUs | {' | '.join(found)} |",
        "|---" * (len(found) + 1) + "|",
    ]
    lines += [f"| {way} | {' | '.join(cell(rows[way]) for rows in found.values())} |" for way in ways]
    return "\n".join(lines)


def as_good(found: dict[str, dict[str, Row]]) -> list[str]:
    """Where simple placements do as well, in words: as few GPUs, and no slower on them."""
    words = []
    for shape, rows in found.items():
        best = rows[PLAN].enough
        few = [w for w in rows if w in BASELINES and best is not None and (rows[w].enough or 10**9) <= best]
        fastest = rows[FASTEST].same
        fast = [w for w in few if (s := rows[w].same) and fastest and s.e2e_s <= AS_GOOD * fastest.e2e_s]
        words.append(
            f"{shape}: as few GPUs ({best}) with {', '.join(few) or 'none of the baselines'}; "
            f"of these no slower than the fastest plan: {', '.join(fast) or 'none'}."
        )
    return words


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    data: str = ""
    most_req_per_s: Annotated[float, Range(above=0)] = 150.0
    constraint: str = "stable"
    baselines: tuple[str, ...] = ()
    hours: Annotated[int, Range(1, 1000)] = 6
    seed: Annotated[int, Range(0)] = 0


def run(options: Options) -> int:
    for name in options.baselines:
        if name not in BASELINES:
            raise InputError(f"baseline {name!r} is not known", remedy=f"choose some of: {', '.join(BASELINES)}")
    began = time.perf_counter()
    found: dict[str, dict[str, Row]] = {}
    for shape, (rates, ranks) in shapes(options.data, options.most_req_per_s).items():
        found[shape] = rows_of(rates, ranks, options)
        print(f"{shape}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(table(found))
    print("\n".join(["", *as_good(found)]))
    document: dict[str, Any] = {
        "adapters": ADAPTERS,
        "constraint": options.constraint,
        "seconds": round(time.perf_counter() - began),
        "shapes": {shape: {way: asdict(row) for way, row in rows.items()} for shape, rows in found.items()},
    }
    print(json.dumps(document))
    return 0


APP = command("benchmarks.headline", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
