"""From measurements to a calibration: `calibration` fits one, `crossval` scores it on workloads left out.

`forcing` finds the batch that each real run had, `regression` fits the step-time law, `capacity` the KV cache and
load times; `memory_gap` does the same for measurements over batch sizes.
"""
