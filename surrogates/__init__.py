"""What a column would do, without simulating it: planning models for solvers, trained on the twin.

    from surrogates import load_planning_model
    from twin import load_calibration

    planning = load_planning_model(load_calibration("llama-3.1-8b-h100-64gb"))

`model` evaluates with NumPy, `training` needs torch, `weights` are the shipped networks of each calibration.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
