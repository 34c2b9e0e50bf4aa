"""What a step moves and computes, operator by operator, and how long that takes on a GPU known by its data sheet.

An operator that moves Q bytes and computes F operations takes `sqrt((Q / (e_Q b))^2 + (F / (e_F f))^2)`, with the
GPU's peaks b and f and the shares e_Q and e_F of them that kernels reach, plus a launch; the root softens the corner of
the roofline (Williams et al. 2009) as measured operator times do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from profiling.derive.architecture import Architecture
from profiling.derive.device import Device

Kind = Literal["matrix", "attention", "elementwise", "exchange"]


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the peaks that kernels reach, and their fixed cost.

    Args:
        launch_us: of one kernel that runs from a CUDA graph.
        exchange_us: of one all-reduce between GPUs.
    """

    matrix_bytes: float
    matrix_flops: float
    attention_bytes: float
    attention_flops: float
    elementwise_bytes: float
    launch_us: float
    exchange_us: float = 12.0
    exchange_bytes: float = 0.7


#: Fitted to the operator times of ten GPUs by `python -m benchmarks.operator_times` (docs/calibration.md).
TYPICAL = Efficiency(0.84, 0.98, 0.92, 0.42, 0.20, 4.5, 6.6, 0.46)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a step: `count` kernels, bytes and operations of one of them."""

    kind: Kind
    count: int
    bytes: float
    flops: float


@dataclass(frozen=True, slots=True)
class Step:
    """A step: B decodes and P prompt tokens; `context` tokens in the cache of each decode, `behind` of the prompt."""

    decodes: int
    prompt: int
    context: int
    behind: int = 0

    @property
    def tokens(self) -> int:
        return self.decodes + self.prompt

    @property
    def kv_tokens(self) -> int:
        """Tokens in the KV cache of everything in the step, those that it computes included."""
        return self.decodes * self.context + (self.prompt + self.behind if self.prompt else 0)


def operators(model: Architecture, step: Step, tensor_parallel: int = 1) -> Iterator[Operator]:
    """Operators of a step on one of `tensor_parallel` GPUs."""
    shape = model.shape(tensor_parallel)
    b, t, layers = model.dtype_bytes, step.tokens, model.layers
    matrices = shape.linears() if model.gated else (*shape.linears()[:2], (shape.hidden, (shape.intermediate,)),
                                                   shape.linears()[3])  # fmt: skip
    for inputs, outputs in matrices:
        yield _matrix(layers, inputs, sum(outputs), t, b)
    # One row for each request that gets a token.
    yield _matrix(1, shape.hidden, shape.vocab, max(1, step.decodes), b)
    kv_bytes, query = 2 * b * shape.kv_width, shape.query_width or shape.hidden
    if step.decodes:
        held = step.decodes * step.context
        yield Operator("attention", layers, held * kv_bytes, 4.0 * held * query)
    if step.prompt:
        seen = step.prompt * (step.behind + step.prompt / 2)
        yield Operator("attention", layers, (step.prompt + step.behind) * kv_bytes, 4.0 * seen * query)
    # Two normalisations with the residual stream, the activation, rotary embedding and writing K and V.
    yield Operator("elementwise", 2 * layers, 4.0 * b * t * shape.hidden, 0.0)
    yield Operator("elementwise", layers, 3.0 * b * t * shape.intermediate, 0.0)
    if tensor_parallel > 1:
        share = 2 * (tensor_parallel - 1) / tensor_parallel
        yield Operator("exchange", 2 * layers, share * b * t * shape.hidden, 0.0)


def _matrix(count: int, inputs: int, outputs: int, tokens: int, dtype_bytes: int) -> Operator:
    moved = dtype_bytes * (inputs * outputs + tokens * (inputs + outputs))
    return Operator("matrix", count, moved, 2.0 * inputs * outputs * tokens)


def operator_ms(op: Operator, device: Device, reached: Efficiency) -> float:
    """Time of all `count` kernels of an operator, ms."""
    if op.kind == "exchange":
        return op.count * (reached.exchange_us / 1000 + 1000 * op.bytes / (1e9 * device.link * reached.exchange_bytes))
    shares = {
        "matrix": (reached.matrix_bytes, reached.matrix_flops),
        "attention": (reached.attention_bytes, reached.attention_flops),
        "elementwise": (reached.elementwise_bytes, 1.0),
    }[op.kind]
    seconds = math.hypot(op.bytes / (shares[0] * device.bytes_per_s), op.flops / (shares[1] * device.flops_per_s))
    return op.count * (reached.launch_us / 1000 + 1000 * seconds)


def step_ms(
    model: Architecture, step: Step, device: Device, tensor_parallel: int = 1, reached: Efficiency = TYPICAL
) -> float:
    """Kernel time of a step by the data sheet, ms; the host's time is not in it."""
    return sum(operator_ms(op, device, reached) for op in operators(model, step, tensor_parallel))
