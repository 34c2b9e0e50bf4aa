"""A server that answers as vLLM's OpenAI server does, with made-up tokens at a fixed pace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

web = pytest.importorskip("aiohttp.web", reason="aiohttp is not installed (extra record)")


@contextlib.contextmanager
def fake_server(
    token_s: float = 0.005, status: int = 200, breaks_off: bool = False
) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Yields its address and the bodies it has got."""
    got: list[dict[str, object]] = []

    async def completions(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        got.append(body)
        if status != 200:
            return web.Response(status=status, text="model not found")
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(body["max_tokens"]):
            await asyncio.sleep(token_s)
            await response.write(b"data: " + json.dumps({"choices": [{"text": "x"}]}).encode() + b"\n\n")
        if not breaks_off:
            await response.write(b"data: [DONE]\n\n")
        return response

    async def empty(request: web.Request) -> web.Response:
        return web.Response(text="")

    ready, addresses, ends = threading.Event(), list[str](), list[asyncio.Event]()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        app = web.Application()
        app.add_routes(
            [web.post("/v1/completions", completions), web.get("/health", empty), web.get("/metrics", empty)]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        addresses.append("http://127.0.0.1:" + str(runner.addresses[0][1]))
        ends.append(asyncio.Event())
        ready.set()
        await ends[0].wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield addresses[0], got
    finally:
        loop.call_soon_threadsafe(ends[0].set)
        thread.join(10)
        loop.close()
