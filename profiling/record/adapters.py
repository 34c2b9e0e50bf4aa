"""Random adapters of any rank for a model, in PEFT's format, made from the sizes in its `config.json`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from profiling.derive.architecture import Architecture
from twin.files import write_text

#: Small, so that answers stay numbers whatever the base weights are.
WEIGHT_SD = 0.01


def make_adapter(folder: Path, model: Architecture, rank: int, seed: int) -> Path:
    """Writes an adapter of all linear layers; one that is there already is kept. Returns the folder."""
    if (folder / "adapter_config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, rank])
    weights = {}
    for layer in range(model.layers):
        for name, (out, inner) in layers_of(model).items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            weights[f"{prefix}.lora_A.weight"] = _normal(rng, rank, inner)
            weights[f"{prefix}.lora_B.weight"] = _normal(rng, out, rank)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "r": rank, "lora_alpha": rank,
        "lora_dropout": 0.0, "bias": "none", "target_modules": [n.rpartition(".")[2] for n in layers_of(model)],
    }  # fmt: skip
    write_text(folder / "adapter_config.json", json.dumps(config))
    return folder


def layers_of(model: Architecture) -> dict[str, tuple[int, int]]:
    """Linear layers of a decoder layer: name -> (outputs, inputs), by Hugging Face's names for Llama-like models."""
    hidden, query, kv = model.hidden, model.query_width, model.kv_width
    return {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (model.intermediate, hidden),
        "mlp.up_proj": (model.intermediate, hidden),
        "mlp.down_proj": (hidden, model.intermediate),
    }


def _normal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    return rng.normal(0.0, WEIGHT_SD, (rows, columns)).astype(np.float16)
