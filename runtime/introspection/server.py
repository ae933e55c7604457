"""The introspection server of one node: answers questions about its stage over a unix socket that is its owner's alone.

Rules it owns: requests, connections and idle time are bounded; what a viewer began (traces, suspensions, log levels)
ends with its connection; while connections are all taken somebody can still say ``clear``; the server's own failures
end a connection, never the node.

What can be asked is in ``asks``; besides, ``trace`` (see ``tracing``) goes on until a limit is reached, ``clear`` ends
all traces and undoes what anybody began, ``act`` is in ``acts``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Any, Final

from runtime.engine_api.sockets import UnixListener, listen_unix
from runtime.introspection import exposition, protocol
from runtime.introspection.acts import SECONDS_MAX, Acts, Viewer
from runtime.introspection.asks import Asks
from runtime.introspection.recording import plain
from runtime.introspection.tracing import BadFilter, Trace, Tracing, checked
from runtime.stage import Stage

log = logging.getLogger("swarmlet.introspection")

CONNECTIONS_MAX: Final = 16
CLEARING_MAX: Final = 4
"""So many more may come while all connections are taken, each to say ``clear`` and nothing else."""
CLEARING_S: Final = 2.0
IDLE_S: Final = 300.0
FLUSH_S: Final = 0.1
_CREDENTIALS: Final = struct.Struct("3i")


class IntrospectionServer:
    """Serves one stage at ``path``. All methods belong to one event loop."""

    def __init__(
        self,
        stage: Stage,
        path: str,
        *,
        group: str | None = None,
        about: dict[str, Any] | None = None,
        test_mode: bool = False,
    ) -> None:
        self._asks = Asks(stage, about)
        self._acts = Acts(stage, test_mode)
        self._tracing = Tracing(stage)
        self._path = path
        self._group = group
        self._server: asyncio.Server | None = None
        self._listener: UnixListener | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._viewers: set[Viewer] = set()

    async def answer(self, request: dict[str, Any]) -> Any:
        """What the socket would answer to a request of ``asks``; BadRequest as it would refuse. A trace goes on,
        and acts end with their viewer: both need a connection."""
        if request.get("ask") in ("trace", "act", "clear"):
            raise protocol.BadRequest(f"{request['ask']} needs a connection to the introspection socket")
        frame = protocol.answer(await self._asks.answer(protocol.checked(request)))
        return protocol.decode(frame[protocol.HEAD.size :])["value"]

    async def metrics(self) -> bytes:
        """Prometheus' text; Refused UNIMPLEMENTED without its library."""
        return exposition.text(await self._asks.metrics())

    async def start(self) -> None:
        """Listens. ListenError (with a sentence) if a live server or something else is at the path."""
        self._listener = await asyncio.to_thread(listen_unix, self._path, self._group)
        self._server = await asyncio.start_unix_server(self._serve, sock=self._listener.sock)

    async def stop(self) -> None:
        """Ends every connection and removes the socket if it is still this server's."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        self._server = None
        if self._listener is not None:
            self._listener.remove()
            self._listener = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS_MAX + CLEARING_MAX:
            writer.write(_FULL)
            writer.close()
            return
        viewer = Viewer(_peer(writer))
        self._connections.add(task)
        try:
            if len(self._viewers) >= CONNECTIONS_MAX:
                writer.write(await self._clear_at_most(reader, viewer))
                return
            self._viewers.add(viewer)
            await self._converse(reader, writer, viewer)
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            log.debug("a connection ended")  # gone, idle for too long, or the server stops: all of them are an end
        except Exception:
            log.exception("a connection failed")
        finally:
            self._connections.discard(task)
            self._viewers.discard(viewer)
            viewer.end()
            writer.close()

    async def _clear_at_most(self, reader: asyncio.StreamReader, viewer: Viewer) -> bytes:
        """The answer to whoever came when all connections were taken: the one off switch works all the same."""
        try:
            async with asyncio.timeout(CLEARING_S):
                request = protocol.decode_request(await _frame(reader))
        except (TimeoutError, asyncio.IncompleteReadError, protocol.BadRequest):
            return _FULL
        return protocol.answer(await self._value(request, viewer)) if request["ask"] == "clear" else _FULL

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, viewer: Viewer) -> None:
        while True:
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the result.
                async with asyncio.timeout(IDLE_S + (SECONDS_MAX if viewer.in_debt else 0)):
                    body = await _frame(reader)
            except asyncio.IncompleteReadError:
                return
            except protocol.BadRequest as bad:
                writer.write(protocol.refusal(str(bad)))
                await writer.drain()
                return
            await self._answer(body, reader, writer, viewer)
            async with asyncio.timeout(IDLE_S):
                await writer.drain()

    async def _answer(
        self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, viewer: Viewer
    ) -> None:
        try:
            request = protocol.decode_request(body)
            if request["ask"] == "trace":
                await self._trace(request, reader, writer)
                return
            writer.write(protocol.answer(await self._value(request, viewer)))
        except (protocol.BadRequest, BadFilter) as bad:
            writer.write(protocol.refusal(str(bad)))

    async def _value(self, request: dict[str, Any], viewer: Viewer) -> Any:
        if request["ask"] == "clear":
            undone = sum(each.end() for each in self._viewers)
            return {"traces": self._tracing.clear(), "undone": undone}
        if request["ask"] == "act":
            cell = self._asks.cell(request) if "path" in request else None
            return self._acts.carry_out(request, cell, viewer)
        return await self._asks.answer(request)

    # A trace

    async def _trace(self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names = ("paths", "types", "count", "rate", "seconds", "everything", "bodies", "follow", "links")
        wanted = checked(**{name: request[name] for name in names if name in request})
        woken, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        trace = self._tracing.begin(wanted, wake)
        gone = asyncio.ensure_future(reader.read(1))  # a viewer says nothing more: whatever comes is its end
        try:
            limits = {"count": wanted.count, "rate": wanted.rate, "seconds": wanted.seconds}
            writer.write(protocol.answer({"limits": limits, "clock": self._asks.stage.read_clock()}))
            async with asyncio.timeout(wanted.seconds + IDLE_S):
                await self._tell(trace, wanted.seconds, woken, gone, writer)
        finally:
            self._tracing.finish(trace)
            gone.cancel()
            await asyncio.wait((gone,))  # only then may the next request be read

    async def _tell(
        self,
        trace: Trace,
        seconds: float,
        woken: asyncio.Event,
        gone: asyncio.Future[bytes],
        writer: asyncio.StreamWriter,
    ) -> None:
        loop = asyncio.get_running_loop()
        over = loop.call_later(seconds, trace.end, f"{seconds:g} s are over")
        try:
            while not gone.done():
                waiting = asyncio.ensure_future(woken.wait())
                await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                woken.clear()
                ended = trace.ended  # before what was taken: what came after the end is not in it
                told = [plain(each) for each in trace.take()]
                told += [{"cause": cause, "effect": effect, "at": at} for cause, effect, at in trace.take_links()]
                if told:
                    writer.write(protocol.more(told))
                    await writer.drain()
                if ended:
                    writer.write(protocol.end(ended, dropped=trace.dropped, taken=trace.taken))
                    return
                await asyncio.sleep(FLUSH_S)
        finally:
            over.cancel()


_FULL: Final = protocol.refusal(f"{CONNECTIONS_MAX} connections are open already")


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(protocol.HEAD.size)
    return await reader.readexactly(protocol.frame_length(head, protocol.REQUEST_MAX))


def _peer(writer: asyncio.StreamWriter) -> str:
    """Who is at the other end, as the kernel knows it."""
    link = writer.get_extra_info("socket")
    try:
        pid, uid, _gid = _CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:
        return "nobody known"
    return f"process {pid} of user {uid}"
