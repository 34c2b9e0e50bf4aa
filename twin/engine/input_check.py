"""Checks of what is handed to a simulation: its numbers, and requests that were not drawn here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range, check
from twin.errors import InputError
from twin.workload.adapter import Adapter
from twin.workload.requests import Requests


def check_numbers(
    *, horizon_s: float, seed: int, time_scale: float, client_ports: int, trace_steps: int, events: int
) -> None:
    """Raises `InputError` for numbers that no simulation can have; arguments as in `twin.simulation.simulate`."""
    check_seconds("horizon_s", horizon_s, "use 3600")
    check(time_scale, "time_scale", Range(above=0, hint="1.0 leaves the law as it is"))
    for name, count, hint in (
        ("seed", seed, "use e.g. 0"),
        ("client_ports", client_ports, "0 = no limit"),
        ("trace_steps", trace_steps, "0 records nothing"),
        ("events", events, "0 records nothing"),
    ):
        check(count, name, Range(0, whole=True, hint=hint))


def check_seconds(name: str, value: float, hint: str) -> None:
    """Raises `InputError` for a time that is not finite and positive."""
    check(value, name, Range(above=0, unit="seconds", hint=hint))


def check_lengths(adapters: Sequence[Adapter], *, longest: int, model_longest: int) -> None:
    """Raises `InputError` where the mean request is longer than any may be: nearly all would be cut.

    Args:
        longest: most tokens of a request under the setting, prompt and output.
        model_longest: most tokens that the model was made for.
    """
    remedy = f"raise engine.max_model_len (the model takes up to {model_longest})"
    if longest >= model_longest:
        remedy = "the model takes no more: cut the requests or choose a model that does"
    for adapter in adapters:
        for side, lengths in (("prompt", adapter.prompt_tokens), ("output", adapter.output_tokens)):
            if lengths.mean >= longest:
                raise InputError(
                    f"adapter {adapter.adapter_id!r}: mean {side} length {lengths.mean:.10g} is not below "
                    f"max_model_len {longest}",
                    where=f"{side}_tokens",
                    remedy=f"{remedy}, or give the lengths that clients may send",
                )


def check_requests(requests: Requests, adapters: Sequence[Adapter], *, longest: int) -> None:
    """Raises `InputError` for requests that an engine would refuse or that name unknown adapters.

    Args:
        longest: most tokens of a request, prompt and output (`max_model_len`).
    """
    n = len(requests)
    for name in ("adapter", "prompt", "cached", "output"):
        size = len(getattr(requests, name))
        if size != n:
            raise InputError(f"requests have {n} arrival times, but {size} values of {name}", remedy="give one each")
    if n == 0:
        return
    prompt, output = requests.prompt.astype(np.int64), requests.output.astype(np.int64)

    def refuse(wrong: NDArray[np.bool_], name: str, values: NDArray[np.generic], problem: str, remedy: str) -> None:
        if wrong.any():
            r = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"request {r}: {name} {values[r].item()!r} {problem}",
                where=f"{int(wrong.sum())} of {n} requests",
                remedy=remedy,
            )

    arrival = requests.arrival_s
    refuse(
        ~(np.isfinite(arrival) & (arrival >= 0)), "arrival", arrival, "s is not a time >= 0",
        "count seconds from the start of the window",
    )  # fmt: skip
    refuse(
        np.append(False, np.diff(arrival) < 0), "arrival", arrival, "s is before that of the request ahead of it",
        "sort the requests by arrival",
    )  # fmt: skip
    refuse(
        (requests.adapter < 0) | (requests.adapter >= len(adapters)), "adapter", requests.adapter,
        f"is not one of the column's {len(adapters)}", "use indices into the column's adapters",
    )  # fmt: skip
    refuse(prompt < 1, "prompt", prompt, "is not a number of tokens >= 1", "leave out empty requests")
    refuse(output < 1, "output", output, "is not a number of tokens >= 1", "leave out requests without output")
    refuse(
        (requests.cached < 0) | (requests.cached >= prompt), "cached", requests.cached,
        "tokens of the prompt is not between 0 and its length (exclusive)", "the last token is always computed",
    )  # fmt: skip
    refuse(
        prompt + output > longest, "length", prompt + output, f"tokens is beyond max_model_len {longest}",
        "cut the requests as the server does, or raise engine.max_model_len",
    )  # fmt: skip
