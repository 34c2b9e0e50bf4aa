"""Records a real vLLM server: a designed grid of batches, open-loop workloads, steps and adapter loads.

`plan` says what is run, `server` starts or attaches to vLLM, `probe` runs inside it, `recorder` does one run after the
other and keeps each as Parquet files (`files`). `python -m profiling record` (docs/ten_minutes.md).
"""
