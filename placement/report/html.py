"""`report.html`: one self-contained file, readable without a network."""

from __future__ import annotations

from html import escape
from typing import Any

from placement.report.promises import promise_text
from placement.report.today import TODAY_HEADER, today_rows, today_text
from placement.report.words import (
    GPU_HEADER,
    Document,
    certificate_text,
    fleet_text,
    gpu_row,
    objective_text,
    reading_text,
    several_types,
    status_text,
    verification_text,
)
from twin.wording import number, percent

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667; --line: #d8dce4; --fill: #3b6ea8; --over: #b3452f;
        --good: #2f7d4f; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa3b2; --line: #39404d; --fill: #6fa3dc;
        --over: #e0785f; --good: #6fc492; --paper: #15181e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 68rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.lead { color: var(--soft); margin-top: .2rem; }
dl.cards { display: flex; flex-wrap: wrap; gap: .8rem; } dl.cards div { border: 1px solid var(--line);
       border-radius: 8px; padding: .5rem .9rem; } dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: .8rem; white-space: pre-line; vertical-align: bottom; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.good { color: var(--good); } .bad { color: var(--over); }
ul.warnings li { color: var(--over); } details { margin: .3rem 0; } summary { cursor: pointer; }
code { font-size: .85rem; overflow-wrap: anywhere; }
"""


def render(document: Document) -> str:
    """The report of a `placement.json` document as HTML."""
    gpus = document["gpus"]
    good = document["status"] == "verified"
    cards = {
        "GPUs": str(len(gpus)),
        "objective": objective_text(document),
        "bound": number(document["bound"], 4),
        "gap": percent(document["gap"]),
        "simulated objective": number(document["simulated_objective"]),
        "status": status_text(document),
    }
    sections = [
        f"<h1>Placement of {escape(document['workload']['name'])}</h1>",
        f'<p class="lead">{escape(_workload_text(document))}</p>',
        *([f'<p class="lead">{escape(reading)}</p>'] if (reading := reading_text(document)) else []),
        '<dl class="cards">'
        + "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in cards.items())
        + "</dl>",
        _warnings(document["warnings"]),
        "<h2>What is proven</h2>",
        f"<p>{escape(f'{fleet_text(document)} {certificate_text(document)}'.strip())}</p>",
        "<h2>What was verified</h2>",
        f'<p class="{"good" if good else "bad"}">{escape(verification_text(document))}</p>',
        *_today(document),
        "<h2>Load of each GPU</h2>",
        '<p class="lead">Share of the load that the planning model allows, by the tightest of its facets.</p>',
        _bars([(g["gpu_id"], g["predicted"]["load"], percent(g["predicted"]["load"])) for g in gpus], 1.0),
        "<h2>Adapters on each GPU</h2>",
        '<p class="lead">Adapters with a rank, and the slots of the setting.</p>',
        _bars(
            [
                (g["gpu_id"], n, f"{n} in {g['setting']['max_loras']} slots")
                for g in gpus
                for n in [sum(a["rank"] > 0 for a in g["adapters"])]
            ],
            None,
        ),
        "<h2>GPUs</h2>",
        _gpu_table(document),
        "<h2>Settings, promises and adapters</h2>",
        *(_gpu_details(g) for g in gpus),
        "<h2>Provenance</h2>",
        _provenance(document["provenance"]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Placement of {escape(document['workload']['name'])}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _today(document: Document) -> list[str]:
    """Today's placement beside the plan, where one was given."""
    if not document["today"]:
        return []
    head = "".join(f"<th>{escape(name)}</th>" for name in TODAY_HEADER)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in today_rows(document)
    )
    return [
        "<h2>Today and planned</h2>",
        f'<p class="lead">{escape(today_text(document))}</p>',
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>',
    ]


def _workload_text(document: Document) -> str:
    w = document["workload"]
    return (
        f"{w['adapters']} adapters, {number(w['rate_req_per_s'])} requests/s, "
        f"{number(w['output_tokens_per_s'])} output tokens/s; ranks {', '.join(map(str, w['ranks']))}; "
        f"objective {' + '.join(document['terms'])}; solver {document['solver']}, {document['runtime_s']:.1f} s, "
        f"{document['termination']}."
    )


def _warnings(warnings: list[str]) -> str:
    if not warnings:
        return ""
    return '<h2>Notes</h2><ul class="warnings">' + "".join(f"<li>{escape(w)}</li>" for w in warnings) + "</ul>"


def _bars(rows: list[tuple[str, float, str]], limit: float | None) -> str:
    """Horizontal bars; `limit` draws a line and fixes the scale."""
    known = [v for _, v, _ in rows if v is not None and v == v]
    top = max([limit or 0.0, *known, 1e-9])
    height, left, width = 22, 90, 520
    parts = [f'<svg role="img" width="{left + width + 150}" height="{height * len(rows) + 6}">']
    for k, (name, value, text) in enumerate(rows):
        y = k * height + 4
        length = width * (value if value is not None and value == value else 0) / top
        color = "var(--over)" if limit is not None and value is not None and value > limit + 1e-6 else "var(--fill)"
        parts.append(
            f'<text x="0" y="{y + 12}">{escape(name)}</text>'
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="14" rx="2" fill="{color}"/>'
            f'<text x="{left + length + 6:.1f}" y="{y + 12}">{escape(text)}</text>'
        )
    if limit is not None:
        x = left + width * limit / top
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height * len(rows)}" stroke="var(--soft)"/>')
    return '<div class="wide">' + "".join(parts) + "</svg></div>"


def _gpu_table(document: Document) -> str:
    gpus, typed = document["gpus"], several_types(document)
    head = "".join(f"<th>{escape(h)}</th>" for h in [*GPU_HEADER, "hours", "late\nrequests"])
    body = []
    for gpu in gpus:
        late = gpu["simulated"].get("late_fraction")
        cells = [*gpu_row(gpu, typed=typed), str(len(gpu["seeds"])) if gpu["seeds"] else "-", percent(late)]
        mark = ' class="bad"' if gpu["accepted"] is False else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _gpu_details(gpu: dict[str, Any]) -> str:
    flags = ", ".join(f"{k}={v}" for k, v in gpu["setting"].items())
    adapters = ", ".join(
        a["adapter_id"] + ("" if a["share"] == 1 else f" ({percent(a['share'])})") for a in gpu["adapters"]
    )
    reason = f'<p class="bad">{escape(gpu["reason"])}</p>' if gpu["reason"] else ""
    promised = "<br>".join(escape(promise_text(name, entry)) for name, entry in gpu["promises"].items())
    return (
        f"<details><summary>{escape(gpu['gpu_id'])} ({escape(gpu['gpu_type'])}): {len(gpu['adapters'])} adapters"
        f"</summary>{reason}<p>{promised}</p><p><code>{escape(flags)}</code></p><p><code>{escape(adapters)}</code></p>"
        "</details>"
    )


def _provenance(data: dict[str, Any]) -> str:
    rows = []
    for key, value in data.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        rows.append(f"<tr><td>{escape(key)}</td><td><code>{escape(text)}</code></td></tr>")
    return f'<div class="wide"><table><tbody>{"".join(rows)}</tbody></table></div>'
