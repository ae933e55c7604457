"""The edge of published ports: this node listens on each, and hands every connection to a task, here or elsewhere.

UDP is ``ingress_datagrams``'s, and what becomes of a connection that a task took is ``ingress_pipes``'s.

Rules owned here:
1. A connection goes to the next backend in turn; one that does not take it within two seconds is passed over, and then
   for a while (``ingress_turns``); after all of them were tried the connection is reset.
2. New routes count for new connections. Those that there are go on until one side ends them.
3. A port that cannot be had (somebody else listens there) is told once, and tried again with each ``apply``.
4. So many connections at a time and no more: what comes beyond is reset at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from runtime.swarm.ingress_tables import Backend, PublishedPort, Routes
from runtime.swarm.ingress_turns import Turns
from runtime.wire.ingress_datagrams import IDLE_S, DatagramPorts
from runtime.wire.ingress_pipes import PIECE, Side, join
from runtime.wire.ingress_sockets import (
    BACKLOG,
    EVERYWHERE,
    OUR_LACK,
    Seldom,
    connected,
    opened,
    reached_itself,
    shares,
)

CONNECT_S: Final = 2.0
SWEEP_S: Final = 30.0

log = logging.getLogger("swarmlet.ingress")


class Loop(Protocol):
    """The part of the I/O loop that is needed here."""

    def submit(self, coro: Coroutine[Any, Any, Any], done: Callable[[Any], None] | None = None) -> Callable[[], None]:
        """Runs a coroutine; ``done`` hears its result or exception."""


class IngressProxy:
    """``host``: where it listens ("" is everywhere). Limits of 0 are what this process's open files allow.

    ``apply`` may be called from any thread.
    """

    def __init__(
        self, loop: Loop, host: str = "", connections_max: int = 0, flows_max: int = 0, idle_s: float = IDLE_S
    ) -> None:
        connections, flows = shares()
        self._loop = loop
        self._hosts = (host,) if host else EVERYWHERE
        self._max = connections_max or connections
        self._routes: Routes = {}
        self._datagrams = DatagramPorts(self._hosts, self._datagram_backends, flows_max or flows, idle_s)
        self._turns: Turns[int] = Turns(time.monotonic)
        self._servers: dict[int, list[asyncio.Server]] = {}
        self._sides: set[Side] = set()  # those of clients
        self._backs: set[Side] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._piece = memoryview(bytearray(PIECE))
        self._sweep: asyncio.TimerHandle | None = None
        self._failed: dict[PublishedPort, str] = {}
        self._many = Seldom(log)
        self._order: asyncio.Lock | None = None
        self._closed = False
        self._all_over: asyncio.Event | None = None

    def apply(self, routes: Routes, done: Callable[[Mapping[PublishedPort, str]], None]) -> None:
        """Takes over routes; ``done`` hears of the ports that cannot be listened on, with the reason."""
        self._loop.submit(self._apply(dict(routes)), lambda result: done(result if isinstance(result, dict) else {}))

    async def close(self) -> None:
        """Listens no more and resets every connection."""
        self._closed = True
        await self._apply({})
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for side in [*self._sides, *self._backs]:
            side.abort()
        if self._sides or self._backs:
            self._all_over = asyncio.Event()
            await self._all_over.wait()

    @property
    def connections(self) -> int:
        """How many clients of TCP ports there are."""
        return len(self._sides)

    @property
    def flows(self) -> int:
        """How many clients of UDP ports there are."""
        return self._datagrams.flows

    async def _apply(self, routes: Routes) -> dict[PublishedPort, str]:
        self._order = self._order or asyncio.Lock()
        async with self._order:
            self._routes = routes
            for number in [number for number in self._servers if PublishedPort(number) not in routes]:
                for server in self._servers.pop(number):
                    server.close()
            self._turns.keep_to(self._servers, (each for backends in routes.values() for each in backends))
            self._datagrams.keep_to({port.number for port in routes if port.protocol == "udp"})
            failed = {port: text for port in routes if not self._listens(port) and (text := await self._listen(port))}
            for port, text in failed.items():
                if self._failed.get(port) != text:
                    log.warning("port %s is published and cannot be listened on here: %s", port, text)
            self._failed = failed
            return failed

    def _datagram_backends(self, number: int) -> tuple[Backend, ...]:
        return self._routes.get(PublishedPort(number, "udp"), ())

    def _listens(self, port: PublishedPort) -> bool:
        return port.number in (self._datagrams.ports if port.protocol == "udp" else self._servers)

    async def _listen(self, port: PublishedPort) -> str:
        """The reason why it cannot, or nothing."""
        if self._closed:
            return ""
        try:
            if port.protocol == "udp":
                self._datagrams.listen(port.number)
            else:
                await self._listen_tcp(port.number)
        except OSError as error:
            return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        return ""

    async def _listen_tcp(self, number: int) -> None:
        def made() -> Side:
            return Side(self._piece, lambda side: self._accepted(number, side), self._over)

        loop = asyncio.get_running_loop()
        self._servers[number] = [
            await loop.create_server(made, sock=each, backlog=BACKLOG)
            for each in opened(self._hosts, number, socket.SOCK_STREAM)
        ]

    # Connections

    def _accepted(self, number: int, side: Side) -> None:
        self._sides.add(side)
        if len(self._sides) > self._max:
            self._many.warn("%d connections to published ports are open: more are refused", self._max)
        if self._closed or len(self._sides) > self._max:
            side.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(number, side))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _serve(self, number: int, side: Side) -> None:
        for backend in self._turns.order(number, self._routes.get(PublishedPort(number), ())):
            try:
                back = await self._connect(backend)
            except OSError as error:  # TimeoutError is one
                if error.errno in OUR_LACK:
                    self._many.warn("connections to published ports are refused: %s", error.strerror)
                    break
                self._turns.refused(backend)
                continue
            self._turns.served(backend)
            join(side, back)
            self._sweep_later()
            return
        side.abort()

    async def _connect(self, backend: Backend) -> Side:
        loop = asyncio.get_running_loop()
        made = await connected(backend.host, backend.port, CONNECT_S)
        _, back = await loop.create_connection(lambda: Side(self._piece, self._backs.add, self._over), sock=made)
        if reached_itself(back.socket):
            back.abort()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
        return back

    def _over(self, side: Side) -> None:
        self._sides.discard(side)
        self._backs.discard(side)
        if self._all_over is not None and not self._sides and not self._backs:
            self._all_over.set()

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._swept)

    def _swept(self) -> None:
        """Peers that are gone after they said all are heard of in no other way."""
        self._sweep = None
        for side in [side for side in (*self._sides, *self._backs) if side.gone]:
            side.abort()
        if self._sides:
            self._sweep_later()
