"""`python -m twin`: simulate a workload on one server, or a placement, and say what limits it.

`options` checks the configuration, `run` does one run, the reports make `metrics.json`, `summary` shows it.
"""
