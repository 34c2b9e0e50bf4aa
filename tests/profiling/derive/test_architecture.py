"""A `config.json` becomes the sizes that memory and steps are computed from, or is refused with what is wrong."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from profiling.derive.architecture import Architecture, from_hugging_face, from_sizes, read_config
from profiling.derive.operators import PACKAGE, installed
from profiling.published.models import MEASURED_MODELS
from twin.config.folder import conf_dir
from twin.errors import InputError
from twin.server.slots import slot_bytes_per_rank, weight_tensors

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
#: Options of `conf/model` whose `config.json` the package ships under this name.
SHIPPED_CONFIGS = {
    "llama-3.1-8b": "meta-llama--Meta-Llama-3.1-8B", "llama-3.1-70b": "meta-llama--Meta-Llama-3.1-70B",
    "qwen3-0.6b": "Qwen--Qwen3-0.6B", "qwen3-1.7b": "Qwen--Qwen3-1.7B", "qwen3-8b": "Qwen--Qwen3-8B",
    "qwen3-32b": "Qwen--Qwen3-32B",
}  # fmt: skip
MODELS = sorted(p.stem for p in (conf_dir() / "model").glob("*.yaml") if p.stem != "hf")


def sizes_of(name: str) -> Architecture:
    return from_sizes(yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text())["sizes"], name)


@pytest.mark.parametrize(("name", "measured"), [("llama-3.1-8b", 0), ("qwen2.5-7b", 1)])
def test_the_measured_models_have_their_published_shape(name: str, measured: int) -> None:
    model, published = sizes_of(name), MEASURED_MODELS[measured]
    assert model.shape() == published.shape
    assert model.kv_bytes_per_token == published.spec.kv_bytes_per_token
    assert slot_bytes_per_rank(model.shape()) == published.spec.lora_bytes_per_rank
    assert model.max_model_len == published.spec.max_model_len


@pytest.mark.parametrize("name", MODELS)
def test_a_models_name_says_its_size(name: str) -> None:
    """`qwen3-32b` has 32 billion parameters, within what names round."""
    billions = {"phi-4": 14.7}.get(name) or float(name.rpartition("-")[2].removesuffix("b"))
    assert sizes_of(name).parameters / 1e9 == pytest.approx(billions, rel=0.27)


@pytest.mark.skipif(not installed(), reason="the extra 'hardware' is not installed")
@pytest.mark.parametrize("name", SHIPPED_CONFIGS)
def test_sizes_are_those_of_the_published_configuration(name: str) -> None:
    package = __import__(PACKAGE)
    config = Path(str(package.__file__)).parent / "model_configs" / f"{SHIPPED_CONFIGS[name]}_config.json"
    assert sizes_of(name) == read_config(config)


def test_a_file_and_its_folder_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_config(tmp_path) == read_config(tmp_path / "config.json") == from_hugging_face(LLAMA, "")
    nested = {"model_type": "gemma3", "text_config": LLAMA | {"head_dim": 256}}
    assert from_hugging_face(nested, "").query_width == 32 * 256


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_local_experts": 8}, "mixture of experts"),
        ({"kv_lora_rank": 512}, "latent attention"),
        ({"mamba_d_state": 128}, "state space"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized"),
        ({"hidden_size": None}, "hidden_size is missing"),
    ],
)
def test_what_is_no_dense_decoder_in_16_bits_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_hugging_face(LLAMA | change, "config.json")


def test_a_missing_or_broken_file_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"model\.config"):
            read_config(path)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_tensor_parallel_splits_weights_and_cache_evenly(size: int) -> None:
    model = sizes_of("llama-3.1-70b")
    one, part = model.shape(), model.shape(size)
    assert sum(weight_tensors(one, 0)) == pytest.approx(size * sum(weight_tensors(part, 0)), rel=0.001)
    assert part.kv_width * size == one.kv_width
    # A is whole for matrices split by their outputs, B for those split by their inputs.
    assert slot_bytes_per_rank(one) / size < slot_bytes_per_rank(part) < slot_bytes_per_rank(one)


def test_sizes_that_do_not_divide_the_model_are_refused_with_those_that_do() -> None:
    model = sizes_of("llama-3.1-70b")
    with pytest.raises(InputError, match="choose one of: 1, 2, 4, 8, 16"):
        model.check_tensor_parallel(3)
    assert model.shape(16).kv_width == model.head_size  # key-value heads are repeated


def test_sizes_of_conf_are_fields_of_an_architecture() -> None:
    with pytest.raises(InputError, match=r"valid: .*kv_heads"):
        from_sizes({"layers": 32}, "model")
    assert {f.name for f in fields(Architecture)} >= {"kind", "layers", "tied"}
