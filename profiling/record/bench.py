"""Results of `vllm bench serve --save-result --save-detailed` as a run of a recording.

The file has start, lengths, first token and gaps of every request, but neither the server's flags nor which adapter a
request went to: flags are given, and adapters are dealt at random with equal shares, as the benchmark deals them. It
has no steps, so the run is one equation of the fit: its mean batch and its mean time between tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from profiling.record.files import LOAD_COLUMNS, STEP_COLUMNS, write_run
from profiling.record.plan import adapter_name
from profiling.record.session import open_session
from twin.config.ranges import Range
from twin.errors import InputError

KEYS = ("start_times", "ttfts", "itls", "input_lens", "output_lens")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Of `import`.

    Args:
        bench: result of `vllm bench serve --save-result --save-detailed`.
        out: folder of the recording that the run is added to.
        model, gpu: as of `record`.
        adapters: LoRA modules of the benchmark, 0 = the base model; rank: of all of them.
        kv_cache_tokens, memory_gib: as the server's log and the data sheet say.
        held_out: not for the fit.
    """

    bench: str
    out: str
    model: str
    gpu: str
    version: str
    kv_cache_tokens: Annotated[int, Range(1, unit="tokens")]
    memory_gib: Annotated[float, Range(above=0, unit="GiB")]
    adapters: Annotated[int, Range(0, 4096)] = 0
    rank: Annotated[int, Range(1, 512)] = 8
    max_loras: Annotated[int, Range(1, 4096)] = 1
    max_lora_rank: Annotated[int, Range(1, 512)] = 16
    max_num_seqs: Annotated[int, Range(1)] = 256
    max_num_batched_tokens: Annotated[int, Range(1)] = 2048
    max_model_len: Annotated[int, Range(2)] = 4096
    block_size: Annotated[int, Range(1)] = 16
    async_scheduling: bool = True
    tensor_parallel_size: Annotated[int, Range(1, 64)] = 1
    held_out: bool = False
    seed: Annotated[int, Range(0)] = 0


def import_bench(options: ImportOptions) -> None:
    """Adds the run to the recording; its name is that of the file.

    Raises:
        InputError: the file is no such result or lacks the details.
    """
    path, out = Path(options.bench), Path(options.out)
    result = read_bench(path)
    open_session(out, options.model, options.gpu)
    about, requests = run_of(result, options)
    empty = {
        "steps": pd.DataFrame(columns=list(STEP_COLUMNS), dtype=np.float64),
        "loads": pd.DataFrame(columns=list(LOAD_COLUMNS), dtype=np.float64),
    }
    name = f"bench-{path.stem}"
    write_run(out, name, {**about, "name": name}, {"requests": requests, **empty})
    print(f"{name}: {len(requests)} requests in {about['horizon_s']:.1f} s, added to {out}")


def read_bench(path: Path) -> Mapping[str, Any]:
    """The JSON of a result.

    Raises:
        InputError: it cannot be read, or lacks the details of the requests.
    """
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"the benchmark's result cannot be read: {error}", where=f"bench = {path}", remedy="give its JSON file"
        ) from error
    missing = [key for key in KEYS if not isinstance(result, Mapping) or not result.get(key)]
    if missing:
        raise InputError(
            f"the benchmark's result lacks {', '.join(missing)}",
            where=str(path),
            remedy="run vllm bench serve with --save-result --save-detailed",
        )
    sizes = {key: len(result[key]) for key in KEYS}
    if len(set(sizes.values())) != 1:
        raise InputError(f"the lists of the result differ in length: {sizes}", where=str(path), remedy="run it again")
    return dict(result)


def run_of(result: Mapping[str, Any], options: ImportOptions) -> tuple[dict[str, Any], pd.DataFrame]:
    """`run.json` and the requests; those that failed (no first token) count as never answered."""
    start = np.array(result["start_times"], np.float64)
    order = np.argsort(start, kind="stable")
    start = start[order] - start.min()
    ttft = np.array(result["ttfts"], np.float64)[order]
    decode = np.array([float(np.sum(gaps)) for gaps in result["itls"]])[order]
    prompt, output = (np.maximum(1, np.array(result[k], np.int64)[order]) for k in ("input_lens", "output_lens"))
    answered = ttft > 0
    first = np.where(answered, start + ttft, np.inf)
    finish = np.where(answered, start + ttft + decode, np.inf)
    horizon_s = float(finish[answered].max()) if answered.any() else float(start.max())
    n = max(1, options.adapters)
    adapter = np.random.default_rng(options.seed).integers(0, n, len(start)).astype(np.int32)
    requests = pd.DataFrame(
        {
            "arrival_s": start, "planned_s": start, "adapter": adapter, "prompt": prompt, "output": output,
            "first_token_s": first, "finish_s": finish,
        }
    )  # fmt: skip
    rate = len(start) / horizon_s
    named = [
        {
            "adapter_id": adapter_name(a) if options.adapters else "base",
            "rank": options.rank if options.adapters else 0,
            "rate_req_per_s": rate / n,
            "prompt": float(prompt.mean()),
            "output": float(output.mean()),
        }
        for a in range(n)
    ]
    flags = (
        "kv_cache_tokens", "max_loras", "max_lora_rank", "max_num_seqs", "max_num_batched_tokens", "max_model_len",
        "block_size", "async_scheduling", "tensor_parallel_size", "version",
    )  # fmt: skip
    engine = {key: getattr(options, key) for key in flags}
    engine |= {"memory_bytes": int(options.memory_gib * 1024**3), "device": options.gpu}
    engine["max_cpu_loras"] = max(options.adapters, options.max_loras)
    about = {
        "kind": "workload", "held_out": options.held_out, "horizon_s": horizon_s, "rate_req_per_s": rate,
        "adapters": named, "engine": engine, "repeats": "", "failed": int((~answered).sum()),
    }  # fmt: skip
    return about, requests
