"""One run of `python -m twin` from plain configuration to files and exit code; free of Hydra."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twin.command.options import Command, load_command
from twin.errors import InputError
from twin.files import write_bytes, write_text

if TYPE_CHECKING:
    from twin.command.finite_load import FiniteLoad
    from twin.figures.bottleneck import Bottleneck
    from twin.figures.result import SimulationResult
    from twin.server.column import Column

log = logging.getLogger(__name__)

NOT_HEALTHY = 4
#: Most rows of a step trace: 200 MB. An hour has fewer.
MOST_TRACED = 2_000_000
#: Parts of the window in the plot and its table.
PLOTTED_PARTS = 120


def run_command(config: dict[str, Any], directory: Path, *, quiet: bool) -> tuple[int, dict[str, Any]]:
    """Simulates and writes the files.

    Args:
        config: plain containers, as composed.
        directory: where the files go.
        quiet: a job of a sweep: nothing is printed.

    Returns:
        Exit code (0, or 4 with `require_healthy`) and the cells of a sweep's table.

    Raises:
        InputError: bad input.
    """
    command = load_command(config)
    # Only now: a wrong option does not pay for the compiled twin.
    from twin.command.summary import print_fleet, print_server, sweep_row

    if command.placement is not None:
        from twin.command.fleet_report import run_fleet

        document, files = run_fleet(command), list[Path]()
        show: Callable[[dict[str, Any], Sequence[str]], None] = print_fleet
    else:
        document, files = run_server(command, directory)
        show = print_server
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    # Last, so that it exists only if the others do.
    write_text(directory / "metrics.json", text)
    if command.options.json and not quiet:
        print(text, end="")
    elif not quiet:
        show(document, [shown(f) for f in (directory / "metrics.json", *files)])
    code = NOT_HEALTHY if command.options.require_healthy and not document["healthy"] else 0
    return code, sweep_row(document)


def run_server(command: Command, directory: Path) -> tuple[dict[str, Any], list[Path]]:
    """Simulates one server under every seed; returns its document and the files written beside it."""
    from twin.command.finite_load import finite_load
    from twin.command.server_report import server_report
    from twin.engine.play import check_column
    from twin.figures.warmup import steps_to_trace
    from twin.server.column import Column
    from twin.workload.workload import with_reading

    column = Column(command.workload.adapters, command.setting)
    check_column(column, command.calibration)
    rows = steps_to_trace(command.options.horizon_s, command.calibration.step.base)
    if command.options.plot and rows > MOST_TRACED:
        longest = MOST_TRACED * command.calibration.step.base / 1000
        raise InputError(
            f"plot=true keeps every step of the window, which is too much for {command.options.horizon_s:g} s",
            where="horizon_s",
            remedy=f"plot at most {longest:.0f} s, or leave plot=true out",
        )
    load = finite_load(command)
    if load is not None and load.table is not None:
        command = replace(command, workload=with_reading(command.workload, load.table.reading))
    files = _files(command, column, directory, rows, load)
    results, facts, warnings = _simulate(command, column, min(rows, MOST_TRACED), load)
    document = server_report(command, results, facts, warnings)
    if command.options.overheads:
        from twin.figures.overheads import overheads

        document["overheads"] = overheads(results, command.setting, command.calibration).row()
        files += _overhead_files(command, column, directory)
    return document, files


def _overhead_files(command: Command, column: Column, directory: Path) -> list[Path]:
    """Curves over adapters, slots and rank."""
    from twin.command.overheads import curves, curves_png

    rows = curves(command, column)
    files = [directory / "overheads.png", directory / "overheads.csv"]
    write_bytes(files[0], curves_png(rows))
    write_text(files[1], csv_text(rows))
    return files


def _simulate(
    command: Command, column: Column, trace_steps: int, load: FiniteLoad | None
) -> tuple[list[SimulationResult], list[Bottleneck], list[str]]:
    from twin.confidence.seeds import short_window
    from twin.figures.bottleneck import bottleneck
    from twin.server.memory import kv_cache_tokens
    from twin.simulation import simulate

    options = command.options
    # One block is vLLM's null block.
    blocks = kv_cache_tokens(command.setting, command.calibration) // command.setting.block_size - 1

    def job(seed: int) -> tuple[SimulationResult, Bottleneck]:
        requests, horizon_s = (None, options.horizon_s) if load is None else load.sent(column, command, seed)
        result = simulate(
            column, command.calibration, horizon_s=horizon_s, seed=seed, requests=requests,
            default_ttft_slo_s=command.judge.slo.ttft_p99_s, trace_steps=trace_steps,
        )  # fmt: skip
        log.info("seed %d: %d arrivals, %d steps", seed, result.arrivals, result.steps)
        facts = bottleneck(result, column, command.calibration, blocks)
        return replace(result, trace=result.trace[:0]), facts

    with ThreadPoolExecutor(max_workers=options.threads) as pool:
        done = list(pool.map(job, options.all_seeds()))
    results = [result for result, _ in done]
    warnings = list(filter(None, [short_window(results) if load is None else load.note()]))
    if any(r.steps > trace_steps for r in results):
        warnings.append(f"peaks and `slots_held` cover the first {trace_steps:,} steps only")
    return results, [facts for _, facts in done], warnings


def _files(command: Command, column: Column, directory: Path, trace_steps: int, load: FiniteLoad | None) -> list[Path]:
    """Table per adapter, plot and traces of the first seed, as far as they are asked for."""
    options = command.options
    if not (options.adapters_csv or options.plot or options.chrome_trace):
        return []
    from twin.engine.play import play

    seed = options.all_seeds()[0]
    requests, horizon_s = (None, options.horizon_s) if load is None else load.sent(column, command, seed)
    if not options.plot:
        from twin.figures.warmup import steps_to_trace

        until = min(horizon_s, options.trace_from_s + options.trace_for_s) if options.chrome_trace else 0.0
        trace_steps = min(trace_steps, steps_to_trace(until, command.calibration.step.base))
    detail = play(
        column, command.calibration, horizon_s=horizon_s, seed=seed, requests=requests, trace_steps=trace_steps
    )
    files: list[Path] = []
    if options.adapters_csv:
        from twin.figures.adapter_table import adapter_table

        table = adapter_table(
            column.adapters, detail.requests, detail.out, horizon_s=horizon_s, slo=command.judge.slo,
        )  # fmt: skip
        files.append(directory / "adapters.csv")
        write_text(files[-1], csv_text(row.as_dict() for row in table))
    if options.plot:
        from twin.command.plot import time_series_png
        from twin.figures.series import time_series

        series = time_series(
            detail.out.trace, horizon_s=horizon_s, total_blocks=detail.total_blocks, busy_s=detail.out.busy_s,
            first_token_s=detail.out.first_token_s, bins=PLOTTED_PARTS,
        )  # fmt: skip
        title = f"{column.adapters_in_slots} adapters, max_loras {command.setting.max_loras}, max_lora_rank " \
            f"{command.setting.max_lora_rank}, {column.setting.gpu_type}, seed {seed}"  # fmt: skip
        image = time_series_png(series, horizon_s=horizon_s, max_loras=command.setting.max_loras, title=title)
        files += [directory / "timeseries.png", directory / "timeseries.csv"]
        write_bytes(files[-2], image)
        write_text(files[-1], csv_text(series.rows()))
    if options.chrome_trace:
        from twin.command.chrome_trace import chrome_trace

        data = chrome_trace(
            detail.requests, detail.out, column.adapters, from_s=options.trace_from_s,
            for_s=min(options.trace_for_s, horizon_s - options.trace_from_s),
            title=f"engine ({command.setting.gpu_type}, {command.setting.label})",
        )  # fmt: skip
        files.append(directory / "trace.json")
        write_text(files[-1], json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n")
    return files


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows with the same keys as CSV; numbers in full, NaN as an empty cell."""
    text = io.StringIO()
    writer: Any = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({k: "" if isinstance(v, float) and v != v else v for k, v in row.items()})
    return text.getvalue()


def shown(path: Path) -> str:
    """Relative to the working directory where possible."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
