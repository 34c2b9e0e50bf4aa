"""A dense decoder from its Hugging Face `config.json`: sizes, and what follows from them by arithmetic alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from twin.config.ranges import Range, check_fields
from twin.errors import InputError
from twin.server.slots import ModelShape

#: Keys that only models have whose layers are no plain decoder layers.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
_LATENT = ("kv_lora_rank", "q_lora_rank")
_STATE_SPACE = ("mamba_d_state", "ssm_state_size", "hybrid_override_pattern")
#: Kinds whose embedding and output head vLLM wraps for adapters (`embedding_modules` of its Llama class).
_ADAPTED_VOCAB = ("llama", "mistral")


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a decoder, of the whole model.

    Args:
        kind: Hugging Face's `model_type`.
        head_size: width of a head; query heads x head size may differ from `hidden`.
        tied: the output head is the embedding table.
        gated: the MLP has three matrices instead of two.
        max_model_len: longest request that the model was made for, tokens.
    """

    kind: str
    layers: Annotated[int, Range(1, 1000)]
    hidden: Annotated[int, Range(1)]
    heads: Annotated[int, Range(1)]
    kv_heads: Annotated[int, Range(1)]
    head_size: Annotated[int, Range(1)]
    intermediate: Annotated[int, Range(1)]
    vocab: Annotated[int, Range(1)]
    max_model_len: Annotated[int, Range(1, unit="tokens")]
    tied: bool = False
    qkv_bias: bool = False
    gated: bool = True
    dtype_bytes: Annotated[int, Range(1, 4)] = 2

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"architecture: {name}")

    @property
    def query_width(self) -> int:
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def adapted_vocab(self) -> bool:
        """Whether vLLM keeps adapter slots for the embedding and the output head, too."""
        return self.kind in _ADAPTED_VOCAB

    @property
    def kv_bytes_per_token(self) -> int:
        """K and V of all layers."""
        return 2 * self.dtype_bytes * self.layers * self.kv_width

    @property
    def layer_weights(self) -> int:
        """Matrix elements of one layer."""
        attention = self.hidden * (2 * self.query_width + 2 * self.kv_width)
        return attention + (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """Elements of all matrices, the embedding included."""
        return self.layers * self.layer_weights + (1 if self.tied else 2) * self.vocab * self.hidden

    def shape(self, tensor_parallel: int = 1, *, extra_vocab: int = 256) -> ModelShape:
        """What one of `tensor_parallel` GPUs holds; key-value heads are repeated where there are fewer than GPUs."""
        t = tensor_parallel
        kv = max(1, self.kv_heads // t) * self.head_size
        query = self.query_width // t
        return ModelShape(
            layers=self.layers,
            hidden=self.hidden,
            kv_width=kv,
            intermediate=self.intermediate // t,
            vocab=-(-self.vocab // t),
            qkv_bias=self.qkv_bias,
            adapted_vocab=self.adapted_vocab,
            extra_vocab=extra_vocab,
            dtype_bytes=self.dtype_bytes,
            query_width=0 if query == self.hidden else query,
            tied=self.tied,
        )

    def check_tensor_parallel(self, size: int, where: str = "engine.tensor_parallel_size") -> None:
        """Refuses sizes that vLLM refuses.

        Raises:
            InputError: the heads, or the MLP's width, cannot be split evenly; names the sizes that can.
        """
        if size in self.tensor_parallel_sizes():
            return
        good = ", ".join(map(str, self.tensor_parallel_sizes(64)))
        raise InputError(
            f"tensor_parallel_size {size} does not divide {self.heads} attention heads, {self.kv_heads} key-value "
            f"heads and an MLP of width {self.intermediate} evenly",
            where=where,
            remedy=f"choose one of: {good}",
        )

    def tensor_parallel_sizes(self, most: int = 1024) -> tuple[int, ...]:
        """Sizes that split the model evenly, ascending."""
        return tuple(
            t
            for t in range(1, most + 1)
            if self.heads % t == 0 and (self.kv_heads % t == 0 or t % self.kv_heads == 0) and self.intermediate % t == 0
        )

    def hugging_face(self) -> dict[str, Any]:
        """The sizes as a `config.json` of a plain decoder, for the operator times.

        Where the MLP has two matrices, three of two thirds of the width stand for them: as many weights.
        """
        names = {"qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM"}
        return {
            "architectures": [names.get(self.kind, "LlamaForCausalLM")],
            "model_type": self.kind if self.kind in names else "llama",
            "hidden_size": self.hidden,
            "head_dim": self.head_size,
            "intermediate_size": self.intermediate if self.gated else 2 * self.intermediate // 3,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.max_model_len,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "bfloat16",
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
        }


def from_hugging_face(config: Mapping[str, Any], where: str) -> Architecture:
    """The architecture that a `config.json` describes.

    Raises:
        InputError: a size is missing, or the model is no dense decoder in 16 bits (mixture of experts, latent
            attention, state space, quantized weights).
    """
    text = config.get("text_config")
    c: Mapping[str, Any] = {**config, **text} if isinstance(text, Mapping) else config
    for keys, what in (
        (_EXPERTS, "a mixture of experts"),
        (_LATENT, "latent attention"),
        (_STATE_SPACE, "a state space"),
    ):
        found = [k for k in keys if c.get(k)]
        if found:
            raise InputError(
                f"the model has {what} ({found[0]}); only dense decoders can be derived",
                where=where,
                remedy="measure it: python -m profiling fit, or choose a dense model",
            )
    if c.get("quantization_config"):
        raise InputError(
            "the model's weights are quantized (quantization_config); only 16-bit weights can be derived",
            where=where,
            remedy="give the config.json of the 16-bit model",
        )
    heads = _size(c, ("num_attention_heads", "n_head"), where)
    hidden = _size(c, ("hidden_size", "n_embd", "d_model"), where)
    kind = str(c.get("model_type", "llama"))
    return Architecture(
        kind=kind,
        layers=_size(c, ("num_hidden_layers", "n_layer"), where),
        hidden=hidden,
        heads=heads,
        kv_heads=int(c.get("num_key_value_heads") or heads),
        head_size=int(c.get("head_dim") or hidden // heads),
        intermediate=_size(c, ("intermediate_size", "ffn_dim", "n_inner"), where),
        vocab=_size(c, ("vocab_size",), where),
        max_model_len=_size(c, ("max_position_embeddings", "n_positions"), where),
        # Gemma's configurations leave it out.
        tied=bool(c.get("tie_word_embeddings", kind.startswith("gemma"))),
        qkv_bias=bool(c.get("attention_bias", c.get("qkv_bias", kind == "qwen2"))),
        gated=kind not in ("opt", "gpt2", "gpt_neox", "gpt_bigcode", "starcoder2", "phi"),
    )


def read_config(path: str | Path) -> Architecture:
    """The architecture in a `config.json`, or in a folder that has one.

    Raises:
        InputError: there is no such file, it is no JSON, or `from_hugging_face` refuses it.
    """
    file = Path(path).expanduser()
    file = file / "config.json" if file.is_dir() else file
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"the model's configuration cannot be read: {error}",
            where=f"model.config = {path}",
            remedy="give model.config=<path of a Hugging Face config.json>",
        ) from error
    if not isinstance(config, Mapping):
        raise InputError("config.json holds no object", where=str(file), remedy="give a Hugging Face config.json")
    return from_hugging_face(config, str(file))


def from_sizes(sizes: Mapping[str, Any], where: str) -> Architecture:
    """The architecture from its own fields, as `conf/model` writes them.

    Raises:
        InputError: a field is missing or unknown.
    """
    known = {f.name for f in fields(Architecture)}
    try:
        return Architecture(**sizes)
    except TypeError as error:
        raise InputError(
            f"the model's sizes are not complete: {error}", where=where, remedy=f"valid: {', '.join(sorted(known))}"
        ) from error


def _size(config: Mapping[str, Any], names: tuple[str, ...], where: str) -> int:
    for name in names:
        if isinstance(config.get(name), int):
            return int(config[name])
    raise InputError(
        f"{names[0]} is missing in the model's configuration", where=where, remedy="give a Hugging Face config.json"
    )
