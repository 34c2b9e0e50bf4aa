"""Request lengths of a public conversation data set, as quantile tables.

Digitised from the length histogram published with arXiv 2508.08343: ShareGPT V3, first two turns, prompts of
4..1024 tokens, answers of 4 or more, Llama-2 tokenizer. Its first bin is coarse; the published 25 % quantiles (23 and
27 tokens) split it. The shape matters: the tail of the output lengths decides how long a slot is held.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twin.errors import InputError

#: Probabilities of the tables below; between them the quantile function is a straight line, (54,).
PROBABILITIES = (*(i / 50 for i in range(50)), 0.99, 0.995, 0.998, 1.0)
PROMPT_TOKENS = (
    4.0, 5.5, 7.0, 8.6, 10.1, 11.6, 13.1, 14.6, 16.2, 17.7, 19.2, 20.7, 22.2, 24.5, 27.6, 30.7, 33.8, 36.9, 42.7,
    50.0, 57.4, 64.7, 72.1, 85.9, 99.7, 117.0, 138.0, 162.0, 188.0, 216.0, 244.0, 270.0, 296.0, 321.0, 346.0, 368.0,
    391.0, 415.0, 439.0, 467.0, 497.0, 531.0, 572.0, 614.0, 659.0, 711.0, 769.0, 828.0, 893.0, 953.0, 985.0, 1004.0,
    1016.0, 1024.0,
)  # fmt: skip
OUTPUT_TOKENS = (
    4.0, 5.8, 7.7, 9.5, 11.4, 13.2, 15.0, 16.9, 18.7, 20.6, 22.4, 24.2, 26.1, 30.2, 36.6, 43.0, 49.4, 55.8, 62.2,
    68.6, 79.5, 93.1, 107.0, 120.0, 134.0, 150.0, 168.0, 185.0, 203.0, 220.0, 236.0, 253.0, 270.0, 287.0, 303.0,
    320.0, 336.0, 355.0, 374.0, 393.0, 415.0, 441.0, 467.0, 501.0, 539.0, 589.0, 653.0, 737.0, 833.0, 949.0, 1018.0,
    1161.0, 1418.0, 1545.0,
)  # fmt: skip
#: Parameter of the normal copula between prompt and output lengths; it reproduces the 356-365 resident KV tokens per
#: running request of the published runs (KV usage x capacity / running), where independent lengths give more.
COPULA = -0.4
#: The same as Spearman's rank correlation, 6/pi asin(COPULA / 2).
RANK_CORRELATION = -0.385


def published_quantiles(side: str, probabilities: ArrayLike) -> NDArray[np.float64]:
    """Lengths in tokens at probabilities in [0, 1], any shape; `side` is `prompt` or `output`.

    Raises:
        InputError: another side.
    """
    tables = {"prompt": PROMPT_TOKENS, "output": OUTPUT_TOKENS}
    if side not in tables:
        raise InputError(f"{side!r} has no published lengths", remedy="ask for prompt or output")
    from twin import portable  # compiled code: only where it is asked for

    return portable.interpolate(probabilities, np.array(PROBABILITIES), np.array(tables[side]))
