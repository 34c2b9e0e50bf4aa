"""Additive features of adapters: what the physics adds up, at a few paces, (N, F).

The steady state is a function of sums over adapters at the column's own pace (`surrogates.steady_state.tables`). A
solver needs features that it can add before it knows the pace, so these sums are taken at `PACES` paces; between them
a column's facets and loads interpolate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.items import items_of
from surrogates.steady_state.tables import (
    ACTIVE,
    BELOW,
    CELLS,
    COMPANIONS,
    COUNT,
    DECODE,
    KV,
    LUMP,
    PROMPT,
    RATE,
    SPREAD,
    Tables,
    tables_of,
)
from twin.server.calibration import Calibration
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]

#: Paces at which adapters are looked up, in shortest steps.
PACES = (1.0, 2.0, 4.0, 8.0)
#: Points of the tables' grid at these paces.
_POINTS = np.array([round(CELLS * (BELOW + np.log2(p))) for p in PACES])
_LINEAR = np.array([RATE, DECODE, PROMPT, KV, COUNT, LUMP])
_PACED = np.array([ACTIVE, SPREAD, COMPANIONS])
#: Names of the features, (F,).
FEATURE_NAMES: tuple[str, ...] = (
    "rate", "decode_rate", "prompt_rate", "kv_rate", "count", "prompt_square_rate",
    *(f"{name}_{pace:g}" for pace in PACES for name in ("active", "active_spread", "companions")),
)  # fmt: skip
#: Adapters whose tables are made at once: some 10 kB each.
_AT_ONCE = 4000


def kind_of(adapter: Adapter) -> Adapter:
    """The adapter without its name and place: adapters of one kind have the same features."""
    return replace(adapter, adapter_id="kind", pinned_gpu=None)


def features_of_tables(tables: Tables) -> Array:
    """Features of the adapters of tables, (N, F)."""
    paced = tables.paced[_POINTS][:, :, _PACED].swapaxes(0, 1)
    return np.concatenate([tables.linear[:, _LINEAR], paced.reshape(len(paced), -1)], axis=1)


def adapter_features(adapters: Sequence[Adapter], calibration: Calibration) -> Array:
    """Features of N adapters, (N, F); a column's are the sum over its adapters."""
    kinds: dict[Adapter, int] = {}
    index = np.array([kinds.setdefault(kind_of(a), len(kinds)) for a in adapters], np.int64)
    distinct = list(kinds)
    found = np.zeros((len(distinct), len(FEATURE_NAMES)))
    for start in range(0, len(distinct), _AT_ONCE):
        part = distinct[start : start + _AT_ONCE]
        items = items_of(part, max_model_len=calibration.model.max_model_len)
        tables = tables_of(items, base_s=calibration.step.base / 1000.0, crowded=False)
        found[start : start + len(part)] = features_of_tables(tables)
    return found[index]
