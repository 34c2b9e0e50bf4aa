"""A calibration that nobody measured, derived by `profiling` in a process of its own and kept.

The twin knows nothing of `profiling` or of the package with operator times, and no run pays for loading them twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twin.errors import DoesNotFitError, InputError
from twin.files import write_text
from twin.server.calibration import Calibration, load_calibration

log = logging.getLogger(__name__)

#: Folder of derived calibrations, instead of the user's cache folder.
FOLDER_VARIABLE = "ADAPTER_PLACEMENT_CALIBRATIONS"
PROGRAM = "profiling.derive"


def derived_folder() -> Path:
    """Where derived calibrations are kept."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "adapter-placement" / "calibrations"


def derived_calibration(request: Mapping[str, Any]) -> Calibration:
    """The derived calibration, from the folder of derived ones if it is there.

    Args:
        request: `{"model": name, sizes, config; "hardware": the data sheet; "engine": flags that count}`.

    Raises:
        InputError: nothing can be derived; says what is missing. `DoesNotFitError` where memory is.
    """
    model, hardware = request["model"]["name"], request["hardware"]["name"]
    path = derived_folder() / f"{model}-{hardware}-{_key(request)}.yaml"
    if not path.is_file():
        log.info("no measured calibration of %s on %s: deriving one", model, hardware)
        text = _derived(request)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        except OSError as error:
            raise InputError(
                f"the derived calibration cannot be kept: {error}",
                where=str(path.parent),
                remedy=f"set {FOLDER_VARIABLE} to a folder that can be written to",
            ) from error
    log.info("derived calibration: %s", path)
    return load_calibration(path)


def _key(request: Mapping[str, Any]) -> str:
    """Changes with the request, with a `config.json` it names, and with what derives from it."""
    parts = [json.dumps(request, sort_keys=True)]
    config = request["model"]["config"]
    if config is not None:
        file = Path(str(config)).expanduser()
        file = file / "config.json" if file.is_dir() else file
        parts.append(file.read_text() if file.is_file() else "")
    spec = find_spec("profiling")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        sources = sorted(p for p in (Path(folder) / "derive").iterdir() if p.suffix in (".py", ".yaml"))
        parts += [p.read_text() for p in sources]
    parts.append(str(find_spec("aiconfigurator_core") is not None))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _derived(request: Mapping[str, Any]) -> str:
    """The calibration's YAML from the deriving process."""
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    if done.returncode == InputError.exit_code:
        told = json.loads(done.stdout)
        wrong = InputError if told["fits"] else DoesNotFitError
        raise wrong(told["problem"], where=told["where"], remedy=told["remedy"])
    if done.returncode != 0:
        raise RuntimeError(f"python -m {PROGRAM} ended with code {done.returncode}:\n{done.stderr}")
    return done.stdout
