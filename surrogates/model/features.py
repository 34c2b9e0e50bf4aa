"""Features of a column: sums over its adapters, hence linear in the numbers of adapters of each kind.

An adapter with rate `r` (req/s), prompt length p and output length o (tokens) contributes, for example, `r E[o]`
(output tokens per second) and `1 - exp(-r E[o] tau)`: the share of time that it occupies a slot if a token takes
`tau` seconds. Without such length-aware terms the boundary of starvation is missed by up to a half.

Rank 0 (requests to the base model) is never gated and needs no slot: it contributes its load, and nothing to the
features that count adapters or slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from twin.workload.adapter import Adapter

Array = NDArray[np.float64]

#: Residence of a request in a slot, s, for the features `busy_*`.
BUSY_S = (1.0, 4.0, 20.0, 100.0)
#: Seconds per output token, for the features `residence_*`: from an idle GPU to a saturated one.
TOKEN_S = (0.01, 0.03, 0.1, 0.3)
#: Ranks are weighted relative to this one.
REFERENCE_RANK = 16.0

#: (name, unit, counts adapters in slots) of each feature, in order.
FEATURES: tuple[tuple[str, str, bool], ...] = (
    ("rate", "req/s", False),
    ("computed_prompt_rate", "tokens/s", False),
    ("cached_prompt_rate", "tokens/s", False),
    ("output_rate", "tokens/s", False),
    ("kv_rate", "tokens^2/s", False),
    ("output_square_rate", "tokens^2/s", False),
    ("squared_output_rate", "(tokens/s)^2", False),
    ("burst_rate", "req/s", False),
    ("burst_output_rate", "tokens/s", False),
    *((f"busy_{tau:g}s", "adapters", True) for tau in BUSY_S),
    *((f"residence_{1000 * tau:g}ms", "adapters", True) for tau in TOKEN_S),
    ("count", "adapters", True),
    ("rank_count", "adapters x rank/16", True),
    ("rank_rate", "req/s x rank/16", False),
    ("rank_residence_30ms", "adapters x rank/16", True),
)
FEATURE_NAMES: tuple[str, ...] = tuple(name for name, _, _ in FEATURES)
FEATURE_UNITS: tuple[str, ...] = tuple(unit for _, unit, _ in FEATURES)
#: Features that are compared with the number of slots, (F,).
SLOT_FEATURES: NDArray[np.bool_] = np.array([slot for _, _, slot in FEATURES])
#: Position of a feature by name.
INDEX: dict[str, int] = {name: k for k, name in enumerate(FEATURE_NAMES)}


@dataclass(frozen=True, slots=True)
class AdapterArrays:
    """N adapters as arrays of shape (N,); the fast path from a workload file or a sampler to features.

    Fields are those of `twin.workload.adapter.Adapter`, with the mean and CV of both lengths side by side.
    """

    rank: Array
    rate_req_per_s: Array
    prompt_mean: Array
    prompt_cv: Array
    output_mean: Array
    output_cv: Array
    arrival_cv: Array
    cached_prompt_fraction: Array
    length_correlation: Array

    def __len__(self) -> int:
        return len(self.rate_req_per_s)

    def scaled(self, factor: float) -> AdapterArrays:
        """All rates times `factor`."""
        return replace(self, rate_req_per_s=self.rate_req_per_s * factor)

    def matrix(self) -> Array:
        """One row an adapter in field order, shape (N, 9), for storage."""
        return np.stack([getattr(self, f.name) for f in fields(self)], axis=1)

    @classmethod
    def from_matrix(cls, matrix: Array) -> AdapterArrays:
        """Inverse of `matrix`."""
        return cls(*np.ascontiguousarray(matrix.T))

    @classmethod
    def from_adapters(cls, adapters: Sequence[Adapter]) -> AdapterArrays:
        """Reads the fields of N adapters."""
        rows = [
            (
                a.rank, a.rate_req_per_s, a.prompt_tokens.mean, a.prompt_tokens.cv, a.output_tokens.mean,
                a.output_tokens.cv, a.arrival_cv, a.cached_prompt_fraction, a.length_correlation,
            )
            for a in adapters
        ]  # fmt: skip
        return cls.from_matrix(np.array(rows, dtype=np.float64).reshape(-1, len(fields(cls))))


def features_of_arrays(adapters: AdapterArrays) -> Array:
    """Features of N adapters, shape (N, F), F = len(FEATURE_NAMES). A column's features are the sum over axis 0."""
    rate, out = adapters.rate_req_per_s, adapters.output_mean
    in_slot = (adapters.rank > 0).astype(np.float64)
    weight = adapters.rank / REFERENCE_RANK
    prompt_rate, output_rate = rate * adapters.prompt_mean, rate * out
    cached = prompt_rate * adapters.cached_prompt_fraction
    correlated = 1.0 + adapters.length_correlation * adapters.prompt_cv * adapters.output_cv
    bursts = rate * adapters.arrival_cv**2
    busy = -np.expm1(-rate[:, None] * np.array(BUSY_S)) * in_slot[:, None]
    residence = -np.expm1(-output_rate[:, None] * np.array(TOKEN_S)) * in_slot[:, None]
    load = (
        rate,
        prompt_rate - cached,
        cached,
        output_rate,
        prompt_rate * out * correlated,
        output_rate * out * (1.0 + adapters.output_cv**2),
        output_rate**2,
        bursts,
        bursts * out,
    )
    slots = (in_slot, weight, weight * rate, weight * residence[:, TOKEN_S.index(0.03)])
    return np.column_stack([*load, busy, residence, *slots])


def adapter_features(adapters: Sequence[Adapter]) -> Array:
    """Features of N adapters, shape (N, F); shape (0, F) for none."""
    return features_of_arrays(AdapterArrays.from_adapters(adapters))
