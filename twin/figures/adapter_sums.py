"""Mean ITL, TPOT and E2E of every adapter of a column, as sums: those of several windows add up.

Each figure is a ratio of sums over requests, `total / weight`: the weight of a request is 1, or for the ITL its tokens
after the first. Squares are kept too, for how far chance alone (few requests, long ones) moves a mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.compiled import allocating

Array = NDArray[np.float64]

#: Figures, in the order of the arrays; fields of `twin.workload.adapter.Slo`.
MEANS = ("itl_mean_ms", "tpot_mean_ms", "e2e_mean_s")
ITL, TPOT, E2E = 0, 1, 2
#: Sums over requests of: 1, weight w, total x, x^2, x w, w^2.
REQUESTS, WEIGHT, TOTAL, TOTAL_2, TOTAL_WEIGHT, WEIGHT_2 = range(6)


@allocating
def adapter_sums(
    adapter: NDArray[np.int32], e2e_s: Array, decode_s: Array, gaps: NDArray[np.int32], done: NDArray[np.bool_],
    n_adapters: int,
) -> Array:  # fmt: skip
    """Sums of a window's cohort, (3, 6, A); arguments have one value a request.

    Args:
        adapter: index of its adapter.
        e2e_s: from arrival to last token, or to the end of the window: the E2E counts whether it finished or not.
        decode_s, gaps: from the first token to the last, and tokens after the first; of those that are `done`.
    """
    sums = np.zeros((3, 6, n_adapters))
    for r in range(len(adapter)):
        a = adapter[r]
        for figure in range(3):
            x, w = e2e_s[r], 1.0
            if figure < E2E:
                if not done[r] or gaps[r] <= 0:
                    continue
                x = 1000.0 * decode_s[r]
                if figure == ITL:
                    w = float(gaps[r])
                else:
                    x /= gaps[r]
            sums[figure, REQUESTS, a] += 1.0
            sums[figure, WEIGHT, a] += w
            sums[figure, TOTAL, a] += x
            sums[figure, TOTAL_2, a] += x * x
            sums[figure, TOTAL_WEIGHT, a] += x * w
            sums[figure, WEIGHT_2, a] += w * w
    return sums


@dataclass(frozen=True, slots=True)
class AdapterSums:
    """Sums of A adapters.

    Args:
        sums: (3, 6, A), figures `MEANS` by sums `REQUESTS`, ..., `WEIGHT_2`.
    """

    sums: Array

    @property
    def requests(self) -> Array:
        """Requests behind each mean, (3, A)."""
        counts: Array = self.sums[:, REQUESTS]
        return counts

    @property
    def means(self) -> Array:
        """Means in the units of `MEANS`, (3, A); NaN without a request."""
        weight = self.sums[:, WEIGHT]
        return ratio(self.sums[:, TOTAL], weight, weight > 0)

    def mean(self, figure: int) -> Array:
        """One row of `means`, (A,)."""
        row: Array = self.means[figure]
        return row

    @property
    def errors(self) -> Array:
        """Standard errors of the means if requests were independent, (3, A); NaN below two requests.

        Of a ratio of sums R: the root of sum (x - R w)^2 n / (n - 1), over sum w (Cochran, "Sampling Techniques",
        2.11).
        """
        n, mean = self.requests, self.means
        residual = self.sums[:, TOTAL_2] - 2 * mean * self.sums[:, TOTAL_WEIGHT] + mean * mean * self.sums[:, WEIGHT_2]
        spread = ratio(np.maximum(residual, 0.0) * n, n - 1, n > 1)
        return ratio(np.sqrt(spread), self.sums[:, WEIGHT], n > 1)


def ratio(top: Array, bottom: Array, known: NDArray[np.bool_]) -> Array:
    """top / bottom where it is known, else NaN."""
    result = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=result, where=known)
    return result


def pooled(parts: Iterable[Array]) -> AdapterSums:
    """The sums of several windows of the same adapters together; each (3, 6, A)."""
    return AdapterSums(np.sum(list(parts), axis=0))
