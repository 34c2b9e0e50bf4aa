"""A calibration from kernels, constants and arithmetic, with an interval for every coefficient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from profiling.derive.constants import (
    LAW_TERMS,
    SCHEDULER_TERMS,
    Constants,
    adapter_terms,
)
from profiling.derive.kernels import fit_terms, grid_ms
from profiling.derive.memory import capacity, loads
from profiling.derive.operators import Kernels, MeasuredKernels
from profiling.derive.posterior import posterior
from profiling.derive.prior import Z90, Doubt, Prior, intervals, law_ends, law_of, prior_of, typical_features
from profiling.derive.runs import capacity_bytes
from profiling.derive.target import Request
from profiling.fit.micro import Row
from twin.server.calibration import Calibration, Stamp
from twin.server.derived import Derived
from twin.server.hardware import GpuType, ModelSpec
from twin.server.laws import STEP_TERMS, KvCapacityLaw
from twin.server.rules import rules_of
from twin.server.slots import reserved_bytes, slot_bytes_per_rank

Array = NDArray[np.float64]

SOURCE = "derived, not measured"
#: Share of the host's time that an asynchronous engine cannot hide: the hand-over of tokens.
NOT_HIDDEN = 0.1
#: Share of the scheduler's time that is taken to be seen in an asynchronous engine.
SCHEDULER_SEEN = 0.25
#: Kernel times: relative standard deviation by where they come from.
DOUBT_MEASURED, DOUBT_RESCALED, DOUBT_SHEET = 0.06, 0.08, 0.15
#: The same by a data sheet, where a server is split over GPUs without NVLink, i.e. with a slower link than this, GB/s.
DOUBT_SHEET_SPLIT, NVLINK = 0.35, 150.0
#: The host's time, ms: spread of what the two measured servers left over (0.5 and 1.3 ms), and of the graph cliff.
DOUBT_HOST_MS, DOUBT_CLIFF_MS = 0.6, 1.5
#: Adapter terms on the GPU they were measured on, and more by the logarithm of the bandwidth's ratio.
DOUBT_ADAPTERS, DOUBT_ADAPTERS_ELSEWHERE = 0.08, 0.25
#: Loads: one standard deviation as a factor. Memory: as a share of the GPU's, and where servers said what they have.
DOUBT_LOADS, DOUBT_MEMORY, DOUBT_MEMORY_SAID = 1.6, 0.01, 0.0005


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


def fitted(
    request: Request,
    kernels: Kernels,
    constants: Constants,
    rows: Sequence[Row],
    *,
    date: str,
    capacities: Sequence[tuple[int, int, int]] = (),
) -> Calibration:
    """The derived calibration after measured runs: its law is the posterior, its interval has shrunk.

    Args:
        rows: of the runs, as `profiling.fit.forcing` or `profiling.derive.runs` makes them.
        capacities: (max_loras, max_lora_rank, KV cache tokens) as servers said it; the law's memory is theirs.
    """
    gpu, grid_error = fit_terms(grid_ms(kernels))
    prior = prior_of(law_terms(request, gpu, constants), gpu, doubt_of(request, kernels, constants))
    mean, covariance = posterior(prior, rows)
    kv = capacity(request, constants)
    if capacities and kv.shape is not None:
        reserved = {(m, r): reserved_bytes(kv.shape, m, r) for m, r, _ in capacities}
        per_token = 2 * request.model.dtype_bytes * request.model.layers * kv.shape.kv_width
        kv = replace(kv, free_bytes=capacity_bytes(capacities, reserved, per_token))
    doubt, text = DOUBT_MEMORY_SAID if capacities else DOUBT_MEMORY, kernels_text(kernels)
    made = assembled(request, prior, mean, covariance, kv, constants, text, date, grid_error, doubt)
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
    memory_doubt: float = DOUBT_MEMORY,
) -> Calibration:
    """A calibration with this law and its ends."""
    model, device = request.model, request.device
    slow, fast = law_ends(mean, covariance)
    load = loads(request, constants)
    assert kv.free_bytes is not None
    memory = Z90 * memory_doubt * device.memory_bytes
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
        # Every worker of a server keeps its own copies of the adapters in host memory.
        request.tensor_parallel_size * slot_bytes_per_rank(model.shape()),
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
        slow_link = request.tensor_parallel_size > 1 and request.device.link < NVLINK
        spread = DOUBT_SHEET_SPLIT if slow_link else DOUBT_SHEET
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
