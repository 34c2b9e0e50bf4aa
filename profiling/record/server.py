"""A vLLM server to measure: started with the probe inside, or one that runs already."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiling.record import probe
from twin.errors import InputError

#: Distribution that the probe's entry points belong to, beside the recording.
PLUGIN = "adapter_placement_probe"
ENTRY_POINTS = f"""[vllm.general_plugins]
adapter_placement_probe = {PLUGIN}:install

[vllm.stat_logger_plugins]
adapter_placement_facts = {PLUGIN}:EngineFacts
"""
POLL_S = 0.5
PR_SET_PDEATHSIG = 1
#: Seconds that a server gets to end by itself.
STOP_S = 20.0
LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers.

    Args:
        folder: what its probe writes; its log is `server.log`.
        engine: version, memory and flags, as the probe says them.
    """

    url: str
    folder: Path
    engine: Mapping[str, Any]


def _ends_with_us() -> None:
    """Linux: a server whose recorder was killed ends too, so that its port is free again."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def plugin_folder(folder: Path) -> Path:
    """Writes the probe as a package that vLLM finds when the folder is on PYTHONPATH; returns the folder."""
    info = folder / f"{PLUGIN}-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PLUGIN}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    shutil.copyfile(probe.__file__, folder / f"{PLUGIN}.py")
    return folder


def probe_environment(folder: Path) -> dict[str, str]:
    """Environment of a server whose probe writes to `folder`."""
    path = [str(plugin_folder(folder / "plugin")), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), probe.FOLDER: str(folder.resolve())}


@contextmanager
def started(command: Sequence[str], *, port: int, folder: Path, timeout_s: float) -> Iterator[Server]:
    """Starts a server, waits until it answers, and stops it at the end.

    Args:
        command: without `--port`.

    Raises:
        InputError: the program or port cannot be used, the server ends or does not answer in time, or its version is
            not the probe's.
    """
    check_port(port)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.jsonl"), folder / "engine.json", folder / "refused.json"):
        old.unlink(missing_ok=True)
    with (folder / "server.log").open("w") as log:
        try:
            process = subprocess.Popen(
                [*command, "--port", str(port)], stdout=log, stderr=subprocess.STDOUT,
                env=probe_environment(folder), process_group=0, preexec_fn=_ends_with_us,
            )  # fmt: skip
        except OSError as error:
            raise InputError(
                f"{command[0]!r} cannot be started: {error.strerror}",
                where="vllm",
                remedy="give vllm=<path of the program>, e.g. /path/to/vllm-env/bin/vllm",
            ) from error
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, timeout_s, process, folder / "server.log")
            yield Server(url, folder, engine_facts(folder))
        finally:
            stop(process)


def attached(url: str, folder: Path) -> Server:
    """A server that runs already, started with the probe's environment; the probe is written where it is to be found.

    Raises:
        InputError: it does not answer, or no probe of it writes to the folder.
    """
    plugin_folder(folder / "plugin")
    if not answers(url):
        raise InputError(f"no server answers at {url}/health", where=f"url = {url}", remedy="start it, or fix the URL")
    return Server(url.rstrip("/"), folder, engine_facts(folder))


def served_models(url: str) -> tuple[str, dict[str, int]]:
    """The base model's name on a server, and its adapters with their ranks, from the folders that they were read from.

    Raises:
        InputError: it has no base model, or an adapter's folder cannot be read here.
    """
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as response:
        models = json.load(response)["data"]
    bases = [m["id"] for m in models if not m.get("parent")]
    if not bases:
        raise InputError("the server names no base model", where=f"{url}/v1/models", remedy="start vLLM's own server")
    ranks = {}
    for model in models:
        if model.get("parent"):
            config = Path(str(model["root"])) / "adapter_config.json"
            try:
                ranks[str(model["id"])] = int(json.loads(config.read_text())["r"])
            except (OSError, ValueError, KeyError) as error:
                raise InputError(
                    f"the rank of adapter {model['id']!r} is not known: {error}",
                    where=str(config),
                    remedy="run the recorder on the server's machine",
                ) from error
    return str(bases[0]), ranks


def check_port(port: int) -> None:
    """Raises `InputError` where something listens already."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} is in use", where=f"port = {port}", remedy="give another one, or stop what uses it"
            ) from error


def answers(url: str) -> bool:
    """Whether the server says that it is well."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def wait_until_ready(url: str, timeout_s: float, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for the server's first answer.

    Raises:
        InputError: it ended, or took longer; with the last lines of its log.
    """
    deadline = time.monotonic() + timeout_s
    while not answers(url):
        if process.poll() is not None:
            raise InputError(
                f"the server ended with code {process.returncode}:\n{_tail(log)}",
                where=str(log),
                remedy="fix what the log says; model, adapters and flags are those of the command",
            )
        if time.monotonic() > deadline:
            raise InputError(
                f"the server did not answer within {timeout_s:g} s:\n{_tail(log)}",
                where=str(log),
                remedy="give start_timeout_s=<seconds>",
            )
        time.sleep(POLL_S)


def engine_facts(folder: Path) -> dict[str, Any]:
    """What the probe said of the engine.

    Raises:
        InputError: there is no probe, or vLLM has another version than the probe's.
    """
    if (folder / "refused.json").is_file():
        found = json.loads((folder / "refused.json").read_text())["version"]
        raise InputError(
            f"the server is vLLM {found}; steps and loads are recorded inside vLLM {probe.VERSION} only",
            where=str(folder),
            remedy=f"install vllm=={probe.VERSION}.*",
        )
    try:
        facts: dict[str, Any] = json.loads((folder / "engine.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            "the server's probe has said nothing",
            where=str(folder / "engine.json"),
            remedy=f"start the server with {probe.FOLDER}={folder} and the folder {folder / 'plugin'} on PYTHONPATH",
        ) from error
    return facts


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its processes."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
        if kind == signal.SIGKILL or not _group_alive(process.pid):
            break


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    said = [x for x in lines if "rror" in x] or lines
    return "\n".join(x[:300] for x in said[-LOG_LINES:])
