"""Sends requests to OpenAI-compatible servers at their arrival times, whatever the servers do (open loop).

Prompts are token ids, so that lengths are exact; answers are streamed and have exactly the tokens asked for
(`ignore_eos`). What is still unanswered when the window ends is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.workload.requests import Requests

#: Token ids that prompts are made of: ordinary words in the vocabulary of every model in use.
FIRST_TOKEN, LAST_TOKEN = 100, 1000
#: Share of requests that may fail before a measurement is worthless.
MOST_FAILED = 0.02


@dataclass(frozen=True, slots=True)
class Route:
    """Where an adapter's requests go.

    Args:
        url: address of the server, without `/v1`.
        model: its name there, that of the adapter or of the base model.
    """

    url: str
    model: str


@dataclass(slots=True)
class Answers:
    """What came back for N requests; times in seconds from the start of the window, inf = not within it.

    Args:
        sent_s: when the request left, (N,).
        first_token_s, finish_s: when its first and last token arrived, (N,).
        start: `time.perf_counter()` at the start of the window: on Linux the clock of the server's probe, too.
        errors: messages of requests that a server refused or broke off.
    """

    sent_s: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    start: float = 0.0
    errors: list[str] = field(default_factory=list)


def offer_load(
    requests: Requests, routes: Sequence[Route], *, horizon_s: float, seed: int = 0, linger: bool = False
) -> Answers:
    """Sends N requests at their arrival times.

    Args:
        routes: of each request, N.
        seed: of the prompts' tokens.
        linger: wait for all answers, beyond the window.

    Raises:
        InputError: aiohttp is not installed, no server answers, or more than `MOST_FAILED` of the requests fail.
    """
    try:
        import aiohttp  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError("aiohttp is not installed", remedy="pip install 'adapter-placement[record]'") from error
    answers = asyncio.run(_offer(requests, routes, horizon_s, seed, linger))
    if len(answers.errors) > MOST_FAILED * len(requests):
        raise InputError(
            f"{len(answers.errors)} of {len(requests)} requests failed: {answers.errors[0]}",
            where=routes[0].url if routes else "",
            remedy="look at the server's log",
        )
    return answers


async def _offer(requests: Requests, routes: Sequence[Route], horizon_s: float, seed: int, linger: bool) -> Answers:
    import aiohttp

    n = len(requests)
    answers = Answers(np.full(n, np.inf), np.full(n, np.inf), np.full(n, np.inf))
    bodies = _bodies(requests, routes, seed)
    tasks: list[asyncio.Task[None]] = []
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        answers.start = time.perf_counter()
        for r, arrival_s in enumerate(requests.arrival_s.tolist()):
            wait_s = arrival_s - (time.perf_counter() - answers.start)
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            answers.sent_s[r] = time.perf_counter() - answers.start
            tasks.append(asyncio.create_task(_request(session, routes[r].url, bodies[r], answers, r)))
        left_s = None if linger else max(0.0, horizon_s - (time.perf_counter() - answers.start))
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=left_s)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
    return answers


def _bodies(requests: Requests, routes: Sequence[Route], seed: int) -> list[bytes]:
    """The requests as JSON, made beforehand so that sending costs little."""
    rng = np.random.default_rng(seed)
    made = []
    for r, (prompt, output) in enumerate(zip(requests.prompt.tolist(), requests.output.tolist(), strict=True)):
        body: dict[str, Any] = {
            "model": routes[r].model,
            "prompt": rng.integers(FIRST_TOKEN, LAST_TOKEN, prompt).tolist(),
            "max_tokens": output,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        made.append(json.dumps(body).encode())
    return made


async def _request(session: Any, url: str, body: bytes, answers: Answers, r: int) -> None:
    import aiohttp

    headers = {"Content-Type": "application/json"}
    try:
        async with session.post(f"{url}/v1/completions", data=body, headers=headers) as response:
            if response.status != 200:
                text = (await response.text())[:200]
                answers.errors.append(f"HTTP {response.status} {text}")
                return
            last_s = np.inf
            async for line in response.content:
                if line.startswith(b"data: {"):
                    last_s = time.perf_counter() - answers.start
                    answers.first_token_s[r] = min(answers.first_token_s[r], last_s)
                    if b'"error"' in line[:20]:
                        answers.errors.append(line.decode(errors="replace")[:200])
                        return
                elif line.startswith(b"data: [DONE]"):
                    answers.finish_s[r] = last_s
                    return
            answers.errors.append("the answer broke off")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        answers.errors.append(f"{type(error).__name__}: {error}")
