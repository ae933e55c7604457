"""The links between real nodes: each node is reached through a front that is this test's own, so that what one node
sends to another one can be held back.

A front forwards bytes and knows both ends: nodes dial from an address of their own. A link that is cut delivers
nothing, not even the end of a connection; what is on its way waits until the link is mended, as TCP sends it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

from runtime.wire.loop import IoLoop

PIECE = 64 << 10
OPEN_S = 10.0


class Links:
    """Fronts for any number of nodes, on a thread of their own. Nodes are known by the address that they dial from and
    listen at."""

    def __init__(self) -> None:
        self._io = IoLoop("swarmlet-links")
        self._open: defaultdict[tuple[str, str], asyncio.Event] = defaultdict(_set_event)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Nothing is forwarded before."""
        self._io.start()

    def close(self) -> None:
        """Ends every connection and front."""
        if self._io.running:
            asyncio.run_coroutine_threadsafe(self._shut(), self._io.loop).result(OPEN_S)
        self._io.stop()

    def front(self, address: str, target: str) -> int:
        """Opens a front at ``address`` for the node at ``target``: both have the port that is returned."""
        return asyncio.run_coroutine_threadsafe(self._listen(address, target), self._io.loop).result(OPEN_S)

    def cut(self, source: str, target: str) -> None:
        """Nothing that ``source`` sends arrives at ``target`` from now on."""
        asyncio.run_coroutine_threadsafe(self._set(source, target, False), self._io.loop).result(OPEN_S)

    def heal(self) -> None:
        """Mends all links; what was held back arrives."""
        asyncio.run_coroutine_threadsafe(self._heal(), self._io.loop).result(OPEN_S)

    # On the loop

    async def _listen(self, address: str, target: str) -> int:
        listener = _port_for(address, target)
        port = int(listener.getsockname()[1])
        self._begin(self._accept(listener, target, port), listener)
        return port

    async def _accept(self, listener: socket.socket, target: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _address = await loop.sock_accept(listener)
            self._begin(self._carry(connection, target, port), connection)

    def _begin(self, work: Coroutine[Any, Any, None], owned: socket.socket) -> None:
        """Runs ``work``, which owns a socket; that one ends with it, even if it never gets to its first step."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _task: owned.close())

    async def _carry(self, connection: socket.socket, target: str, port: int) -> None:
        """One connection, from its beginning, which needs the link like everything else, to its end."""
        source = str(connection.getpeername()[0])
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            await self._open[source, target].wait()
            there, on = await asyncio.open_connection(target, port, local_addr=(source, 0))
            try:
                await self._both(self._pump(reader, on, source, target), self._pump(there, writer, target, source))
            finally:
                on.transport.abort()
        except OSError:
            pass  # nobody listens there, or one side was reset: so is the other then
        finally:
            writer.transport.abort()

    async def _both(self, *ways: Coroutine[Any, Any, None]) -> None:
        """Until both directions have ended, or one has failed."""
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str, target: str) -> None:
        link = self._open[source, target]
        while data := await reader.read(PIECE):
            await link.wait()
            writer.write(data)
            await writer.drain()
        await link.wait()
        with contextlib.suppress(OSError):  # the other side may be gone already
            writer.write_eof()

    async def _set(self, source: str, target: str, is_open: bool) -> None:
        event = self._open[source, target]
        (event.set if is_open else event.clear)()

    async def _heal(self) -> None:
        for event in self._open.values():
            event.set()

    async def _shut(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _port_for(address: str, target: str, tries: int = 100) -> socket.socket:
    """A socket bound at ``address`` to a port that is free at ``target`` as well."""
    for _ in range(tries):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((address, 0))
        listener.listen()
        listener.setblocking(False)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((target, listener.getsockname()[1]))
            return listener
        listener.close()
    raise OSError(f"no port is free at both {address} and {target}")
