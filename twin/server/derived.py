"""What a derived calibration knows of its own uncertainty, and the calibrations at its two ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: `careful`: slower and with less memory, which plans are made on; `hopeful`: the other side.
End = Literal["careful", "hopeful"]

#: Parts of a calibration, in words; keys are how their coefficients begin or are listed in `_STEP_PARTS`.
PARTS = {
    "kernels": "kernels and host of a step without adapters",
    "adapters": "the adapters' terms of a step",
    "scheduler": "the scheduler's terms of a step",
    "load": "adapter loads",
    "kv": "the memory left for the KV cache",
}
_KERNELS = ("base", "seq", "prompt", "kv", "cliff", "past_graph", "plain_large")
_SCHEDULER = ("skipped", "queue", "skipped_seq")


def part_of(key: str) -> str:
    """The part that a coefficient belongs to: `step.base` -> `kernels`."""
    group, _, name = key.partition(".")
    if group != "step":
        return group
    return "kernels" if name in _KERNELS else "scheduler" if name in _SCHEDULER else "adapters"


def largest_coefficient(derived: Derived, part: str) -> str:
    """The coefficient of a part whose two ends differ most, in ms of a typical step where it has a share of one."""

    def width(key: str) -> float:
        return derived.widths_ms.get(key, abs(derived.careful[key] - derived.hopeful[key]))

    return max((key for key in derived.careful if part_of(key) == part), key=width)


def derived_note(name: str, derived: Derived) -> str:
    """What every result of a derived calibration says."""
    return (
        f"calibration {name} is derived, not measured: {derived.kernels}; host, adapters, loads and memory from "
        f"{', '.join(derived.learned_from)}"
    )


@dataclass(frozen=True, slots=True)
class Derived:
    """Of a calibration that was computed and not measured; keys are coefficients, e.g. `step.base` or `kv.free_bytes`.

    Args:
        learned_from: measured calibrations that host, adapters, loads and memory come from.
        kernels: where kernel times come from, in words.
        intervals: central 80 % of each coefficient by itself.
        careful, hopeful: coefficients at the two ends; jointly, an end is passed in about one case in ten.
        parts: what may be off -> what it adds to the mean of a light and a busy step at the careful end, ms.
        widths_ms: coefficient of the step-time law -> by how much that step differs between the ends through it.
    """

    learned_from: tuple[str, ...]
    kernels: str
    intervals: Mapping[str, tuple[float, float]]
    careful: Mapping[str, float]
    hopeful: Mapping[str, float]
    parts: Mapping[str, float]
    widths_ms: Mapping[str, float]

    def end(self, end: End) -> Mapping[str, float]:
        """The coefficients at one end."""
        return self.careful if end == "careful" else self.hopeful

    def mixed(self, part: str) -> dict[str, float]:
        """The careful end with one part at the hopeful one."""
        return {key: (self.hopeful if part_of(key) == part else self.careful)[key] for key in self.careful}

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for YAML."""
        return {
            "learned_from": list(self.learned_from),
            "kernels": self.kernels,
            "intervals": {k: list(v) for k, v in self.intervals.items()},
            "careful": dict(self.careful),
            "hopeful": dict(self.hopeful),
            "parts": dict(self.parts),
            "widths_ms": dict(self.widths_ms),
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
        widths_ms={k: float(v) for k, v in data["widths_ms"].items()},
    )
