"""Every wrong value gives an `InputError` that names it and says what to do, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.twin.columns import LLAMA, column
from twin.confidence.comparison import compare
from twin.confidence.decide import decide_label, decide_limit, estimate
from twin.confidence.seeds import runner
from twin.errors import InputError
from twin.server.calibration import calibration_from_dict, load_calibration
from twin.server.column import Column
from twin.server.hardware import GpuType, ModelSpec
from twin.server.laws import KvCapacityLaw, LoadLaw
from twin.server.rules import rules_of
from twin.server.settings import EngineSetting
from twin.simulation import simulate, simulate_many
from twin.workload.adapter import Adapter, Lengths, Slo
from twin.workload.requests import Requests
from twin.workload.workload import Workload

OK = column(4, (0.05,), 4)
NAN, INF = float("nan"), float("inf")
BAD_COUNTS = (0, -1, 1.5, NAN)
Call = Callable[[], Any]


def play(**options: Any) -> Call:
    return lambda: simulate(OK, LLAMA, **{"horizon_s": 60.0, **options})


def adapter(**fields: Any) -> Adapter:
    lengths = Lengths(10, 1.0)
    whole = {"adapter_id": "x", "rank": 8, "rate_req_per_s": 1.0, "prompt_tokens": lengths, "output_tokens": lengths}
    return Adapter(**{**whole, **fields})


def long_adapter(side: str) -> Adapter:
    return adapter(**{side: Lengths(900, 1.0)})


def setting(**fields: Any) -> EngineSetting:
    return EngineSetting(**{"gpu_type": LLAMA.stamp.gpu_type, "max_loras": 4, "max_lora_rank": 16, **fields})


def replay(**fields: tuple[float, ...]) -> Call:
    """Two good requests, but for these fields."""
    values = {
        "arrival_s": (0.0, 1.0),
        "adapter": (0, 1),
        "prompt": (5, 5),
        "cached": (0, 0),
        "output": (5, 5),
        **fields,
    }
    types: dict[str, Any] = {name: np.float64 if name == "arrival_s" else np.int32 for name in values}
    arrays: dict[str, Any] = {name: np.array(v, types[name]) for name, v in values.items()}
    requests = Requests(**arrays)
    return play(requests=requests)


def serve(**fields: Any) -> Call:
    return lambda: simulate(Column(OK.adapters, setting(**fields)), LLAMA, horizon_s=60.0)


def given_calibration(**fields: Any) -> Call:
    return lambda: calibration_from_dict({**LLAMA.to_dict(), **fields})


def ask(question: Callable[..., Any], *values: Any, **options: Any) -> Call:
    return lambda: question(runner(OK, LLAMA, horizon_s=1800.0), *values, **options)


#: What is wrong, how it is asked for, and what the message must hold.
CASES: list[tuple[str, Call, str]] = [
    *((f"horizon_s {v}", play(horizon_s=v), f"horizon_s {v!r}") for v in (0, -5.0, NAN, INF)),
    *((f"seed {v}", play(seed=v), f"seed {v!r}") for v in (-1, 1.5, NAN)),
    *((f"time_scale {v}", play(time_scale=v), f"time_scale {v!r}") for v in (0, -1.0, NAN, INF)),
    *((f"slo {v}", play(default_ttft_slo_s=v), f"default_ttft_slo_s {v!r}") for v in (0, -1.0, NAN)),
    *((f"{n} -1", play(**{n: -1}), f"{n} -1") for n in ("client_ports", "trace_steps", "events")),
    ("too few events", play(events=3), "events=3"),
    ("no seeds", lambda: simulate_many([OK], LLAMA, seeds=()), "seeds ()"),
    ("no threads", lambda: simulate_many([OK], LLAMA, threads=0), "threads 0"),
    ("empty column", lambda: simulate(Column((), OK.setting), LLAMA), "without adapters"),
    # Adapters.
    *((f"rate {v}", lambda v=v: adapter(rate_req_per_s=v), f"rate {v!r}") for v in (-1.0, 0, NAN, INF)),
    *((f"rank {v}", lambda v=v: adapter(rank=v), f"rank {v!r}") for v in (-1, 1.5, NAN, INF)),
    *((f"cached {v}", lambda v=v: adapter(cached_prompt_fraction=v), f"{v!r}") for v in (-0.1, 1.0, 1.5, NAN)),
    *((f"arrival cv {v}", lambda v=v: adapter(arrival_cv=v), f"CV {v!r}") for v in (0, -1, 21, NAN)),
    *((f"correlation {v}", lambda v=v: adapter(length_correlation=v), f"{v!r}") for v in (-1.1, 2.0, NAN)),
    ("empty id", lambda: adapter(adapter_id=""), "''"),
    *((f"mean {v}", lambda v=v: Lengths(v, 1.0), f"length {v!r}") for v in (0, 0.5, -3, NAN, INF)),
    *((f"spread {v}", lambda v=v: Lengths(5, v), f"{v!r}") for v in (-1, 21, NAN, INF)),
    *((f"promise {v}", lambda v=v: Slo(v), f"{v!r}") for v in (0, -1, NAN, INF)),
    ("no adapters", lambda: Workload((), name="empty"), "'empty'"),
    ("adapter twice", lambda: Workload((adapter(), adapter())), "'x'"),
    # Settings.
    *(
        (f"{n} {v}", lambda n=n, v=v: setting(**{n: v}), f"engine.{n} {v!r}")
        for n in ("max_loras", "max_lora_rank", "max_num_seqs", "max_num_batched_tokens", "block_size")
        for v in BAD_COUNTS
    ),
    *((f"servers {v}", lambda v=v: setting(servers_per_gpu=v), f"servers_per_gpu {v!r}") for v in BAD_COUNTS),
    *((f"memory {v}", lambda v=v: setting(gpu_memory_utilization=v), f"{v!r}") for v in (0, -0.5, 1.5, NAN)),
    *((f"max_model_len {v}", lambda v=v: setting(max_model_len=v), f"max_model_len {v!r}") for v in (*BAD_COUNTS, 1)),
    *((f"max_cpu_loras {v}", lambda v=v: setting(max_cpu_loras=v), f"max_cpu_loras {v!r}") for v in (*BAD_COUNTS, 2)),
    ("budget below sequences", lambda: setting(max_num_batched_tokens=16), "16"),
    ("cache too small", serve(max_model_len=10**9), str(10**9)),
    ("no room for slots", serve(max_loras=4000, max_lora_rank=64), "4000"),
    ("GPU of another calibration", serve(gpu_type="a100"), "'a100'"),
    ("rank above the slots'", lambda: simulate(Column((adapter(rank=32),), OK.setting), LLAMA), "rank 32"),
    *(
        (
            f"mean {side} beyond max_model_len",
            lambda side=side: simulate(Column((long_adapter(side),), setting(max_model_len=512)), LLAMA),
            "512",
        )
        for side in ("prompt_tokens", "output_tokens")
    ),
    # Hardware, models, calibrations.
    *((f"GPU memory {v}", lambda v=v: GpuType("g", v), f"{v!r}") for v in (0, -1, NAN, INF)),
    *((f"GPU price {v}", lambda v=v: GpuType("g", 1, v), f"{v!r}") for v in (0, -1.0, NAN)),
    ("GPU count", lambda: GpuType("g", 1, 1.0, 0), "count 0"),
    ("host memory", lambda: GpuType("g", 1, 1.0, None, -5), "-5"),
    *((f"model {v}", lambda v=v: ModelSpec("m", v, 1, 1), f"max_model_len {v!r}") for v in (0, -1, NAN)),
    ("unknown calibration", lambda: load_calibration("nowhere"), "'nowhere'"),
    *((f"step law {v}", lambda v=v: replace(LLAMA.step, base=v), f"base = {v!r}") for v in (-1.0, NAN, INF)),
    *((f"load law {v}", lambda v=v: LoadLaw(v, 1.0), f"equal_rank_ms = {v!r}") for v in (-1.0, NAN)),
    *((f"capacity {v}", lambda v=v: KvCapacityLaw(v, 0.0), f"base_tokens = {v!r}") for v in (NAN, INF)),
    ("calibration without a law", given_calibration(step={}), "base"),
    ("calibration with a word for a number", given_calibration(valid={"max_loras": ("few", 8)}), "few"),
    ("engine version", lambda: rules_of("newest"), "'newest'"),
    # Requests that are replayed.
    *((f"request of adapter {v}", replay(adapter=(0, v)), f"adapter {v}") for v in (4, -1)),
    *((f"prompt {v}", replay(prompt=(5, v)), f"prompt {v}") for v in (0, -2)),
    *((f"output {v}", replay(output=(5, v)), f"output {v}") for v in (0, -2)),
    *((f"cached {v} of 5", replay(cached=(0, v)), f"cached {v}") for v in (5, 9, -1)),
    *((f"arrival {v}", replay(arrival_s=(0.0, v)), f"arrival {v!r}") for v in (-1.0, NAN, INF)),
    ("arrivals out of order", replay(arrival_s=(1.0, 0.5)), "arrival 0.5"),
    ("request beyond max_model_len", replay(prompt=(5, 200_000)), "200005"),
    ("arrays of different length", replay(prompt=(5,)), "1 values of prompt"),
    # Questions about confidence.
    *((f"error {v}", ask(decide_label, error=v), f"error {v!r}") for v in (0, 0.5, NAN)),
    *((f"share {v}", ask(decide_label, share=v), f"share {v!r}") for v in (0, 1, NAN)),
    ("rule", ask(decide_label, rule="kind"), "'kind'"),
    ("two seeds", ask(estimate, "throughput_tps", min_seeds=2), "min_seeds 2"),
    ("budget below the least", ask(estimate, "throughput_tps", max_seeds=2), "max_seeds 2"),
    ("negative first seed", ask(estimate, "throughput_tps", first_seed=-4), "first_seed -4"),
    ("no threads to ask with", ask(estimate, "throughput_tps", threads=0), "threads 0"),
    ("width 0", ask(estimate, "throughput_tps", relative_half_width=0), "relative_half_width 0"),
    ("unknown figure", ask(estimate, "speed"), "'speed'"),
    ("limit", ask(decide_limit, "throughput_tps", NAN), "limit nan"),
    ("tolerance", lambda: compare(*(runner(OK, LLAMA),) * 2, "throughput_tps", tolerance=-1.0), "tolerance -1.0"),
    ("short window", lambda: decide_label(runner(OK, LLAMA, horizon_s=600.0)), "600"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "value"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_wrong_value_is_named_with_a_remedy(call: Call, value: str) -> None:
    with pytest.raises(InputError) as refusal:
        call()
    # Numbers out of range are named as `name = value`, other mistakes in a sentence.
    assert value.replace(" = ", " ") in refusal.value.problem.replace(" = ", " ")
    assert len(refusal.value.remedy) > 5
    assert refusal.value.exit_code == 2


def test_good_values_pass() -> None:
    """What the cases above vary is accepted as it is; otherwise they might fail for another reason."""
    replay()()
    serve(max_model_len=4096, max_cpu_loras=4, async_scheduling=True)()
    adapter(), Lengths(1, 0), Slo(), GpuType("g", 1), ModelSpec("m", 1, 1, 1)
    assert calibration_from_dict(LLAMA.to_dict()) == LLAMA
    play(seed=np.int64(3), horizon_s=np.float64(60))()
