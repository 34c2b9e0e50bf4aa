"""`export=blis`: inputs of BLIS, an independent simulator of vLLM, so that it can check a GPU of the plan.

Formats: BLIS's `--lora-config` (strictly parsed) and its trace, version 3, a YAML header and a CSV of requests.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import yaml

from placement.export.servers import Plan, Server, served_rank
from twin.config.ranges import Range, check_fields
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.memory import kv_cache_tokens, max_model_len
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter

#: Columns of a trace, in the order in which BLIS reads them.
COLUMNS = (
    "request_id", "client_id", "tenant_id", "slo_class", "session_id", "round_index", "prefix_group", "prefix_length",
    "streaming", "input_tokens", "output_tokens", "text_tokens", "image_tokens", "audio_tokens", "video_tokens",
    "reason_ratio", "model", "deadline_us", "server_input_tokens", "arrival_time_us", "send_time_us",
    "first_chunk_time_us", "last_chunk_time_us", "num_chunks", "status", "error_message", "finish_reason", "adapter",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Blis:
    """`blis/<server>/`: `lora.yaml`, `trace.yaml`, `trace.csv` and the command `replay.sh`.

    The requests are those that the twin draws for the seed: BLIS sees what the twin saw.

    Args:
        horizon_s: length of the trace.
        seed: of the requests.
        hardware: GPU as BLIS calls it (its `hardware_config.json`).
    """

    horizon_s: Annotated[float, Range(above=0, high=86_400, unit="seconds")] = 600.0
    seed: Annotated[int, Range(0)] = 0
    hardware: str = "H100"

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"export.formats.blis.{name}")

    def files(self, plan: Plan) -> Iterator[tuple[str, str]]:
        if plan.workload is None or not plan.calibrations:
            raise InputError(
                "export=blis needs the workload that the plan was made for", remedy="export while placing it"
            )
        adapters = {a.adapter_id: a for a in plan.workload.adapters}
        for server in plan.servers:
            own = [adapters[h.adapter_id].scaled(h.share) for h in server.adapters]
            setting = EngineSetting(gpu_type=server.gpu_type, **server.setting)
            folder, calibration = f"blis/{server.name}", plan.calibrations[server.gpu_type]
            yield f"{folder}/lora.yaml", _dump(_lora(server, own, calibration, plan.model.weights))
            yield f"{folder}/trace.yaml", _dump(_header(self.seed, setting, plan.model.weights))
            yield f"{folder}/trace.csv", self._trace(own, setting, calibration, plan.model.weights)
            yield f"{folder}/replay.sh", self._replay(setting, calibration, plan.model.weights)

    def _trace(self, own: list[Adapter], setting: EngineSetting, calibration: Calibration, model: str) -> str:
        # Compiled, and only for this.
        from twin.traffic.arrivals import draw_requests

        longest = max_model_len(setting, calibration)
        drawn = draw_requests(own, horizon_s=self.horizon_s, seed=self.seed, max_model_len=longest)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        us = (drawn.arrival_s * 1e6).astype("int64").tolist()
        columns = (us, drawn.adapter.tolist(), drawn.prompt.tolist(), drawn.output.tolist())
        for number, (at, who, prompt, output) in enumerate(zip(*columns, strict=True)):
            adapter = own[who]
            row = dict.fromkeys(COLUMNS, "0") | {
                "request_id": number, "client_id": adapter.adapter_id, "tenant_id": adapter.adapter_id,
                "slo_class": "standard", "session_id": "", "prefix_group": "", "streaming": "true",
                "input_tokens": prompt, "output_tokens": output, "text_tokens": prompt, "model": model,
                "arrival_time_us": at, "send_time_us": at, "status": "ok", "error_message": "", "finish_reason": "",
                "adapter": adapter.adapter_id if adapter.rank else "",
            }  # fmt: skip
            table.writerow(row.values())
        return text.getvalue()

    def _replay(self, setting: EngineSetting, calibration: Calibration, model: str) -> str:
        words = {
            "model": model,
            "hardware": self.hardware,
            "tp": setting.tensor_parallel_size,
            "trace-header": "trace.yaml",
            "trace-data": "trace.csv",
            "lora-config": "lora.yaml",
            "max-num-seqs": setting.max_num_seqs,
            "max-num-batched-tokens": setting.max_num_batched_tokens,
            "block-size-in-tokens": setting.block_size,
            "total-kv-blocks": kv_cache_tokens(setting, calibration) // setting.block_size,
            "max-model-len": max_model_len(setting, calibration),
            "metrics-path": "metrics.json",
        }
        lines = " \\\n  ".join(f"--{name} {shlex.quote(str(value))}" for name, value in words.items())
        return '#!/bin/sh\n# Plays this GPU in BLIS; blis must be on the PATH.\ncd "$(dirname "$0")" || exit\n' + (
            f"exec blis replay \\\n  {lines}\n"
        )


def _lora(server: Server, own: list[Adapter], calibration: Calibration, model: str) -> dict[str, Any]:
    """Slots, adapters and load times; the bytes of an adapter over a bandwidth are the measured time."""
    loras = [a for a in own if a.rank]
    per_rank = float(calibration.model.lora_bytes_per_rank)
    load_us = 1000.0 * calibration.load.equal_rank_ms
    rank = served_rank(int(server.setting["max_lora_rank"]))
    lora: dict[str, Any] = {
        "adapter_capacity": int(server.setting["max_loras"]),
        "load_base_latency_us": 0.0,
        "footprint_bytes_per_rank": per_rank,
        # Slots are padded: an adapter takes as long as one of the largest rank.
        "load_bandwidth_bytes_us": per_rank * rank / load_us if load_us > 0 else per_rank * rank,
        "adapters": [{"id": a.adapter_id, "rank": a.rank, "base_model": model} for a in loras],
    }
    return {"lora": lora if loras else {}}


def _header(seed: int, setting: EngineSetting, model: str) -> dict[str, Any]:
    return {
        "trace_version": 3,
        "time_unit": "microseconds",
        "mode": "generated",
        "warm_up_requests": 0,
        "workload_seed": seed,
        "server": {
            "type": "vllm",
            "model": model,
            "tensor_parallel": setting.tensor_parallel_size,
            "max_num_seqs": setting.max_num_seqs,
            "block_size": setting.block_size,
            "gpu_memory_utilization": setting.gpu_memory_utilization,
        },
    }


def _dump(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
