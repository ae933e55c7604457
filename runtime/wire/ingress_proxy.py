"""The edge of published ports: this node listens on each, and hands every connection to a task, here or elsewhere.

UDP is ``ingress_datagrams``'s. Rules owned here:
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

from runtime.swarm.ingress_tables import PublishedPort, Routes
from runtime.wire.ingress_datagrams import FLOWS_MAX, IDLE_S, DatagramPorts

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

    def __init__(
        self,
        loop: Loop,
        host: str = "",
        connections_max: int = CONNECTIONS_MAX,
        flows_max: int = FLOWS_MAX,
        idle_s: float = IDLE_S,
    ) -> None:
        self._loop = loop
        self._host = host or None
        self._max = connections_max
        self._routes: Routes = {}
        self._datagrams = DatagramPorts(
            host, lambda port: self._routes.get(PublishedPort(port, "udp"), ()), flows_max, idle_s
        )
        self._turns: dict[int, int] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self._pipes: set[asyncio.Task[Any]] = set()
        self._failed: dict[PublishedPort, str] = {}
        self._full = False
        self._order: asyncio.Lock | None = None
        self._closed = False

    def apply(self, routes: Routes, done: Callable[[Mapping[PublishedPort, str]], None]) -> None:
        """Takes over routes; ``done`` hears of the ports that cannot be listened on, with the reason."""
        self._loop.submit(self._apply(dict(routes)), lambda result: done(result if isinstance(result, dict) else {}))

    async def close(self) -> None:
        """Listens no more and ends every connection."""
        self._closed = True
        await self._apply({})
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    @property
    def flows(self) -> int:
        """How many clients of UDP ports there are."""
        return self._datagrams.flows

    async def _apply(self, routes: Routes) -> dict[PublishedPort, str]:
        self._order = self._order or asyncio.Lock()
        async with self._order:
            self._routes = routes
            for number in [number for number in self._servers if PublishedPort(number) not in routes]:
                server = self._servers.pop(number)
                server.close()
                self._turns.pop(number, None)
            self._datagrams.keep_to({port.number for port in routes if port.protocol == "udp"})
            failed = {port: text for port in routes if not self._listens(port) and (text := await self._listen(port))}
            for port, text in failed.items():
                if self._failed.get(port) != text:
                    log.warning("port %s is published and cannot be listened on here: %s", port, text)
            self._failed = failed
            return failed

    def _listens(self, port: PublishedPort) -> bool:
        return port.number in (self._datagrams.ports if port.protocol == "udp" else self._servers)

    async def _listen(self, port: PublishedPort) -> str:
        if self._closed:
            return ""
        if port.protocol == "udp":
            return self._datagrams.listen(port.number)
        number = port.number
        try:
            self._servers[number] = await asyncio.start_server(
                lambda reader, writer: self._accepted(number, reader, writer), self._host, number, backlog=BACKLOG
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
        backends = self._routes.get(PublishedPort(port), ())
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
