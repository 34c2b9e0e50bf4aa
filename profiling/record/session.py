"""What a recording is of: `session.json`."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from profiling.record.files import SCHEMA_VERSION, read_session
from twin.errors import InputError
from twin.files import write_text


def open_session(out: Path, model: str, gpu: str) -> None:
    """Writes `session.json`, or checks that an unfinished recording is of the same model and GPU.

    Raises:
        InputError: it is of something else.
    """
    said = {"model": model, "gpu": gpu}
    if not (out / "session.json").is_file():
        session = {"schema_version": SCHEMA_VERSION, "date": date.today().isoformat(), **said}
        write_text(out / "session.json", json.dumps(session))
        return
    known = read_session(out)
    for name, value in said.items():
        if known[name] != value:
            raise InputError(
                f"the recording in {out} is of {name} {known[name]!r}, not {value!r}",
                where="out",
                remedy="give another folder",
            )
