"""From recorded requests to adapters: rates, burstiness, lengths, cache hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.traffic.length_shapes import recorded_quantiles
from twin.wording import counted
from twin.workload.adapter import Adapter, Lengths
from twin.workload.recording import RequestLog

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: With fewer requests an adapter's own spreads say little: it gets Poisson arrivals and the log's overall spreads.
FEW_REQUESTS = 20
#: Range of arrival CVs that estimates are cut to. Beyond it a recording shows outages and batch jobs, not burstiness.
ARRIVAL_CV_RANGE = (0.1, 10.0)
#: Range that spreads of lengths are cut to.
LENGTH_CV_MAX = 10.0
#: Some of each prompt is always computed.
CACHED_FRACTION_MAX = 0.99


@dataclass(frozen=True, slots=True)
class Estimates:
    """What a log says about each of N adapters, all arrays (N,); see `estimate`."""

    count: Ints
    rate_req_per_s: Floats
    arrival_cv: Floats
    prompt_mean: Floats
    prompt_cv: Floats
    output_mean: Floats
    output_cv: Floats
    length_correlation: Floats
    cached_prompt_fraction: Floats
    notes: tuple[str, ...]
    prompt_quantiles: tuple[tuple[float, ...], ...] = ()
    output_quantiles: tuple[tuple[float, ...], ...] = ()

    def lengths(self, i: int) -> tuple[Lengths, Lengths]:
        """Prompt and output lengths of adapter `i`."""
        prompt = Lengths(float(self.prompt_mean[i]), float(self.prompt_cv[i]))
        output = Lengths(float(self.output_mean[i]), float(self.output_cv[i]))
        if self.prompt_quantiles:
            prompt = replace(prompt, shape="empirical", quantiles=self.prompt_quantiles[i])
            output = replace(output, shape="empirical", quantiles=self.output_quantiles[i])
        return prompt, output

    def adapters(self, ids: Sequence[str], ranks: Sequence[int], rates: Floats) -> tuple[Adapter, ...]:
        """Adapters with these ids, ranks and rates (req/s), (N,) each; those with rate 0 are left out."""
        return tuple(
            Adapter(
                ids[i],
                int(ranks[i]),
                float(rates[i]),
                *self.lengths(i),
                float(self.arrival_cv[i]),
                float(self.cached_prompt_fraction[i]),
                float(self.length_correlation[i]),
            )
            for i in map(int, np.flatnonzero(rates > 0))
        )


def estimate(
    log: RequestLog,
    n_adapters: int,
    *,
    quantile: float | None,
    window_s: float,
    duration_s: float,
    keep_lengths: bool = False,
) -> Estimates:
    """Estimates every adapter from its own requests.

    Rates are means over `duration_s`, or the `quantile` of the rates in windows of `window_s` (but never less than
    the mean, which is what an adapter that rests most of the time has). The arrival CV is that of the gaps between
    an adapter's requests over the whole log. Adapters with fewer than `FEW_REQUESTS` requests keep their own rate,
    mean lengths and cache hits, and get Poisson arrivals and the overall spreads; adapters with none get overall
    means too, and rate 0. With `keep_lengths` the quantiles of an adapter's lengths are kept, or those of all requests
    for adapters with few (`Lengths.quantiles`).

    Raises:
        InputError: the log is shorter than a window, or covers no time at all.
    """
    if duration_s <= 0:
        raise InputError(
            f"all {len(log)} requests have the same time: no rate can be told from them",
            where="option workload.path",
            remedy="give the time the log covers: workload.duration_s=3600",
        )
    who = log.adapter
    count = np.bincount(who, minlength=n_adapters)
    few = count < FEW_REQUESTS
    notes: list[str] = []
    rate = count / duration_s
    if quantile is not None:
        mean_total = float(rate.sum())
        high = _window_quantiles(log, n_adapters, quantile, window_s)
        rested = int(np.count_nonzero((high < rate) & (count > 0)))
        rate = np.maximum(rate, high)
        notes.append(
            f"Rates are the {quantile:g} quantile over windows of {window_s:g} s, adapter by adapter: "
            f"{rate.sum():.4g} req/s in total, against {mean_total:.4g} req/s on average"
            + (f"; {counted(rested, 'adapter')} had a higher mean than that and kept it." if rested else ".")
        )

    prompt = np.maximum(log.prompt_tokens, 1.0)
    output = np.maximum(log.output_tokens, 1.0)
    empty = int(np.count_nonzero(log.prompt_tokens < 1) + np.count_nonzero(log.output_tokens < 1))
    if empty:
        notes.append(f"{counted(empty, 'length')} of 0 tokens (prompt or output) counted as 1 token.")
    prompt_mean, prompt_cv, prompt_deviation = _moments(prompt, who, count, few)
    output_mean, output_cv, output_deviation = _moments(output, who, count, few)
    cached = _by_adapter(np.minimum(log.cached_tokens, prompt), who, n_adapters)
    prompts = _by_adapter(prompt, who, n_adapters)
    fraction = np.divide(cached, prompts, out=np.full(n_adapters, cached.sum() / prompts.sum()), where=count > 0)
    cv, cut = _arrival_cvs(log, n_adapters)
    if cut:
        notes.append(
            f"{counted(cut, 'arrival CV')} outside {ARRIVAL_CV_RANGE[0]:g}..{ARRIVAL_CV_RANGE[1]:g} cut to that range."
        )
    sparse = int(np.count_nonzero(few & (count > 0)))
    if sparse:
        notes.append(
            f"{counted(sparse, 'adapter')} with fewer than {FEW_REQUESTS} requests taken as Poisson, with the "
            "overall spread of lengths."
        )
    return Estimates(
        count,
        rate,
        cv,
        prompt_mean,
        prompt_cv,
        output_mean,
        output_cv,
        possible_correlation(
            _correlations(prompt_deviation, output_deviation, who, n_adapters, few), prompt_cv, output_cv
        ),
        np.minimum(fraction, CACHED_FRACTION_MAX),
        tuple(notes),
        *([_quantiles(lengths, who, few) for lengths in (prompt, output)] if keep_lengths else []),
    )


def _quantiles(lengths: Floats, who: Ints, few: NDArray[np.bool_]) -> tuple[tuple[float, ...], ...]:
    """Quantiles of each adapter's lengths, N of them; of all requests where an adapter has few."""
    overall = recorded_quantiles(lengths)
    order = np.argsort(who, kind="stable")
    ends = np.cumsum(np.bincount(who, minlength=len(few)))
    own = np.split(lengths[order], ends[:-1])
    return tuple(overall if few[i] else recorded_quantiles(own[i]) for i in range(len(few)))


def possible_correlation(correlation: Floats | float, prompt_cv: Floats, output_cv: Floats) -> Floats:
    """The correlation, brought near enough to 0 for E[prompt * output] > 0, which all lengths have; (N,)."""
    return np.maximum(correlation, -0.99 / np.maximum(prompt_cv * output_cv, 1e-9))


def _by_adapter(values: Floats, who: Ints, n_adapters: int) -> Floats:
    return np.asarray(np.bincount(who, weights=values, minlength=n_adapters), np.float64)


def _moments(lengths: Floats, who: Ints, count: Ints, few: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Means (N,), CVs (N,) and deviations of each request from its adapter's mean (R,)."""
    n = len(count)
    total = float(lengths.mean())
    mean = np.divide(_by_adapter(lengths, who, n), count, out=np.full(n, total), where=count > 0)
    deviation = lengths - mean[who]
    variance = np.divide(_by_adapter(deviation**2, who, n), np.maximum(count, 1))
    cv = np.where(few, float(lengths.std()) / total, np.sqrt(variance) / mean)
    return mean, np.minimum(cv, LENGTH_CV_MAX), deviation


def _correlations(prompt: Floats, output: Floats, who: Ints, n_adapters: int, few: NDArray[np.bool_]) -> Floats:
    """Correlation of prompt and output length within each adapter, (N,), from deviations (R,)."""
    joint = _by_adapter(prompt * output, who, n_adapters)
    scale = np.sqrt(_by_adapter(prompt**2, who, n_adapters) * _by_adapter(output**2, who, n_adapters))
    own = np.divide(joint, scale, out=np.zeros(n_adapters), where=scale > 0)
    overall = joint.sum() / np.sqrt((prompt**2).sum() * (output**2).sum()) if scale.sum() > 0 else 0.0
    return np.clip(np.where(few, overall, own), -1.0, 1.0)


def _arrival_cvs(log: RequestLog, n_adapters: int) -> tuple[Floats, int]:
    """CV of the gaps between arrivals, (N,), and how many were cut to `ARRIVAL_CV_RANGE`."""
    order = np.lexsort((log.time_s, log.adapter))
    who, time_s = log.adapter[order], log.time_s[order]
    same = who[1:] == who[:-1]
    gaps, of = np.diff(time_s)[same], who[1:][same]
    count = np.bincount(of, minlength=n_adapters)
    mean = _by_adapter(gaps, of, n_adapters) / np.maximum(count, 1)
    variance = _by_adapter((gaps - mean[of]) ** 2, of, n_adapters) / np.maximum(count - 1, 1)
    known = count + 1 >= FEW_REQUESTS
    cv = np.ones(n_adapters)
    # All requests at one instant: as bursty as it gets.
    cv[known] = np.divide(np.sqrt(variance), mean, out=np.full(n_adapters, np.inf), where=mean > 0)[known]
    cut = np.clip(cv, *ARRIVAL_CV_RANGE)
    return cut, int(np.count_nonzero(cut != cv))


def _window_quantiles(log: RequestLog, n_adapters: int, quantile: float, window_s: float) -> Floats:
    """Quantile over whole windows of each adapter's rate, req/s, (N,); windows without requests count as 0."""
    since_s = log.time_s - log.time_s.min()
    windows = int(since_s.max() // window_s)
    if windows < 1:
        raise InputError(
            f"the log covers {since_s.max():.4g} s, less than one window of {window_s:g} s",
            where="option workload.window_s",
            remedy="choose shorter windows, or workload.quantile=null for mean rates",
        )
    window = (since_s // window_s).astype(np.int64)
    whole = window < windows
    rates = np.empty(n_adapters)
    order = np.argsort(log.adapter[whole], kind="stable")
    who, window = log.adapter[whole][order], window[whole][order]
    block = max(1, 4_000_000 // windows)
    for first in range(0, n_adapters, block):
        size = min(block, n_adapters - first)
        start, end = np.searchsorted(who, [first, first + size])
        cells = (who[start:end] - first) * windows + window[start:end]
        counts = np.bincount(cells, minlength=size * windows).reshape(size, windows)
        rates[first : first + size] = np.quantile(counts, quantile, axis=1) / window_s
    return rates
