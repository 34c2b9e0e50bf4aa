"""The requests of an advice: lengths with exactly the means and spreads asked for, in random order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range
from twin.errors import InputError

#: Requests drawn for each one kept; taking every k-th of them in order of length leaves little sampling error.
OVERSAMPLING = 64
#: Longer than any request that is drawn, tokens: what is too long is cut when means are right.
UNCUT = 2**30


@dataclass(frozen=True, slots=True)
class LengthConfig:
    """`lengths`: prompt and output tokens of the requests.

    Args:
        prompt_cv, output_cv: standard deviation / mean; 0 = constant.
        correlation: of prompt and output length of a request.
    """

    prompt_mean: Annotated[float, Range(1, 1_000_000, unit="tokens")]
    output_mean: Annotated[float, Range(2, 1_000_000, unit="tokens")]
    prompt_cv: Annotated[float, Range(0, 10)] = 1.1
    output_cv: Annotated[float, Range(0, 10)] = 1.06
    correlation: Annotated[float, Range(-1, 1)] = 0.0


@dataclass(frozen=True, slots=True)
class RequestLengths:
    """N requests in their order of service; all lists (N,)."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt)

    def parts(self, servers: int) -> list[RequestLengths]:
        """The requests of each of `servers` servers, dealt in turn."""
        return [RequestLengths(self.prompt[s::servers], self.output[s::servers]) for s in range(servers)]


def request_lengths(config: LengthConfig, *, requests: int, max_model_len: int, seed: int) -> RequestLengths:
    """N requests, none longer than the model allows.

    Raises:
        InputError: the mean request is longer than the model allows.
    """
    from twin.traffic.lengths import LengthSampler
    from twin.traffic.streams import LENGTHS, stream_keys
    from twin.workload.adapter import Adapter, Lengths

    if config.prompt_mean + config.output_mean > max_model_len:
        raise InputError(
            f"a mean request of {config.prompt_mean:g} + {config.output_mean:g} tokens exceeds max_model_len "
            f"{max_model_len}",
            where="lengths",
            remedy="give shorter lengths",
        )
    rng = np.random.default_rng(seed)

    def lengths(mean: float, cv: float) -> Lengths:
        return Lengths(mean, cv) if cv > 0 else Lengths(mean, 0.0, shape="constant")

    adapter = Adapter(
        "requests", 0, 1.0, lengths(config.prompt_mean, config.prompt_cv),
        lengths(config.output_mean, config.output_cv),
        length_correlation=config.correlation if min(config.prompt_cv, config.output_cv) > 0 else 0.0,
    )  # fmt: skip
    sampler = LengthSampler([adapter], stream_keys([adapter.adapter_id], seed)[:, LENGTHS].copy(), UNCUT)
    prompt, _, output = sampler.draw(np.zeros(requests * OVERSAMPLING, np.int32))
    every = np.argsort(output, kind="stable")[OVERSAMPLING // 2 :: OVERSAMPLING]
    order = rng.permutation(every)
    prompt = np.minimum(_with_mean(prompt[order], config.prompt_mean), max_model_len - 1)
    output = np.minimum(_with_mean(output[order], config.output_mean), max_model_len - prompt)
    return RequestLengths(tuple(prompt.tolist()), tuple(output.tolist()))


def _with_mean(tokens: NDArray[np.int32], mean: float) -> NDArray[np.int64]:
    """Whole numbers >= 1 whose mean is the one asked for, before long requests are cut."""
    scaled: NDArray[np.int64] = np.maximum(1, np.rint(tokens * (mean / tokens.mean()))).astype(np.int64)
    return scaled
