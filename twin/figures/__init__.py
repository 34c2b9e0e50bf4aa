"""What a simulated window means: every figure, and what is healthy.

`health` is the one definition of healthy for the twin, the surrogates and verification. `metrics` computes a window's
figures (`prediction` names them, `result` carries them), `warmup` removes its start, `bottleneck` says what limits a
server, `series` and `adapter_table` give more on request. docs/metrics.md defines all of them by symbols.
"""
