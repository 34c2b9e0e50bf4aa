"""A small Llama-like model for a CPU: `config.json` and a tokenizer of numbered words; no weights, vLLM draws them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twin.files import write_text

#: 17 million parameters: a step takes some milliseconds on one core, most of it in the model.
SIZES: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 4096,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def write_tiny_model(folder: Path) -> Path:
    """Writes the model's files; returns the folder."""
    words = {word: i for i, word in enumerate(SPECIAL)}
    words |= {f"w{i}": i for i in range(len(SPECIAL), SIZES["vocab_size"])}
    tokenizer: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }  # fmt: skip
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "model_max_length": SIZES["max_position_embeddings"],
    }  # fmt: skip
    for name, content in (("config", SIZES), ("tokenizer", tokenizer), ("tokenizer_config", about)):
        write_text(folder / f"{name}.json", json.dumps(content))
    return folder
