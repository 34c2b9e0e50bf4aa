"""One window of one server, request by request: what `twin.simulation` condenses to figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.engine.build import new_engine
from twin.engine.engine import advance
from twin.engine.input_check import check_lengths, check_numbers, check_requests
from twin.engine.outcome import KernelOutput, outcome
from twin.engine.replicas import refuse_records, run_replicas
from twin.engine.state import EngineState, Limits
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.memory import kv_cache_tokens, max_model_len, memory_error
from twin.server.rules import EngineRules, rules_of
from twin.server.settings import EngineSetting
from twin.traffic.arrivals import draw_requests
from twin.traffic.streams import set_order
from twin.workload.adapter import Adapter
from twin.workload.requests import Requests

#: Bins of the running and waiting series kept with every result.
SERIES_BINS = 60
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Played:
    """The requests of a window, what became of each, and the usable KV blocks of the server."""

    requests: Requests
    out: KernelOutput
    total_blocks: int


def check_column(column: Column, calibration: Calibration) -> None:
    """Raises `InputError` where vLLM would refuse the column or the calibration does not fit."""
    setting = column.setting
    if not column.adapters:
        raise InputError("a column without adapters cannot be simulated", remedy="give it at least one adapter")
    if setting.gpu_type != calibration.stamp.gpu_type:
        raise InputError(
            f"the setting is for GPU type {setting.gpu_type!r}, calibration {calibration.name!r} for "
            f"{calibration.stamp.gpu_type!r}",
            remedy="choose the calibration of that GPU",
        )
    for adapter in column.adapters:
        if adapter.rank > setting.max_lora_rank:
            raise InputError(
                f"adapter {adapter.adapter_id!r} has rank {adapter.rank}, engine.max_lora_rank is "
                f"{setting.max_lora_rank}",
                remedy="raise max_lora_rank or place the adapter elsewhere",
            )
    if column.adapters_in_slots and not calibration.has_adapter_costs:
        raise InputError(
            f"calibration {calibration.name!r} was measured without adapters; the column has "
            f"{column.adapters_in_slots} with a rank above 0",
            remedy="serve base-model requests only (rank 0), or choose a calibration with adapter costs",
        )
    problem = memory_error(setting, calibration)
    if problem:
        raise InputError(
            f"setting {setting.label}: {problem}", remedy="use fewer slots, a lower rank or a smaller max_model_len"
        )


def limits_of(
    setting: EngineSetting,
    calibration: Calibration,
    *,
    adapters: int,
    horizon_s: float,
    rules: EngineRules | None = None,
    time_scale: float = 1.0,
    client_ports: int = 0,
) -> Limits:
    """What bounds an engine under a setting; arguments as in `run_requests`."""
    rules = rules or rules_of(calibration.stamp.engine_version, setting.async_scheduling)
    return Limits(
        max_loras=setting.max_loras,
        max_lora_rank=setting.max_lora_rank,
        max_num_seqs=setting.max_num_seqs,
        max_num_batched_tokens=setting.max_num_batched_tokens,
        block_size=setting.block_size,
        # vLLM reserves one block as the null block (docs/twin.md, rule 5).
        total_blocks=kv_cache_tokens(setting, calibration) // setting.block_size - 1,
        max_cpu_loras=max(1, adapters) if setting.max_cpu_loras is None else setting.max_cpu_loras,
        client_ports=client_ports,
        horizon_s=float(horizon_s),
        time_scale=float(time_scale),
        async_scheduling=rules.async_scheduling,
        whole_sequence_must_fit=rules.whole_sequence_must_fit,
        skip_past=rules.skip_past,
        reload_cascade=rules.reload_cascade,
    )


def engine_of(
    requests: Requests,
    adapters: Sequence[Adapter],
    setting: EngineSetting,
    calibration: Calibration,
    limits: Limits,
    *,
    walk: NDArray[np.int32],
    **options: Any,
) -> EngineState:
    """An idle engine that serves these adapters and knows these requests; options as in
    `twin.engine.build.new_engine`.

    Raises:
        InputError: several servers on the GPU; only `run_requests` simulates those.
    """
    if setting.servers_per_gpu > 1:
        raise InputError(
            f"one engine cannot stand for engine.servers_per_gpu {setting.servers_per_gpu}",
            remedy="use servers_per_gpu=1 here, or simulate the GPU on its own",
        )
    load = calibration.load
    load_ms = [load.equal_rank_ms if a.rank == setting.max_lora_rank else load.lower_rank_ms for a in adapters]
    return new_engine(
        requests,
        limits,
        slotless=np.array([a.rank == 0 for a in adapters]),
        walk=walk,
        load_s=np.array(load_ms) / 1000.0,
        disk_s=np.array([load.disk_ms(a.rank) for a in adapters]) / 1000.0,
        law=calibration.step,
        bins=SERIES_BINS,
        **options,
    )


def run_requests(
    requests: Requests,
    adapters: Sequence[Adapter],
    setting: EngineSetting,
    calibration: Calibration,
    *,
    horizon_s: float,
    walk: NDArray[np.int32],
    time_scale: float = 1.0,
    client_ports: int = 0,
    rules: EngineRules | None = None,
    trace_steps: int = 0,
    events: int = 0,
) -> tuple[KernelOutput, int]:
    """Runs the engine on given requests; returns what it did and the number of usable KV blocks.

    Args:
        walk: set order of the adapters, a permutation, (A,).
        time_scale: factor on the step time (for fitting).
        client_ports: ports of the measuring client; 0 = no limit. A rig artefact, for replays only.
        rules: None = those of the calibration's engine version and the setting's `async_scheduling`.
        trace_steps, events: most steps and events to record.
    """
    limits = limits_of(
        setting, calibration, adapters=len(adapters), horizon_s=horizon_s, rules=rules, time_scale=time_scale,
        client_ports=client_ports,
    )  # fmt: skip

    def run_one(own: Requests, by: Calibration) -> tuple[KernelOutput, int]:
        engine = engine_of(
            own, adapters, replace(setting, servers_per_gpu=1), by, limits, walk=walk, trace_steps=trace_steps,
            events=events,
        )  # fmt: skip
        advance(engine, float(horizon_s))
        return outcome(engine), limits.total_blocks

    if setting.servers_per_gpu > 1:
        refuse_records(setting, trace_steps, events)
        return run_replicas(requests, setting, calibration, run_one, horizon_s=horizon_s)
    return run_one(requests, calibration)


def play(
    column: Column,
    calibration: Calibration,
    *,
    horizon_s: float = HOUR_S,
    seed: int = 0,
    requests: Requests | None = None,
    time_scale: float = 1.0,
    client_ports: int = 0,
    rules: EngineRules | None = None,
    trace_steps: int = 0,
    events: int = 0,
) -> Played:
    """Plays one server for `horizon_s` seconds; arguments as in `twin.simulation.simulate`.

    Raises:
        InputError: the column or horizon cannot be simulated.
    """
    check_numbers(
        horizon_s=horizon_s, seed=seed, time_scale=time_scale, client_ports=client_ports, trace_steps=trace_steps,
        events=events,
    )  # fmt: skip
    check_column(column, calibration)
    longest = max_model_len(column.setting, calibration)
    if requests is None:
        check_lengths(column.adapters, longest=longest, model_longest=calibration.model.max_model_len)
        requests = draw_requests(column.adapters, horizon_s=horizon_s, seed=seed, max_model_len=longest)
    else:
        check_requests(requests, column.adapters, longest=longest)
    out, blocks = run_requests(
        requests, column.adapters, column.setting, calibration, horizon_s=horizon_s,
        walk=set_order([a.adapter_id for a in column.adapters], seed), time_scale=time_scale, client_ports=client_ports,
        rules=rules, trace_steps=trace_steps, events=events,
    )  # fmt: skip
    return Played(requests, out, blocks)
