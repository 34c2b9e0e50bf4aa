"""Memory and loads of a derived calibration, by arithmetic on the model's sizes and the data sheet."""

from __future__ import annotations

import re
from dataclasses import replace

from profiling.derive.constants import Constants, activation_bytes, tensors
from profiling.derive.target import Request
from twin.errors import DoesNotFitError
from twin.server.hardware import GIB
from twin.server.laws import KvCapacityLaw, LoadLaw
from twin.server.slots import reserved_bytes, slot_bytes_per_rank

#: Memory that tensor parallelism takes on every GPU: buffers of NCCL and of the custom all-reduce.
EXCHANGE_BYTES = 400 * 1024**2
#: Extra vocabulary rows of adapters, which vLLM dropped in 0.12.
EXTRA_VOCAB, LAST_EXTRA_VOCAB = 256, (0, 11)
#: A batch limit that takes little memory: what a message proposes.
FEW_SEQS = 256
#: Share of PCIe's peak that copies from pinned memory reach.
PCIE_REACHED = 0.8
MEASURED_PCIE = 64.0


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
        DoesNotFitError: the weights do not fit; names the smallest tensor_parallel_size that holds them.
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
    raise DoesNotFitError(
        f"{request.model_name} has {needed:.0f} GiB of weights, which do not fit into {size} x "
        f"{request.device.memory_gib:g} GiB beside activations and a KV cache",
        where=f"hardware {request.device.name}, engine.tensor_parallel_size",
        remedy=remedy,
    )


def _law(request: Request, constants: Constants, size: int) -> KvCapacityLaw | None:
    """The law on one of `size` GPUs; None where no token is left beside one slot of rank 8."""
    model = request.model
    match = re.match(r"v?(\d+)\.(\d+)", request.engine_version)
    old = match is not None and (int(match[1]), int(match[2])) <= LAST_EXTRA_VOCAB
    extra = EXTRA_VOCAB if old else 0
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
