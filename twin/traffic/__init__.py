"""Draws requests: when they arrive (`arrivals`, `renewal`) and how long they are (`lengths`).

`drift` makes rates that change, `length_shapes` and `histogram` say what lengths look like, `options` applies what a
workload's configuration says of both.
"""
