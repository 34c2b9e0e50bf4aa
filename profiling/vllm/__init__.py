"""vLLM's own code, driven without a model: its scheduler and adapter caches, for the comparison with the twin.

Needs vLLM (extra `vllm`, or scripts/install-vllm-cpu). `scenario` draws workloads under stress, `scheduler` and
`adapters` run vLLM's classes, `log` finds the first difference.
"""
