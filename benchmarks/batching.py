"""`python -m benchmarks.batching data=<folder> [figures=<folder>] [dynamic=yes]`: the advisor against measurements.

The folder holds any of background.csv, bca.csv, replication.csv (arXiv 2503.08311). Everything is predicted with the
shipped coefficients; what is missing is named and skipped. Rows that count: finished, no preemption, no `time_wise`.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.batching_runs import (
    Run,
    calibration_of,
    measured_curve,
    predicted,
    read_all,
    server_of,
    step_ms,
)
from placement.batching.curves import Curve, Server, law_curve
from placement.batching.rules import LATENCY_RULE_FACTOR, Rule, choose
from placement.batching.twin_curve import twin_curve
from twin.config.entry import run_app
from twin.config.program import command
from twin.errors import InfeasibleError, InputError

TABLES = ("background.csv", "bca.csv", "replication.csv")
#: Name in the output -> (rule, SLO).
RULES: dict[str, tuple[Rule, str]] = {
    "strict": ("efficiency", "strict"),
    "relaxed": ("efficiency", "relaxed"),
    "latency": ("latency", f"{LATENCY_RULE_FACTOR:g}x"),
}
EPSILON = 0.1


def b_opts(runs: list[Run], skipped: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """B_opt of every curve and rule, predicted and measured; and the error of the curves."""
    found: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for group, members in _groups(runs):
        calibration = calibration_of(members[0].model, skipped)
        if calibration is None:
            continue
        measured = measured_curve(members)
        own = law_curve(server_of(members[0], calibration), [r.point.batch for r in members])
        found[group] = {}
        for name, (rule, slo) in RULES.items():
            try:
                found[group][name] = {
                    "predicted": choose(own, rule, slo=slo, epsilon=EPSILON).point.batch,
                    "measured": choose(measured, rule, slo=slo, epsilon=EPSILON).point.batch,
                }
            except (InputError, InfeasibleError) as error:
                skipped.append(f"{group}, rule {name}: {error.problem}")
        both = [(own.at(p.batch), p) for p in measured.usable]
        pairs = [(a, b) for a, b in both if a is not None]
        errors[group] = {
            "points": len(pairs),
            "throughput_mape": _mape([(a.throughput_req_per_s, b.throughput_req_per_s) for a, b in pairs]),
            "itl_mape": _mape([(a.itl_ms, b.itl_ms) for a, b in pairs]),
            "preempting_predicted": list(own.dropped),
            "preempting_measured": list(measured.dropped),
        }
    return found, errors


def _groups(runs: list[Run]) -> list[tuple[str, list[Run]]]:
    grouped: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run.group].append(run)
    return list(grouped.items())


def _mape(pairs: Sequence[tuple[float, float]]) -> float | None:
    return round(100 * float(np.mean([abs(a / b - 1) for a, b in pairs])), 2) if pairs else None


def step_times(runs: list[Run], skipped: list[str]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """MAPE of the steady step by model, and by model and table."""
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        calibration = calibration_of(run.model, skipped)
        values = (run.point.step_ms, run.running, run.kv_tokens, run.prompt_per_step)
        if calibration is None or run.point.preempting or run.servers > 1 or np.isnan(values).any():
            continue
        group = run.group if run.group != run.model else f"{run.model} {run.experiment}"
        pairs[run.model][group].append((step_ms(run, calibration), run.point.step_ms))
    mapes = {m: _mape([p for rows in groups.values() for p in rows]) for m, groups in pairs.items()}
    detail = {g: {"mape": _mape(rows), "rows": len(rows)} for groups in pairs.values() for g, rows in groups.items()}
    return mapes, detail


def replicas(runs: list[Run], skipped: list[str]) -> dict[str, Any]:
    """Throughput and ITL of co-located servers against the measurement, and what replication gains."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        calibration = calibration_of(run.model, skipped)
        if calibration is None or run.experiment != "replication_overall" or run.chunked:
            continue
        if run.point.preempting:
            skipped.append(f"{run.model} {run.point.batch} x {run.servers} {run.sharing}: preempts")
            continue
        own = predicted(run, calibration)
        if own.preempting:
            skipped.append(f"{run.model} {run.point.batch} x {run.servers} {run.sharing}: predicted to preempt")
        throughput, itl = run.point.throughput_req_per_s, run.point.itl_ms
        rows.append(
            {
                "model": run.model, "batch": run.point.batch, "servers": run.servers,
                "sharing": run.sharing if run.servers > 1 else "single",
                "throughput": own.throughput_req_per_s, "measured_throughput": throughput,
                "throughput_error_pct": 100 * (own.throughput_req_per_s / throughput - 1),
                "itl_ms": own.itl_ms, "measured_itl_ms": itl, "itl_error_pct": 100 * (own.itl_ms / itl - 1),
                "preempting_predicted": own.preempting,
            }
        )  # fmt: skip
    result: dict[str, Any] = {}
    for sharing in ("mps", "time_sharing"):
        chosen = [r for r in rows if r["sharing"] == sharing and not r["preempting_predicted"]]
        if not chosen:
            skipped.append(f"replication: no usable run under {sharing}")
        result[sharing] = {
            f"{kind}_error_pct": {
                "mean": round(float(np.mean([abs(r[f"{kind}_error_pct"]) for r in chosen])), 2),
                "worst": round(max(abs(r[f"{kind}_error_pct"]) for r in chosen), 2),
            } if chosen else None
            for kind in ("throughput", "itl")
        } | {"runs": len(chosen)}  # fmt: skip
    for kind in ("throughput_error_pct", "itl_error_pct"):
        worst = result["mps"][kind]
        result[kind] = worst["worst"] if worst else None
    result["gain"] = _gains(rows)
    result["rows"] = [{k: round(v, 2) if isinstance(v, float) else v for k, v in r.items()} for r in rows]
    return result


def _gains(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By model: the co-located run that is predicted best, against one server at its largest batch."""
    gains = {}
    for model, group in groupby(sorted(rows, key=lambda r: str(r["model"])), key=lambda r: str(r["model"])):
        usable = [r for r in group if not r["preempting_predicted"]]
        single = [r for r in usable if r["servers"] == 1]
        several = [r for r in usable if r["sharing"] == "mps"]
        if not single or not several:
            continue
        base, best = max(single, key=lambda r: r["batch"]), max(several, key=lambda r: r["throughput"])
        gains[model] = {
            "recommended": f"{best['batch']} x {best['servers']}",
            "over": f"{base['batch']} x 1",
            "measured_best": "{batch} x {servers}".format(**max(several, key=lambda r: r["measured_throughput"])),
            "predicted_pct": round(100 * (best["throughput"] / base["throughput"] - 1), 1),
            "measured_pct": round(100 * (best["measured_throughput"] / base["measured_throughput"] - 1), 1),
        }
    return gains


def dynamic(runs: list[Run], skipped: list[str]) -> dict[str, Any]:
    """The advised batch and its neighbours in the twin, same requests in the same orders (common random numbers)."""
    found = {}
    for group, members in _groups(runs):
        calibration = calibration_of(members[0].model, skipped)
        if calibration is None or "@" in group:
            continue
        server = replace(server_of(members[0], calibration), prefill="chunked")
        found[group] = {
            name: _in_twin(server, sorted({r.point.batch for r in members} | {32}), *RULES[name])
            for name in ("strict", "relaxed")
        }
    return found


def _in_twin(server: Server, batches: list[int], rule: Rule, slo: str) -> dict[str, Any]:
    advised = choose(law_curve(server, batches), rule, slo=slo, epsilon=EPSILON).point.batch
    place = batches.index(advised)
    near = batches[max(0, place - 1) : place + 2]
    curve: Curve = twin_curve(server, sorted({1, 32, *near}))
    choice = choose(curve, rule, slo=slo, epsilon=EPSILON)
    return {
        "advised": advised,
        "twin_chooses": choice.point.batch,
        "holds": choice.point.batch == advised,
        "slo_ms": round(choice.slo_ms, 2),
        "neighbours": {
            str(p.batch): {
                "throughput_req_per_s": round(p.throughput_req_per_s, 3),
                "itl_ms": round(p.itl_ms, 2),
                "preempting": bool(p.preempting),
            }
            for p in curve.points
            if p.batch in near
        },
    }


def show(result: dict[str, Any]) -> None:
    """The human table."""
    print(f"{'curve':>18}  {'strict':>13} {'relaxed':>13} {'latency':>13}   (predicted / measured B_opt)")
    for group, rules in result["b_opt"].items():
        cells = [rules.get(name) for name in RULES]
        words = [f"{c['predicted']} / {c['measured']}" if c else "-" for c in cells]
        print(f"{group:>18}  " + " ".join(f"{w:>13}" for w in words))
    same = result["b_opt_equal"]
    print(f"equal: {same['equal']} of {same['of']}")
    print("steady step time, MAPE %: " + ", ".join(f"{m} {v}" for m, v in result["step_time_mape"].items()))
    for r in result["replication"]["rows"]:
        print(
            f"{r['model']:>12} {r['batch']:>4} x {r['servers']} {r['sharing']:<12} "
            f"{r['throughput']:7.2f} / {r['measured_throughput']:6.2f} req/s ({r['throughput_error_pct']:+.1f} %)   "
            f"ITL {r['itl_ms']:6.2f} / {r['measured_itl_ms']:6.2f} ms ({r['itl_error_pct']:+.1f} %)"
        )
    for model, g in result["replication"]["gain"].items():
        print(
            f"{model}: {g['recommended']} over {g['over']}: predicted {g['predicted_pct']:+.1f} %, measured "
            f"{g['measured_pct']:+.1f} % (measured best: {g['measured_best']})"
        )
    for group, rules in result["dynamic"].items():
        for name, r in rules.items():
            near = ", ".join(
                f"{b}: {v['throughput_req_per_s']:.1f} req/s {v['itl_ms']:.1f} ms" for b, v in r["neighbours"].items()
            )
            print(f"in the twin, {group} {name}: advised {r['advised']}, twin {r['twin_chooses']} ({near})")
    for note in result["skipped"]:
        print(f"skipped: {note}")


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    data: str
    figures: str = ""
    dynamic: str = "yes"


def run(options: Options) -> int:
    folder = Path(options.data).expanduser()
    if not folder.is_dir():
        raise InputError(f"data={options.data} is not a folder", remedy="give the folder of the measurements")
    skipped = [f"{name}: not in the folder" for name in TABLES if not (folder / name).is_file()]
    if len(skipped) == len(TABLES):
        raise InputError(
            f"none of {', '.join(TABLES)}", where=str(folder), remedy="give the folder of the measurements"
        )
    background, advisor, shared = (read_all(folder, name) for name in TABLES)
    b_opt, curves = b_opts([*background, *advisor], skipped)
    mapes, detail = step_times([*background, *advisor, *shared], skipped)
    pairs = [c for rules in b_opt.values() for c in rules.values()]
    result = {
        "b_opt": b_opt,
        "b_opt_equal": {"equal": sum(c["predicted"] == c["measured"] for c in pairs), "of": len(pairs)},
        "step_time_mape": mapes,
        "step_time_detail": detail,
        "curves": curves,
        "replication": replicas(shared, skipped),
        "dynamic": dynamic(background, skipped) if options.dynamic == "yes" else {},
        "skipped": skipped,
    }
    show(result)
    if options.figures:
        from benchmarks.batching_figures import write_figures

        for path in write_figures(Path(options.figures), background, advisor, shared):
            print(f"wrote {path}")
    print(json.dumps(result, allow_nan=False))
    return 0


APP = command("benchmarks.batching", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
