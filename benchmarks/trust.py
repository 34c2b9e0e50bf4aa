"""Do the strong words hold? *verified*: what the judge accepts. *infeasible*, *bound*: what is proven. *saved*: Ctrl-C.

    python -m benchmarks.trust [suite=quick|full] [data=FOLDER] [part=PART] [seed=0]

Parts: judge (power, then plans), proofs (optima, mutations, interrupts), or one of these five alone.

Part *judge*: first `power`, on columns whose hours are of two kinds (`benchmarks.judge_power`): the share of bad GPUs
that each level accepts, beside its claim, and the share of healthy ones. Then `plans`: the named workloads
(`benchmarks.workloads`) planned by the present solvers without a verification loop, each GPU judged by the first
version's rule and by the present one. Trace workloads are left out where `data` does not hold them. The last line is
JSON.

Part *optima*: random tiny problems on tight fleets (`benchmarks.proofs`) against brute force: how often a solver or the
job calls one infeasible that is not (`false_infeasible`), and bounds above the optimum (`bounds_above_optimum`), before
they are clipped to the objective. Both have to be 0.

Part *mutations*: placements and certificates that are damaged, and as many that are not, before `placement.check`
(`benchmarks.mutations`): all of the first have to be caught, and none of the others.

Part *interrupts* presses Ctrl-C at random moments after the first placement, every third time twice, and looks for exit
code 130, a readable `placement.json` and a terminal without a traceback (`benchmarks.interruptions`).

A level claims only that GPUs with its share of bad hours, or more, are seldom accepted. The third family (5 % of the
hours) lies below the 10 % that `quick` speaks of: it is measured all the same.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from benchmarks.interruptions import interruptions
from benchmarks.judge_plans import judged_plans
from benchmarks.judge_power import FAMILIES, HEALTHY, LEVELS, old_share, power, steady, two_state
from benchmarks.mutations import mutations
from benchmarks.proofs import findings, instances
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError

PARTS = {
    "judge": ("power", "plans"),
    "power": ("power",),
    "plans": ("plans",),
    "proofs": ("proofs", "mutations", "interrupts"),
    "optima": ("proofs",),
    "mutations": ("mutations",),
    "interrupts": ("interrupts",),
}
#: Random problems, and the solvers that are run on them beside the proofs themselves.
INSTANCES = {"quick": 500, "full": 5000}
#: Damaged placements and certificates, and as many good ones; small runs that they are made from.
MUTATIONS, RUNS = {"quick": 200, "full": 2000}, {"quick": 16, "full": 64}
PROVERS = {"quick": ("milp", "cpsat"), "full": ("greedy", "greedy_published", "milp", "cpsat")}
SOLVERS = {"quick": ("greedy", "milp"), "full": ("greedy", "greedy_published", "milp", "cpsat")}


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    suite: str = "quick"
    part: str = "judge"
    data: str = ""
    columns: Annotated[int, Range(3)] = 1000
    time_limit_s: Annotated[float, Range(above=0, unit="seconds")] = 10.0
    seed: Annotated[int, Range(0)] = 0


def run(options: Options) -> int:
    if options.part not in PARTS:
        raise InputError(f"part {options.part!r} is not known", remedy=f"use one of {', '.join(PARTS)}")
    if options.suite not in SOLVERS:
        raise InputError(f"suite {options.suite!r} is not known", remedy="use suite=quick or suite=full")
    summary: dict[str, Any] = {"suite": options.suite, "seed": options.seed}
    if "power" in PARTS[options.part]:
        summary |= _power(options)
    if "plans" in PARTS[options.part]:
        summary |= _plans(options)
    if "proofs" in PARTS[options.part]:
        summary |= _proofs(options)
    if "mutations" in PARTS[options.part]:
        summary |= _mutations(options)
    if "interrupts" in PARTS[options.part]:
        summary |= _interrupts(options)
    print(json.dumps(summary))
    return 0


def _power(options: Options) -> dict[str, Any]:
    print(
        f"{'level':10s} {'claimed':>8s} {'bad accepted':>13s} {'by family':48s} {'healthy accepted':>17s} {'hours':>6s}"
    )
    levels = {}
    for level in LEVELS:
        found = power(level, options.columns, options.seed)
        families = ", ".join(f"{name}: {share:.3f}" for name, share in found.by_family.items())
        print(
            f"{level:10s} {found.claimed_error:8.3f} {found.bad_gpus_accepted:13.4f} {families:48s} "
            f"{found.healthy_accepted:17.3f} {found.hours_healthy:6.1f}"
        )
        levels[level] = {name: value for name, value in asdict(found).items() if name != "level"}
    each = -(-options.columns // len(FAMILIES))
    before = [old_share(two_state(*family), each, options.seed + k) for k, family in enumerate(FAMILIES)]
    healthy = old_share(steady(HEALTHY), each, options.seed)
    families = ", ".join(f"{share:.3f}" for share in before)
    print(f"{'before':10s} {0.001:8.3f} {sum(before) / len(before):13.4f} {families:48s} {healthy:17.3f}")
    quick = levels[LEVELS[0]]
    return {name: quick[name] for name in ("bad_gpus_accepted", "claimed_error", "healthy_accepted")} | {
        "bad_accepted_by_the_old_judge": before,
        "levels": levels,
    }


def _proofs(options: Options) -> dict[str, Any]:
    count, infeasible, found = INSTANCES[options.suite], 0, []
    for instance in instances(range(options.seed, options.seed + count)):
        infeasible += instance.best is None
        for finding in findings(instance, PROVERS[options.suite]):
            found.append(finding)
            print(
                f"seed {finding.seed}: {finding.kind} by {finding.source}, said {finding.said:g}, optimum "
                f"{finding.best:g}",
                flush=True,
            )
    kinds = [f.kind for f in found]
    return {
        "instances": count,
        "infeasible": infeasible,
        "false_infeasible": kinds.count("false_infeasible"),
        "bounds_above_optimum": kinds.count("bound_above_optimum"),
        "by_source": {source: sum(f.source == source for f in found) for source in sorted({f.source for f in found})},
    }


def _mutations(options: Options) -> dict[str, Any]:
    count, caught, accepted = MUTATIONS[options.suite], Counter[str](), 0
    print(f"{'case':20s} {'checker':10s} said")
    for case, good in mutations(count, options.seed, RUNS[options.suite]):
        accepted += good and case.accepted
        caught[case.kind] += not good and not case.accepted
        if case.accepted != good:
            print(f"{case.kind:20s} {'accepted' if case.accepted else 'rejected':10s} {case.said}", flush=True)
    return {
        "mutations": count,
        "mutations_caught": caught.total(),
        "caught_by_kind": {kind: n for kind, n in caught.items() if n},
        "good": count,
        "good_accepted": accepted,
    }


def _plans(options: Options) -> dict[str, Any]:
    print(
        f"{'workload':20s} {'solver':16s} {'GPUs':>5s} {'old judge':>9s} {'accepted':>8s} {'refuted':>7s} "
        f"{'undecided':>9s} {'peaks':>5s} {'hours':>6s} {'solve s':>8s} {'judge s':>8s}"
    )
    rows = []
    for row in judged_plans(options.suite, SOLVERS[options.suite], options.data, options.time_limit_s):
        rows.append(row)
        if row.problem:
            print(f"{row.workload:20s} {row.solver:16s} left out: {row.problem}", flush=True)
            continue
        print(
            f"{row.workload:20s} {row.solver:16s} {row.gpus:5d} {row.old_accepted:9d} {row.accepted:8d} "
            f"{row.refuted:7d} {row.undecided:9d} {row.peaks_broken:5d} {row.hours:6d} {row.solve_s:8.1f} "
            f"{row.judge_s:8.1f}",
            flush=True,
        )
    judged = [r for r in rows if not r.problem]
    return {
        "plans": len(judged),
        "gpus": sum(r.gpus for r in judged),
        "accepted_by_the_old_judge": sum(r.old_accepted for r in judged),
        "accepted": sum(r.accepted for r in judged),
        "refuted": sum(r.refuted for r in judged),
        "undecided": sum(r.undecided for r in judged),
        "peaks_broken": sum(r.peaks_broken for r in judged),
    }


def _interrupts(options: Options) -> dict[str, Any]:
    print(f"{'workload':20s} {'after s':>8s} {'presses':>7s} {'code':>5s} {'ended s':>7s} {'readable':>8s}")
    rows = []
    for row in interruptions(options.suite, options.data, options.seed, options.time_limit_s):
        rows.append(row)
        print(
            f"{row.workload:20s} {row.after_s:8.2f} {row.presses:7d} {row.exit_code!s:>5s} {row.took_s:7.2f} "
            f"{row.readable!s:>8s} {row.noise.strip()}",
            flush=True,
        )
    return {
        "interrupts": len(rows),
        "readable": sum(r.readable for r in rows),
        "exit_codes": {str(code): n for code, n in Counter(r.exit_code for r in rows).items()},
        "noisy": sum(bool(r.noise) for r in rows),
        "longest_s": round(max(r.took_s for r in rows), 2),
    }


APP = command("benchmarks.trust", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
