"""One run after the other: load the server, collect what client and probe saw, keep it."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiling.record.files import LOAD_COLUMNS, STEP_COLUMNS, lines_between, recorded, write_run
from profiling.record.plan import RunPlan, adapter_name, requests_of
from profiling.record.server import Server
from twin.client.load import Answers, Route, offer_load
from twin.errors import InputError
from twin.workload.adapter import Adapter
from twin.workload.requests import Requests

#: A batch that takes longer than this is cut.
BATCH_LIMIT_S = 120.0
#: Seconds that a server gets to become idle after a run.
IDLE_S = 60.0
#: Metrics that say whether a server is busy.
COUNTS = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
#: Requests and tokens of a warm-up, per adapter; kernels are compiled and files are read in them.
WARMUP_REQUESTS, WARMUP_TOKENS = 4, 16
#: What a workload's rate is made from before a grid was run on the server.
FALLBACK_TOKENS_PER_S = 100.0


@dataclass(slots=True)
class Pace:
    """What the grid said the server can do: output tokens per second of its largest batch with adapters."""

    tokens_per_s: float = 0.0


def record_server(
    server: Server,
    runs: Sequence[RunPlan],
    base_model: str,
    folder: Path,
    *,
    left_s: Callable[[], float],
    say: Callable[[str], None],
) -> int:
    """Does the runs that are not there yet, while time is left; returns how many were done.

    Args:
        base_model: its name on the server.
        left_s: seconds of the budget that are left.
    """
    there, done = set(recorded(folder)), 0
    pace = Pace()
    warm = False
    for run in runs:
        if run.name in there:
            if run.kind == "batch":
                _pace_of_file(pace, folder, run)
            continue
        needed_s = run.horizon_s or 2.0
        if left_s() < needed_s:
            break
        if not warm:
            _warm_up(server, run, base_model)
            warm = True
        began = time.monotonic()
        say(f"  {run.name}: {_record(server, run, base_model, folder, pace)}, {time.monotonic() - began:.1f} s")
        done += 1
    return done


def _warm_up(server: Server, run: RunPlan, base_model: str) -> None:
    """Every adapter once, so that nothing is read from a cold disk, and some steps."""
    plan = run.server
    names = [base_model, *(plan.names or map(adapter_name, range(len(plan.ranks))))]
    n = WARMUP_REQUESTS * len(names)
    ones = np.ones(n, np.int32)
    requests = Requests(np.zeros(n), 0 * ones, 8 * ones, 0 * ones, WARMUP_TOKENS * ones)
    routes = [Route(server.url, names[i % len(names)]) for i in range(n)]
    offer_load(requests, routes, horizon_s=BATCH_LIMIT_S, linger=True)
    _until_idle(server)


def _record(server: Server, run: RunPlan, base_model: str, folder: Path, pace: Pace) -> str:
    rate = rate_of(run, pace)
    adapters, requests = requests_of(run, rate, int(server.engine["max_model_len"]))
    if not len(requests):
        return "no request was drawn"
    routes = [Route(server.url, adapters[a].adapter_id if adapters[a].rank else base_model) for a in requests.adapter]
    batch = run.kind == "batch"
    limit_s = BATCH_LIMIT_S if batch else run.horizon_s
    answers = offer_load(requests, routes, horizon_s=limit_s, seed=run.seed, linger=batch)
    end = time.perf_counter()
    _until_idle(server)
    horizon_s = end - answers.start if batch else run.horizon_s
    steps = lines_between(server.folder, "steps", STEP_COLUMNS, answers.start, answers.start + horizon_s)
    loads = lines_between(server.folder, "loads", LOAD_COLUMNS, answers.start, answers.start + horizon_s)
    if not len(steps):
        raise InputError(
            "the probe recorded no step of this run",
            where=str(server.folder),
            remedy="start the server with the probe's environment, on the machine of the recorder",
        )
    about = {
        **_about(run, adapters, server.engine),
        "horizon_s": horizon_s,
        "rate_req_per_s": rate,
        "started_unix": time.time(),
        "failed": len(answers.errors),
    }
    write_run(folder, run.name, about, {"requests": _table(requests, answers), "steps": steps, "loads": loads})
    if batch:
        _pace_of(pace, run, steps)
    return f"{len(requests)} requests, {len(steps)} steps, {len(loads)} loads"


def rate_of(run: RunPlan, pace: Pace) -> float:
    """Requests per second of a workload: its load's share of the pace, prompts counted as a quarter of an output."""
    tokens_per_s = pace.tokens_per_s or FALLBACK_TOKENS_PER_S
    return run.load * tokens_per_s / (run.output + 0.25 * run.prompt) if run.load else 1.0


def _about(run: RunPlan, adapters: Sequence[Adapter], engine: Mapping[str, Any]) -> dict[str, Any]:
    plan = asdict(run)
    del plan["server"]
    told = [
        {
            "adapter_id": a.adapter_id,
            "rank": a.rank,
            "rate_req_per_s": a.rate_req_per_s,
            "prompt": a.prompt_tokens.mean,
            "output": a.output_tokens.mean,
        }
        for a in adapters
    ]
    return {**plan, "adapters": told, "engine": dict(engine)}


def _table(requests: Requests, answers: Answers) -> pd.DataFrame:
    return pd.DataFrame(
        {
            # When it left, not when it should have: a late client is not a slow server.
            "arrival_s": np.where(np.isfinite(answers.sent_s), answers.sent_s, requests.arrival_s),
            "planned_s": requests.arrival_s,
            "adapter": requests.adapter,
            "prompt": requests.prompt,
            "output": requests.output,
            "first_token_s": answers.first_token_s,
            "finish_s": answers.finish_s,
        }
    )


def _pace_of(pace: Pace, run: RunPlan, steps: pd.DataFrame) -> None:
    """Largest output of a batch with adapters; batches are done from small to large."""
    decode = steps[(steps["prompt"] == 0) & (steps["busy"] == 1)]
    if run.adapters and len(decode):
        step_s = float((decode["end_s"] - decode["start_s"]).mean())
        pace.tokens_per_s = float(decode["decodes"].mean()) / step_s


def _pace_of_file(pace: Pace, folder: Path, run: RunPlan) -> None:
    _pace_of(pace, run, pd.read_parquet(folder / "runs" / run.name / "steps.parquet"))


def _until_idle(server: Server) -> None:
    """Waits until no request runs or waits: a run must not see the rest of the one before."""
    deadline = time.monotonic() + IDLE_S
    while True:
        try:
            with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as response:
                text = response.read().decode()
        except OSError as error:
            raise InputError(
                f"the server has stopped answering: {error}",
                where=server.url,
                remedy=f"read {server.folder / 'server.log'}; the same command goes on where it stopped",
            ) from error
        counted = [line for line in text.splitlines() if line.startswith(COUNTS)]
        busy = sum(float(line.rpartition(" ")[2]) for line in counted)
        if busy == 0:
            # Lines of the last step are flushed with it.
            time.sleep(0.3)
            return
        if time.monotonic() > deadline:
            raise InputError(
                f"the server still has {busy:g} requests after {IDLE_S:g} s",
                where=server.url,
                remedy="send it nothing else while it is recorded",
            )
        time.sleep(0.1)
