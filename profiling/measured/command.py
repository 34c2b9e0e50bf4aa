"""`python -m profiling fit records=...` and `python -m profiling validate`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from profiling.measured.fit import Fitted, fit_records
from profiling.measured.plot import residuals_png
from profiling.measured.validate import COMPARED, by_regime, client_delay_s, noise, replayed
from profiling.record.files import read_records
from twin.errors import InputError
from twin.files import write_bytes, write_text
from twin.server.calibration import load_calibration
from twin.server.laws import STEP_TERMS


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """Of `validate`.

    Args:
        records: folder of a recording.
        calibration: name or path.
        runs: `held_out` (not used by the fit), or `all` workloads.
    """

    records: str
    calibration: str
    runs: str = "held_out"


def fit_recording(
    records: str, *, hardware: str = "", out: str = "", name: str = "", stamp_date: str = "", plot: bool = False
) -> Path:
    """Fits a recording; writes the calibration, and beside it `.fit.json` with intervals and what is not known.

    Args:
        out: folder, or the calibration's file; empty = the recording's folder.
        plot: also `.residuals.png`.
    """
    found = read_records(Path(records))
    made = fit_records(Path(records), found, hardware=hardware, name=name, date=stamp_date or date.today().isoformat())
    calibration = made.calibration
    delay_s = client_delay_s([r for r in found if not r.held_out], calibration)
    folder = Path(out) if out else Path(records)
    path = folder if folder.suffix == ".yaml" else folder / f"{calibration.name}.yaml"
    write_text(path, yaml.safe_dump(calibration.to_dict(), sort_keys=False))
    write_text(beside(path), json.dumps(_report(made, delay_s), indent=1))
    if plot:
        png = residuals_png(made.rows, made.solution.coefficients, f"{calibration.name}: steps missed by the law")
        write_bytes(path.with_suffix(".residuals.png"), png)
    print("\n".join(_told(made, delay_s)))
    print(f"written to {path} and {beside(path)}", flush=True)
    return path


def beside(path: Path) -> Path:
    """The fit's report of a calibration file."""
    return path.with_suffix(".fit.json")


def _report(made: Fitted, delay_s: float) -> dict[str, Any]:
    s = made.solution
    return {
        "client_ttft_s": delay_s,
        "intervals": {n: [float(a), float(b)] for n, a, b in zip(STEP_TERMS, s.low, s.high, strict=True)},
        "row_mape_pct": s.error_pct,
        "row_held_out_mape_pct": s.held_out_error_pct,
        "unknown": s.unknown,
        "prior": None if made.start is None else {"name": made.start.name, "widened": made.start.widened},
    }


def _told(made: Fitted, delay_s: float) -> list[str]:
    c, s = made.calibration, made.solution
    lines = [f"{c.name}: {c.stamp.points['steps']} steps of {c.stamp.points['runs']} runs, {c.stamp.source}"]
    if made.start is not None and made.start.widened > 1:
        lines.append(
            f"  the records contradict the derived {made.start.name}: "
            f"its doubt is {made.start.widened:g} times as large here"
        )
    lines.append(f"  {'coefficient':<16}{'value':>12}{'low':>12}{'high':>12}")
    for k, name in enumerate(STEP_TERMS):
        if s.high[k] > 0:
            lines.append(f"  step.{name:<11}{s.coefficients[k]:>12.4f}{s.low[k]:>12.4f}{s.high[k]:>12.4f}")
    lines += [f"  load.{n:<22}{getattr(c.load, n):>12.4f}" for n in c.load.__slots__]
    lines.append(f"  steps are missed by {s.error_pct:.1f} %, those of runs left out of the fit by "
                 f"{s.held_out_error_pct:.1f} %; HTTP adds {1000 * delay_s:.1f} ms to a first token")  # fmt: skip
    lines += [f"  not known: {name}: {why}" for name, why in s.unknown.items()]
    return lines


def validate(options: ValidateOptions) -> None:
    """Prints the error table; the last line is JSON."""
    if options.runs not in ("held_out", "all"):
        raise InputError(f"runs = {options.runs!r} is not known", where="runs", remedy="held_out or all")
    calibration = load_calibration(options.calibration)
    report = beside(Path(options.calibration))
    delay_s = json.loads(report.read_text())["client_ttft_s"] if report.is_file() else 0.0
    records = read_records(Path(options.records))
    chosen = [r for r in records if r.about["kind"] == "workload" and (r.held_out or options.runs == "all")]
    if not chosen:
        raise InputError(
            "no run was kept from the fit", where=options.records, remedy="runs=all, or record with held_out=2"
        )
    pairs = [replayed(r, calibration, delay_s) for r in chosen]
    print_runs(pairs)
    table = by_regime(pairs)
    repeated = noise(records)
    print_table(table | ({"repeated runs": repeated} if repeated else {}))
    print(json.dumps({"by": table, "noise": repeated, "client_ttft_s": delay_s}))


def print_runs(pairs: Any) -> None:
    """A line a run: measured and simulated."""
    print(f"{'run':<18}{'adapters':>9}{'slots':>6}{'served':>14}{'tokens/s':>16}{'TPOT ms':>15}{'TTFT ms':>17}")
    for p in pairs:
        m, s = p.measured, p.simulated
        print(
            f"{p.record.name:<18}{len(p.record.adapters):>9}{p.record.about['engine']['max_loras']:>6}"
            f"{m['served_fraction']:>7.3f}{s['served_fraction']:>7.3f}"
            f"{m['throughput_tps']:>8.0f}{s['throughput_tps']:>8.0f}"
            f"{m['tpot_mean_ms']:>8.1f}{s['tpot_mean_ms']:>7.1f}"
            f"{1000 * m['ttft_mean_s']:>9.0f}{1000 * s['ttft_mean_s']:>8.0f}"
        )


def print_table(table: Mapping[str, Mapping[str, float]]) -> None:
    names = list(COMPARED)
    print(f"\n{'SMAPE %':<26}{'runs':>5}" + "".join(f"{n[:11]:>12}" for n in names) + f"{'label':>8}")
    for group, row in table.items():
        print(
            f"{group:<26}{row['runs']:>5.0f}"
            + "".join(f"{row[n]:>12.2f}" for n in names)
            + f"{100 * row['label']:>8.1f}"
        )
