"""A `placement.json` document in words and numbers for people; used by the terminal table and the HTML report."""

from __future__ import annotations

from typing import Any

from placement.report.promises import promise_cell
from twin.wording import number, percent

Document = dict[str, Any]


def objective_text(document: Document) -> str:
    """`latency 3.21 s` or, for several terms, the weighted sum and its parts."""
    units = document["objective_units"]
    parts = [f"{name} {number(value)} {units.get(name, '')}".rstrip() for name, value in document["terms"].items()]
    if len(parts) == 1:
        return parts[0]
    return f"{number(document['objective'])} = " + ", ".join(parts)


def certificate_text(document: Document) -> str:
    """What has been proven, and about what."""
    bound, gap = document["bound"], document["gap"]
    if bound is None:
        return (
            "No bound: nothing is proven about how much better another placement could be "
            f"(solver {document['solver']}, this objective)."
        )
    unit = next(iter(document["objective_units"].values())) if len(document["terms"]) == 1 else ""
    text = f"Under the planning model no placement reaches less than {number(bound, 4)} {unit}".rstrip() + (
        ": this one is optimal." if gap is not None and gap <= 1e-6 else f": a better one saves at most {percent(gap)}."
    )
    outer = document["bound_outer"]
    if outer is not None:
        text += f" Without the model's safety margin the bound would be {number(outer, 4)} {unit}".rstrip() + "."
    tightened = document["bound_tightened"]
    if tightened is not None and tightened > bound * (1 + 1e-9):
        text += f" With what verification taught it is {number(tightened, 4)} {unit}".rstrip() + "."
    return text + " The bound speaks about the planning model, not about reality: verification does."


def verification_text(document: Document) -> str:
    """What the twin said."""
    checked = document["verification"]
    if checked["method"] == "none":
        return "Not verified: verify=none."
    if not checked["gpus"]:
        return "Not verified: interrupted before the twin had judged it."
    good = sum(g["accepted"] for g in checked["gpus"])
    seeds = sorted({len(g["seeds"]) for g in checked["gpus"]})
    hours = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    text = (
        f"{good} of {len(checked['gpus'])} GPUs accepted by the twin with {percent(checked['confidence'])} confidence "
        f"each, {hours} simulated windows per GPU"
    )
    rounds = checked["rounds"]
    text += f", after {rounds} rounds of solving and verifying." if rounds > 1 else "."
    if document["simulated_objective"] is not None:
        text += f" Simulated objective: {number(document['simulated_objective'])}."
    return text


def status_text(document: Document) -> str:
    words = {
        "verified": "verified",
        "unverified": "NOT VERIFIED",
        "infeasible": "INFEASIBLE",
        "no_solution": "NO SOLUTION",
    }
    return words[document["status"]]


def gpu_row(gpu: dict[str, Any]) -> list[str]:
    """Cells: GPU, setting, adapters, rate, load, TTFT p99, ITL and tokens/s (predicted / simulated), the promise
    of which most is used, verdict."""
    predicted, simulated = gpu["predicted"], gpu["simulated"]
    adapters = sum(a["rank"] > 0 for a in gpu["adapters"])
    verdict = {True: "yes", False: "NO", None: "-"}[gpu["accepted"]]
    return [
        gpu["gpu_id"],
        f"{gpu['setting']['max_loras']} x {gpu['setting']['max_lora_rank']}",
        f"{adapters}" + (" + base" if adapters < len(gpu["adapters"]) else ""),
        number(predicted["rate_req_per_s"]),
        percent(predicted["load"]),
        number(simulated.get("ttft_p99_s")),
        f"{number(predicted['itl_mean_ms'])} / {number(simulated.get('itl_mean_ms'))}",
        f"{number(predicted['e2e_mean_s'])} / {number(simulated.get('e2e_mean_s'))}",
        f"{number(predicted['throughput_tps'])} / {number(simulated.get('throughput_tps'))}",
        promise_cell(gpu["promises"]),
        verdict,
    ]


GPU_HEADER = [
    "GPU", "slots x rank", "adapters", "req/s", "load", "TTFT p99 s\nsimulated", "ITL ms\npred / sim",
    "E2E s\npred / sim", "tokens/s\npred / sim", "promise\nused", "verified",
]  # fmt: skip
