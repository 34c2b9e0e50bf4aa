"""Pieces of HTML. Everything that comes from a document is text: it is escaped here and nowhere else."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from twin.wording import finite

PAGE = Path(__file__).parent / "page"
#: Nothing is loaded, and nothing is sent.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


#: The basic bundle of plotly.js 4.1.1, minified (`plotly.js-basic-dist-min` of npm; MIT, plotly.LICENSE), packed.
PLOTLY = "plotly-basic.min.js.gz"


@cache
def page_file(name: str) -> str:
    """A file of the page, unpacked."""
    data = (PAGE / name).read_bytes()
    return (gzip.decompress(data) if name.endswith(".gz") else data).decode()


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{escape(text)}</p>"


def section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def cards(values: dict[str, str]) -> str:
    return (
        '<dl class="cards">'
        + "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in values.items())
        + "</dl>"
    )


def listed(items: Iterable[str], kind: str = "") -> str:
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    about: str,
    left: Sequence[int] = (0,),
    names: Sequence[int] = (),
    marked: Sequence[bool] = (),
) -> str:
    """A table that scrolls by itself.

    Args:
        about: what it shows, for those who do not see it.
        left: columns of text. names: columns of long text, which is wrapped.
        marked: rows to be shown as bad.
    """

    def kind(index: int) -> str:
        return ' class="name"' if index in names else ' class="text"' if index in left else ""

    head = "".join(
        f'<th scope="col"{kind(k) if k not in names else chr(32) + "class=" + chr(34) + "text" + chr(34)}>'
        f"{escape(name)}</th>"
        for k, name in enumerate(header)
    )
    bad = list(marked)
    body = "".join(
        f"<tr{' class=' + chr(34) + 'bad' + chr(34) if n < len(bad) and bad[n] else ''}>"
        + "".join(f"<td{kind(k)}>{escape(cell)}</td>" for k, cell in enumerate(row))
        + "</tr>"
        for n, row in enumerate(rows)
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(about)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def chart(name: str, about: str) -> str:
    return f'<div class="chart" id="{name}" role="img" aria-label="{escape(about)}"></div>'


def page(title: str, body: Sequence[str], data: dict[str, Any], script: str) -> str:
    """A whole document with its style, its data and its scripts inside.

    Args:
        script: file of the page that draws the data.
    """
    # In a script no character is escaped, so none may end it.
    payload = json.dumps(finite(data), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{page_file('report.css')}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + f'\n</main>\n<script type="application/json" id="data">{payload}</script>\n'
        f"<script>{page_file(PLOTLY)}</script>\n<script>{page_file(script)}</script>\n</body></html>\n"
    )
