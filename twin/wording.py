"""Numbers in sentences, tables and JSON: one way to write each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def counted(number: int, noun: str) -> str:
    """`1 adapter`, `3 adapters`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def finite(value: Any) -> Any:
    """Plain JSON values: NaN and infinities become null, NumPy scalars Python's, also inside containers."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def rounded_down(value: float, digits: int = 3) -> float:
    """The largest number of so many significant digits that is not above a positive value: a limit to be kept."""
    scale = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return float(f"{math.floor(value / scale * (1 + 1e-12)) * scale:.{digits}g}")


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits; `-` for what is not known."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return f"{value:.1g}" if "e" in text else text


def small(value: float | None) -> str:
    """As `number`, for figures whose third decimal says nothing (requests in a queue)."""
    return "0.00" if value is not None and abs(value) < 0.005 else number(value)


def percent(value: float | None) -> str:
    """`97.3 %`; a digit more below 0.1 % and above 99.9 %, where the rest would vanish."""
    if value is None or not math.isfinite(value):
        return "-"
    if value in (0, 1):
        return f"{100 * value:.0f} %"
    if 0 < value < 0.00005:
        return "below 0.01 %"
    if 0.99995 <= value < 1:
        return "above 99.99 %"
    return f"{100 * value:.{1 if 0.001 <= value < 0.9995 or value > 1.0005 else 2}f} %"


def shown(path: Path) -> str:
    """A path relative to the working directory where possible."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
