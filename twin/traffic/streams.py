"""Random streams: one per adapter and purpose, so that no adapter's requests depend on who else is there.

A stream is a function of seed, adapter id and purpose alone: adding, removing, moving or reordering adapters leaves the
draws of all others as they were, and two runs with the same seed differ by what was changed only (common random
numbers). Each is a xoshiro256++ generator (Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM
TOMS 47, 2021), seeded by SplitMix64 as its authors advise. What is drawn from it comes from integer operations and
`twin.portable`, so that it has the same bits on every processor.

State of A streams is an array (A, 4) of 64-bit words; the compiled functions take it with the index of one stream.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin import portable
from twin.compiled import allocating

Words = NDArray[np.uint64]

#: What an adapter's streams are for: columns of `stream_keys`.
ARRIVALS, LENGTHS, SET_ORDER, ROUTING = range(4)

_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S11, _S17, _S19, _S23, _S27 = np.uint64(11), np.uint64(17), np.uint64(19), np.uint64(23), np.uint64(27)
_S30, _S31, _S41, _S45, _LAYER_BITS = np.uint64(30), np.uint64(31), np.uint64(41), np.uint64(45), np.uint64(127)
#: Between neighbours of the numbers that `uniform` draws.
TWO_TO_MINUS_53 = 1.1102230246251565e-16
TWO_TO_MINUS_32 = 2.3283064365386963e-10
_S32, _LOWER_HALF = np.uint64(32), np.uint64(0xFFFFFFFF)


def _layers() -> NDArray[np.float64]:
    """Right ends of the ziggurat's 128 layers of equal area, from the base (its tail counted in) to the top, (129,)."""
    tail, area = 3.442619855899, 9.91256303526217e-3
    height = portable.exp(-0.5 * tail * tail)
    ends = [area / height, tail]
    while len(ends) < 128:
        ends.append(float(np.sqrt(-2.0 * portable.log(area / ends[-1] + height))))
        height = portable.exp(-0.5 * ends[-1] * ends[-1])
    return np.array([*ends, 0.0])


_LAYERS = _layers()


def stream_keys(ids: Sequence[str], seed: int) -> Words:
    """Keys of every adapter's streams, (A, 4), by purpose. An id that is there twice has a key for each time."""
    keys = np.empty((len(ids), 4), np.uint64)
    seen: Counter[str] = Counter()
    for a, adapter_id in enumerate(ids):
        text = f"{int(seed)} {seen[adapter_id]} {adapter_id}"
        seen[adapter_id] += 1
        keys[a] = np.frombuffer(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest(), "<u8")
    return keys


def set_order(ids: Sequence[str], seed: int) -> NDArray[np.int32]:
    """An order of the adapters, a permutation (A,), in which the others keep theirs when one is added or removed.

    It stands for the order in which the engine's Python set of adapters happens to be walked.
    """
    return np.argsort(stream_keys(ids, seed)[:, SET_ORDER], kind="stable").astype(np.int32)


@allocating
def mixed(word: np.uint64) -> np.uint64:
    """Output of SplitMix64 for a state (Steele, Lea, Flood 2014)."""
    word = (word ^ (word >> _S30)) * _MIX1
    word = (word ^ (word >> _S27)) * _MIX2
    return word ^ (word >> _S31)


@allocating
def streams(keys: Words) -> Words:
    """State of the streams with these keys, (A,) -> (A, 4)."""
    state = np.empty((len(keys), 4), np.uint64)
    for a in range(len(keys)):
        word = keys[a]
        for i in range(4):
            word += _GOLDEN
            state[a, i] = mixed(word)
    return state


@allocating
def word(state: Words, a: int) -> Any:
    """The next 64 bits of stream `a`: xoshiro256++."""
    s0, s1, s2, s3 = state[a, 0], state[a, 1], state[a, 2], state[a, 3]
    total = s0 + s3
    s2 ^= s0
    s3 ^= s1
    state[a, 1] = s1 ^ s2
    state[a, 0] = s0 ^ s3
    state[a, 2] = s2 ^ (s1 << _S17)
    state[a, 3] = (s3 << _S45) | (s3 >> _S19)
    return ((total << _S23) | (total >> _S41)) + s0


@allocating
def uniform(state: Words, a: int) -> float:
    """Uniform in [0, 1): the upper 53 bits of a word."""
    return float(word(state, a) >> _S11) * TWO_TO_MINUS_53


@allocating
def uniform_pair(state: Words, a: int) -> tuple[float, float]:
    """Two numbers in [0, 1) of 32 bits each, the halves of a word."""
    bits = word(state, a)
    return float(bits >> _S32) * TWO_TO_MINUS_32, float(bits & _LOWER_HALF) * TWO_TO_MINUS_32


@allocating
def uniforms(state: Words, who: NDArray[np.int32]) -> NDArray[np.float64]:
    """The next number of stream `who[i]` for every i, (N,)."""
    out = np.empty(len(who), np.float64)
    for i in range(len(who)):
        out[i] = uniform(state, who[i])
    return out


@allocating
def exponential(state: Words, a: int) -> float:
    """Exponential with mean 1, by inversion."""
    return -portable.log(1.0 - uniform(state, a))


@allocating
def normal(state: Words, a: int) -> float:
    """Standard normal, by the ziggurat as J. A. Doornik corrected it (ZIGNOR, 2005): 128 layers."""
    while True:
        bits = word(state, a)
        # The lower bits choose the layer, the upper ones the point in it.
        i = np.int64(bits & _LAYER_BITS)
        u = 2.0 * (float(bits >> _S11) * TWO_TO_MINUS_53) - 1.0
        x = float(u * _LAYERS[i])
        if abs(x) < _LAYERS[i + 1]:
            return x
        if i == 0:
            while True:
                x = portable.log(1.0 - uniform(state, a)) / _LAYERS[1]
                y = portable.log(1.0 - uniform(state, a))
                if -2.0 * y >= x * x:
                    return float(x - _LAYERS[1] if u < 0.0 else _LAYERS[1] - x)
        outer = portable.exp(-0.5 * (_LAYERS[i] * _LAYERS[i] - x * x))
        inner = portable.exp(-0.5 * (_LAYERS[i + 1] * _LAYERS[i + 1] - x * x))
        if inner + uniform(state, a) * (outer - inner) < 1.0:
            return x


@allocating
def gamma(state: Words, a: int, shape: float) -> float:
    """Gamma with this shape and scale 1 (Marsaglia and Tsang, ACM TOMS 26, 2000); shape 1 is the exponential."""
    if shape == 1.0:
        return exponential(state, a)
    boost = 1.0
    if shape < 1.0:
        # Gamma(a) = Gamma(a + 1) U^(1/a).
        boost = portable.exp(portable.log(1.0 - uniform(state, a)) / shape)
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    while True:
        x = normal(state, a)
        v = 1.0 + c * x
        if v <= 0.0:
            continue
        v = v * v * v
        u = 1.0 - uniform(state, a)
        square = x * x
        if u < 1.0 - 0.0331 * square * square or portable.log(u) < 0.5 * square + d * (1.0 - v + portable.log(v)):
            break
    return float(boost * d * v)


@allocating
def _normals(state: Words, out: NDArray[np.float64]) -> None:
    for i in range(len(out)):
        out[i] = normal(state, 0)


def normals(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normals of a stream that the generator starts (its own have bits that depend on the processor)."""
    out = np.empty(int(np.prod(shape)))
    _normals(streams(rng.integers(2**64, size=1, dtype=np.uint64)), out)
    return out.reshape(shape)
