"""The configuration of the advisor as checked objects; Hydra's containers end here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from placement.batching.curves import Server
from placement.batching.lengths import LengthConfig, request_lengths
from placement.batching.rules import EPSILON
from twin.config.ranges import Range, range_of
from twin.config.schema import parse, top_level
from twin.errors import InfeasibleError, InputError
from twin.server.groups import HardwareConfig, matching_calibration, read_model
from twin.server.memory import max_model_len, memory_error
from twin.server.settings import EngineSetting

log = logging.getLogger(__name__)

GROUPS = ("model", "hardware", "calibration")


@dataclass(frozen=True, slots=True)
class Options:
    """Keys of `conf/batching.yaml` outside the groups; their meaning is said there."""

    slo: str | float
    epsilon: Annotated[float, EPSILON]
    batches: Annotated[tuple[int, ...], range_of(EngineSetting, "max_num_seqs")]
    max_num_batched_tokens: Annotated[int, range_of(EngineSetting, "max_num_batched_tokens")]
    max_model_len: Annotated[int | None, range_of(EngineSetting, "max_model_len")]
    gpu_memory_utilization: Annotated[float, range_of(EngineSetting, "gpu_memory_utilization")]
    rule: Literal["efficiency", "latency"]
    curve: Literal["law", "twin", "measured"]
    lengths: Any = None
    data: str | None = None
    max_servers: Annotated[int, Range(1, 16, unit="servers")] = 4
    servers: Annotated[int | None, Range(1, 16, unit="servers")] = None
    sharing: Literal["mps", "time_sharing"] = "mps"
    objective: Literal["throughput", "latency"] = "throughput"
    prefill: Literal["auto", "chunked", "separate"] = "auto"
    requests: Annotated[int, Range(16, 100_000, unit="requests")] = 2000
    headroom: Annotated[float, Range(0, 1)] = 0.05
    seed: Annotated[int, Range(0, 99_999)] = 0
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Advice:
    """A checked configuration: what is asked of which server."""

    options: Options
    server: Server
    lengths: LengthConfig
    config: dict[str, Any]


def load_advice(config: dict[str, Any]) -> Advice:
    """Checks a configuration and builds the server.

    Raises:
        InputError: anything that does not exist, does not fit together, or is out of range.
        InfeasibleError: the model does not fit into the GPU's memory at the smallest batch.
    """
    options = top_level(Options, config, GROUPS)
    if not options.batches:
        raise InputError("batches is empty", where="batches", remedy="give at least one batch limit")
    if (options.curve == "measured") != (options.data is not None):
        raise InputError(
            f"curve={options.curve} with data={options.data}", where="data",
            remedy="give data=<folder> with curve=measured, and with no other",
        )  # fmt: skip
    lengths = parse(LengthConfig, options.lengths, "lengths")
    model = read_model(config["model"])
    hardware = parse(HardwareConfig, config["hardware"], "hardware")
    if hardware.tensor_parallel_size not in (None, 1):
        raise InputError(
            f"hardware.tensor_parallel_size {hardware.tensor_parallel_size}: advice is for servers on one GPU",
            where="hardware.tensor_parallel_size",
            remedy="leave it out",
        )
    calibration = matching_calibration(config["calibration"], model, hardware, {})
    longest = options.max_model_len or calibration.model.max_model_len
    prefill = options.prefill
    if prefill == "auto":
        prefill = "chunked" if calibration.batching is None or options.curve == "twin" else "separate"
    if options.curve == "twin" and prefill == "separate":
        raise InputError(
            "the twin's engine prefills in chunks", where="prefill", remedy="use prefill=chunked, or curve=law"
        )
    if options.curve == "twin" and options.sharing == "time_sharing":
        raise InputError(
            "the twin's servers share a GPU under MPS", where="sharing", remedy="use sharing=mps, or curve=law"
        )
    server = Server(
        calibration=calibration,
        lengths=request_lengths(lengths, requests=options.requests, max_model_len=longest, seed=options.seed),
        prefill=prefill,
        token_budget=options.max_num_batched_tokens,
        utilization=options.gpu_memory_utilization,
        max_model_len=options.max_model_len,
        sharing=options.sharing,
        seed=options.seed,
    )
    log.info("curve %s, prefill %s, %d requests", options.curve, prefill, options.requests)
    setting = server.setting(min(options.batches))
    problem = memory_error(setting, calibration)
    if problem:
        raise InfeasibleError(
            f"{calibration.model.name} does not fit on {hardware.name} at gpu_memory_utilization "
            f"{options.gpu_memory_utilization:g}: {problem}",
            where="model, hardware, gpu_memory_utilization",
            remedy=f"raise gpu_memory_utilization, lower max_model_len (now {max_model_len(setting, calibration)}), "
            "or choose a smaller model",
        )
    return Advice(options, server, lengths, config)
