"""Verification: every GPU of a placement in the twin, until what is claimed of it holds.

`claim` says what a verdict means, `judge` draws it from windows, `windows` chooses them, `alike` finds GPUs that share
them, `peaks` replays the busiest ones of a recording, `verifier` simulates, `verdict` is what comes out.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
