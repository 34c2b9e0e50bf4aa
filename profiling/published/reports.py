"""Tables of scores for people, and the same as plain numbers for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiling.published.fidelity import Comparison, report, scores
from profiling.published.runs import TABLES

SHOWN = ("throughput", "tpot", "itl", "ttft", "running", "kv_usage")


def print_scores(title: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """SMAPE in percent, labels in percent right."""
    print(f"\n{title}\n{'':32}{'runs':>5}" + "".join(f"{key:>11}" for key in SHOWN) + f"{'label %':>9}{'F1':>7}")
    for name, row in groups.items():
        values = "".join(f"{row[f'{key}_smape']:11.2f}" if f"{key}_smape" in row else f"{'-':>11}" for key in SHOWN)
        score = f"{row['starved_f1']:7.3f}" if "starved_f1" in row else f"{'-':>7}"
        print(f"{name:32}{int(row['runs']):5d}{values}{100 * row['starved_accuracy']:9.1f}{score}", flush=True)


def by_table(rows: Sequence[Comparison]) -> dict[str, Any]:
    """`overall` and `by` regime of each table that has runs, and `overall` over both."""
    result: dict[str, Any] = {}
    for name in TABLES:
        mine = [r for r in rows if r.run.table == name]
        if mine:
            result[name] = {"overall": scores(mine), "by": report(mine)}
    return {**result, "overall": scores(rows)}
