"""The report on the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from placement.report.sweep import Job, common_overrides
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
from twin.wording import counted, number, percent

#: More GPUs than this are summarised on the terminal; the files list all.
MOST_ROWS = 40


def console() -> Console:
    """Standard output; COLUMNS sets its width, else piped output gets one at which no cell is cut."""
    plain = Console(highlight=False)
    wanted = os.environ.get("COLUMNS", "")
    return plain if plain.is_terminal or wanted.isdigit() else Console(highlight=False, width=140)


def print_table(
    out: Console,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    left: Sequence[int] = (0,),
    marked: Sequence[bool] = (),
) -> None:
    """A table, or as many below each other as the width asks for: each has the first column and some of the others.

    Args:
        left: columns of text. marked: rows in red. Cells are text, whatever brackets they hold.
    """
    widths = [max(cell_len(line) for cell in column for line in cell.splitlines() or [""]) for column in
              ([name, *(row[k] for row in rows)] for k, name in enumerate(header))]  # fmt: skip
    groups: list[list[int]] = [[]]
    for k in range(1, len(header)):
        if groups[-1] and 4 + widths[0] + sum(3 + widths[j] for j in (*groups[-1], k)) > out.width:
            groups.append([])
        groups[-1].append(k)
    if title:
        out.print(title, markup=False, style="italic")
    for group in groups:
        table = Table()
        for k in (0, *group):
            table.add_column(Text(header[k]), justify="left" if k in left else "right", overflow="fold")
        for n, row in enumerate(rows):
            bad = n < len(marked) and marked[n]
            table.add_row(*(Text(row[k]) for k in (0, *group)), style="red" if bad else None)
        out.print(table)


def print_report(document: Document, files: Sequence[str]) -> None:
    """Per-GPU table, objective, bound, verification, warnings, files."""
    out = console()
    shown = document["gpus"][:MOST_ROWS]
    print_table(
        out, GPU_HEADER, [gpu_row(gpu, typed=several_types(document)) for gpu in shown], left=(0, 1),
        title=f"{document['workload']['name']}: {counted(len(document['gpus']), 'GPU')}",
        marked=[gpu["accepted"] is False for gpu in shown],
    )  # fmt: skip
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
        print_table(out, TODAY_HEADER, today_rows(document), left=[TODAY_HEADER.index(name) for name in TODAY_LEFT])
    for warning in document["warnings"]:
        out.print(f"note: {warning}", markup=False, style="yellow")
    for file in files:
        out.print(f"wrote {file}", markup=False, soft_wrap=True)


def sweep_table(jobs: Sequence[Job], files: Sequence[str], note: str = "") -> None:
    """One row a job of a sweep, named by the overrides in which the jobs differ; then the files of the sweep."""
    common = common_overrides(jobs)
    header = ("job", "overrides", "status", "GPUs", "objective", "bound", "gap", "solver s", "exit")
    rows = []
    for overrides, code, directory, summary in jobs:
        s = summary or {}
        rows.append(
            [Path(directory).name, " ".join(o for o in overrides if o not in common), s.get("status", "failed"),
             str(s.get("gpus", "-")), s.get("objective", "-"), number(s.get("bound"), 4), percent(s.get("gap")),
             number(s.get("runtime_s")), str(code)]
        )  # fmt: skip
    out = console()
    title = " ".join(["sweep", *(o for o in jobs[0][0] if o in common)])
    print_table(out, header, rows, title=title, left=(1, 2), marked=[code != 0 for _, code, _, _ in jobs])
    if note:
        out.print(f"note: {note}", markup=False, style="yellow")
    for file in files:
        out.print(f"wrote {file}", markup=False, soft_wrap=True)
