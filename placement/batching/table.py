"""An advice on the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def _console() -> Console:
    plain = Console(highlight=False)
    wanted = os.environ.get("COLUMNS", "")
    return plain if plain.is_terminal or wanted.isdigit() else Console(highlight=False, width=140)


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def print_advice(data: dict[str, Any], files: Sequence[Path], note: str = "") -> None:
    """Curve, choice, memory, replicas, files."""
    out = _console()
    curve, best, slo = data["curve"], data["b_opt"], data["slo"]
    title = f"{data['model']} on {data['hardware']}: {curve['source']} curve"
    table = Table(title=title + (f", {curve['prefill']} prefill" if curve["prefill"] else ""), title_justify="left")
    for name in ("max_num_seqs", "requests/s", "ITL ms", "TPOT ms", "T(B)/(B T(1))", "KV peak tokens", "DRAM share"):
        table.add_column(name, justify="right")
    for p in curve["points"]:
        if p["preempting"]:
            table.add_row(str(p["batch"]), *["-"] * 5, "preempts", style="dim")
            continue
        share = p["bandwidth_share_of_step"]
        table.add_row(
            str(p["batch"]) + (" *" if p["batch"] == best["batch"] else ""),
            _number(p["throughput_req_per_s"], 2), _number(p["itl_ms"]), _number(p["tpot_ms"]),
            _number(p["efficiency"], 3), _number(p["kv_peak_tokens"], 0), _percent(share),
            style="bold" if p["batch"] == best["batch"] else None,
        )  # fmt: skip
    out.print(table)
    largest, memory = data["maximum_batch"], data["memory"]
    asked = f"{slo['asked']} = " if isinstance(slo["asked"], str) else ""
    epsilon = f", epsilon {data['epsilon']:g}" if data["epsilon"] is not None else ""
    out.print(
        f"[bold]B_opt = {best['batch']}[/bold] (rule {data['rule']}, SLO {asked}{slo['ms']:.2f} ms{epsilon}; "
        f"a larger batch is held back by: {best['bound_by']})"
    )
    out.print(
        f"against max_num_seqs {largest['batch']}: throughput {largest['throughput_change_pct']:+.1f} %, "
        f"ITL {largest['itl_change_pct']:+.1f} %"
    )
    out.print(
        f"KV cache: {memory['needed_tokens']:.0f} tokens = {memory['needed_gib']:.1f} GiB with headroom "
        f"(of {memory['capacity_tokens']}); frees {memory['freed_gib']:.1f} GiB"
    )
    flags = data["recommended"]
    out.print(
        f"one server: [bold]--max-num-seqs {flags['max_num_seqs']} "
        f"--gpu-memory-utilization {flags['gpu_memory_utilization']:g}[/bold]"
    )
    _print_replicas(out, data)
    for text in (*data["notes"], *([note] if note else [])):
        out.print(f"note: {text}", markup=False, style="yellow")
    for file in files:
        out.print(f"wrote {_shown(file)}", markup=False, soft_wrap=True)


def _print_replicas(out: Console, data: dict[str, Any]) -> None:
    replication = data["replication"]
    largest = data["maximum_batch"]["batch"]
    table = Table(title=f"replicas at B_opt ({replication['sharing']})", title_justify="left")
    names = ("servers", "each gpu_memory_utilization", "requests/s", f"against {largest} x 1", "ITL ms", "GPU busy")
    for name in names:
        table.add_column(name, justify="right")
    for r in replication["at_b_opt"]:
        if r["problem"]:
            table.add_row(str(r["servers_per_gpu"]), f"{r['gpu_memory_utilization']:.3g}", "does not fit", "", "", "")
            continue
        table.add_row(
            str(r["servers_per_gpu"]), f"{r['gpu_memory_utilization']:.3g}", _number(r["throughput_req_per_s"], 2),
            f"{r['throughput_change_pct']:+.1f} %", _number(r["itl_ms"]), _percent(r["gpu_busy_share"]),
        )  # fmt: skip
    out.print(table)
    for r in replication["at_b_opt"]:
        if r["problem"]:
            out.print(f"{r['servers_per_gpu']} servers: {r['problem']}", markup=False)
    chosen, best = replication["recommended"], replication["best"]
    out.print(f"recommended: [bold]{_words(chosen)}[/bold]")
    if best is not None:
        goal = "most throughput within the SLO" if replication["best_objective"] == "throughput" else "lowest latency"
        out.print(f"{goal}, over all batches and servers: [bold]{_words(best)}[/bold]")


def _words(r: dict[str, Any]) -> str:
    return (
        f"max_num_seqs {r['max_num_seqs']} x {r['servers_per_gpu']} server{'s' if r['servers_per_gpu'] > 1 else ''}: "
        f"{r['throughput_req_per_s']:.2f} requests/s ({r['throughput_change_pct']:+.1f} %), ITL {r['itl_ms']:.1f} ms"
    )


def sweep_table(rows: Sequence[tuple[Sequence[str], int, str, dict[str, Any] | None]]) -> None:
    """One row a job of a sweep."""
    table = Table(title="sweep", title_justify="left")
    for name in ("overrides", "exit", "B_opt", "memory share", "servers", "requests/s", "folder"):
        table.add_column(name)
    for overrides, code, directory, summary in rows:
        s = summary or {}
        table.add_row(
            " ".join(overrides), str(code), str(s.get("b_opt", "-")), str(s.get("gpu_memory_utilization", "-")),
            str(s.get("servers", "-")), _number(s.get("throughput_req_per_s"), 2), directory,
        )  # fmt: skip
    _console().print(table)


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
