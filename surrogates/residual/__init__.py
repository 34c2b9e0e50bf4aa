"""The learned residual: what the physics of `surrogates.steady_state` misses, trained on the twin.

    from surrogates.residual import CorrectedModel, read_residual

    residual = read_residual()                                  # the weights that ship, for all calibrations
    model = CorrectedModel(physics, residual)                   # of a `SteadyStateModel`
    model.states(groups, settings).quantile("ttft_p99_s", 0.9)

`mixes` draws adapters and settings, `around` calibrations, `search` finds boundaries in the twin, `rays` and `shards`
make and keep the data. `heads` says what is corrected, `inputs` from which numbers, `samples` computes them for rays;
`networks` and `training` fit (torch), `scores` and `assemble` measure, `probe` tells whether the physics was changed
since. `forward` evaluates without torch, `weights` reads and writes, `model` is for callers, `command` for the command
line. Names are loaded when they are first used.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
