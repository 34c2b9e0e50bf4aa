"""A digital twin of vLLM serving LoRA adapters: what a GPU does with these adapters under this setting.

    from twin import Column, EngineSetting, load_calibration, read_adapters, simulate

    adapters = read_adapters("adapters.csv").adapters
    column = Column(adapters, EngineSetting("h100-64gb", max_loras=32, max_lora_rank=16))
    print(simulate(column, load_calibration("llama-3.1-8b-h100-64gb")).row["ttft_p99_s"])

The vocabulary is in `workload` and `server`, the scheduler in `engine`, the meaning of every figure in `figures`;
docs/architecture.md draws the rooms. Names are loaded when they are first used.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
