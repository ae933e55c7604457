"""The edge of published ports: this node listens on each, and hands every connection to a task, here or elsewhere.

Rules owned here:
1. A connection goes to the next backend in turn; one that does not take it within two seconds is passed over, and
   after all of them were tried the connection is closed.
2. New routes count for new connections. Those that there are go on until one side ends them; a side that has said all
   is passed on as such, and the other may go on.
3. A port that cannot be had (somebody else listens there) is told once, and tried again with each ``apply``.
4. So many connections at a time and no more: what comes beyond is closed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from runtime.swarm.ingress_tables import Backend, Routes

CONNECT_S: Final = 2.0
CONNECTIONS_MAX: Final = 8192
BACKLOG: Final = 512
CHUNK: Final = 1 << 16

log = logging.getLogger("swarmlet.ingress")


class Loop(Protocol):
    """The part of the I/O loop that is needed here."""

    def submit(self, coro: Coroutine[Any, Any, Any], done: Callable[[Any], None] | None = None) -> Callable[[], None]:
        """Runs a coroutine; ``done`` hears its result or exception."""


class IngressProxy:
    """``host``: where it listens ("" is everywhere). ``apply`` may be called from any thread."""

    def __init__(self, loop: Loop, host: str = "", connections_max: int = CONNECTIONS_MAX) -> None:
        self._loop = loop
        self._host = host or None
        self._max = connections_max
        self._routes: Mapping[int, tuple[Backend, ...]] = {}
        self._turns: dict[int, int] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self._pipes: set[asyncio.Task[Any]] = set()
        self._failed: dict[int, str] = {}
        self._full = False
        self._order: asyncio.Lock | None = None
        self._closed = False

    def apply(self, routes: Routes, done: Callable[[Mapping[int, str]], None]) -> None:
        """Takes over routes; ``done`` hears of the ports that cannot be listened on, with the reason."""
        self._loop.submit(self._apply(dict(routes)), lambda result: done(result if isinstance(result, dict) else {}))

    async def close(self) -> None:
        """Listens no more and ends every connection."""
        self._closed = True
        await self._apply({})
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _apply(self, routes: Mapping[int, tuple[Backend, ...]]) -> dict[int, str]:
        self._order = self._order or asyncio.Lock()
        async with self._order:
            self._routes = routes
            for port in [port for port in self._servers if port not in routes]:
                server = self._servers.pop(port)
                server.close()
                self._turns.pop(port, None)
            missing = [port for port in routes if port not in self._servers]
            failed = {port: text for port in missing if (text := await self._listen(port))}
            for port, text in failed.items():
                if self._failed.get(port) != text:
                    log.warning("port %d is published and cannot be listened on here: %s", port, text)
            self._failed = failed
            return failed

    async def _listen(self, port: int) -> str:
        if self._closed:
            return ""
        try:
            self._servers[port] = await asyncio.start_server(
                lambda reader, writer: self._accepted(port, reader, writer), self._host, port, backlog=BACKLOG
            )
        except OSError as error:
            return error.strerror or str(error)
        return ""

    # Connections

    def _accepted(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._pipes) >= self._max:
            if not self._full:
                log.warning("%d connections to published ports are open: more are refused", self._max)
            self._full = True
            writer.transport.abort()
            return
        self._full = False
        pipe = asyncio.get_running_loop().create_task(self._serve(port, reader, writer))
        self._pipes.add(pipe)
        pipe.add_done_callback(self._pipes.discard)

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            backend = await self._connect(port)
            if backend is None:
                return
            back_reader, back_writer = backend
            try:
                await _both(_pump(reader, back_writer), _pump(back_reader, writer))
            finally:
                back_writer.close()
        finally:
            writer.close()

    async def _connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        backends = self._routes.get(port, ())
        first = self._turns.get(port, 0)
        for step in range(len(backends)):
            chosen = backends[(first + step) % len(backends)]
            self._turns[port] = first + step + 1
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(chosen.host, chosen.port)
        return None


async def _both(*pumps: Coroutine[Any, Any, None]) -> None:
    """Runs both directions; when one breaks, the other ends with it."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.gather(*tasks)
    except OSError:
        pass  # reset by one side: both are closed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
