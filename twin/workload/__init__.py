"""The vocabulary of what is served: an adapter and its traffic, a workload, requests, a recording.

`adapter` first. `rates` describes rates that change, `recording` holds requests of the past, `selection` takes a part
of a workload. Nothing here draws, reads or simulates anything.
"""
