"""Models and GPU of the batch-size measurements (arXiv 2503.08311): sizes from their published configurations."""

from __future__ import annotations

from dataclasses import dataclass

from twin.server.hardware import GpuType, ModelSpec
from twin.server.roofline import Roofline

ENGINE_VERSION = "0.6.3"
#: torch's total memory of the card, 63.43 GiB.
GPU = GpuType(name="h100-64gb", memory_bytes=68107443896)
#: Four stacks of HBM (64 GB) at the logged 1593 MHz: 4096 bit x 2 x 1593 MHz / 8. Three measurements agree with it and
#: not with a fifth stack: DRAM reads of 41 % of the peak in 4.03 ms for 2.6 GB of weights (OPT-1.3B, batch 1), and
#: attention kernels that read KV at 1.44 to 1.50 TB/s, 89-92 % of it.
BANDWIDTH_BYTES_PER_S = 4096 * 2 * 1593e6 / 8
#: H100 SXM, FP16 tensor cores, dense.
FLOPS_PER_S = 989e12
DTYPE_BYTES = 2


@dataclass(frozen=True, slots=True)
class Decoder:
    """A measured model: sizes of a decoder without grouped queries.

    Args:
        gated: the MLP has three matrices instead of two.
    """

    name: str
    layers: int
    hidden: int
    intermediate: int
    vocab: int
    max_model_len: int
    gated: bool

    @property
    def calibration(self) -> str:
        return f"{self.name}-{GPU.name}"

    @property
    def layer_weights(self) -> int:
        """Matrix elements of one layer."""
        return 4 * self.hidden**2 + (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * DTYPE_BYTES * self.layers * self.hidden

    @property
    def lora_bytes_per_rank(self) -> int:
        """A and B of every matrix, per unit of rank."""
        sides = 8 * self.hidden + (3 if self.gated else 2) * (self.hidden + self.intermediate)
        return DTYPE_BYTES * self.layers * sides

    def spec(self) -> ModelSpec:
        return ModelSpec(self.name, self.max_model_len, self.kv_bytes_per_token, self.lora_bytes_per_rank)

    def roofline(self) -> Roofline:
        weights = self.layers * self.layer_weights + self.vocab * self.hidden
        return Roofline(
            weight_bytes=float(DTYPE_BYTES * weights),
            kv_bytes_per_token=float(self.kv_bytes_per_token),
            flops_per_token=2.0 * weights,
            flops_per_kv_token=4.0 * self.layers * self.hidden,
            bandwidth_bytes_per_s=BANDWIDTH_BYTES_PER_S,
            flops_per_s=FLOPS_PER_S,
            adapter_bytes_per_rank=float(self.lora_bytes_per_rank),
        )


DECODERS = (
    Decoder("opt-1.3b", 24, 2048, 8192, 50272, 2048, gated=False),
    Decoder("opt-2.7b", 32, 2560, 10240, 50272, 2048, gated=False),
    Decoder("llama-2-7b", 32, 4096, 11008, 32000, 4096, gated=True),
    Decoder("llama-2-13b", 40, 5120, 13824, 32000, 4096, gated=True),
)
