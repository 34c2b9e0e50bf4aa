"""What a data sheet cannot tell, learned from measured servers: the host's time, adapters, loads and memory.

Learned from one measured calibration by taking away what its GPU's kernels explain. Scaled to another model and GPU:

* **host** `base` and `cliff` (a step past the CUDA graphs): measured - kernels, one number each, as they are;
* **adapters**: the LoRA kernels write `outputs x layers` values a token (the sizes of all adapted matrices), which is
  what their tiles and blocks are made of; from one measured model to the other that ratio is 1.01, and their terms were
  indeed alike, although one has 12 % fewer layers. Part of it is traffic and follows the bandwidth, part is launches;
* **loads**: copies of `2 x matrices x layers` tensors, and the bytes over PCIe;
* **memory**: 12 bytes for each of `max_num_seqs x vocab` logits (sampling in 32 bits, sorted with indices) and the
  rest, which both measured servers agree on within 0.02 GB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib.resources import files

import numpy as np
import yaml

from profiling.derive.architecture import Architecture
from profiling.derive.device import Device
from profiling.derive.kernels import fit_terms, grid_ms
from profiling.derive.operators import Kernels
from twin.server.calibration import Calibration
from twin.server.laws import StepTimeLaw

#: Terms of adapters that are made of tiles and traffic, and those that are launches.
TILE_TERMS = (
    "adapter", "adapter_rank", "slot", "slot_square", "slot_token", "lora_token", "adapter_token", "adapter_large",
)  # fmt: skip
LAUNCH_TERMS = ("lora", "lora_rank", "adapter_small")
#: Terms of the scheduler: the host's alone.
SCHEDULER_TERMS = ("skipped", "queue", "skipped_seq")
#: Share of the tile terms that follows the GPU's bandwidth; the rest follows its launches, which hardly change.
TRAFFIC_SHARE = 0.5
#: Bytes that sampling takes per logit: 32-bit logits, their sorted copy, and half an index.
LOGIT_BYTES = 12
#: What activations take per token of the budget, in units of the model's widths (gate, up, and their product).
ACTIVATION_WIDTHS = 3
#: Batch limit and token budget of the measured servers.
MEASURED_SEQS, MEASURED_TOKENS = 2048, 2048


@dataclass(frozen=True, slots=True)
class Constants:
    """What one or several measured servers taught; times in ms.

    Args:
        learned_from: names of the calibrations.
        host: base, cliff and plain_large of a synchronous engine, and its scheduler's terms.
        tiles: `TILE_TERMS` per 1e6 outputs x layers at `bandwidth`.
        launches: `LAUNCH_TERMS` per layer.
        bandwidth: of the GPU they were measured on, GB/s.
        copy_us, padded_us: a load from host memory, per tensor, at equal and at lower rank.
        disk_tensor_us, disk_rank_us: a load from disk, per tensor, and per tensor and unit of rank.
        rest_bytes: memory besides weights, slots, KV cache, logits and activations.
    """

    learned_from: tuple[str, ...]
    host: Mapping[str, float]
    tiles: Mapping[str, float]
    launches: Mapping[str, float]
    bandwidth: float
    copy_us: float
    padded_us: float
    disk_tensor_us: float
    disk_rank_us: float
    rest_bytes: float


def outputs(model: Architecture, tensor_parallel: int = 1) -> float:
    """Outputs of all adapted matrices on one GPU, in millions."""
    linears = model.shape(tensor_parallel).linears()
    return model.layers * sum(sum(out) for _, out in linears) / 1e6


def tensors(model: Architecture) -> int:
    """A and B of every adapted matrix."""
    return 2 * model.layers * sum(len(out) for _, out in model.shape().linears())


def activation_bytes(
    model: Architecture, max_num_seqs: int, max_num_batched_tokens: int, tensor_parallel: int
) -> float:
    """Memory that a profiled step of vLLM takes beside the weights, as far as arithmetic goes."""
    logits = float(LOGIT_BYTES * max_num_seqs * model.vocab)
    widths = ACTIVATION_WIDTHS * model.intermediate // tensor_parallel + 4 * model.hidden
    return logits + float(model.dtype_bytes * max_num_batched_tokens * widths)


def learn(calibration: Calibration, model: Architecture, device: Device, kernels: Kernels) -> Constants:
    """The constants that make the kernels of this model and GPU its measured calibration."""
    law = calibration.step
    gpu, _ = fit_terms(grid_ms(kernels))
    kv = calibration.kv
    assert kv.free_bytes is not None
    taken = 0.9 * calibration.gpu.memory_bytes - kv.free_bytes
    count = tensors(model)
    return Constants(
        learned_from=(calibration.name,),
        host={
            # Of a step with hardly a request, and of the jump where the CUDA graphs end.
            "base": max(0.0, law.base - gpu["base"]),
            "cliff": max(0.0, law.cliff - gpu["cliff"]),
            "plain_large": law.plain_large,
            **{name: getattr(law, name) for name in SCHEDULER_TERMS},
        },
        tiles={name: getattr(law, name) / outputs(model) for name in TILE_TERMS},
        launches={name: getattr(law, name) / model.layers for name in LAUNCH_TERMS},
        bandwidth=device.bandwidth,
        copy_us=1000 * calibration.load.equal_rank_ms / count,
        padded_us=1000 * calibration.load.lower_rank_ms / count,
        disk_tensor_us=1000 * calibration.load.disk_base_ms / count,
        disk_rank_us=1000 * calibration.load.disk_rank_ms / count,
        rest_bytes=taken - activation_bytes(model, MEASURED_SEQS, MEASURED_TOKENS, 1),
    )


def mean_of(learned: Sequence[Constants]) -> Constants:
    """The mean of constants that were learned from several servers on one kind of GPU."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(c, name) for c in learned]))

    def means(name: str) -> dict[str, float]:
        keys = getattr(learned[0], name)
        return {key: float(np.mean([getattr(c, name)[key] for c in learned])) for key in keys}

    numbers = {f.name: mean(f.name) for f in fields(Constants) if f.type == "float"}
    return Constants(
        learned_from=tuple(name for c in learned for name in c.learned_from),
        host=means("host"),
        tiles=means("tiles"),
        launches=means("launches"),
        **numbers,
    )


def adapter_terms(
    constants: Constants, model: Architecture, device: Device, tensor_parallel: int = 1
) -> dict[str, float]:
    """The LoRA terms of the step-time law for a model and GPU."""
    slower = TRAFFIC_SHARE * constants.bandwidth / device.bandwidth + 1 - TRAFFIC_SHARE
    size = outputs(model, tensor_parallel) * slower
    return {name: value * size for name, value in constants.tiles.items()} | {
        name: value * model.layers for name, value in constants.launches.items()
    }


def write_constants(constants: Constants) -> str:
    """As YAML, rounded to what matters."""
    data = asdict(constants) | {"learned_from": list(constants.learned_from)}
    return str(yaml.safe_dump(_rounded(data), sort_keys=False))


@lru_cache(maxsize=1)
def shipped_constants() -> Constants:
    """The mean over the measured servers; written by `python -m profiling learn`."""
    data = yaml.safe_load(files("profiling.derive").joinpath("constants.yaml").read_text())
    return Constants(**{**data, "learned_from": tuple(data["learned_from"])})


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


#: Names of the step-time law's coefficients that stand for no time.
NOT_TIMES = ("graph_tokens",)
LAW_TERMS = tuple(f.name for f in fields(StepTimeLaw) if f.name not in NOT_TIMES)
