"""Which `vllm serve` processes a plan needs, on which port, with which flags; and where a request for a name may go."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twin.server.calibration import Calibration
from twin.server.groups import ModelConfig
from twin.server.settings import VLLM_RANKS
from twin.workload.workload import Workload

#: Keys of a setting that are not flags of `vllm serve`.
_NOT_FLAGS = ("servers_per_gpu",)
#: Flags that only a server with adapters has.
LORA_FLAGS = ("max_loras", "max_lora_rank", "max_cpu_loras")


@dataclass(frozen=True, slots=True)
class Held:
    """An adapter on a server; `share` of its requests go there."""

    adapter_id: str
    rank: int
    share: float


@dataclass(frozen=True, slots=True)
class Server:
    """One `vllm serve` process.

    Args:
        name: of its files; the GPU's, with a number where several share one.
        setting: vLLM's flags and values, and `servers_per_gpu`.
        devices: value of `CUDA_VISIBLE_DEVICES`; None = all that the machine has.
        url: where it answers.
    """

    name: str
    gpu_id: str
    gpu_type: str
    setting: Mapping[str, Any]
    adapters: tuple[Held, ...]
    port: int
    devices: str | None
    url: str

    @property
    def loras(self) -> tuple[Held, ...]:
        return tuple(a for a in self.adapters if a.rank > 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What every format writes down.

    Args:
        base_names: every name of the base model, its own first.
        port: where every server is alone, as in a pod.
        paths: adapter -> where it lies, of those whose workload says so.
        flags: further words of `vllm serve`.
        workload, calibrations: what the plan was made for, these by GPU type; None and none where a document alone is
            exported.
    """

    model: ModelConfig
    base_names: tuple[str, ...]
    servers: tuple[Server, ...]
    adapter_dir: str
    port: int
    paths: Mapping[str, str]
    workload: Workload | None = None
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    def path(self, adapter_id: str) -> str:
        """Where an adapter lies, seen from the servers: as the workload says, or below `adapter_dir` by its name."""
        return self.paths.get(adapter_id) or f"{self.adapter_dir.rstrip('/')}/{adapter_id}"

    def routes(self) -> dict[str, list[tuple[Server, float]]]:
        """Name -> servers, with the share of its requests that each gets."""
        found: dict[str, list[tuple[Server, float]]] = {}
        for server in self.servers:
            for held in server.adapters:
                found.setdefault(held.adapter_id, []).append((server, held.share))
        return found


def servers_of(gpus: Sequence[Mapping[str, Any]], *, url: str, port: int, servers_per_host: int) -> tuple[Server, ...]:
    """The processes of a plan's GPUs; where several share a GPU, each has all its adapters and its part of the load.

    Args:
        url: address of a server, with `{gpu_id}`, `{host}` and `{port}`.
        port: of the first server of a machine; the next ones count up.
        servers_per_host: GPUs of the plan on one machine. One: a server sees all GPUs of its machine.
    """
    found = []
    used = Counter[int]()
    for index, gpu in enumerate(gpus):
        setting, together = gpu["setting"], int(gpu["setting"].get("servers_per_gpu", 1))
        host, place = divmod(index, servers_per_host)
        unit = int(setting.get("tensor_parallel_size", 1))
        devices = ",".join(str(place * unit + d) for d in range(unit)) if servers_per_host > 1 else None
        for k in range(together):
            own = port + used[host]
            used[host] += 1
            found.append(
                Server(
                    name=gpu["gpu_id"] + (f"-{k}" if together > 1 else ""),
                    gpu_id=gpu["gpu_id"],
                    gpu_type=gpu["gpu_type"],
                    setting=setting,
                    adapters=tuple(Held(a["adapter_id"], a["rank"], a["share"] / together) for a in gpu["adapters"]),
                    port=own,
                    devices=devices,
                    url=url.format(gpu_id=gpu["gpu_id"], host=host, port=own),
                )
            )
    return tuple(found)


def served_rank(rank: int) -> int:
    """The smallest `--max-lora-rank` that vLLM takes and that holds a rank: 12 becomes 16."""
    return next((r for r in VLLM_RANKS[1:] if r >= rank), rank)


def vllm_arguments(server: Server, plan: Plan, *, load: bool = True, lora: bool = True) -> list[str]:
    """Words after `vllm serve`, one flag with its values an entry; each word is still unquoted text.

    Args:
        load: name the adapters, so that the server has them from its start; else something else loads them.
        lora: whether the server takes adapters at all.
    """
    flags = []
    for name, value in server.setting.items():
        if name in _NOT_FLAGS or (name in LORA_FLAGS and not lora):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append([f"--{flag}" if value else f"--no-{flag}"])
        else:
            flags.append([f"--{flag}", str(served_rank(value) if name == "max_lora_rank" else value)])
    words = [
        [plan.model.weights],
        ["--served-model-name", *plan.base_names],
        ["--port", str(server.port)],
        *([["--enable-lora"]] if lora else []),
        *flags,
        *([list(plan.flags)] if plan.flags else []),
    ]
    if load and server.loras:
        # As JSON: in `name=path` a comma in the path, or an equals sign in the name, is read as something else.
        words.append(["--lora-modules"])
        words += [[json.dumps({"name": a.adapter_id, "path": plan.path(a.adapter_id)})] for a in server.loras]
    return [" ".join(shlex.quote(word) for word in line) for line in words]


def script(server: Server, plan: Plan, *, load: bool = True, lora: bool | None = None) -> str:
    """A POSIX shell script that starts a server; adapters are listed by name and path."""
    lora = bool(server.loras) if lora is None else lora
    lines = vllm_arguments(server, plan, load=load, lora=lora)
    about = f"#!/bin/sh\n# {server.name} ({server.gpu_type}): {len(server.loras)} adapters\n"
    visible = "" if server.devices is None else f"export CUDA_VISIBLE_DEVICES={server.devices}\n"
    return about + visible + "exec vllm serve " + " \\\n  ".join(lines) + "\n"
