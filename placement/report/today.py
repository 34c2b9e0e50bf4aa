"""Today's placement beside the plan: its entry in `placement.json`, and its words for the terminal and the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from twin.wording import counted, finite, number, percent

if TYPE_CHECKING:
    from placement.today.comparison import Comparison, Figures

TODAY_HEADER = (
    "", "GPUs", "mean E2E s", "mean ITL ms", "late requests", "worst adapter", "its mean E2E s", "starved GPUs",
    "accepted",
)  # fmt: skip
#: Columns of text.
TODAY_LEFT = ("", "worst adapter")


def today_entry(comparison: Comparison | None) -> dict[str, Any] | None:
    """`today` of `placement.json`; None without today's placement, or where it was not judged."""
    if comparison is None:
        return None
    verdicts = comparison.verification.gpus
    gpus = [
        {
            "gpu_id": gpu_id,
            "setting": column.setting.flags(),
            "adapters": [a.adapter_id for a in column.adapters],
            "rate_req_per_s": column.rate_req_per_s,
            "decision": verdict.decision,
            "reason": verdict.reason,
            "hours": verdict.hours,
            "bad_hours": verdict.bad_hours,
            "simulated": verdict.simulated,
        }
        for gpu_id, column, verdict in zip(comparison.today.gpu_ids, comparison.today.columns, verdicts, strict=True)
    ]
    entry = {
        "path": comparison.today.path,
        "windows": len(comparison.seeds),
        "window_s": comparison.window_s,
        "seeds": list(comparison.seeds),
        "figures": _figures(comparison.figures),
        "plan": _figures(comparison.plan),
        "accepted_gpus": sum(v.accepted for v in verdicts),
        "gpus": gpus,
    }
    found: dict[str, Any] = finite(entry)
    return found


def _figures(figures: Figures) -> dict[str, Any]:
    return {**asdict(figures), "starved": figures.starved_gpus > 0}


def today_rows(document: dict[str, Any]) -> list[list[str]]:
    """Cells of today's placement and of the plan, columns `TODAY_HEADER`."""
    today = document["today"]
    accepted = {"today": today["accepted_gpus"], "plan": sum(g["accepted"] is True for g in document["gpus"])}
    return [
        [
            name,
            str(f["gpus"]),
            number(f["e2e_mean_s"]),
            number(f["itl_mean_ms"]),
            percent(f["late_fraction"]),
            f["worst_adapter"],
            number(f["worst_adapter_e2e_s"]),
            str(f["starved_gpus"] or "none"),
            f"{accepted[name]} of {f['gpus']}",
        ]
        for name, f in (("today", today["figures"]), ("plan", today["plan"]))
    ]


def _difference(today: dict[str, Any], plan: dict[str, Any]) -> str:
    """`The plan takes 1 GPU fewer; its mean E2E is 12 % lower.`"""
    fewer = today["gpus"] - plan["gpus"]
    text = "The plan takes " + (
        "as many GPUs" if not fewer else f"{counted(abs(fewer), 'GPU')} {'fewer' if fewer > 0 else 'more'}"
    )
    change = plan["e2e_mean_s"] / today["e2e_mean_s"] - 1 if today["e2e_mean_s"] else 0.0
    return f"{text}; its mean E2E is {percent(abs(change))} {'lower' if change <= 0 else 'higher'}."


def today_text(document: dict[str, Any]) -> str:
    """What is compared, how the two differ, and the first reason why a GPU of today's is not accepted."""
    today = document["today"]
    hours = today["window_s"] / 3600
    windows = (
        counted(today["windows"], "hour") if hours == 1 else f"{today['windows']} windows of {number(hours)} hours"
    )
    text = f"Today ({today['path']}) and planned, the same {windows} in the twin."
    text += f" {_difference(today['figures'], today['plan'])}"
    refuted = [g for g in today["gpus"] if g["decision"] != "accepted"]
    if refuted:
        text += f" Today's {refuted[0]['gpu_id']} is {refuted[0]['decision']}: {refuted[0]['reason']}."
    if today["figures"]["starved"]:
        text += " On a starved GPU the mean E2E grows with the length of the window."
    return text
