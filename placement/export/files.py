"""The exporter of a run: checks before anything is solved, writes `deploy/`, removes what an earlier run left there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

from placement.export.blis import Blis
from placement.export.kubernetes import Kubernetes
from placement.export.litellm import LiteLlm
from placement.export.names import base_names, check_names
from placement.export.servers import Plan, servers_of
from placement.export.vllm import VllmScripts
from twin.config.ranges import Range, check_fields
from twin.config.schema import parse, unknown_key
from twin.errors import InputError
from twin.files import write_text
from twin.server.calibration import Calibration
from twin.server.flags import FLAGS
from twin.server.groups import ModelConfig
from twin.server.settings import EngineSetting
from twin.workload.workload import Workload

FOLDER = "deploy"
#: Flags that every start script has beside those of the setting, and short forms of these.
WRITTEN = ("model", "served_model_name", "port", "enable_lora", "lora_modules")
SHORT = ("-tp",)
#: What a run wrote into `deploy/`, so that the next one removes it and nothing else.
LISTING = ".written.json"
FORMATS = {"vllm": VllmScripts, "kubernetes": Kubernetes, "litellm": LiteLlm, "blis": Blis}


class Format(Protocol):
    """One kind of deployment files: pairs of a path below `deploy/` and its text; `.sh` is made executable."""

    def files(self, plan: Plan) -> Iterator[tuple[str, str]]: ...


class Exporter(Protocol):
    """Writes files made from a `placement.json` document."""

    def for_run(
        self, workload: Workload, settings: Sequence[EngineSetting], calibrations: Mapping[str, Calibration]
    ) -> Exporter:
        """The exporter of one run; raises `InputError` for what it could not write down, before anything is solved."""
        ...

    def write(self, document: dict[str, Any], directory: Path) -> list[Path]: ...


def nothing(**unused: Any) -> None:
    """`export=none`; options of other exporters may stand beside it."""
    del unused


@dataclass(frozen=True, slots=True)
class DeploymentFiles:
    """`deploy/` in the formats asked for.

    Args:
        model: what to serve.
        adapter_dir: folder with the adapters, each below it by its name; a column `path` of the workload comes first.
        url: address of a server; `{gpu_id}`, `{host}` (number of its machine) and `{port}` are filled in.
        port: of the first server of a machine.
        servers_per_host: GPUs of the plan on one machine; above 1, ports count up and each server sees its own GPUs.
        flags: further flags of `vllm serve`, as one text.
        formats: `vllm`, `kubernetes`, `litellm`, `blis` -> their options.
    """

    model: ModelConfig
    adapter_dir: str = "/adapters"
    url: str = "http://{gpu_id}:{port}"
    port: Annotated[int, Range(1, 65_535)] = 8000
    servers_per_host: Annotated[int, Range(1, 64)] = 1
    flags: str = ""
    formats: Mapping[str, Any] = field(default_factory=lambda: {"vllm": {}})
    workload: Workload | None = None
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    _made: tuple[Format, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"export.{name}")
        try:
            self.url.format(gpu_id="gpu0", host=0, port=self.port)
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(
                f"export.url {self.url!r} has an unknown field: {error}", remedy="use {gpu_id}, {host} and {port}"
            ) from error
        check_flags(self.flags)
        if not self.formats:
            raise InputError("export.formats is empty", remedy=f"use some of {', '.join(FORMATS)}, or export=none")
        made: list[Format] = []
        for name, options in self.formats.items():
            if name not in FORMATS:
                raise unknown_key(str(name), FORMATS, "export.formats")
            made.append(parse(FORMATS[name], options or {}, f"export.formats.{name}"))
        object.__setattr__(self, "_made", tuple(made))

    def for_run(
        self, workload: Workload, settings: Sequence[EngineSetting], calibrations: Mapping[str, Calibration]
    ) -> DeploymentFiles:
        own = replace(self, workload=workload, calibrations=calibrations)
        adapters = [(a.adapter_id, a.rank) for a in workload.adapters]
        check_names(self.model.name, adapters, own._paths())
        for made in own._made:
            if isinstance(made, Kubernetes):
                made.check(self.model.name, adapters, settings)
            if isinstance(made, LiteLlm):
                _check_wildcards([name for name, _ in adapters])
        highest = self.port + self.servers_per_host * max((s.servers_per_gpu for s in settings), default=1) - 1
        if highest > 65_535:
            raise InputError(
                f"export.port {self.port} with {self.servers_per_host} GPUs on a machine ends at port {highest}",
                where="export.port",
                remedy=f"use a port of at most {65_535 - highest + self.port}",
            )
        return own

    def write(self, document: dict[str, Any], directory: Path) -> list[Path]:
        """Writes `deploy/` below `directory`, without what an earlier run left there, and returns the files."""
        adapters = [(a["adapter_id"], a["rank"]) for gpu in document["gpus"] for a in gpu["adapters"]]
        check_names(self.model.name, adapters, self._paths())
        plan = Plan(
            model=self.model,
            base_names=base_names(self.model.name, adapters),
            servers=servers_of(document["gpus"], url=self.url, port=self.port, servers_per_host=self.servers_per_host),
            adapter_dir=self.adapter_dir,
            port=self.port,
            paths=self._paths(),
            flags=tuple(shlex.split(self.flags)),
            workload=self.workload,
            calibrations=self.calibrations,
        )
        # All of them before the first is written: half a deployment is worse than none.
        texts = dict(pair for made in self._made for pair in made.files(plan))
        remove_old(directory)
        folder = directory / FOLDER
        write_text(folder / LISTING, json.dumps(sorted(texts), indent=1) + "\n")
        for name, text in texts.items():
            write_text(folder / name, text, executable=name.endswith(".sh"))
        return [folder / name for name in texts]

    def _paths(self) -> dict[str, str]:
        return {} if self.workload is None else {a.adapter_id: a.path for a in self.workload.adapters if a.path}


def check_flags(text: str) -> None:
    """Refuses further flags that are no words, or that say otherwise what the plan says: vLLM takes the last one."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"export.flags {text!r} is no list of words: {error}", remedy="close its quotes") from error
    own = {f"--{name.replace('_', '-')}" for name in (*FLAGS, *WRITTEN)}
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if flag in own or flag.replace("--no-", "--", 1) in own or flag in SHORT:
            raise InputError(
                f"export.flags says {word}, which the plan says itself",
                where="export.flags",
                remedy="leave it out; what a plan chooses is set before it: engine.max_loras=..., export.port=...",
            )


def VllmExport(
    model: ModelConfig, adapter_dir: str = "/adapters", url: str = "http://{gpu_id}:{port}", port: int = 8000
) -> DeploymentFiles:
    """`DeploymentFiles` with start scripts only, under the name that it once had."""
    return DeploymentFiles(model, adapter_dir, url, port)


def remove_old(directory: Path) -> None:
    """Removes what an earlier run wrote into `deploy/`; files of somebody else stay."""
    folder = directory / FOLDER
    listing = folder / LISTING
    try:
        names = json.loads(listing.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        names = []
    root = folder.resolve()
    for name in names if isinstance(names, list) else []:
        path = folder / str(name)
        if root in path.resolve().parents:
            path.unlink(missing_ok=True)
            parents = [p for p in path.parents if root in p.resolve().parents]
            for parent in parents:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
    listing.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _check_wildcards(names: Sequence[str]) -> None:
    for name in names:
        if "*" in name:
            raise InputError(
                f"LiteLLM reads the star in {name!r} as any text",
                where="export=litellm",
                remedy="rename the adapter, or leave litellm out of export",
            )
