"""The report on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from placement.report.today import TODAY_HEADER, TODAY_LEFT, today_rows, today_text
from placement.report.words import (
    GPU_HEADER,
    Document,
    bound_text,
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

#: More GPUs than this are summarised on the terminal; the files list all.
MOST_ROWS = 40


def console() -> Console:
    """Standard output; piped output gets a width at which no cell is cut."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=140)


def print_report(document: Document, files: Sequence[str]) -> None:
    """Per-GPU table, objective, bound, verification, warnings, files."""
    out = console()
    title = escape(f"{document['workload']['name']}: {len(document['gpus'])} GPUs")
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(GPU_HEADER):
        table.add_column(name, justify="left" if index in (0, 1) else "right")
    for gpu in document["gpus"][:MOST_ROWS]:
        table.add_row(
            *map(escape, gpu_row(gpu, typed=several_types(document))),
            style=None if gpu["accepted"] is not False else "red",
        )
    out.print(table)
    if len(document["gpus"]) > MOST_ROWS:
        out.print(f"... and {len(document['gpus']) - MOST_ROWS} more GPUs")
    style = "green" if document["status"] == "verified" else "yellow"
    solver = f"{document['solver']} {document['runtime_s']:.1f} s ({document['termination']})"
    out.print(
        f"[bold]{escape(objective_text(document))}[/bold]   {bound_text(document)}   "
        f"[{style}]{status_text(document)}[/{style}]   {solver}"
    )
    if reading := reading_text(document):
        out.print(reading, markup=False)
    if several_types(document):
        out.print(fleet_text(document), markup=False)
    out.print(certificate_text(document), markup=False)
    out.print(verification_text(document), markup=False)
    if document["today"]:
        out.print(today_text(document), markup=False)
        beside = Table()
        for name in TODAY_HEADER:
            beside.add_column(name, justify="left" if name in TODAY_LEFT else "right")
        for row in today_rows(document):
            beside.add_row(*map(escape, row))
        out.print(beside)
    for warning in document["warnings"]:
        out.print(f"note: {warning}", markup=False, style="yellow")
    for file in files:
        out.print(f"wrote {file}", markup=False, soft_wrap=True)


def sweep_table(rows: Sequence[tuple[Sequence[str], int, str, dict[str, Any] | None]]) -> None:
    """One row a job of a sweep, named by the overrides in which the jobs differ."""
    if not rows:
        return
    common = set(rows[0][0]).intersection(*(o for o, _, _, _ in rows)) if len(rows) > 1 else set[str]()
    table = Table(title=escape(" ".join(["sweep", *(o for o in rows[0][0] if o in common)])), title_justify="left")
    for name in ("job", "overrides", "status", "GPUs", "objective", "bound", "gap", "solver s", "exit"):
        table.add_column(name, justify="left" if name in ("overrides", "status") else "right")
    for overrides, code, directory, summary in rows:
        s = summary or {}
        table.add_row(
            Path(directory).name, escape(" ".join(o for o in overrides if o not in common)), s.get("status", "failed"),
            str(s.get("gpus", "-")), s.get("objective", "-"), number(s.get("bound"), 4), percent(s.get("gap")),
            number(s.get("runtime_s")), str(code), style=None if code == 0 else "red",
        )  # fmt: skip
    out = console()
    out.print(table)
    out.print(f"wrote {Path(rows[0][2]).parent}", markup=False, soft_wrap=True)
