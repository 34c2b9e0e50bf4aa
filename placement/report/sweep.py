"""The end of a sweep: its jobs beside each other on one page, as CSV, and GPUs against latency as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from placement.report.markup import chart, page, paragraph, section
from twin.errors import InputError
from twin.files import write_bytes, write_text
from twin.pictures import blank, png
from twin.wording import number, percent

#: A job: its overrides, exit code, directory, and what it found.
Job = tuple[Sequence[str], int, str, dict[str, Any] | None]
FIGURES = (
    "status", "gpus", "cost_per_hour", "objective", "bound", "gap", "e2e_mean_s", "itl_mean_ms", "simulated_e2e_mean_s",
    "runtime_s",
)  # fmt: skip
HEADER = (
    "job", "overrides", "status", "GPUs", "$/h", "objective", "bound", "gap", "mean E2E s", "mean ITL ms",
    "simulated E2E s", "solver s", "exit",
)  # fmt: skip


def common_overrides(jobs: Sequence[Job]) -> set[str]:
    """Overrides that all jobs have; they are the sweep's, not a job's."""
    return set(jobs[0][0]).intersection(*(own for own, _, _, _ in jobs)) if len(jobs) > 1 else set()


def write_sweep(jobs: Sequence[Job]) -> tuple[list[Path], str]:
    """Writes `sweep.html`, `sweep.csv` and, where matplotlib is there, `pareto.png` beside the jobs' folders.

    A job that failed has a row without figures.

    Returns:
        The files, and a note on what could not be made.
    """
    folder = Path(jobs[0][2]).parent
    common = common_overrides(jobs)
    runs = _runs(jobs, common)
    title = "Sweep " + " ".join(o for o in jobs[0][0] if o in common)
    body = [
        f"<h1>{escape(title.strip())}</h1>",
        paragraph(f"{len(jobs)} runs, {len(runs)} with a placement.", "lead"),
        section(
            "GPUs against latency",
            paragraph("By the planning model; orange: no other run has fewer GPUs and a lower latency.", "lead"),
            chart("pareto", "GPUs against mean latency of each run"),
        )
        if runs
        else "",
        section("Runs", _table(jobs, common, folder)),
    ]
    files = [folder / "sweep.html", folder / "sweep.csv"]
    size = _size_name(runs)
    write_text(files[0], page(title, body, {"runs": runs, "size": size}, "sweep.js"))
    write_text(files[1], _csv(jobs, common))
    if not runs:
        return files, ""
    try:
        picture = _pareto_png(runs, size)
    except InputError as error:
        return files, f"{error.problem}: {error.remedy}"
    write_bytes(folder / "pareto.png", picture)
    return [*files, folder / "pareto.png"], ""


def _name(job: Job, common: set[str]) -> str:
    return " ".join(o for o in job[0] if o not in common) or Path(job[2]).name


def _runs(jobs: Sequence[Job], common: set[str]) -> list[dict[str, Any]]:
    """Jobs with a placement, by size of the fleet; `front` = no other is smaller and as fast."""
    found = [(job, job[3]) for job in jobs if job[3] is not None and job[3].get("e2e_mean_s") is not None]
    priced = any(s["cost_per_hour"] is not None for _, s in found)
    runs = [
        {
            "name": _name(job, common),
            "size": s["cost_per_hour"] if priced and s["cost_per_hour"] is not None else s["gpus"],
            "e2e_mean_s": s["e2e_mean_s"],
            "priced": priced,
        }
        for job, s in found
    ]
    for run in runs:
        run["front"] = not any(
            other["size"] <= run["size"]
            and other["e2e_mean_s"] <= run["e2e_mean_s"]
            and (other["size"], other["e2e_mean_s"]) != (run["size"], run["e2e_mean_s"])
            for other in runs
        )
    return sorted(runs, key=lambda run: (run["size"], run["e2e_mean_s"]))


def _size_name(runs: Sequence[dict[str, Any]]) -> str:
    return "$/h" if runs and runs[0]["priced"] else "GPUs"


def _cells(job: Job, common: set[str]) -> list[str]:
    s = job[3] or {}
    return [
        Path(job[2]).name, _name(job, common), s.get("status", "failed"), str(s.get("gpus", "-")),
        number(s.get("cost_per_hour"), 4), s.get("objective", "-"), number(s.get("bound"), 4), percent(s.get("gap")),
        number(s.get("e2e_mean_s")), number(s.get("itl_mean_ms")), number(s.get("simulated_e2e_mean_s")),
        number(s.get("runtime_s")), str(job[1]),
    ]  # fmt: skip


def _table(jobs: Sequence[Job], common: set[str], folder: Path) -> str:
    head = "".join(f'<th scope="col"{_text(k)}>{escape(name)}</th>' for k, name in enumerate(HEADER))
    rows = []
    for job in jobs:
        cells = [escape(cell) for cell in _cells(job, common)]
        report = Path(job[2]) / "report.html"
        if report.exists():
            cells[0] = f'<a href="{escape(quote(report.relative_to(folder).as_posix()))}">{cells[0]}</a>'
        bad = "" if job[1] == 0 else ' class="bad"'
        rows.append(f"<tr{bad}>" + "".join(f"<td{_text(k)}>{cell}</td>" for k, cell in enumerate(cells)) + "</tr>")
    return (
        '<div class="wide" role="region" tabindex="0" aria-label="Runs of the sweep"><table><thead><tr>'
        f'{head}</tr></thead><tbody id="runs-body">{"".join(rows)}</tbody></table></div>'
    )


def _text(index: int) -> str:
    return ' class="text"' if index < 3 else ""


def _csv(jobs: Sequence[Job], common: set[str]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["job", "overrides", *FIGURES, "exit_code"])
    for job in jobs:
        s = job[3] or {"status": "failed"}
        values = ["" if s.get(name) is None else s[name] for name in FIGURES]
        table.writerow([Path(job[2]).name, _name(job, common), *values, job[1]])
    return text.getvalue()


def _pareto_png(runs: Sequence[dict[str, Any]], size: str) -> bytes:
    figure = blank(8, 5, option="pareto.png", dpi=120)
    axes = figure.subplots()
    front = [r for r in runs if r["front"]]
    axes.step([r["size"] for r in front], [r["e2e_mean_s"] for r in front], where="post", color="#c4651a")
    axes.scatter(
        [r["size"] for r in runs], [r["e2e_mean_s"] for r in runs],
        color=["#c4651a" if r["front"] else "#2f62a0" for r in runs], zorder=3,
    )  # fmt: skip
    for run in runs:
        # A dollar sign in a name would be read as a formula.
        axes.annotate(
            run["name"].replace("$", r"\$"), (run["size"], run["e2e_mean_s"]), fontsize=7, xytext=(4, 4),
            textcoords="offset points",
        )  # fmt: skip
    axes.set_xlabel(size.replace("$", r"\$"))
    axes.set_ylabel("mean E2E, s")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    return png(figure)
