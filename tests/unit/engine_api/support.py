"""Helpers of this room's tests: handlers called without HTTP, and a real server with a real client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp

from runtime.engine_api import router
from runtime.engine_api.call import Answer, Call
from runtime.engine_api.errors import status_and_text
from runtime.engine_api.server import EngineServer
from tests.unit.engine_api.fake import FakeBackend


def ask(
    backend: FakeBackend,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    """Route and run one request; status and parsed body, refusals as the server would answer them."""

    async def run() -> tuple[int, Any]:
        raw, _, query = path.partition("?")
        octets = b"" if body is None else json.dumps(body).encode()
        try:
            version, parts = router.split(raw)
            handler = router.route(method, parts)
            call = Call(
                backend, method, parts, query, octets, "application/json", version, (headers or {}).get
            )  # fmt: skip
            answer = await handler(call)
        except Exception as error:
            status, text = status_and_text(error)
            return status, text
        assert isinstance(answer, Answer)
        return answer.status, json.loads(answer.body) if answer.body else None

    return asyncio.run(run())


@contextlib.asynccontextmanager
async def serving(backend: FakeBackend, tmp_path: pathlib.Path, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A server on a unix socket in ``tmp_path`` and a client on it."""
    path = str(tmp_path / "api.sock")
    server = EngineServer(backend, unix_paths=[path], **options)
    await server.start()
    try:
        async with aiohttp.ClientSession(base_url="http://api", connector=aiohttp.UnixConnector(path)) as client:
            yield client
    finally:
        await server.stop()


def over_http(
    tmp_path: pathlib.Path, backend: FakeBackend, talk: Callable[[aiohttp.ClientSession], Awaitable[None]]
) -> None:
    """Run ``talk`` with a client of a served ``backend``."""

    async def run() -> None:
        async with serving(backend, tmp_path) as client:
            await talk(client)

    asyncio.run(run())
