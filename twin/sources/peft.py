"""Ranks from the adapters themselves: folders with PEFT's `adapter_config.json`.

What vLLM refuses to load is refused here by name. Source: PEFT's `LoraConfig` and vLLM's `vllm/lora/peft_helper.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twin.errors import InputError
from twin.wording import counted

CONFIG = "adapter_config.json"
#: Largest rank that vLLM serves.
MOST_RANK = 512
#: What repackaged weights of one model are called.
_SAME_MODEL = re.compile(r"(-unsloth)?(-bnb)?(-(4bit|8bit|int4|int8|fp8|awq|gptq|gguf|bf16|fp16))*$")


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """One adapter.

    Args:
        adapter_id: its folder's name, with the folders above it up to the one that was given.
        rank: the largest of its modules.
        base: model that it was trained on, "" where it does not say.
        patterned: modules differ in rank or alpha.
    """

    adapter_id: str
    rank: int
    base: str
    patterned: bool
    file: Path


def is_adapter_folder(path: Any) -> bool:
    """Whether a registry is one of folders: a folder, a configuration, or a list of these."""
    several = path if isinstance(path, (list, tuple)) else [path]
    files = [Path(str(one)).expanduser() for one in several if str(one or "").strip()]
    return bool(files) and all(file.is_dir() or file.name == CONFIG for file in files)


def read_adapter_folders(path: Any, served: str | None) -> tuple[tuple[PeftAdapter, ...], list[str]]:
    """Adapters below one or several folders, by name, and notes.

    Args:
        served: the base model of the fleet; None = not known, adapters are compared with each other.

    Raises:
        InputError: there is none, a configuration is no LoRA that vLLM serves, or of another base model.
    """
    several = path if isinstance(path, (list, tuple)) else [path]
    found: dict[str, PeftAdapter] = {}
    for one in several:
        top = Path(str(one)).expanduser()
        files = [top] if top.name == CONFIG else sorted(top.rglob(CONFIG))
        if not files:
            raise InputError(
                f"{str(one)!r} holds no {CONFIG}",
                where="option workload.registry",
                remedy="name a folder of PEFT adapters, or a table with the columns adapter_id,rank",
            )
        for file in files:
            adapter = _read(file, _name(file, top))
            if adapter.adapter_id in found:
                raise InputError(
                    f"two adapters are called {adapter.adapter_id!r}",
                    where=f"{found[adapter.adapter_id].file} and {file}",
                    remedy="rename one folder, or name the folder above both",
                )
            found[adapter.adapter_id] = adapter
    adapters = tuple(found[name] for name in sorted(found))
    _check_base(adapters, served)
    patterned = [a.adapter_id for a in adapters if a.patterned]
    notes = []
    if patterned:
        notes.append(
            f"{counted(len(patterned), 'adapter')} with rank_pattern or alpha_pattern ({', '.join(patterned[:3])}"
            f"{', ...' if len(patterned) > 3 else ''}): the largest rank counts. vLLM scales all modules by "
            "lora_alpha / r: check their answers."
        )
    return adapters, notes


def _name(file: Path, top: Path) -> str:
    """`support/de` below `top`; of a folder of the Hugging Face cache `org/name`."""
    folder = file.parent
    for part in folder.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    inside = folder.relative_to(top) if top.is_dir() and folder != top else Path()
    return inside.as_posix() if inside.parts else folder.resolve().name


def _read(file: Path, name: str) -> PeftAdapter:
    def wrong(problem: str, remedy: str) -> InputError:
        return InputError(f"adapter {name!r}: {problem}", where=str(file), remedy=remedy)

    try:
        config = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise wrong(f"its configuration cannot be read: {error}", "copy or download the adapter again") from error
    if not isinstance(config, dict):
        raise wrong("its configuration is not a JSON object", "copy or download the adapter again")
    kind = str(config.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        raise wrong(f"it is of type {kind}, and vLLM serves LoRA only", "leave it out, or train a LoRA adapter")
    refusals = {
        "it is a DoRA adapter (use_dora), which vLLM does not serve": config.get("use_dora"),
        f"it has modules_to_save {config.get('modules_to_save')}, which vLLM does not serve": (
            config.get("modules_to_save")
        ),
        f"it has bias {config.get('bias')!r}, which vLLM does not serve": config.get("bias", "none") != "none",
        "its LoRA layers have biases (lora_bias), which vLLM does not serve": config.get("lora_bias"),
    }
    for problem, holds in refusals.items():
        if holds:
            raise wrong(problem, "leave it out, or merge it into a model of its own")
    if not config.get("target_modules"):
        raise wrong("it has no target_modules, which vLLM needs", "save the adapter again with PEFT")
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, dict):
        raise wrong(f"its rank_pattern {pattern!r} is no mapping", "give module: rank")
    ranks = {"r": config.get("r"), **{f"rank_pattern of {m}": r for m, r in pattern.items()}}
    for place, rank in ranks.items():
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= MOST_RANK:
            raise wrong(f"its {place} is {rank!r}, not a whole number from 1 to {MOST_RANK}", "vLLM serves no other")
    return PeftAdapter(
        name, max(ranks.values()), str(config.get("base_model_name_or_path") or ""),
        bool(pattern or config.get("alpha_pattern")), file,
    )  # fmt: skip


def _check_base(adapters: Sequence[PeftAdapter], served: str | None) -> None:
    known = [a for a in adapters if a.base]
    if not known:
        return
    wanted = served or max((a.base for a in known), key=lambda base: sum(b.base == base for b in known))
    for adapter in known:
        if _model(adapter.base) != _model(wanted):
            raise InputError(
                f"adapter {adapter.adapter_id!r} was trained on {adapter.base!r}, "
                + (f"the fleet serves {served!r}" if served else f"the others on {wanted!r}"),
                where=str(adapter.file),
                remedy="leave it out, choose model=..., or say workload.base=null to compare adapters with each other "
                "only",
            )


def _model(name: str) -> str:
    """`llama-3.1-8b-instruct` of paths and names of that model."""
    last = name.rstrip("/").rpartition("/")[2].lower().removeprefix("meta-")
    if name.rstrip("/").rpartition("/")[2].startswith("models--"):
        last = last.rpartition("--")[2]
    return _SAME_MODEL.sub("", last)
