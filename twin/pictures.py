"""Pictures by matplotlib, without pyplot: no global state, no display, and the same bytes every time."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from twin.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank(width: float, height: float, *, option: str, otherwise: str = "", dpi: int = 110) -> Figure:
    """A figure, width and height in inches.

    Args:
        option: that asks for the picture. otherwise: what helps beside installing matplotlib.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError(
            f"{option} needs matplotlib, which is not installed",
            where=option.partition("=")[0],
            remedy=f"pip install 'adapter-placement[plot]'{otherwise}",
        ) from error
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Any) -> bytes:
    """A figure as a PNG file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
