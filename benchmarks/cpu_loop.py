"""The whole loop with real vLLM servers on a CPU: record, fit, validate, place, serve, check the promise.

`scripts/cpu-loop` runs it in an environment that has vLLM's CPU build. A small model with random weights is served
with 16 adapters; `form=quick` records two kinds of servers and 14 runs that the fit does not see, `form=full` six and
42. The placement on two servers is exported, started as exported, and loaded with the plan's own traffic.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.tiny_model import write_tiny_model
from profiling.derive.architecture import read_config
from profiling.measured.command import beside, fit_recording, print_runs, print_table
from profiling.measured.validate import by_regime, noise, replayed, scores
from profiling.record.adapters import make_adapter
from profiling.record.command import RecordOptions, record
from profiling.record.files import read_records
from profiling.record.plan import SKEW, adapter_name
from profiling.record.server import STOP_S, answers, check_port, stop
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError
from twin.files import write_text
from twin.server.calibration import Calibration, load_calibration
from twin.server.laws import STEP_TERMS, step_terms

#: One thread a server; the frontend and the client need the rest of a small machine.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
}  # fmt: skip
#: Tokens are streamed four at a time: otherwise the frontend takes more time than the model. The first is sent at once.
FLAGS = "--enforce-eager --stream-interval 4"
MAX_NUM_SEQS, TOKEN_BUDGET, BLOCK, MODEL_LEN = 16, 512, 32, 1024
PROMPT, OUTPUT = 32, 32
ADAPTERS = 16
RANKS = (8, 16)
SLO_S = 1.0
#: Planned load of each of the two servers, which share the processors that one had while it was recorded.
LOAD = 0.3
PROMISE_S = 90.0


@dataclass(frozen=True, slots=True)
class Form:
    """Size of the loop: servers' slots, runs for the fit and kept from it on each server, their seconds, minutes."""

    slots: tuple[int, ...]
    workloads: int
    held_out: int
    horizon_s: float
    minutes: float


FORMS = {"quick": Form((4,), 4, 7, 14.0, 12.0), "full": Form((2, 4, 8), 3, 7, 13.0, 40.0)}


@dataclass(frozen=True, slots=True)
class Options:
    """Of the benchmark.

    Args:
        out: folder of everything; a recording in it goes on.
        vllm: the program; empty = the one beside this Python.
        port: of the recorded server; the two placed ones have the next two.
    """

    out: str
    form: str = "quick"
    vllm: str = ""
    port: Annotated[int, Range(1, 65_000)] = 8310
    seed: Annotated[int, Range(0)] = 0


def run(options: Options) -> int:
    """Runs the loop; the last line is JSON. Returns 1 where the promise is broken."""
    if options.form not in FORMS:
        raise InputError(f"form = {options.form!r} is not known", where="form", remedy=f"one of {', '.join(FORMS)}")
    out, form = Path(options.out).resolve(), FORMS[options.form]
    vllm = options.vllm or shutil.which("vllm", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "vllm"
    os.environ.update(ENVIRONMENT)
    began = time.monotonic()
    model = write_tiny_model(out / "tiny")
    _say("record", began)
    record(
        RecordOptions(
            model=str(model), out=str(out / "recording"), gpu="cpu", vllm=vllm, minutes=form.minutes, slots=form.slots,
            ranks=RANKS, adapters=ADAPTERS, batches=(1, 4, 16), prompts=(16, 64, 128), workloads=form.workloads,
            held_out=form.held_out, horizon_s=form.horizon_s, prompt=PROMPT, output=OUTPUT, max_num_seqs=MAX_NUM_SEQS,
            max_num_batched_tokens=TOKEN_BUDGET, max_model_len=MODEL_LEN, port=options.port, seed=options.seed,
            flags=f"{FLAGS} --block-size {BLOCK}",
        )
    )  # fmt: skip
    _say("fit", began)
    conf = out / "conf"
    path = fit_recording(str(out / "recording"), out=str(conf / "calibration" / "tiny-cpu.yaml"), name="tiny-cpu")
    _say("validate", began)
    row, label = _validated(out / "recording", path)
    _say("place", began)
    plan = _placed(out, conf, load_calibration(path), options.port + 1)
    _say("serve and check the promise", began)
    kept = _promise(out, plan, vllm, options.port + 1)
    print(
        json.dumps(
            {
                "runs": int(row["runs"]), "throughput_smape": row["throughput"], "tpot_smape": row["tpot"],
                "ttft_smape": row["ttft"], "label_accuracy": label, "promise_kept": kept,
            }
        )
    )  # fmt: skip
    return 0 if kept else 1


def _say(text: str, began: float) -> None:
    print(f"== {text}  [{time.monotonic() - began:.0f} s]", flush=True)


def _validated(recording: Path, calibration: Path) -> tuple[Mapping[str, float], float]:
    """Scores of the runs that the fit has not seen, and their share of right labels."""
    delay_s = json.loads(beside(calibration).read_text())["client_ttft_s"]
    records = read_records(recording)
    made = load_calibration(calibration)
    pairs = [replayed(r, made, delay_s) for r in records if r.held_out]
    print_runs(pairs)
    print_table(by_regime(pairs) | {"repeated runs": noise(records)})
    row = scores(pairs)
    return row, row["label"]


def rate_of(calibration: Calibration) -> float:
    """Requests per second that load two servers to `LOAD`, by the law of a half full batch with two adapters."""
    step = step_terms(decodes=MAX_NUM_SEQS / 2, prompt=MAX_NUM_SEQS / 2 * PROMPT / OUTPUT, kv_tokens=400, adapters=2,
                      slots=4, rank=max(RANKS))  # fmt: skip
    ms = sum(float(getattr(calibration.step, name)) * step[name] for name in STEP_TERMS)
    return 2 * LOAD * 1000 * MAX_NUM_SEQS / 2 / ms / OUTPUT


def _placed(out: Path, conf: Path, calibration: Calibration, port: int) -> Path:
    """Places 16 adapters of skewed rates on two servers; returns the run's folder."""
    weights = [(n + 1) ** -SKEW for n in range(ADAPTERS)]
    rate = rate_of(calibration) / sum(weights)
    rows = ["adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens,prompt_cv,output_cv"]
    model = read_config(out / "tiny")
    for n, weight in enumerate(weights):
        rank = RANKS[n % len(RANKS)]
        make_adapter(out / "adapters" / adapter_name(n), model, rank, n)
        rows.append(f"{adapter_name(n)},{rank},{rate * weight:.4f},{PROMPT},{OUTPUT},0.6,0.6")
    write_text(out / "adapters.csv", "\n".join(rows) + "\n")
    write_text(conf / "model" / "tiny.yaml", f"name: tiny\nweights: {json.dumps(str(out / 'tiny'))}\n")
    write_text(conf / "hardware" / "cpu.yaml", "name: cpu\ncount: 2\n")
    slots = [m for m in (2, 4, 8) if calibration.valid["max_loras"][0] <= m <= calibration.valid["max_loras"][1]]
    words = [
        "--config-dir", str(conf), "+objective=latency", "model=tiny", "hardware=cpu", "workload=file",
        f"workload.path={out / 'adapters.csv'}", f"engine.max_loras={slots}", f"engine.max_lora_rank={list(RANKS)}",
        f"engine.max_num_seqs={MAX_NUM_SEQS}", f"engine.max_num_batched_tokens={TOKEN_BUDGET}",
        f"engine.block_size={BLOCK}", f"engine.max_model_len={MODEL_LEN}", f"constraint.slo.ttft_p99_s={SLO_S}",
        "export=vllm", f"export.adapter_dir={out / 'adapters'}", f"export.port={port}", "export.servers_per_host=64",
        "export.url='http://127.0.0.1:{port}'",
        f"export.flags='{FLAGS} --load-format dummy --no-enable-prefix-caching'", f"hydra.run.dir={out / 'plan'}",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "placement", *words], check=False)
    if done.returncode:
        raise InputError(
            f"placing ended with code {done.returncode}", where="placement", remedy="see its message above"
        )
    return out / "plan"


def _promise(out: Path, plan: Path, vllm: str, port: int) -> bool:
    """Starts both servers as exported and loads them with the plan's traffic."""
    with ExitStack() as stack:
        scripts = sorted((plan / "deploy").glob("*.sh"))
        for k, script in enumerate(scripts):
            stack.enter_context(_serving(script, vllm, port + k, out / f"{script.stem}.log"))
        words = [f"placement={plan / 'placement.json'}", "workload=file", f"workload.path={out / 'adapters.csv'}",
                 f"horizon_s={PROMISE_S}", "seed=1", f"hydra.run.dir={out / 'promise'}"]  # fmt: skip
        done = subprocess.run([sys.executable, "-m", "placement.promise", *words], check=False)
    if done.returncode not in (0, 1):
        raise InputError(f"the promise check ended with code {done.returncode}", where="promise", remedy="see above")
    return done.returncode == 0


@contextmanager
def _serving(script: Path, vllm: str, port: int, log: Path) -> Iterator[None]:
    """A server started by its exported script."""
    check_port(port)
    environment: dict[str, Any] = {**os.environ, "PATH": f"{Path(vllm).parent}:{os.environ['PATH']}"}
    with log.open("w") as file:
        process = subprocess.Popen(["sh", str(script)], stdout=file, stderr=subprocess.STDOUT, env=environment,
                                   process_group=0)  # fmt: skip
        try:
            deadline = time.monotonic() + 10 * STOP_S
            while not answers(f"http://127.0.0.1:{port}"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise InputError(
                        f"the server of {script.name} does not answer", where=str(log), remedy="read its log"
                    )
                time.sleep(0.5)
            yield
        finally:
            stop(process)


APP = command("benchmarks.cpu_loop", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
