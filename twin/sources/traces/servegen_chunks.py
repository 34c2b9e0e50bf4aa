"""ServeGen as it is published: `chunk-N-trace.csv` and `chunk-N-dataset.json` for each client N.

A trace has no header: start of a 10-minute window, rate, CV, pattern and its two parameters; a window without requests
has no pattern. A dataset gives the distributions of lengths in each 6-hour window, texts such as `"{547: 0.008, ...}"`.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.sources.estimates import ARRIVAL_CV_RANGE
from twin.sources.traces.servegen_files import ClientLengths, Clients, mixed_lengths, window_of

Floats = NDArray[np.float64]

TRACE = re.compile(r"chunk-(\d+)-trace\.csv")
_KEY = re.compile(r"([\d.]+):")
#: Fields of a line of a trace.
FIELDS = 6


def chunk_folder(path: Any, trace: str) -> Path | None:
    """The folder that holds the chunks: the one given, or that of the trace below it; None where there are none."""
    given = Path(str(path or "")).expanduser()
    for folder in (given, given / trace, given / "language" / trace, given / "data" / "language" / trace):
        if folder.is_dir() and any(TRACE.fullmatch(file.name) for file in folder.iterdir()):
            return folder
    return None


def read_chunk_windows(folder: Path) -> Clients:
    """Rates and CVs of all clients.

    Raises:
        InputError: names file and line.
    """
    files = sorted((int(m[1]), file) for file in folder.iterdir() if (m := TRACE.fullmatch(file.name)))
    starts: list[Floats] = []
    rates: list[Floats] = []
    cvs: list[Floats] = []
    for _, file in files:
        start, rate, cv = _trace(file)
        starts.append(start)
        rates.append(rate)
        cvs.append(cv)
    first = min(float(start[0]) for start in starts)
    places = [window_of(start, first, str(file)) for start, (_, file) in zip(starts, files, strict=True)]
    shape = (len(files), 1 + max(int(place.max()) for place in places))
    rate_table, cv_table = np.zeros(shape), np.ones(shape)
    cut = windows = 0
    for row, place in enumerate(places):
        on = rates[row] > 0
        kept = np.clip(cvs[row][on], *ARRIVAL_CV_RANGE)
        rate_table[row, place[on]], cv_table[row, place[on]] = rates[row][on], kept
        cut, windows = cut + int(np.count_nonzero(kept != cvs[row][on])), windows + int(on.sum())
    active = np.flatnonzero(rate_table.max(axis=1))
    if not len(active):
        raise InputError("no client has any requests", where=str(folder), remedy="give the files as they are published")
    ids = [str(files[i][0]) for i in active]
    return Clients(ids, first, rate_table[active], cv_table[active], cut / windows)


def _trace(file: Path) -> tuple[Floats, Floats, Floats]:
    """Starts (s), rates (req/s) and CVs of one client, (W,)."""
    import pandas as pd

    try:
        frame = pd.read_csv(file, header=None, names=list(range(FIELDS)), index_col=False)
        start, rate, cv = (frame[i].to_numpy(np.float64) for i in range(3))
    except (ValueError, OSError) as error:
        raise InputError(
            f"the ServeGen trace cannot be read: {str(error).splitlines()[0]}",
            where=str(file),
            remedy="lines are start,rate,cv,pattern,parameter,parameter, without a header",
        ) from error
    bad = ~(np.isfinite(start) & np.isfinite(rate) & np.isfinite(cv) & (rate >= 0) & (cv >= 0))
    if bad.any() or not len(start):
        raise InputError(
            "a start, rate or CV is not a number >= 0",
            where=f"{file}, line {int(np.argmax(bad)) + 1 if len(start) else 1}",
            remedy="give the file as it is published",
        )
    return start, rate, cv


def read_chunk_lengths(folder: Path, clients: Clients, limit: float) -> ClientLengths:
    """Lengths of all clients, cut to `limit` tokens of prompt and output.

    Raises:
        InputError: names the file.
    """
    client: list[int] = []
    start: list[float] = []
    moments: list[tuple[float, ...]] = []
    for index, name in enumerate(clients.ids):
        file = folder / f"chunk-{name}-dataset.json"
        for time, fields in _dataset(file).items():
            prompt, output = (_distribution(fields, key, file) for key in ("input_tokens", "output_tokens"))
            if not len(prompt[0]) or not len(output[0]):
                continue  # nothing was sent
            out_mean, out_second, out_cut = _cut(output, limit - 1)
            in_mean, in_second, in_cut = _cut(prompt, max(1.0, limit - out_mean))
            client.append(index)
            start.append(float(time))
            moments.append((in_mean, in_second, out_mean, out_second, max(in_cut, out_cut)))
    if not client:
        raise InputError("no client has lengths", where=str(folder), remedy="give the files as they are published")
    table = np.array(moments)
    return mixed_lengths(clients, np.array(client), np.array(start), *table.T)


def _dataset(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise InputError(
            f"the lengths of client {file.name} cannot be read: {error}",
            where=str(file),
            remedy="keep chunk-N-dataset.json beside chunk-N-trace.csv",
        ) from error
    return found


def _distribution(fields: Any, key: str, file: Path) -> tuple[Floats, Floats]:
    """Lengths in tokens and their probabilities."""
    try:
        # Python's notation of numbers by numbers: JSON but for the quotes.
        pairs = json.loads(_KEY.sub(r'"\1":', fields[key]))
        values = np.array([float(v) for v in pairs]), np.array([float(p) for p in pairs.values()])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{key} is no distribution: {error}", where=str(file), remedy="give the file as it is published"
        ) from error
    return values


def _cut(distribution: tuple[Floats, Floats], limit: float) -> tuple[float, float, float]:
    """Mean and second moment of lengths cut at the limit, and the share of them that were."""
    lengths, weight = distribution
    kept = np.clip(lengths, 1.0, limit)
    total = math.fsum(weight)
    mean, second = math.fsum(weight * kept) / total, math.fsum(weight * kept * kept) / total
    return mean, second, math.fsum(weight[lengths > limit]) / total
