"""Small `placement.json` documents, and names that shells, YAML, URLs and parsers stumble over."""

from __future__ import annotations

from typing import Any

ODD_NAMES = (
    "acme/support-bot", "acme/sql-writer@v2", "a=b", "a,b", "two words", "it's", 'say "hi"', "<b>x</b>", "support[v2]",
    "team[/prod]", "$HOME`id`", "back\\slash", "naïve-ünïcode", "-dash", "yes", "1e3", "#x: y", '{"name": "json"}',
)  # fmt: skip


def gpu(gpu_id: str, held: list[tuple[str, int]], share: float = 1.0, **setting: Any) -> dict[str, Any]:
    """A GPU's entry."""
    flags = {
        "max_loras": 8, "max_lora_rank": 16, "max_num_seqs": 256, "max_num_batched_tokens": 2048, "block_size": 16,
        "gpu_memory_utilization": 0.9, "servers_per_gpu": 1, "max_cpu_loras": 40,
    }  # fmt: skip
    return {
        "gpu_id": gpu_id,
        "gpu_type": "h100-64gb",
        "setting": flags | setting,
        "adapters": [{"adapter_id": name, "rank": rank, "share": share} for name, rank in held],
    }


def document(gpus: list[dict[str, Any]]) -> dict[str, Any]:
    return {"gpus": gpus}
