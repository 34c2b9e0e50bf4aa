"""`report.html`: one self-contained file, readable without a network, and mostly without its scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from placement.report.details import Details
from placement.report.markup import cards, chart, listed, page, paragraph, section, table
from placement.report.promises import promise_text
from placement.report.today import TODAY_HEADER, today_rows, today_text
from placement.report.words import (
    GPU_HEADER,
    Document,
    certificate_text,
    fleet_text,
    gpu_row,
    objective_text,
    several_types,
    status_text,
    verification_text,
)
from twin.wording import number, percent
from twin.workload.adapter import PROMISES

#: Adapters in the list of the worst served, and GPUs whose settings are spelled out.
WORST, SPELLED = 20, 200
COMPARED = {"itl_mean_ms": "mean ITL, ms", "e2e_mean_s": "mean E2E, s", "ttft_mean_s": "mean TTFT, s",
            "ttft_p99_s": "TTFT p99, s", "throughput_tps": "tokens/s"}  # fmt: skip


def render(document: Document, details: Details | None = None, files: Sequence[str] = ()) -> str:
    """The report of a `placement.json` document as HTML.

    Args:
        details: what is shown beyond the document; None = nothing more.
        files: further files of the run, relative to the report.
    """
    known = details or Details()
    gpus, name = document["gpus"], document["workload"]["name"]
    good = document["status"] == "verified"
    title = f"Placement of {name}"
    proven = [text for text in (fleet_text(document), certificate_text(document)) if text]
    body = [
        f"<h1>{escape(title)}</h1>",
        paragraph(_workload_text(document), "lead"),
        cards(_summary(document, known)),
        section("Notes", listed(document["warnings"])) if document["warnings"] else "",
        section("What was read", listed(_read(document))),
        section("What is proven", *map(paragraph, proven), _bounds(document)),
        section("What was verified", paragraph(verification_text(document), "good" if good else "bad")),
        *_today(document),
        *(_gpu_sections(document, known) if gpus else ()),
        *_what_if(known),
        *_adapters(gpus),
        *_files(files),
        section("Settings and promises of each GPU", *map(_gpu_details, gpus[:SPELLED]), _more(gpus)) if gpus else "",
        section("Provenance", _provenance(document["provenance"])),
    ]
    return page(title, body, _data(document, known), "report.js")


def _workload_text(document: Document) -> str:
    w = document["workload"]
    return (
        f"{w['adapters']:,} adapters, {number(w['rate_req_per_s'])} requests/s, "
        f"{number(w['output_tokens_per_s'])} output tokens/s; ranks {', '.join(map(str, w['ranks']))}; "
        f"objective {' + '.join(document['terms'])}; solver {document['solver']}, {document['runtime_s']:.1f} s, "
        f"{document['termination']}."
    )


def _summary(document: Document, details: Details) -> dict[str, str]:
    cost = {} if details.cost_per_hour is None else {"cost": f"{number(details.cost_per_hour, 4)} $/h"}
    return {
        "status": status_text(document),
        "GPUs": str(len(document["gpus"])),
        **cost,
        "objective": objective_text(document),
        "bound": number(document["bound"], 4),
        "gap": percent(document["gap"]),
        "simulated objective": number(document["simulated_objective"]),
    }


def _read(document: Document) -> list[str]:
    w = document["workload"]
    peak = w["peak_to_mean"]
    rising = (
        [f"Busiest {number(peak['window_s'])} s: {number(peak['ratio'])} times the mean rate."]
        if peak is not None
        else []
    )
    done = w["reading"]["summary"] if w["reading"] else []
    return [*done, *(w["notes"] or [f"Workload {w['name']}, made by the configuration."]), *rising]


def _bounds(document: Document) -> str:
    rows = [
        ("objective of this placement", number(document["objective"], 4)),
        ("bound, with the model's safety margin", number(document["bound"], 4)),
        ("bound without the margin", number(document["bound_outer"], 4)),
        ("columns that it rests on", f"{document['bound_columns']:,}" if document["bound_columns"] else "-"),
        ("fewest GPUs that are certified", str(document["certified_minimum_gpus"] or "-")),
    ]
    return table(("", "value"), rows, about="Objective and bounds")


def _today(document: Document) -> list[str]:
    """Today's placement beside the plan, where one was given."""
    if not document["today"]:
        return []
    rows = table(TODAY_HEADER, today_rows(document), about="Today's placement and the plan", left=(0,), names=(5,))
    return [section("Today and planned", paragraph(today_text(document), "lead"), rows)]


def _gpu_sections(document: Document, details: Details) -> list[str]:
    gpus = document["gpus"]
    header = [*GPU_HEADER, "hours", "late\nrequests", "next to break"]
    rows = [
        [
            *gpu_row(g, typed=several_types(document)),
            str(len(g["seeds"])) if g["seeds"] else "-",
            percent(g["simulated"].get("late_fraction")),
            _next(g),
        ]
        for g in gpus
    ]
    marked = [g["accepted"] is False for g in gpus]
    load = [
        paragraph("Share of the largest load that the planning model calls healthy.", "lead"),
        chart("load", "Load of each GPU"),
    ]
    if details.memory:
        load += ["<h3>Memory</h3>", chart("memory", "Memory of each GPU: weights, adapter slots and KV cache")]
    found = [
        section(
            "GPUs",
            table(header, rows, about="GPUs", left=(0, 1), names=(len(header) - 1,), marked=marked),
            paragraph("Next to break: the adapter that uses most of what its promise allows.", "soft"),
        ),
        section("Load and memory", *load),
    ]
    if any(g["simulated"] for g in gpus):
        found.append(_compared())
    if details.timelines:
        found.append(_timelines(details, len(gpus)))
    return found


def _next(gpu: dict[str, Any]) -> str:
    used = [(e["use"], e["worst_adapter"], name) for name, e in gpu["promises"].items() if e["use"] is not None]
    if not used:
        return "-"
    use, adapter, name = max(used)
    return f"{adapter} ({PROMISES[name]} {percent(use)})"


def _compared() -> str:
    options = "".join(f'<option value="{key}">{escape(name)}</option>' for key, name in COMPARED.items())
    return section(
        "Predicted and simulated",
        paragraph("One point a GPU; bars are 95 % intervals of the simulated mean.", "lead"),
        f'<p class="controls"><label>Figure <select id="compare-figure">{options}</select></label></p>',
        chart("compare", "Predicted against simulated figures of each GPU"),
    )


def _timelines(details: Details, gpus: int) -> str:
    options = "".join(f"<option>{escape(gpu_id)}</option>" for gpu_id in details.timelines)
    shown = "" if len(details.timelines) == gpus else f" The {len(details.timelines)} most loaded of {gpus} GPUs."
    return section(
        "An hour in the twin, and what binds",
        paragraph(f"The first window of the verification.{shown}", "lead"),
        f'<p class="controls"><label>GPU <select id="timeline-gpu">{options}</select></label></p>',
        chart("timeline", "Requests, adapters and KV cache of a GPU over an hour"),
        '<p id="timeline-limit" aria-live="polite"></p>',
    )


def _what_if(details: Details) -> list[str]:
    if details.what_if is None:
        return []
    header = ("rates times", "GPUs", "mean E2E s", "this plan: mean E2E s", "its largest load")
    rows = [
        (number(r["factor"]), str(r["gpus"] or "-"), number(r["e2e_mean_s"]), number(r["kept_e2e_mean_s"]),
         percent(r["kept_load"]))
        for r in details.what_if
    ]  # fmt: skip
    return [
        section(
            "What if all rates change",
            paragraph(
                "By the planning model: a plan dealt anew by the greedy of the first placement, and this plan as it "
                "is, until a GPU of it is overloaded. Not simulated.", "lead",
            ),
            chart("what-if", "GPUs and latency against a factor on all rates"),
            table(header, rows, about="What if all rates change", left=()),
        )
    ]  # fmt: skip


def _adapters(gpus: Sequence[dict[str, Any]]) -> list[str]:
    """The worst served ones as a table, all of them in one that can be searched."""
    if not gpus:
        return []
    worst = sorted((r for r in _adapter_rows(gpus) if r[5] is not None), key=lambda r: -r[5])[:WORST]
    rows = [(r[0], str(r[1]), number(r[2]), r[3], r[4], percent(r[5]), number(r[6])) for r in worst]
    header = ("adapter", "rank", "req/s", "GPU", "promise", "used", "simulated")
    found = []
    if rows:
        told = "Simulated: late share of requests for a TTFT, else the mean, in the unit of the promise."
        found.append(
            section(
                "Worst-served adapters",
                paragraph(told, "lead"),
                table(header, rows, about="Worst-served adapters", left=(3, 4), names=(0,)),
            )
        )
    head = "".join(
        f'<th scope="col"{" class=" + chr(34) + "text" + chr(34) if k in (0, 3, 4) else ""}>'
        f'<button type="button">{name}</button></th>'
        for k, name in enumerate(header)
    )
    found.append(
        section(
            "Adapters",
            '<p class="controls"><label>Search <input type="search" id="adapters-search" '
            'placeholder="adapter or GPU"></label><button type="button" id="adapters-back">back</button>'
            '<button type="button" id="adapters-on">on</button><span id="adapters-count" aria-live="polite"></span></p>'
            '<div class="wide" role="region" tabindex="0" aria-label="All adapters"><table id="adapters"><thead><tr>'
            f'{head}</tr></thead><tbody id="adapters-body"></tbody></table></div>',
        )
    )
    return found


def _adapter_rows(gpus: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Of every adapter on every GPU: id, rank, rate, GPU, promise of which most is used, use, simulated value."""
    rows: list[list[Any]] = []
    for gpu in gpus:
        worst: dict[str, tuple[float, str, Any]] = {}
        for name, entry in gpu["promises"].items():
            for kept in entry["adapters"]:
                if kept["use"] is not None and kept["use"] > worst.get(kept["adapter_id"], (-1.0,))[0]:
                    worst[kept["adapter_id"]] = (kept["use"], PROMISES[name], kept["simulated"])
        for a in gpu["adapters"]:
            use, promise, simulated = worst.get(a["adapter_id"], (None, "-", None))
            rows.append([a["adapter_id"], a["rank"], a["rate_req_per_s"], gpu["gpu_id"], promise, use, simulated])
    return rows


def _files(files: Sequence[str]) -> list[str]:
    if not files:
        return []
    links = "".join(f'<li><a href="{escape(quote(f))}">{escape(f)}</a></li>' for f in files)
    return [section("Files", f"<ul>{links}</ul>")]


def _gpu_details(gpu: dict[str, Any]) -> str:
    flags = ", ".join(f"{k}={v}" for k, v in gpu["setting"].items())
    reason = paragraph(gpu["reason"], "bad") if gpu["reason"] else ""
    promised = "<br>".join(escape(promise_text(name, entry)) for name, entry in gpu["promises"].items())
    return (
        f"<details><summary>{escape(gpu['gpu_id'])} ({escape(gpu['gpu_type'])}): {len(gpu['adapters'])} adapters"
        f"</summary>{reason}<p>{promised}</p><p><code>{escape(flags)}</code></p></details>"
    )


def _more(gpus: Sequence[dict[str, Any]]) -> str:
    return paragraph(f"... and {len(gpus) - SPELLED} more: see placement.json.") if len(gpus) > SPELLED else ""


def _provenance(data: dict[str, Any]) -> str:
    rows = [
        (key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value))
        for key, value in data.items()
    ]
    return table(("", "value"), rows, about="Provenance", names=(1,))


def _data(document: Document, details: Details) -> dict[str, Any]:
    """What the charts and the table of adapters are drawn from."""
    gpus = []
    for k, g in enumerate(document["gpus"]):
        gpus.append(
            {
                "id": g["gpu_id"],
                "load": g["predicted"].get("load"),
                "memory": details.memory[k] if details.memory else None,
                "predicted": {name: g["predicted"].get(name) for name in COMPARED},
                "simulated": {name: g["simulated"].get(name) for name in COMPARED} if g["simulated"] else None,
                "interval": details.intervals[k] if details.intervals else {},
            }
        )
    what_if = None if details.what_if is None else list(details.what_if)
    return {
        "gpus": gpus,
        "adapters": _adapter_rows(document["gpus"]),
        "timelines": details.timelines,
        "what_if": what_if,
    }
