"""The length tables are the published histogram, and stretch to the means that were served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from profiling.published.histogram import draw_pair, published_histogram
from twin.errors import InputError
from twin.traffic.histogram import PROBABILITIES, RANK_CORRELATION, published_quantiles


@pytest.mark.parametrize("side", ["prompt", "output"])
def test_tables_are_the_digitised_histogram(measured_data: Path, side: str) -> None:
    table = pd.read_csv(measured_data / "adapter_serving" / "length_histogram.csv")
    rows = table[table["kind"] == side]
    # Its first bin is coarse: only the edges beyond are compared.
    below = (np.cumsum(rows["share"]) / rows["share"].sum()).to_numpy()[:-1]
    edges = rows["to_tokens"].to_numpy(float)[:-1]
    kept = below < 0.98
    assert published_quantiles(side, below[kept]) == pytest.approx(edges[kept], rel=0.05)
    first_quartile = {"prompt": 23.0, "output": 27.0}[side]
    assert float(published_quantiles(side, 0.25)) == pytest.approx(first_quartile, abs=1.5)


def test_quantiles_rise_from_the_shortest_to_the_longest() -> None:
    for side in ("prompt", "output"):
        assert (np.diff(published_quantiles(side, PROBABILITIES)) > 0).all()
    with pytest.raises(InputError, match="cached"):
        published_quantiles("cached", 0.5)


def test_stretched_to_the_served_means_the_spreads_are_those_of_the_served_data() -> None:
    """Standard deviations of the served data set: 247 and 207 tokens."""
    rng = np.random.default_rng(0)
    prompt, output = draw_pair(
        published_histogram("prompt").with_mean(223.0), published_histogram("output").with_mean(196.5), 200_000, rng
    )
    assert prompt.mean() == pytest.approx(223.0, rel=0.01) and prompt.std() == pytest.approx(247.0, rel=0.02)
    assert output.mean() == pytest.approx(196.5, rel=0.01) and output.std() == pytest.approx(207.0, rel=0.03)
    assert spearmanr(prompt, output).statistic == pytest.approx(RANK_CORRELATION, abs=0.01)
