"""A `placement.json` document in words and numbers for people; used by the terminal table and the HTML report."""

from __future__ import annotations

from typing import Any

from placement.report.promises import promise_cell
from twin.wording import counted, number, percent

Document = dict[str, Any]

#: Parts of a gap below this share are not shown.
LEAST_SHOWN = 5e-4


def objective_text(document: Document) -> str:
    """`latency 3.21 s` or, for several terms, the weighted sum and its parts."""
    units = document["objective_units"]
    parts = [f"{name} {number(value)} {units.get(name, '')}".rstrip() for name, value in document["terms"].items()]
    if len(parts) == 1:
        return parts[0]
    return f"{number(document['objective'])} = " + ", ".join(parts)


def reading_text(document: Document) -> str:
    """What was done to a log or trace on the way to the workload; empty for other workloads."""
    reading = document["workload"]["reading"]
    return " ".join(reading["summary"]) if reading else ""


def bound_text(document: Document) -> str:
    """`bound 5.62 (5.74 with the safety margin, which costs 2 %)   gap 6.4 % (model 3 %, ...)`.

    The bound without margin comes first: no placement is below it, whatever margin it keeps.
    """
    bound, outer, parts = document["bound"], document["bound_outer"], document["gap_parts"]
    if outer is None or parts is None or parts["margin"] < LEAST_SHOWN:
        text = f"bound {number(bound, 4)}   gap {percent(document['gap'])}"
    else:
        total = sum(parts.values())
        text = (
            f"bound {number(outer, 4)} ({number(bound, 4)} with the safety margin, which costs "
            f"{percent(parts['margin'])})   gap {percent(total)}"
        )
    made_of = {"rounding": "whole GPUs", "model": "model", "margin": "margin"}
    shown = [f"{words} {percent(parts[k])}" for k, words in made_of.items() if parts[k] >= LEAST_SHOWN] if parts else []
    return text + (f" ({', '.join(shown)})" if len(shown) > 1 else "")


def certificate_text(document: Document) -> str:
    """What has been proven, and about what."""
    bound, gap = document["bound"], document["gap"]
    if bound is None:
        return (
            "No bound: nothing is proven about how much better another placement could be "
            f"(solver {document['solver']}, this objective)."
        )
    unit = next(iter(document["objective_units"].values())) if len(document["terms"]) == 1 else ""
    reached = f"{number(bound, 4)} {unit}".rstrip()
    seen, level = document["bound_columns"], document["provenance"]["surrogate"].get("bound_level")
    met = "this one meets it"
    if seen:
        rests_on = f"By {seen:,} columns of the planning model that were looked at, none worth more than it costs,"
    elif level is not None:
        rests_on = f"By linear pieces on the model's optimistic side for {percent(level)} of the columns drawn,"
    else:
        rests_on, met = "Under the planning model", "this one is optimal"
    text = f"{rests_on} no placement reaches less than {reached}: " + (
        f"{met}." if gap is not None and gap <= 1e-6 else f"a better one saves {percent(gap)} at most."
    )
    outer = document["bound_outer"]
    if outer is not None and abs(outer - bound) > 1e-9 * abs(bound):
        text += f" That is with the model's safety margin; without it the bound is {number(outer, 4)} {unit}".rstrip()
        text += "."
    if document["bound_rests_on"]:
        text += f" The bound speaks of {'; '.join(document['bound_rests_on'])}."
    return text + " It speaks about the model, not about reality: verification does."


def verification_text(document: Document) -> str:
    """What the twin said."""
    checked = document["verification"]
    if checked["method"] == "none":
        return "Not verified: verify=none."
    if not checked["gpus"]:
        return "Not verified: interrupted before the twin had judged it."
    gpus = checked["gpus"]
    counts = {d: sum(g["decision"] == d for g in gpus) for d in ("accepted", "refuted", "undecided", "untested")}
    text = f"{counts.pop('accepted')} of {counted(len(gpus), 'GPU')} accepted by the twin"
    text += "".join(f", {n} {decision}" for decision, n in counts.items() if n)
    # GPUs alike have one verdict from the same hours.
    kinds = round(sum(1 / g["gpus_alike"] for g in gpus))
    each = "each" if kinds == len(gpus) else f"for each of {counted(kinds, 'kind')} of GPUs"
    text += f": {_span([g['hours'] for g in gpus])} simulated hours {each}"
    bad = round(sum(g["bad_hours"] / g["gpus_alike"] for g in gpus if g["accepted"]))
    text += f", {bad} of them bad." if bad else "."
    longest = max(g["window_s"] for g in gpus)
    if longest > 3600:
        length = f"{longest / 3600:.3g} hours" if longest < 172_800 else f"{longest / 86_400:,.0f} days"
        text += f" Hardly a request arrives in an hour: windows of up to {length}."
    if checked["claim"] is not None and any(g["accepted"] for g in gpus):
        text += f" What that proves (verify={checked['claim']['level']}): {checked['claim']['text']}."
    few = sum(g["adapters_with_few_requests"] for g in gpus)
    if few:
        text += f" {counted(few, 'adapter')} had too few requests to be judged one by one."
    text += _peaks_text(checked["peaks"])
    rounds = checked["rounds"]
    if rounds > 1:
        text += f" {rounds} rounds of solving and verifying."
    if document["simulated_objective"] is not None:
        text += f" Simulated objective: {number(document['simulated_objective'])}."
    return text


def _span(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _peaks_text(peaks: list[dict[str, Any]]) -> str:
    if not peaks:
        return ""
    broken = sum(not p["kept"] for p in peaks)
    source = "recorded requests" if peaks[0]["source"] == "recording" else "rate profiles"
    most = max(p["peak_to_mean"] or 0.0 for p in peaks)
    return f" Busiest windows of the {source} ({number(most)} times the rate planned for): " + (
        f"{broken} of {len(peaks)} break the rule." if broken else f"all {len(peaks)} keep the rule."
    )


def status_text(document: Document) -> str:
    words = {
        "verified": "verified",
        "unverified": "NOT VERIFIED",
        "infeasible": "INFEASIBLE",
        "no_solution": "NO SOLUTION",
    }
    return words[document["status"]]


def several_types(document: Document) -> bool:
    """Whether GPUs of several types were to choose from."""
    return len(document["provenance"]["gpu_types"]) > 1


def fleet_text(document: Document) -> str:
    """GPUs of each type, with what they cost; empty where there is one type to choose from."""
    if not several_types(document):
        return ""
    parts, total = [], 0.0
    for entry in document["provenance"]["gpu_types"]:
        used = sum(gpu["gpu_type"] == entry["name"] for gpu in document["gpus"])
        total += used * entry["price_per_hour"]
        left = "" if entry["count"] is None else f" of {entry['count']}"
        parts.append(f"{used}{left} x {entry['name']} at {number(entry['price_per_hour'], 4)}")
    return f"Fleet: {' + '.join(parts)}, together {number(total, 4)} per hour."


def mean_over_requests(document: Document, source: str, figure: str) -> float | None:
    """A figure of all GPUs, weighted by their requests; None where one of them has none.

    Args:
        source: `predicted` or `simulated`.
    """
    values = [gpu[source].get(figure) for gpu in document["gpus"]]
    rates = [gpu["predicted"]["rate_req_per_s"] for gpu in document["gpus"]]
    if not values or any(v is None for v in values):
        return None
    return float(sum(v * r for v, r in zip(values, rates, strict=True)) / sum(rates))


def gpu_row(gpu: dict[str, Any], *, typed: bool = False) -> list[str]:
    """Cells: GPU, setting, adapters, rate, load, TTFT p99, ITL and tokens/s (predicted / simulated), the promise
    of which most is used, verdict.

    Args:
        typed: the GPU with its type.
    """
    predicted, simulated = gpu["predicted"], gpu["simulated"]
    adapters = sum(a["rank"] > 0 for a in gpu["adapters"])
    verdict = {"accepted": "yes", "refuted": "NO", None: "-"}.get(gpu["decision"], gpu["decision"])
    return [
        f"{gpu['gpu_id']} {gpu['gpu_type']}" if typed else gpu["gpu_id"],
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
