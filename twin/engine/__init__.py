"""The engine: vLLM V1's scheduler, KV cache and adapter slots, one step at a time.

Read `reference.py` first: the specification, in plain Python. `engine.py` is the compiled loop with the same phases,
which are in `queue.py` (arrivals), `running.py`, `admission.py`, `slots.py`, `clock.py` and `output.py`. What they
share: `state.py` (all that an engine knows), `blocks.py` (KV blocks), `batch.py` (adapters of a step), `lists.py`, and
`record.py` (events, trace). Around it: `build.py` makes an engine, `outcome.py` reads it out; `play.py` plays a window
of one server, `replicas.py` of several on one GPU; `input_check.py` says what cannot be played.
Names are loaded when they are first used.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
