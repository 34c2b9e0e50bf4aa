"""Replays recorded runs in the twin: the requests that were sent, on the server that served them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from profiling.published.fidelity import smape
from profiling.record.files import Record
from twin.client.cohort import cohort
from twin.engine.play import play
from twin.figures.health import STARVATION_THRESHOLD
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.rules import EngineRules

#: Figures compared: name in the table -> key of a row.
COMPARED = {
    "throughput": "throughput_tps",
    "ttft": "ttft_mean_s",
    "tpot": "tpot_mean_ms",
    "itl": "itl_mean_ms",
    "e2e": "e2e_mean_s",
    "running": "running",
    "kv_usage": "kv_usage",
    "loads": "loads_per_s",
    "worst_adapter_ttft": "worst_adapter_ttft_s",
}
#: Served fractions so near the label's threshold say little about whether the twin is right.
NEAR_THRESHOLD = 0.05
#: Mean waiting requests of a light run.
LIGHT_WAITING = 0.5


@dataclass(frozen=True, slots=True)
class Replayed:
    """A run measured and simulated, by the same definitions."""

    record: Record
    measured: Mapping[str, float]
    simulated: Mapping[str, float]

    @property
    def label_right(self) -> bool:
        return self.measured["starved"] == self.simulated["starved"]

    @property
    def near_threshold(self) -> bool:
        return abs(self.measured["served_fraction"] - STARVATION_THRESHOLD) < NEAR_THRESHOLD


def replayed(
    record: Record, calibration: Calibration, client_ttft_s: float = 0.0, rules: EngineRules | None = None
) -> Replayed:
    """Simulates a run.

    Args:
        client_ttft_s: what HTTP and the frontend add to a first token, and to the last; it shifts both.
        rules: the engine's; None = those of its version and flags.
    """
    measured = measured_figures(record)
    return Replayed(record, measured, simulated_figures(record, calibration, client_ttft_s, rules))


def measured_figures(record: Record) -> dict[str, float]:
    """A run's figures as client and probe saw them."""
    row = cohort(record.requests, record.first_token_s, record.finish_s, horizon_s=record.horizon_s,
                 adapters=len(record.adapters))  # fmt: skip
    steps = record.steps
    took = (steps["end_s"] - steps["start_s"]).to_numpy()

    def mean(name: str) -> float:
        if not len(steps):
            return float("nan")
        return float((steps[name].to_numpy() * took).sum() / record.horizon_s)

    slots = record.loads[record.loads["disk"] == 0]
    return {**row, "running": mean("running"), "waiting": mean("waiting"), "kv_usage": mean("kv_usage"),
            "loads_per_s": len(slots) / record.horizon_s if len(steps) else float("nan")}  # fmt: skip


def simulated_figures(
    record: Record, calibration: Calibration, client_ttft_s: float, rules: EngineRules | None
) -> dict[str, float]:
    """The same of the twin."""
    column = Column(record.adapters, record.setting(calibration.stamp.gpu_type))
    order = np.argsort(record.requests.arrival_s, kind="stable")
    r = record.requests
    requests = replace(r, **{n: getattr(r, n)[order] for n in ("arrival_s", "adapter", "prompt", "cached", "output")})
    played = play(column, calibration, horizon_s=record.horizon_s, requests=requests, rules=rules)
    out = played.out
    row = cohort(requests, out.first_token_s + client_ttft_s, out.finish_s + client_ttft_s, horizon_s=record.horizon_s,
                 adapters=len(record.adapters))  # fmt: skip
    return {
        **row,
        "running": float(out.running_bins.sum()) / record.horizon_s,
        "waiting": float(out.waiting_bins.sum()) / record.horizon_s,
        "kv_usage": out.kv_integral / record.horizon_s / played.total_blocks,
        "loads_per_s": out.loads / record.horizon_s,
    }


def client_delay_s(records: Sequence[Record], calibration: Calibration) -> float:
    """What HTTP and the frontend add to a first token: median over light runs of what the twin's TTFT lacks."""
    lacking = []
    for record in records:
        if record.about["kind"] != "workload":
            continue
        pair = replayed(record, calibration)
        if pair.measured["waiting"] < LIGHT_WAITING and not pair.measured["starved"]:
            lacking.append(pair.measured["ttft_p50_s"] - pair.simulated["ttft_p50_s"])
    return max(0.0, float(np.median(lacking))) if lacking else 0.0


def scores(pairs: Sequence[Replayed]) -> dict[str, float]:
    """SMAPE of every figure, percent, and the share of right labels, over the runs."""
    row: dict[str, float] = {"runs": len(pairs)}
    for name, key in COMPARED.items():
        row[name] = round(smape([p.simulated[key] for p in pairs], [p.measured[key] for p in pairs]), 2)
    row["label"] = round(float(np.mean([p.label_right for p in pairs])), 4)
    return row


def by_regime(pairs: Sequence[Replayed]) -> dict[str, dict[str, float]]:
    """Scores of all runs and of groups of them; groups without runs are left out."""
    groups = {
        "all": list(pairs),
        "light": [p for p in pairs if p.measured["waiting"] < LIGHT_WAITING and not p.measured["starved"]],
        "queueing": [p for p in pairs if p.measured["waiting"] >= LIGHT_WAITING and not p.measured["starved"]],
        "starved": [p for p in pairs if p.measured["starved"]],
        "more adapters than slots": [
            p for p in pairs if len(p.record.adapters) > p.record.about["engine"]["max_loras"]
        ],
        "away from threshold": [p for p in pairs if not p.near_threshold],
        "near threshold": [p for p in pairs if p.near_threshold],
    }
    return {name: scores(members) for name, members in groups.items() if members}


def noise(records: Sequence[Record]) -> dict[str, float]:
    """SMAPE between runs and their repetitions, percent; empty without any."""
    known = {r.name: r for r in records}
    pairs = [(known[r.about["repeats"]], r) for r in records if r.about.get("repeats") in known]
    if not pairs:
        return {}
    figures = [(measured_figures(a), measured_figures(b)) for a, b in pairs]
    row: dict[str, float] = {"runs": len(pairs)}
    for name, key in COMPARED.items():
        row[name] = round(smape([a[key] for a, _ in figures], [b[key] for _, b in figures]), 2)
    row["label"] = round(float(np.mean([a["starved"] == b["starved"] for a, b in figures])), 4)
    return row
