"""Residuals of a fit as a picture: recorded steps against the law's, by decodes, prompt tokens and adapters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from profiling.fit.micro import Row
from profiling.fit.regression import relative_errors
from twin.pictures import blank, png
from twin.server.laws import STEP_TERMS

#: Axis of each panel: what it shows, and the term whose feature it is.
PANELS = (("decodes in the step", "seq"), ("prompt tokens in the step", "prompt"), ("adapters in the step", "adapter"))


def residuals_png(rows: Sequence[Row], coefficients: NDArray[np.float64], title: str) -> bytes:
    """Three panels, a point a row, its area by its weight.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = blank(11, 3.6, option="plot=true", otherwise=", or leave plot=true out")
    errors = 100 * relative_errors(rows, coefficients)
    area = 25 * np.array([r.weight for r in rows])
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (label, term) in zip(axes, PANELS, strict=True):
        x = np.array([r.features[STEP_TERMS.index(term)] for r in rows])
        panel.axhline(0, color="#1c2330", linewidth=0.8)
        panel.scatter(x, errors, s=area, color="#3b6ea8", alpha=0.5, linewidths=0)
        panel.set_xlabel(label)
    axes[0].set_ylabel("law / recorded - 1, %")
    figure.suptitle(title)
    return png(figure)
