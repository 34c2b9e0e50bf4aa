"""What a derived calibration knows of its own uncertainty, and the calibrations at its two ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: `careful`: slower and with less memory, which plans are made on; `hopeful`: the other side.
End = Literal["careful", "hopeful"]


@dataclass(frozen=True, slots=True)
class Derived:
    """Of a calibration that was computed and not measured; keys are coefficients, e.g. `step.base` or `kv.free_bytes`.

    Args:
        learned_from: measured calibrations that host, adapters, loads and memory come from.
        kernels: where kernel times come from, in words.
        intervals: central 80 % of each coefficient by itself.
        careful, hopeful: coefficients at the two ends; jointly, an end is passed in about one case in ten.
        parts: part of the server -> what it adds to the mean of a light and a busy step at the careful end, ms.
    """

    learned_from: tuple[str, ...]
    kernels: str
    intervals: Mapping[str, tuple[float, float]]
    careful: Mapping[str, float]
    hopeful: Mapping[str, float]
    parts: Mapping[str, float]

    def end(self, end: End) -> Mapping[str, float]:
        """The coefficients at one end."""
        return self.careful if end == "careful" else self.hopeful

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for YAML."""
        return {
            "learned_from": list(self.learned_from),
            "kernels": self.kernels,
            "intervals": {k: list(v) for k, v in self.intervals.items()},
            "careful": dict(self.careful),
            "hopeful": dict(self.hopeful),
            "parts": dict(self.parts),
        }


def derived_from_dict(data: Mapping[str, Any]) -> Derived:
    """From plain containers."""
    return Derived(
        learned_from=tuple(str(v) for v in data["learned_from"]),
        kernels=str(data["kernels"]),
        intervals={k: (float(v[0]), float(v[1])) for k, v in data["intervals"].items()},
        careful={k: float(v) for k, v in data["careful"].items()},
        hopeful={k: float(v) for k, v in data["hopeful"].items()},
        parts={k: float(v) for k, v in data["parts"].items()},
    )
