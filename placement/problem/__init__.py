"""The placement problem, free of any solver: what is placed, under which settings, and what a placement is judged by.

`build` makes a `PlacementProblem` of a workload; hot adapters become `replicas`. `problem` holds it and judges
placements, `objectives` its terms, `solver` what is asked of a solver. `classes` (adapters alike) and `rows` (rules
and costs as scaled arrays) are what solvers compute with; `refuted` is what verification teaches.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
