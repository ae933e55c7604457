"""A command beside a container: the engine's exec instance over a connection of its own, as the port's Session.

Everything here runs on one event loop; the Session's methods get there by themselves. An engine has no way to end such
a command: closing lets go of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from typing import Any, Final

from runtime.executor.engine_client import EngineClient, EngineRefused, EngineUnavailable
from runtime.executor.inspection import NotBegun, RunCommand

READ_BYTES: Final = 64 << 10
LOOK_S: Final = 0.5
"""Between looks at a command that nobody listens to."""
BEGINS_S: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
"""Between looks whether a command has begun; one that takes longer goes without a process id."""
NOT_RUNNABLE: Final = 126
ANSWERS_TO_A_START: Final = (400, 500)
"""Statuses with which engines say that a command could not begin."""
_HEAD: Final = struct.Struct(">B3xI")


class EngineSession:
    """As the port's Session. ``ends`` are the connection's; none for a detached command."""

    def __init__(
        self,
        client: EngineClient,
        exec_id: str,
        question: RunCommand,
        pid: int,
        ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None,
    ) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._id = exec_id
        self._question = question
        self._reader = ends[0] if ends else None
        self._writer = ends[1] if ends else None
        self._let = asyncio.Event()
        self._let.set()
        self._tasks = {self._loop.create_task(self._until_ended())}

    # As the port's

    def write(self, data: bytes, done: Callable[[], None]) -> None:
        """As the port's."""
        self._soon(lambda: self._begin(self._write(data, done)))

    def end_input(self) -> None:
        """As the port's."""
        self._soon(self._end_input)

    def resize(self, rows: int, columns: int) -> None:
        """As the port's."""
        self._soon(lambda: self._begin(resize(self._client, self._id, rows, columns)))

    def hold(self, held: bool) -> None:
        """As the port's."""
        self._soon(self._let.clear if held else self._let.set)

    def close(self) -> None:
        """As the port's, as far as an engine can: nobody hears of it any more."""
        self._soon(lambda: [each.cancel() for each in self._tasks])

    def _soon(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it all of this
            self._loop.call_soon_threadsafe(call)

    def _begin(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Inside

    async def _write(self, data: bytes, done: Callable[[], None]) -> None:
        try:
            if self._writer is not None and not self._writer.is_closing():
                with contextlib.suppress(OSError):  # it has ended
                    self._writer.write(data)
                    await self._writer.drain()
        finally:
            done()

    def _end_input(self) -> None:
        writer = self._writer
        if writer is not None and not writer.is_closing() and not self._question.tty and writer.can_write_eof():
            writer.write_eof()

    async def _until_ended(self) -> None:
        code: int | None = None
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._listen()
            with contextlib.suppress(EngineRefused, EngineUnavailable):
                code = await self._exit_code()
        finally:
            if self._writer is not None:
                self._writer.close()
            self._question.on_exit(code)

    async def _listen(self) -> None:
        reader = self._reader
        if reader is None:
            return
        while True:
            await self._let.wait()
            if self._question.tty:
                stream, data = 1, await reader.read(READ_BYTES)
            else:
                head = await reader.read(1)
                if not head:
                    return
                stream, length = _HEAD.unpack(head + await reader.readexactly(_HEAD.size - 1))
                data = await reader.readexactly(length)
            if not data:
                return
            self._question.on_output(stream if stream == 2 else 1, data)

    async def _exit_code(self) -> int | None:
        while True:
            found = await self._client.call("GET", f"/exec/{self._id}/json")
            if not found.get("Running"):
                code = found.get("ExitCode")
                return None if code is None else int(code)
            await asyncio.sleep(LOOK_S)


async def resize(client: EngineClient, exec_id: str, rows: int, columns: int) -> None:
    """A terminal's size; of one that has ended, nothing."""
    if rows > 0 and columns > 0:
        with contextlib.suppress(EngineRefused, EngineUnavailable):
            await client.call("POST", f"/exec/{exec_id}/resize", query={"h": str(rows), "w": str(columns)})


async def begin(client: EngineClient, container: str, question: RunCommand) -> EngineSession | NotBegun:
    """Makes a command and starts it. EngineRefused, EngineUnavailable."""
    attached = question.output or question.stdin
    made = await client.call("POST", f"/containers/{container}/exec", body=_body(question))
    exec_id, ends = str(made["Id"]), None
    start = {"Detach": not attached, "Tty": question.tty}
    try:
        if attached:
            ends = await client.hijack(f"/exec/{exec_id}/start", start)
        else:
            await client.call("POST", f"/exec/{exec_id}/start", body=start)
    except EngineRefused as refused:
        if refused.status in ANSWERS_TO_A_START:
            return NotBegun(refused.text, NOT_RUNNABLE)
        raise
    try:
        pid = await _pid(client, exec_id)
        await resize(client, exec_id, *question.size)
    except BaseException:
        if ends is not None:
            ends[1].close()
        raise
    return EngineSession(client, exec_id, question, pid, ends)


async def _pid(client: EngineClient, exec_id: str) -> int:
    """Its process, once there is one: an engine answers before it has begun, and takes no size for it until then."""
    pid = 0
    for pause in BEGINS_S:
        found = await client.call("GET", f"/exec/{exec_id}/json")
        pid = int(found.get("Pid") or 0)
        if pid or found.get("ExitCode") is not None:
            break
        await asyncio.sleep(pause)
    return pid


def _body(question: RunCommand) -> dict[str, Any]:
    return {
        "AttachStdin": question.stdin,
        "AttachStdout": question.output,
        "AttachStderr": question.output and not question.tty,
        "Tty": question.tty,
        "Cmd": list(question.argv),
        "Env": list(question.env),
        "WorkingDir": question.directory,
        "User": question.user,
    }
