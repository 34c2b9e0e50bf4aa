"""Solvers, one file each: `milp`, `cpsat`, `greedy` and, as a baseline, `greedy_published`.

What they share: `capabilities` decides what a solver is asked; `aggregate` (the class model, built by `perspective`,
solved by `highs`) proves a bound by a `certificate`, and `settings` takes whole GPUs from it; `packing` and
`assignment` put class members on them, `dealing` individual adapters; `lpt`, `local_search` and `search_state` build
and improve placements, of which an `incumbent` is the best. `bounds` says for any problem what no placement beats,
`explain` why none exists.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
