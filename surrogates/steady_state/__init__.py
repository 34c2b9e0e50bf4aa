"""The steady state of a server from queueing physics: no training, no trained range.

    from surrogates.steady_state import largest_load, steady_state

    state = steady_state(columns, calibration)      # pace, requests in system, TTFT, ITL, KV share, what limits, (P,)
    theta = largest_load(columns, calibration)      # factor on all rates up to which each column is healthy, (P,)

A request with o output tokens stays for o steps, so that the mean time of a step, the *pace*, decides how many requests
are in service, and these decide how long a step takes: the pace is where both agree. `arrivals` says how many requests
an adapter has in service, `items` and `law` are what is known of adapters and of a setting, `tables` what an adapter
contributes at each pace: contributions add, so that a column is a sum (`column`). `pace` finds the pace, `slots` and
`waiting` who waits for what, `solve` goes over columns, `model` is for callers. docs/steady_state.md derives it all.
Names are loaded when they are first used.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
