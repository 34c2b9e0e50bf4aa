"""Deployment files: one start script per GPU and the routing table."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from twin.config.ranges import Range, check_fields
from twin.errors import InputError
from twin.files import write_text
from twin.server.groups import ModelConfig


class Exporter(Protocol):
    """Writes files made from a `placement.json` document."""

    def write(self, document: dict[str, Any], directory: Path) -> list[Path]: ...


def nothing() -> None:
    """`export=none`."""


#: Keys of a setting that are not flags of `vllm serve`.
_NOT_FLAGS = ("servers_per_gpu",)
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class VllmExport:
    """`deploy/`: `<gpu_id>.sh` with one `vllm serve` each, and `routes.json` adapter -> servers with shares.

    Args:
        model: what to serve.
        adapter_dir: folder with one sub-folder per adapter, seen from the servers.
        url: address of a server; `{gpu_id}` and `{port}` are filled in.
        port: of the first server.
        port_step: added for each further one; 0 = all listen on the same port, each on a machine of its own.
        flags: further flags of `vllm serve`, as one text.
    """

    model: ModelConfig
    adapter_dir: str = "/adapters"
    url: str = "http://{gpu_id}:{port}"
    port: Annotated[int, Range(1, 65_535)] = 8000
    port_step: Annotated[int, Range(0, 1000)] = 0
    flags: str = ""

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"export.{name}")
        try:
            self.url.format(gpu_id="gpu0", port=self.port)
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(
                f"export.url {self.url!r} has an unknown field: {error}", remedy="use {gpu_id} and {port}"
            ) from error

    def write(self, document: dict[str, Any], directory: Path) -> list[Path]:
        """Writes `deploy/` below `directory` and returns the files."""
        folder = directory / "deploy"
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        routes: dict[str, list[dict[str, Any]]] = {}
        servers = {}
        for index, gpu in enumerate(document["gpus"]):
            script, port = folder / f"{gpu['gpu_id']}.sh", self.port + index * self.port_step
            write_text(script, self.script(gpu, port), executable=True)
            files.append(script)
            address = servers[gpu["gpu_id"]] = self.url.format(gpu_id=gpu["gpu_id"], port=port)
            for adapter in gpu["adapters"]:
                routes.setdefault(adapter["adapter_id"], []).append({"url": address, "weight": adapter["share"]})
        table = folder / "routes.json"
        content = {"model": self.model.name, "routes": routes, "servers": servers}
        write_text(table, json.dumps(content, indent=1, sort_keys=True) + "\n")
        return [*files, table]

    def script(self, gpu: dict[str, Any], port: int | None = None) -> str:
        """A POSIX shell script that starts one server; adapters are listed by name and path.

        Args:
            port: None = that of the first server.
        """
        setting = {k: v for k, v in gpu["setting"].items() if k not in _NOT_FLAGS}
        flags = [f"--{name.replace('_', '-')} {value}" for name, value in setting.items()]
        modules = [a for a in gpu["adapters"] if a["rank"] > 0]
        lines = [
            f"vllm serve {shlex.quote(self.model.weights)}",
            f"--served-model-name {shlex.quote(self.model.name)}",
            f"--port {self.port if port is None else port}",
            "--enable-lora",
            *flags,
            *([" ".join(map(shlex.quote, shlex.split(self.flags)))] if self.flags else []),
        ]
        if modules:
            lines.append("--lora-modules")
            lines += [shlex.quote(f"{a['adapter_id']}={self._path(a['adapter_id'])}") for a in modules]
        head = f"#!/bin/sh\n# {gpu['gpu_id']} ({gpu['gpu_type']}): {len(modules)} adapters\nexec "
        return head + " \\\n  ".join(lines) + "\n"

    def _path(self, adapter_id: str) -> str:
        if not _SAFE_ID.fullmatch(adapter_id) or adapter_id in (".", ".."):
            raise InputError(
                f"adapter id {adapter_id!r} cannot be the name of a folder",
                where="export",
                remedy="use letters, digits, dot, dash and underscore, or export=none",
            )
        return f"{self.adapter_dir.rstrip('/')}/{adapter_id}"
