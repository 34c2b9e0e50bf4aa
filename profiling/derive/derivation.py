"""A calibration from kernels, constants and arithmetic, with an interval for every coefficient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from profiling.derive.architecture import Architecture
from profiling.derive.constants import (
    LAW_TERMS,
    SCHEDULER_TERMS,
    Constants,
    activation_bytes,
    adapter_terms,
    tensors,
)
from profiling.derive.device import Device
from profiling.derive.kernels import fit_terms, grid_ms
from profiling.derive.operators import Kernels, MeasuredKernels
from profiling.derive.posterior import posterior
from profiling.derive.prior import Z90, Doubt, Prior, intervals, law_ends, law_of, prior_of, typical_features
from profiling.fit.micro import Row
from twin.config.ranges import Range
from twin.errors import InputError
from twin.server.calibration import Calibration, Stamp
from twin.server.derived import Derived
from twin.server.hardware import GIB, GpuType, ModelSpec
from twin.server.laws import STEP_TERMS, KvCapacityLaw, LoadLaw
from twin.server.rules import rules_of
from twin.server.slots import reserved_bytes, slot_bytes_per_rank

Array = NDArray[np.float64]

#: The engine whose host was measured.
MEASURED_ENGINE = "0.8.5"
SOURCE = "derived, not measured"
#: Share of the host's time that an asynchronous engine cannot hide: the hand-over of tokens.
NOT_HIDDEN = 0.1
#: Share of the scheduler's time that is taken to be seen in an asynchronous engine.
SCHEDULER_SEEN = 0.25
#: Kernel times: relative standard deviation by where they come from.
DOUBT_MEASURED, DOUBT_RESCALED, DOUBT_SHEET = 0.06, 0.08, 0.15
#: The host's time, ms: spread of what the two measured servers left over (0.5 and 1.3 ms), and of the graph cliff.
DOUBT_HOST_MS, DOUBT_CLIFF_MS = 0.6, 1.5
#: Adapter terms on the GPU they were measured on, and more by the logarithm of the bandwidth's ratio.
DOUBT_ADAPTERS, DOUBT_ADAPTERS_ELSEWHERE = 0.08, 0.25
#: Loads: one standard deviation as a factor. Memory: as a share of the GPU's.
DOUBT_LOADS, DOUBT_MEMORY = 1.6, 0.01
#: Memory that tensor parallelism takes on every GPU: buffers of NCCL and of the custom all-reduce.
EXCHANGE_BYTES = 400 * 1024**2
#: Extra vocabulary rows of adapters, which vLLM dropped in 0.12.
EXTRA_VOCAB, LAST_EXTRA_VOCAB = 256, (0, 11)
#: A batch limit that takes little memory: what a message proposes.
FEW_SEQS = 256
#: Share of PCIe's peak that copies from pinned memory reach.
PCIE_REACHED = 0.8
MEASURED_PCIE = 64.0


@dataclass(frozen=True, slots=True)
class Request:
    """What to derive.

    Args:
        model_name, model: the base model and its sizes.
        max_num_seqs, max_num_batched_tokens: flags that take memory from the KV cache.
    """

    model_name: str
    model: Architecture
    device: Device
    engine_version: str = MEASURED_ENGINE
    tensor_parallel_size: Annotated[int, Range(1, 64)] = 1
    max_num_seqs: int = 2048
    max_num_batched_tokens: int = 2048

    @property
    def name(self) -> str:
        """File name of the calibration."""
        parts = [f"{self.model_name}-{self.device.name}"]
        if self.tensor_parallel_size > 1:
            parts.append(f"tp{self.tensor_parallel_size}")
        if self.engine_version != MEASURED_ENGINE:
            parts.append(f"vllm{self.engine_version}")
        return "-".join(parts)


def derive(request: Request, kernels: Kernels, constants: Constants, *, date: str) -> Calibration:
    """The derived calibration.

    Raises:
        InputError: the model cannot be split so, or does not fit (names the smallest number of GPUs that holds it).
    """
    request.model.check_tensor_parallel(request.tensor_parallel_size)
    times = grid_ms(kernels)
    gpu, grid_error = fit_terms(times)
    terms = law_terms(request, gpu, constants)
    prior = prior_of(terms, gpu, doubt_of(request, kernels, constants))
    kv = capacity(request, constants)
    return assembled(
        request, prior, prior.mean, prior.covariance, kv, constants, kernels_text(kernels), date, grid_error
    )


def fitted(request: Request, kernels: Kernels, constants: Constants, rows: Sequence[Row], *, date: str) -> Calibration:
    """The derived calibration after measured runs: its law is the posterior, its interval has shrunk.

    Args:
        rows: of the runs, as `profiling.fit.forcing` makes them.
    """
    gpu, grid_error = fit_terms(grid_ms(kernels))
    prior = prior_of(law_terms(request, gpu, constants), gpu, doubt_of(request, kernels, constants))
    mean, covariance = posterior(prior, rows)
    kv = capacity(request, constants)
    made = assembled(request, prior, mean, covariance, kv, constants, kernels_text(kernels), date, grid_error)
    stamp = replace(made.stamp, source=f"{made.stamp.source}; {len(rows)} measured runs", points={"runs": len(rows)})
    return replace(made, stamp=stamp)


def assembled(
    request: Request,
    prior: Prior,
    mean: Array,
    covariance: Array,
    kv: KvCapacityLaw,
    constants: Constants,
    kernels: str,
    date: str,
    grid_error: float,
) -> Calibration:
    """A calibration with this law and its ends."""
    model, device = request.model, request.device
    slow, fast = law_ends(mean, covariance)
    load = loads(request, constants)
    assert kv.free_bytes is not None
    memory = Z90 * DOUBT_MEMORY * device.memory_bytes
    factor = DOUBT_LOADS**Z90
    load_terms = {f"load.{n}": getattr(load, n) for n in load.__slots__}
    bands = intervals(mean, covariance)
    bands |= {key: (round(v / factor, 4), round(v * factor, 4)) for key, v in load_terms.items()}
    bands["kv.free_bytes"] = (round(kv.free_bytes - memory), round(kv.free_bytes + memory))
    ends = []
    for law, at in ((slow, 1), (fast, 0)):
        end = {f"step.{n}": round(float(v), 6) for n, v in zip(STEP_TERMS, law, strict=True)}
        end |= {key: bands[key][at] for key in load_terms}
        ends.append(end | {"kv.free_bytes": bands["kv.free_bytes"][1 - at]})
    rules = rules_of(request.engine_version)
    spec = ModelSpec(
        request.model_name,
        model.max_model_len,
        # As one GPU holds it: the capacity law counts the memory of one.
        2 * model.dtype_bytes * model.layers * model.shape(request.tensor_parallel_size).kv_width,
        slot_bytes_per_rank(model.shape()),
    )
    return Calibration(
        name=request.name,
        stamp=Stamp(
            gpu_type=device.name,
            model=request.model_name,
            engine="vllm",
            engine_version=request.engine_version,
            date=date,
            source=f"{SOURCE}: {kernels}; host, adapters, loads and memory from {', '.join(constants.learned_from)}; "
            f"{'asynchronous' if rules.async_scheduling else 'synchronous'} engine",
            points={},
            residuals={"kernel_grid_mape_pct": round(grid_error, 3)},
            tensor_parallel_size=request.tensor_parallel_size,
        ),
        gpu=GpuType(device.name, device.memory_bytes),
        model=spec,
        step=law_of(mean),
        load=load,
        kv=kv,
        valid={
            "max_loras": (1, 384),
            "max_lora_rank": (8, 64),
            "num_adapters": (1, 384),
            "max_num_seqs": (1, request.max_num_seqs),
            "max_num_batched_tokens": (1, max(2048, request.max_num_batched_tokens)),
            "block_size": (1, 1024),
            "gpu_memory_utilization": (0.5, 0.95),
        },
        derived=Derived(
            learned_from=constants.learned_from,
            kernels=kernels,
            intervals=bands,
            careful=ends[0],
            hopeful=ends[1],
            parts=parts(prior, covariance),
            widths_ms={
                f"step.{n}": round(abs(float(w)), 4)
                for n, w in zip(STEP_TERMS, (slow - fast) * typical_features(), strict=True)
            },
        ),
    )


def law_terms(request: Request, gpu: Mapping[str, float], constants: Constants) -> dict[str, float]:
    """All coefficients of the step-time law.

    A synchronous engine adds the host's time to the kernels'. An asynchronous one prepares a step while the GPU works
    on the one before: what is left is the hand-over, or the host's whole time where the kernels are shorter than it.
    """
    terms = dict.fromkeys(LAW_TERMS, 0.0) | dict(gpu)
    terms |= adapter_terms(constants, request.model, request.device, request.tensor_parallel_size)
    host = constants.host
    terms["cliff"] += host["cliff"]
    terms["plain_large"] = host["plain_large"]
    if rules_of(request.engine_version).async_scheduling:
        terms["base"] = max(gpu["base"] + NOT_HIDDEN * host["base"], host["base"])
        return terms | {name: SCHEDULER_SEEN * host[name] for name in SCHEDULER_TERMS}
    terms["base"] = gpu["base"] + host["base"]
    return terms | {name: host[name] for name in SCHEDULER_TERMS}


def doubt_of(request: Request, kernels: Kernels, constants: Constants) -> Doubt:
    """How far the parts may be off."""
    if not isinstance(kernels, MeasuredKernels):
        spread = DOUBT_SHEET
    else:
        spread = DOUBT_MEASURED if kernels.same_memory else DOUBT_RESCALED
    away = abs(math.log(request.device.bandwidth / constants.bandwidth))
    return Doubt(spread, DOUBT_HOST_MS, DOUBT_CLIFF_MS, DOUBT_ADAPTERS + DOUBT_ADAPTERS_ELSEWHERE * away)


def kernels_text(kernels: Kernels) -> str:
    """Where kernel times come from, in words."""
    if not isinstance(kernels, MeasuredKernels):
        return "kernel times by the roofline of the data sheet"
    times = f"measured operator times of {kernels.measured.name}"
    return times if kernels.same_memory else f"{times}, the bandwidth's difference by the roofline"


def loads(request: Request, constants: Constants) -> LoadLaw:
    """Copies of an adapter's tensors; what PCIe adds to the measured server's bytes is charged on top."""
    model, device = request.model, request.device
    count = tensors(model)
    rank16 = 16 * slot_bytes_per_rank(model.shape()) / PCIE_REACHED / 1e6  # ms at 1 GB/s
    slower = max(0.0, rank16 / device.pcie - rank16 / MEASURED_PCIE)
    return LoadLaw(
        round(count * constants.copy_us / 1000 + slower, 3),
        round(count * constants.padded_us / 1000 + slower, 3),
        disk_base_ms=round(count * constants.disk_tensor_us / 1000, 3),
        disk_rank_ms=round(count * constants.disk_rank_us / 1000, 4),
    )


def capacity(request: Request, constants: Constants) -> KvCapacityLaw:
    """KV cache of one GPU by arithmetic: memory x 0.9 - activations - the rest, less weights and slots by replay.

    Raises:
        InputError: the weights do not fit; names the smallest tensor_parallel_size that holds them.
    """
    size = request.tensor_parallel_size
    law = _law(request, constants, size)
    if law is not None:
        return law
    smallest = next(
        (t for t in request.model.tensor_parallel_sizes(64) if t > size and _law(request, constants, t) is not None),
        None,
    )
    needed = request.model.parameters * request.model.dtype_bytes / GIB
    remedy = "choose a GPU with more memory or a smaller model"
    if smallest is not None:
        remedy = f"the smallest size that fits: engine.tensor_parallel_size={smallest}"
    few = replace(request, max_num_seqs=FEW_SEQS)
    if request.max_num_seqs > FEW_SEQS and _law(few, constants, size) is not None:
        remedy += f"; or fewer requests at once: engine.max_num_seqs={FEW_SEQS}"
    raise InputError(
        f"{request.model_name} has {needed:.0f} GiB of weights, which do not fit into {size} x "
        f"{request.device.memory_gib:g} GiB beside activations and a KV cache",
        where=f"hardware {request.device.name}, engine.tensor_parallel_size",
        remedy=remedy,
    )


def _law(request: Request, constants: Constants, size: int) -> KvCapacityLaw | None:
    """The law on one of `size` GPUs; None where no token is left beside one slot of rank 8."""
    model = request.model
    match = request.engine_version.split(".")
    extra = EXTRA_VOCAB if (int(match[0].lstrip("v")), int(match[1])) <= LAST_EXTRA_VOCAB else 0
    shape = model.shape(size, extra_vocab=extra)
    taken = constants.rest_bytes + (EXCHANGE_BYTES if size > 1 else 0)
    taken += activation_bytes(model, request.max_num_seqs, request.max_num_batched_tokens, size)
    free = int(0.9 * request.device.memory_bytes - taken)
    per_token = 2 * model.dtype_bytes * model.layers * shape.kv_width
    bare = reserved_bytes(shape, 1, 8)
    if free - bare < 1024 * per_token:
        return None
    per_slot_rank = slot_bytes_per_rank(shape) / per_token
    base = (free - bare) / per_token + 8 * per_slot_rank
    return KvCapacityLaw(round(base, 1), round(per_slot_rank, 4), 0.0, free, shape)


def parts(prior: Prior, covariance: Array) -> dict[str, float]:
    """What each part adds to the typical step at the careful end, ms, the largest first.

    Of a prior these are the parts' shares of the variance; after a fit the covariance has shrunk, and they with it.
    """
    f = typical_features()
    before = float(f @ prior.covariance @ f)
    shares = {name: float(v @ f) ** 2 for name, v in prior.factors.items()}
    shares["single coefficients"] = float(f @ prior.traded @ f)
    scale = Z90 * float(np.sqrt(f @ covariance @ f)) / before
    return {k: round(scale * v, 4) for k, v in sorted(shares.items(), key=lambda kv: -kv[1])}
