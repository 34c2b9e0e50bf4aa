"""KV blocks and the tokens in them.

All decoding requests advance together, one token a step, so that a step need not look at any of them.
"""

from __future__ import annotations

from twin.compiled import inlined
from twin.engine.lists import prepend
from twin.engine.state import EngineState


@inlined
def blocks(tokens: int, block_size: int) -> int:
    """KV blocks of a sequence, `ceil(tokens / block_size)`."""
    return (tokens + block_size - 1) // block_size


@inlined
def blocks_of_chunk(engine: EngineState) -> int:
    """KV blocks more that the partial prefill needs for its chunk."""
    chunk, block_size = engine.batch[0].chunk, engine.limits.block_size
    if chunk == 0:
        return 0
    computed: int = engine.requests[engine.scheduler[0].partial].computed
    return blocks(computed + chunk, block_size) - blocks(computed, block_size)


@inlined
def blocks_of_decodes(engine: EngineState) -> int:
    """KV blocks more that the decoding requests need for their next token: one for each whose blocks are full."""
    needed: int = engine.growing[(-engine.scheduler[0].step) % engine.limits.block_size]
    return needed


@inlined
def tokens_computed(engine: EngineState, r: int) -> int:
    """Tokens of a decoding request that are in the KV cache before this step: one a step since its prefill."""
    request = engine.requests[r]
    tokens: int = request.prefill + engine.scheduler[0].step - 1 - request.entry_step
    return tokens


@inlined
def step_of_finish(engine: EngineState, r: int) -> int:
    """The list of `finishing` for the step that produces a decoding request's last token."""
    request = engine.requests[r]
    last_step: int = request.entry_step + request.output - request.produced
    return last_step % len(engine.finishing.ends)


@inlined
def start_decoding(engine: EngineState, r: int) -> None:
    """A request decodes from the next step on; the tokens that are left tell when it ends."""
    scheduler, request = engine.scheduler[0], engine.requests[r]
    request.entry_step, request.decoding = scheduler.step, True
    scheduler.decodes += 1
    engine.growing[growth(engine, r)] += 1
    prepend(engine.finishing, step_of_finish(engine, r), r)


@inlined
def stop_decoding(engine: EngineState, r: int) -> None:
    """A request was preempted or has its last token; leaving its list of `finishing` is up to the caller."""
    engine.growing[growth(engine, r)] -= 1
    engine.requests[r].decoding = False
    engine.scheduler[0].decodes -= 1


@inlined
def growth(engine: EngineState, r: int) -> int:
    """Index into `growing`: its tokens before step s are a multiple of the block size where `-s` has this remainder."""
    request = engine.requests[r]
    tokens_at_step_0: int = request.prefill - request.entry_step - 1
    return tokens_at_step_0 % engine.limits.block_size
