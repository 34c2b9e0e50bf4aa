"""`metrics.json` documents on the terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from twin.figures.bottleneck import title
from twin.wording import counted, number, percent, small
from twin.workload.adapter import PROMISES

if TYPE_CHECKING:
    from twin.config.entry import Outcome

Document = dict[str, Any]
LABEL_STYLE = {"STABLE": "green", "BACKLOGGED": "yellow", "OVERLOADED": "red"}
#: Late adapters that the table names.
MOST_NAMED = 4


def console() -> Console:
    """Standard output; piped output gets a width at which no cell is cut."""
    plain = Console(highlight=False)
    wanted = os.environ.get("COLUMNS", "")
    return plain if plain.is_terminal or wanted.isdigit() else Console(highlight=False, width=140)


class Figures:
    """Means with half their interval where there are several simulations."""

    def __init__(self, document: Document) -> None:
        self.values, self.intervals = document["metrics"], document["intervals"]

    def __call__(self, name: str, scale: float = 1.0, write: Callable[[float | None], str] = number) -> str:
        value = self.values[name]
        half = self.half_width(name)
        text = write(None if value is None else scale * value)
        return f"{text} ± {number(scale * half, 2)}" if half else text

    def percent(self, name: str) -> str:
        value, half = self.values[name], self.half_width(name)
        return f"{percent(value).removesuffix(' %')} ± {number(100 * half, 2)} %" if half else percent(value)

    def half_width(self, name: str) -> float:
        """Half the interval; 0 for a single simulation and where the figure is not known."""
        if self.intervals is None or None in self.intervals[name]:
            return 0.0
        low, high = self.intervals[name]
        return float(high - low) / 2


def overheads_text(row: Document) -> str:
    """What each cause costs of a step and of the window, and of the KV cache."""
    causes = [name.removesuffix("_ms") for name in row if name.endswith("_ms")]
    parts = [
        f"{cause.replace('_', ' ')} {number(row[f'{cause}_ms'])} ms ({percent(row[f'{cause}_share'])})"
        for cause in causes
    ]
    lost = row["kv_tokens_lost"] / max(row["kv_tokens"] + row["kv_tokens_lost"], 1)
    return (
        f"A step and the window: {', '.join(parts)}, idle {percent(row['idle_share'])}. Slots take "
        f"{percent(lost)} of the KV cache ({row['kv_tokens_lost']:,.0f} tokens)."
    )


def print_server(document: Document, files: Sequence[str]) -> None:
    """The figures of one server, what limits it, the verdict, notes and files."""
    out = console()
    workload, server, figure = document["workload"], document["server"], Figures(document)
    flags, limits = server["setting"], document["limits"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    facts = limits["shares"]
    label = document["queue"]
    rows = {
        "server": f"{escape(server['gpu_type'])}, {flags['max_loras']} slots of rank {flags['max_lora_rank']}, "
        f"max_num_seqs {flags['max_num_seqs']}, max_num_batched_tokens {flags['max_num_batched_tokens']}",
        "adapters": f"{workload['adapters']}{' + base model' if workload['base_model'] else ''}; in a batch at most "
        f"{number(facts['adapters_peak'])}; all slots held {percent(facts['slots_held'])} of the time",
        "KV cache": f"{server['kv_cache_tokens']:,} tokens; {figure.percent('kv_usage')} in use, at most "
        f"{percent(facts['kv_peak'])}",
        "offered": f"{number(document['offered']['requests_per_s'])} req/s, "
        f"{number(document['offered']['tokens_per_s'])} tokens/s",
        "served": f"{figure.percent('served_fraction')}: {figure('in_throughput_tps')} tokens/s in, "
        f"{figure('out_throughput_tps')} out",
        "TTFT s": f"{figure('ttft_mean_s')} mean, {figure('ttft_p50_s')} p50, {figure('ttft_p99_s')} p99; "
        f"worst adapter's p99 {figure('worst_adapter_ttft_p99_s')}",
        "ITL ms": f"{figure('itl_mean_ms')} mean, {figure('itl_p99_ms')} p99; TPOT {figure('tpot_mean_ms')}",
        "E2E s": f"{figure('e2e_mean_s')} mean",
        "requests": f"{figure('running')} running (at most {number(facts['running_peak'])}), "
        f"{figure('waiting', write=small)} waiting, "
        f"drift {figure('waiting_drift_per_s', 3600, small)} /h: [{LABEL_STYLE[label]}]{label}[/]",
        "preemptions": f"{figure('preemptions_per_s', 3600)} /h",
        "loads": f"{figure('loads_per_s')} adapters/s into slots" + _disk_text(document),
        "late": escape(_late_text(document, figure)),
        **({"promises": escape(text)} if (text := promises_text(document["promises"])) else {}),
        "step": _step_text(facts),
        "limit": title(limits["by"]),
    }  # fmt: skip
    for name, text in rows.items():
        table.add_row(name, text)
    out.print(_title(document), style="italic", markup=False)
    print_reading(out, document)
    out.print(table)
    print_verdict(out, document)
    if "overheads" in document:
        out.print(overheads_text(document["overheads"]), markup=False)
    out.print(limits["explanation"], markup=False)
    if limits["advice"]:
        out.print(f"try: {limits['advice']}", markup=False)
    print_notes(out, document, files)


def print_fleet(document: Document, files: Sequence[str]) -> None:
    """A row per GPU, the whole, the verdict, notes and files."""
    out = console()
    table = Table(box=box.SIMPLE, padding=(0, 1), pad_edge=False)
    header = (
        "GPU", "slots x rank", "adapters", "req/s", "served", "tokens/s", "TTFT p99 s", "ITL ms", "E2E s", "running",
        "waiting", "KV use", "loads/s", "queue",
    )  # fmt: skip
    for name in header:
        table.add_column(name, justify="left" if name in ("GPU", "queue") else "right")
    for gpu in document["gpus"]:
        m = gpu["metrics"]
        flags = gpu["setting"]
        cells = [
            escape(gpu["gpu_id"]), f"{flags['max_loras']} x {flags['max_lora_rank']}",
            f"{gpu['adapters']}{' + base' if gpu['base_model'] else ''}", number(gpu["requests_per_s"]),
            *_cells(m), f"[{LABEL_STYLE[gpu['queue']]}]{gpu['queue']}[/]",
        ]  # fmt: skip
        table.add_row(*cells)
    table.add_section()
    whole = document["metrics"]
    label = document["queue"]
    cells = ["whole", "", str(document["workload"]["adapters"]), number(document["offered"]["requests_per_s"]),
             *_cells(whole), f"[{LABEL_STYLE[label]}]{label}[/]"]  # fmt: skip
    table.add_row(*cells, style="bold")
    out.print(_title(document), style="italic", markup=False)
    print_reading(out, document)
    out.print(table)
    print_verdict(out, document)
    figure = Figures(document)
    out.print(
        f"TTFT {figure('ttft_mean_s')} s mean, {figure('ttft_p50_s')} p50, {figure('ttft_p99_s')} p99; "
        f"ITL p99 {figure('itl_p99_ms')} ms; {_late_text(document, figure)}", markup=False,
    )  # fmt: skip
    if promises := promises_text(document["promises"]):
        out.print(f"promises: {promises}", markup=False)
    for gpu in document["gpus"]:
        if gpu["down_s"]:
            lost = f"{number(gpu['lost'])} requests that it had not finished went elsewhere or waited for it"
            out.print(f"{gpu['gpu_id']} was down for {number(gpu['down_s'])} s: {lost}.", markup=False)
    if document["unrouted"]:
        out.print(f"{number(document['unrouted'])} requests found no server.", markup=False, style="red")
    print_notes(out, document, files)


def _cells(m: dict[str, float | None]) -> list[str]:
    return [
        percent(m["served_fraction"]), number(m["throughput_tps"]), number(m["ttft_p99_s"]), number(m["itl_mean_ms"]),
        number(m["e2e_mean_s"]), number(m["running"]), small(m["waiting"]), percent(m["kv_usage"]),
        number(m["loads_per_s"]),
    ]  # fmt: skip


def print_verdict(out: Console, document: Document) -> None:
    """One line a rule, the one asked for first."""
    for name in sorted(document["verdicts"], key=lambda n: n != document["rule"]):
        verdict = document["verdicts"][name]
        style = "green" if verdict["healthy"] else "red"
        reason = f": {verdict['reason']}" if verdict["reason"] else ""
        asked = "bold" if name == document["rule"] else "dim"
        healthy = "healthy" if verdict["healthy"] else "NOT healthy"
        out.print(Text.assemble((f"constraint={name}", asked), ": ", (healthy, style), reason))


def print_reading(out: Console, document: Document) -> None:
    """What was done to a log or trace on the way to the workload."""
    if document["workload"]["reading"]:
        out.print(" ".join(document["workload"]["reading"]["summary"]), markup=False)


def print_notes(out: Console, document: Document, files: Sequence[str]) -> None:
    for warning in document["warnings"]:
        out.print(f"note: {warning}", markup=False, style="yellow")
    for file in files:
        out.print(f"wrote {file}", markup=False, soft_wrap=True)


def _title(document: Document) -> str:
    seeds = document["seeds"]
    hours = f"{number(document['horizon_s'])} s simulated"
    many = f"{len(seeds)} seeds, mean ± half a 95 % interval" if len(seeds) > 1 else f"seed {seeds[0]}"
    calibration = document["provenance"]["calibration"]
    return f"{document['workload']['name']} on {calibration['model']} ({calibration['engine']}); {hours}, {many}"


def _disk_text(document: Document) -> str:
    seconds = document["horizon_s"] * len(document["runs"])
    disk = sum(run["disk_loads"] for run in document["runs"])
    return f"; {number(disk / seconds)} /s from disk into host memory" if disk else ""


def _late_text(document: Document, figure: Figures) -> str:
    late = document["late"]
    promised = document["promises"].get("ttft_p99_s")
    than = "promised: nothing is" if promised is None else f"{number(promised['strictest'])} s"
    if promised is not None and promised["strictest"] < promised["loosest"]:
        than = f"promised ({number(promised['strictest'])} to {number(promised['loosest'])} s)"
    text = f"{figure.percent('late_fraction')} of the requests later than {than}"
    starving = late["starving"]
    if not starving:
        return f"{text}; no adapter beyond 5 %"
    named = ", ".join(f"{a['adapter_id']} {a['late']} of {a['requests']}" for a in starving[:MOST_NAMED])
    more = ", ..." if len(starving) > MOST_NAMED else ""
    return f"{text}; {counted(len(starving), 'adapter')} beyond 5 % ({named}{more})"


def promises_text(promises: dict[str, Any]) -> str:
    """`mean ITL to 3 adapters, at most 110 % used (chat-de, 44 ms of 40)`; empty without promises on means."""
    parts = []
    for name, entry in promises.items():
        if name == "ttft_p99_s":
            continue  # said as late requests
        worst = entry["worst"]
        used = "no request tells"
        if worst is not None:
            used = (
                f"at most {percent(worst['use'])} used ({worst['adapter_id']}, {number(worst['simulated'])} "
                f"{name.rsplit('_', 1)[1]} of {number(worst['promised'])})"
            )
        beyond = f", {entry['beyond']} beyond" if entry["beyond"] else ""
        parts.append(f"{PROMISES[name]} to {counted(entry['adapters'], 'adapter')}: {used}{beyond}")
    return "; ".join(parts)


def _step_text(facts: dict[str, float]) -> str:
    parts = {
        "fixed": "fixed_ms", "decode": "decode_ms", "prompts": "prompt_ms", "KV reads": "kv_ms", "LoRA": "lora_ms",
        "loads": "loads_ms", "scheduler": "scheduler_ms",
    }  # fmt: skip
    shown = sorted(((facts[v], k) for k, v in parts.items() if facts[v] >= 0.005 * facts["step_ms"]), reverse=True)
    return f"{number(facts['step_ms'])} ms for {number(facts['tokens_per_step'])} tokens: " + ", ".join(
        f"{name} {ms:.1f}" for ms, name in shown
    )


def print_sweep(outcomes: Sequence[Outcome]) -> None:
    """One row a job, named by the overrides in which the jobs differ."""
    if not outcomes:
        return
    every = [set(o.overrides) for o in outcomes]
    common = set.intersection(*every) if len(every) > 1 else set()
    heading = " ".join(["sweep", *(o for o in outcomes[0].overrides if o in common)])
    table = Table(box=box.SIMPLE, padding=(0, 1), pad_edge=False)
    columns = ("served", "tokens/s", "TTFT p99 s", "ITL ms", "E2E s", "KV use", "waiting", "queue", "limit", "healthy")
    for name in ("job", "overrides", *columns, "exit"):
        left = name in ("overrides", "queue", "limit", "healthy")
        table.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=name == "overrides")
    for o in outcomes:
        s = o.summary or {}
        table.add_row(
            escape(Path(o.directory).name), escape(" ".join(w for w in o.overrides if w not in common)),
            *(escape(str(s.get(name, "-"))) for name in columns),
            str(o.exit_code), style=None if o.exit_code == 0 else "red",
        )  # fmt: skip
    out = console()
    out.print(heading, style="italic", markup=False)
    out.print(table)
    out.print(f"wrote {Path(outcomes[0].directory).parent}", markup=False, soft_wrap=True)


def sweep_row(document: Document) -> dict[str, str]:
    """Cells of `print_sweep` for one document."""
    m = document["metrics"]
    return {
        "served": percent(m["served_fraction"]),
        "tokens/s": number(m["throughput_tps"]),
        "TTFT p99 s": number(m["ttft_p99_s"]),
        "ITL ms": number(m["itl_mean_ms"]),
        "E2E s": number(m["e2e_mean_s"]),
        "KV use": percent(m["kv_usage"]),
        "waiting": small(m["waiting"]),
        "queue": document["queue"],
        "limit": title(document["limits"]["by"]) if "limits" in document else "-",
        "healthy": "yes" if document["healthy"] else "NO",
    }
