"""Start scripts against vLLM's own argument parser; runs where vLLM is installed (scripts/install-vllm-cpu)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from placement.export.files import DeploymentFiles
from tests.placement.export.documents import ODD_NAMES, document, gpu
from twin.server.groups import ModelConfig

cli_args = pytest.importorskip("vllm.entrypoints.launchers.cli_args", reason="vLLM is not installed")


def parsed(script: Path) -> Any:
    """What vLLM understands of a start script; the shell itself splits the words."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    shown = script.read_text().replace("exec vllm serve", "printf '%s\\0'")
    words = subprocess.run(["sh"], input=shown.encode(), capture_output=True, check=True).stdout.decode()
    parser = cli_args.make_arg_parser(FlexibleArgumentParser())
    arguments = parser.parse_args(words.split("\0")[:-1])
    cli_args.validate_parsed_serve_args(arguments)
    return arguments


def test_vllm_reads_every_name_path_and_flag(tmp_path: Path) -> None:
    base = ["base-model", "meta-llama/Llama-3.1-8B-Instruct", "a base, with = and 'quotes'"]
    held = [(name, 12) for name in ODD_NAMES] + [(name, 0) for name in base]
    DeploymentFiles(ModelConfig("llama", "org/llama 8b"), adapter_dir="/my adapters").write(
        document([gpu("gpu000", held, max_lora_rank=12)]), tmp_path
    )
    read = parsed(tmp_path / "deploy" / "gpu000.sh")
    assert [(m.name, m.path) for m in read.lora_modules] == [(n, f"/my adapters/{n}") for n in ODD_NAMES]
    assert read.served_model_name == ["llama", *base]
    assert read.model_tag == "org/llama 8b"
    assert (read.enable_lora, read.max_loras, read.max_lora_rank, read.max_cpu_loras) == (True, 8, 16, 40)
    assert (read.max_num_seqs, read.max_num_batched_tokens, read.port) == (256, 2048, 8000)


def test_a_server_without_adapters_has_no_lora(tmp_path: Path) -> None:
    DeploymentFiles(ModelConfig("llama", "llama")).write(document([gpu("gpu000", [("base", 0)])]), tmp_path)
    read = parsed(tmp_path / "deploy" / "gpu000.sh")
    assert not read.enable_lora
    assert read.lora_modules is None
    assert read.served_model_name == ["llama", "base"]
