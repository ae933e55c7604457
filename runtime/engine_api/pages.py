"""Pages beside the Engine API: bytes at a path, on the API's own sockets or at a TCP address of their own.

A page is read-only and says nothing secret: the TCP address has no TLS and no login, and is a loopback one unless
somebody chose another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from runtime.engine_api import answering, sockets
from runtime.engine_api.call import TEXT_TYPE, Answer
from runtime.engine_api.errors import ApiError
from runtime.errors import Refused

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """``read`` makes the body anew for each request; Refused is answered as the API answers it."""

    content_type: str
    read: Callable[[], Awaitable[bytes]]


Pages = Mapping[str, Page]


async def read(pages: Pages, method: str, path: str) -> Answer | None:
    """The answer of a page, if there is one at this path (a query says nothing to it)."""
    page = pages.get(path.partition("?")[0])
    if page is None or method not in ("GET", "HEAD"):
        return None
    return Answer(200, await page.read(), page.content_type)


class PageServer:
    """Pages at a TCP address (port 0: a free one). All methods belong to one event loop."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self._host = host
        self._port = port
        self._pages = pages
        self._http: web.Server | None = None
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._server is not None, "it does not listen"
        host, port, *_ = self._server.sockets[0].getsockname()
        return str(host), int(port)

    async def start(self) -> None:
        """Listens. ListenError with a sentence if that cannot be."""
        self._http = web.Server(self._handle, access_log=None)
        try:
            self._server = await asyncio.get_running_loop().create_server(self._http, self._host, self._port)
        except OSError as error:
            raise sockets.ListenError(f"cannot listen on {self._host}:{self._port}: {error}") from error

    async def stop(self) -> None:
        """Ends it and its connections."""
        if self._server is not None:
            self._server.close()
        if self._http is not None:
            await self._http.shutdown(0.2)
        self._server = self._http = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer: Any = None
        try:
            answer = await read(self._pages, request.method, request.raw_path)
        except (ApiError, Refused) as error:
            answer = answering.refusal(error)
        except Exception as error:
            log.exception("%s failed", request.raw_path.partition("?")[0])
            answer = answering.refusal(error)
        if answer is None:
            answer = Answer(404, b"404 page not found\n", TEXT_TYPE)
        return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type})
