"""LoRA adapters on GPUs: the fewest GPUs, or the lowest latency, proven and verified.

    from placement import place
    result = place("adapters.csv", "latency", overrides=["hardware.count=8"])
    print(result, result.to_dict()["gpus"])
    result.write("out")

`place` is what `python -m placement` does. `Term`, `PlacementProblem` and `Solver` are what an objective term or a
solver of your own implements or gets; `evaluate` and `violations` judge any placement from outside.
"""

from __future__ import annotations

import lazy_loader

from twin.errors import InfeasibleError, InputError, NoSolutionError, PlacementError

# The list is `__init__.pyi`: what a type checker reads is what is exported. lazy_loader knows this package only.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*__all__, *(e.__name__ for e in (PlacementError, InputError, InfeasibleError, NoSolutionError))]
