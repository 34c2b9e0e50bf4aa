"""`python -m profiling record`: starts vLLM servers (or takes one that runs) and records them within a budget."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from profiling.derive.architecture import Architecture, read_config
from profiling.record.adapters import make_adapter
from profiling.record.files import recorded
from profiling.record.plan import Design, RunPlan, ServerPlan, adapter_name, runs_of, servers_of
from profiling.record.recorder import record_server
from profiling.record.server import attached, served_models, started
from profiling.record.session import open_session
from twin.config.ranges import Range
from twin.errors import InputError

#: Loads of workloads, as shares of the grid's pace: most below saturation, two far beyond.
LOADS = (0.15, 0.3, 0.45, 1.8, 0.25, 0.55, 0.35, 2.2)


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Of `record`.

    Args:
        model: folder of the base model (its `config.json` is read; `dummy` weights need no more).
        out: folder of the recording; an unfinished one goes on.
        gpu: what the measured hardware is called.
        vllm: program that serves.
        url: a server that runs already, started with the probe; then slots and ranks are its own.
        minutes: budget; runs that do not fit into it are left out.
        slots, ranks: `max_loras` and `max_lora_rank`; every slot count with every rank.
        adapters: how many a server has; they are made at random in `out/adapters` unless `adapter_dir` has them.
        batches, prompts: sizes and prompt tokens of the grid.
        workloads, held_out: open-loop runs of each server, for the fit and kept from it.
        horizon_s: of each of them. prompt, output: their mean tokens.
        flags: further flags of `vllm serve`, as one text.
        dummy: random base weights.
    """

    model: str
    out: str
    gpu: str = "gpu"
    vllm: str = "vllm"
    url: str = ""
    minutes: Annotated[float, Range(above=0, unit="minutes")] = 10.0
    slots: tuple[int, ...] = (4, 16, 64)
    ranks: tuple[int, ...] = (8, 32)
    adapters: Annotated[int, Range(1, 4096)] = 64
    adapter_dir: str = ""
    batches: tuple[int, ...] = (1, 8, 64, 256)
    prompts: tuple[int, ...] = (32, 256, 1024)
    workloads: Annotated[int, Range(0, 100)] = 3
    held_out: Annotated[int, Range(0, 100)] = 1
    horizon_s: Annotated[float, Range(1, unit="seconds")] = 30.0
    prompt: Annotated[int, Range(1, unit="tokens")] = 220
    output: Annotated[int, Range(1, unit="tokens")] = 200
    max_num_seqs: Annotated[int, Range(1)] = 256
    max_num_batched_tokens: Annotated[int, Range(1)] = 2048
    max_model_len: Annotated[int, Range(2)] = 4096
    port: Annotated[int, Range(1, 65_535)] = 8000
    start_timeout_s: Annotated[float, Range(1)] = 900.0
    flags: str = ""
    dummy: bool = True
    seed: Annotated[int, Range(0)] = 0


def record(options: RecordOptions) -> None:
    """Records; what is there already is kept.

    Raises:
        InputError: model, program, port or server cannot be used, or nothing fits into the budget.
    """
    out = Path(options.out)
    model = read_config(options.model)
    open_session(out, options.model, options.gpu)
    deadline = time.monotonic() + 60 * options.minutes
    if options.url:
        _on_running_server(options, out, deadline)
        return
    design = design_of(options, servers_of(options.slots, options.ranks, options.adapters))
    total, done = sum(len(runs_of(design, i)) for i in range(len(design.servers))), 0
    for index, plan in enumerate(design.servers):
        runs = runs_of(design, index)
        there = set(recorded(out))
        if all(run.name in there for run in runs):
            continue
        if time.monotonic() > deadline:
            break
        left_min = (deadline - time.monotonic()) / 60
        _say(
            f"server {index + 1} of {len(design.servers)}: max_loras {plan.max_loras}, max_lora_rank "
            f"{plan.max_lora_rank}; {len(there)} of {total} runs, {left_min:.1f} minutes left"
        )
        done += _on_server(options, model, plan, out, runs, deadline)
    _end(options, out, total, done)


def _on_running_server(options: RecordOptions, out: Path, deadline: float) -> None:
    """Records the one server that runs already, with its own flags and adapters."""
    server = attached(options.url, out / "server")
    base_model, adapters = served_models(server.url)
    plan = ServerPlan(
        int(server.engine["max_loras"]), int(server.engine["max_lora_rank"]), tuple(adapters.values()), tuple(adapters)
    )
    runs = runs_of(design_of(options, (plan,)), 0)
    done = record_server(server, runs, base_model, out, left_s=lambda: deadline - time.monotonic(), say=_say)
    _end(options, out, len(runs), done)


def _end(options: RecordOptions, out: Path, total: int, done: int) -> None:
    left = total - len(recorded(out))
    _say(f"{done} runs recorded in {out}" + (f"; {left} are left: the same command goes on" if left > 0 else ""))
    if not recorded(out):
        raise InputError(f"minutes = {options.minutes:g} was not enough for one run", remedy="give more minutes")


def design_of(options: RecordOptions, servers: tuple[ServerPlan, ...]) -> Design:
    """The plan; large batches that the server would not run at once are left out."""
    return Design(
        servers=servers,
        batches=tuple(sorted(b for b in options.batches if b <= options.max_num_seqs)),
        prompts=tuple(p for p in options.prompts if p + 64 < options.max_model_len),
        workloads=options.workloads,
        held_out=options.held_out,
        horizon_s=options.horizon_s,
        prompt=options.prompt,
        output=options.output,
        loads=LOADS,
        seed=options.seed,
    )


def _on_server(
    options: RecordOptions,
    model: Architecture,
    plan: ServerPlan,
    out: Path,
    runs: Sequence[RunPlan],
    deadline: float,
) -> int:
    command = serve_command(options, model, plan, out)
    with started(
        command, port=options.port, folder=out / "servers" / plan.name, timeout_s=options.start_timeout_s
    ) as s:
        return record_server(s, runs, "base", out, left_s=lambda: deadline - time.monotonic(), say=_say)


def serve_command(options: RecordOptions, model: Architecture, plan: ServerPlan, out: Path) -> list[str]:
    """The server's command line; makes the adapters that it names."""
    folder = Path(options.adapter_dir) if options.adapter_dir else out / "adapters"
    modules = []
    for i, rank in enumerate(plan.ranks):
        path = folder / f"{adapter_name(i)}-r{rank}"
        if not options.adapter_dir:
            make_adapter(path, model, rank, i)
        elif not (path / "adapter_config.json").is_file():
            raise InputError(
                f"adapter {path.name} is not there",
                where=f"adapter_dir = {folder}",
                remedy="name folders a000-r<rank>, a001-r<rank>, ..., or leave adapter_dir out",
            )
        modules.append(f"{adapter_name(i)}={path.resolve()}")
    command = [
        options.vllm, "serve", options.model, "--served-model-name", "base", "--enable-lora",
        "--max-loras", str(plan.max_loras), "--max-lora-rank", str(plan.max_lora_rank),
        "--max-cpu-loras", str(max(len(plan.ranks), plan.max_loras)), "--max-num-seqs", str(options.max_num_seqs),
        "--max-num-batched-tokens", str(options.max_num_batched_tokens), "--max-model-len", str(options.max_model_len),
        "--no-enable-prefix-caching",
    ]  # fmt: skip
    if options.dummy:
        command += ["--load-format", "dummy"]
    return [*command, *shlex.split(options.flags), "--lora-modules", *modules]


def _say(text: str) -> None:
    print(text, flush=True)
