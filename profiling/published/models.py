"""Architectures of the measured models (their published `config.json`) and the GPU they ran on."""

from __future__ import annotations

from dataclasses import dataclass

from twin.server.hardware import GpuType, ModelSpec
from twin.server.slots import ModelShape, slot_bytes_per_rank

#: "total capacity of 63.43 GiB" in the servers' out-of-memory messages.
H100_64GB = GpuType("h100-64gb", int(63.43 * 1024**3))


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A model of the published data; `calibration` names its file under `conf/calibration/`."""

    calibration: str
    spec: ModelSpec
    shape: ModelShape
    gpu: GpuType
    engine: str
    engine_version: str


def _measured(calibration: str, name: str, max_model_len: int, shape: ModelShape) -> MeasuredModel:
    # Keys and values of every layer in 16 bits.
    kv_bytes = 2 * shape.layers * shape.kv_width * shape.dtype_bytes
    spec = ModelSpec(name, max_model_len, kv_bytes, slot_bytes_per_rank(shape))
    return MeasuredModel(calibration, spec, shape, H100_64GB, "vllm", "0.8.5")


MEASURED_MODELS = (
    _measured(
        "llama-3.1-8b-h100-64gb",
        "llama-3.1-8b-instruct",
        131072,
        ModelShape(32, 4096, 1024, 14336, 128256, qkv_bias=False, adapted_vocab=True),
    ),
    _measured(
        "qwen2.5-7b-h100-64gb",
        "qwen-2.5-7b-instruct",
        32768,
        ModelShape(28, 3584, 512, 18944, 152064, qkv_bias=True, adapted_vocab=False),
    ),
)
