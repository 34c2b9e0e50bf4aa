"""vLLM's own adapter caches without a model: which adapters are loaded and evicted, in which order.

Everything that decides is vLLM's (`LRUCacheWorkerLoRAManager`, `LRUCacheLoRAModelManager`, `AdapterLRUCache`); only
the reading of weights is replaced, and the model has no layer to write them to. Imports vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from vllm.lora.lora_model import LoRAModel
from vllm.lora.lora_weights import LoRALayerWeights
from vllm.lora.model_manager import LRUCacheLoRAModelManager
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from twin.engine.state import EVICTED, HOST, LOADED, SLOT


def lora_request(adapter: int, seed: int = 0) -> LoRARequest:
    """The request of an adapter index; vLLM's ids count from 1, its set order hashes the name."""
    return LoRARequest(lora_name=f"adapter-{seed}-{adapter}", lora_int_id=adapter + 1, lora_path="/none")


class _NoLayers(torch.nn.Module):
    """A model that declares LoRA support and has no layer that an adapter could change."""

    supports_lora = True
    is_3d_moe_weight = False
    is_non_gated_moe = False
    embedding_modules = {"none": "none"}  # noqa: RUF012 - vLLM's protocol wants a class attribute
    packed_modules_mapping: dict[str, list[str]] = {}  # noqa: RUF012
    lora_skip_prefixes: list[str] = []  # noqa: RUF012
    lora_manager: Any = None


class _RecordingManager(LRUCacheLoRAModelManager):  # type: ignore[misc] # vllm is untyped where it is not installed
    """Writes down (kind, adapter, value) of each change of the two caches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.changes: list[tuple[int, int, int]] = []
        self._leaving_host = False
        super().__init__(*args, **kwargs)

    def _add_adapter(self, lora: Any) -> None:
        super()._add_adapter(lora)
        self.changes.append((LOADED, lora.id - 1, HOST))

    def activate_adapter(self, lora_id: int) -> bool:
        written = bool(super().activate_adapter(lora_id))
        if written:
            self.changes.append((LOADED, lora_id - 1, SLOT))
        return written

    def remove_oldest_adapter(self) -> bool:
        self._leaving_host = True
        removed = bool(super().remove_oldest_adapter())
        self._leaving_host = False
        return removed

    def deactivate_adapter(self, adapter_id: int) -> bool:
        if self._leaving_host:
            self.changes.append((EVICTED, adapter_id - 1, HOST))
        return bool(super().deactivate_adapter(adapter_id))

    def _deactivate_adapter(self, lora_id: int) -> None:
        if lora_id in self.lora_index_to_id:
            self.changes.append((EVICTED, lora_id - 1, SLOT))
        super()._deactivate_adapter(lora_id)


class RecordingAdapters(LRUCacheWorkerLoRAManager):  # type: ignore[misc]
    """The worker's adapter caches; `activate` is what the model runner calls before each step."""

    _manager_cls = _RecordingManager

    def __init__(self, vllm_config: Any) -> None:
        super().__init__(vllm_config, torch.device("cpu"), {})
        self.create_lora_manager(_NoLayers(), vllm_config)

    def _load_adapter(self, lora_request: LoRARequest) -> LoRAModel:
        layer = LoRALayerWeights("none", 1, 1, torch.zeros(1, 1), torch.zeros(1, 1))
        return LoRAModel(lora_request.lora_int_id, 1, {"none": layer})

    def activate(self, requests: Iterable[LoRARequest]) -> list[tuple[int, int, int]]:
        """Applies a batch's adapters in the order given; returns the changes (kind, adapter, value)."""
        manager = self._adapter_manager
        manager.changes = []
        self._apply_adapters(requests)
        changes: list[tuple[int, int, int]] = manager.changes
        return changes
