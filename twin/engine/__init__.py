"""The engine: vLLM V1's scheduler, KV cache and adapter slots, one step at a time."""
