"""The introspection server of one node: answers questions about its stage over a unix socket that is its owner's alone.

Rules it owns: reading changes nothing and stops nobody; an actor is asked for its declared state ahead of its mailbox
and with a deadline, and one that does not answer is shown as such; requests, connections and idle time are bounded; the
server's own failures end a connection, never the node.

Asks: ``tree`` (rows and totals; with ``"states": true`` the declared states too), ``actor`` (``path``: one row, its
state, figures per message type), ``crashes`` (the last crash reports).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from runtime.engine_api.sockets import UnixListener, listen_unix
from runtime.introspection import protocol
from runtime.introspection.redact import redact
from runtime.introspection.rows import row, rows, totals
from runtime.stage import Stage
from runtime.stage.cell import Cell
from runtime.stage.observe import describe_error, quantile

log = logging.getLogger("swarmlet.introspection")

CONNECTIONS_MAX: Final = 16
IDLE_S: Final = 300.0
STATE_DEADLINE_S: Final = 2.5
CRASHES_SHOWN: Final = 20
Asked = Callable[[dict[str, Any]], Awaitable[Any]]


class IntrospectionServer:
    """Serves one stage at ``path``. All methods belong to one event loop."""

    def __init__(self, stage: Stage, path: str, *, group: str | None = None) -> None:
        self._stage = stage
        self._path = path
        self._group = group
        self._server: asyncio.Server | None = None
        self._listener: UnixListener | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._asks: dict[str, Asked] = {"tree": self._tree, "actor": self._actor, "crashes": self._crashes}

    async def start(self) -> None:
        """Listens. ListenError (with a sentence) if a live server or something else is at the path."""
        self._listener = await asyncio.to_thread(listen_unix, self._path, self._group)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=self._listener.sock, limit=protocol.REQUEST_MAX
        )

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
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.write(protocol.refusal(f"{CONNECTIONS_MAX} connections are open already"))
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            log.debug("a connection ended")  # gone, idle for too long, or the server stops: all of them are an end
        except Exception:
            log.exception("a connection failed")
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the result.
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                writer.write(protocol.refusal(f"a request has at most {protocol.REQUEST_MAX} bytes"))
                await writer.drain()
                return
            writer.write(await self._answer(line))
            async with asyncio.timeout(IDLE_S):
                await writer.drain()

    async def _answer(self, line: bytes) -> bytes:
        try:
            request = protocol.decode_request(line)
            asked = self._asks.get(request["ask"])
            if asked is None:
                raise protocol.BadRequest(f"nothing is known of {request['ask'][:100]!r}")
            return protocol.answer(await asked(request))
        except protocol.BadRequest as bad:
            return protocol.refusal(str(bad))

    async def _tree(self, request: dict[str, Any]) -> Any:
        found = rows(self._stage)
        if request.get("states") is True:
            states = await _states(self._stage.walk())
            for each in found:
                each["snapshot"] = states.get(each["path"])
        return {"stage": totals(self._stage), "actors": found}

    async def _actor(self, request: dict[str, Any]) -> Any:
        cell = self._stage.cells.get(str(request.get("path", "")))
        if cell is None:
            raise protocol.BadRequest(f"nobody lives at {str(request.get('path', ''))[:200]!r}")
        states = await _states([cell])
        messages = [
            {
                "type": kind.__name__,
                "count": each.count,
                "failed": each.failed,
                "wait_p99_s": quantile(each.wait_buckets, 0.99),
                "busy_p99_s": quantile(each.busy_buckets, 0.99),
                "busy_max_s": each.busy_max,
            }
            for kind, each in sorted(list(cell.stats.items()), key=lambda item: item[0].__name__)  # noqa: C414 - one step
        ]
        return {**row(cell, self._stage.read_clock()), "snapshot": states[cell.path], "messages": messages}

    async def _crashes(self, request: dict[str, Any]) -> Any:
        return [
            {
                "path": report.path,
                "actor": report.actor,
                "at": report.at,
                "error": redact(report.error),
                "message": report.message,
                "before": list(report.before),
                "state": redact(report.state),
                "traceback": redact(report.traceback.splitlines()[-20:]),
            }
            for report in list(self._stage.observations.crashes)[-CRASHES_SHOWN:]
        ]


async def _states(cells: list[Cell]) -> dict[str, Any]:
    """What each actor declares of its state, taken in its own turn; a sentence for those that do not answer in time."""
    loop = asyncio.get_running_loop()
    futures = {cell.path: _state(cell, loop) for cell in cells}
    if futures:
        await asyncio.wait(futures.values(), timeout=STATE_DEADLINE_S)
    late = "(no answer in time)"
    return {path: future.result() if future.done() else late for path, future in futures.items()}


def _state(cell: Cell, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = loop.create_future()

    def arrived(state: Any) -> None:
        if not future.done():
            future.set_result(state)

    def read() -> None:
        """Runs in the actor's turn: whatever goes wrong here must not be a failure of the actor."""
        instance = cell.instance
        try:
            state = redact(instance.snapshot()) if instance is not None else None
        except Exception as error:  # noqa: BLE001 - a broken state is shown, and fails nobody
            state = f"(its snapshot failed: {describe_error(error)})"
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(arrived, state)

    cell.control(read)
    return future
