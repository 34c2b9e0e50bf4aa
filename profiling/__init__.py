"""From measurements to a calibration of the twin: `python -m profiling <command> data=<folder>`.

`published` reads and replays published runs, `fit` makes a calibration of them, `vllm` drives vLLM's own scheduler to
compare the twin with it.
"""
