"""A command beside a process task: its pipes or its terminal at our end, its process at the keeper's.

The keeper is handed the other ends and only starts and reaps; what goes in and out never passes through it. Everything
here runs on one event loop; the Session's methods get there by themselves. When our connection to the keeper ends, so
does the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Callable
from typing import Any, Final

from runtime.executor.inspection import NotBegun, RunCommand
from runtime.executor.keeper_client import CommandLine, KeeperClient, KeeperRefused

STDOUT: Final = 1
STDERR: Final = 2
READ_BYTES: Final = 64 << 10
DRAIN_S: Final = 2.0
"""How long output is waited for that something keeps open beyond the command's end."""
FAILED: Final = "exec failed: unable to start container process: "


class Ends:
    """Descriptors of a command: ``ours`` by stream (0 is its input), ``theirs`` to hand over in order."""

    def __init__(self, question: RunCommand, owner: int | None) -> None:
        self.ours: dict[int, int] = {}
        self._given: list[int] = []
        self.order: tuple[int, int, int] = (0, 0, 0)
        try:
            if question.tty:
                self._terminal(question.size, owner)
            else:
                self._pipes(question)
        except OSError:
            self.close()
            raise

    def _terminal(self, size: tuple[int, int], owner: int | None) -> None:
        master, slave = os.openpty()
        self.ours[STDOUT] = master
        self._given = [slave]
        if owner is not None:
            os.fchown(slave, owner, -1)
        resize(master, *size)
        os.set_blocking(master, False)

    def _pipes(self, question: RunCommand) -> None:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._given, order = [null], [0, 0, 0]
        for number in (0, STDOUT, STDERR):
            if (number == 0 and not question.stdin) or (number and not question.output):
                continue
            read, write = os.pipe2(os.O_CLOEXEC)
            self.ours[number], theirs = (write, read) if number == 0 else (read, write)
            order[number] = len(self._given)
            self._given.append(theirs)
            os.set_blocking(self.ours[number], False)
        if len(self._given) == 4:  # all three are pipes: nothing is null
            os.close(self._given.pop(0))
            order = [each - 1 for each in order]
        self.order = (order[0], order[1], order[2])

    @property
    def theirs(self) -> list[int]:
        """What is handed over."""
        return self._given

    def handed_over(self) -> None:
        """Closes here what the command has now."""
        given, self._given = self._given, []
        for fd in given:
            os.close(fd)

    def close(self) -> None:
        """Closes all."""
        self.handed_over()
        ours, self.ours = self.ours, {}
        for fd in ours.values():
            os.close(fd)


def resize(fd: int, rows: int, columns: int) -> None:
    """A terminal's size; of what is none, nothing."""
    if rows > 0 and columns > 0:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", min(rows, 65535), min(columns, 65535), 0, 0))


class ProcessSession:
    """As the port's Session."""

    def __init__(self, line: CommandLine, ends: Ends, question: RunCommand, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._line = line
        self._tty = question.tty
        self._on_output = question.on_output
        self._on_exit = question.on_exit
        self._ours = ends.ours
        self._input = STDOUT if question.tty else 0
        self._outputs = {number for number in ends.ours if number}
        self._waiting: list[tuple[memoryview, Callable[[], None]]] = []
        self._ending = self._held = False
        self._silent = asyncio.Event()
        self._call = line.number
        self._watch(True)
        if not self._outputs:
            self._silent.set()
        self._task = self._loop.create_task(self._until_ended())

    # As the port's

    def write(self, data: bytes, done: Callable[[], None]) -> None:
        """As the port's."""
        self._soon(self._write, memoryview(data), done)

    def end_input(self) -> None:
        """As the port's."""
        self._soon(self._end_input)

    def resize(self, rows: int, columns: int) -> None:
        """As the port's."""
        self._soon(self._resize, rows, columns)

    def hold(self, held: bool) -> None:
        """As the port's."""
        self._soon(self._hold, held)

    def close(self) -> None:
        """As the port's."""
        self._soon(self._task.cancel)

    def _soon(self, call: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it all of this
            self._loop.call_soon_threadsafe(call, *arguments)

    # Input

    def _write(self, data: memoryview, done: Callable[[], None]) -> None:
        if self._input not in self._ours or self._ending:
            done()
            return
        self._waiting.append((data, done))
        if len(self._waiting) == 1:
            self._write_on()

    def _write_on(self) -> None:
        fd = self._ours[self._input]
        while self._waiting:
            data, done = self._waiting[0]
            try:
                sent = os.write(fd, data)
            except BlockingIOError:
                self._loop.add_writer(fd, self._write_on)
                return
            except OSError:  # nobody reads it any more
                self._no_input()
                return
            if sent < len(data):
                self._waiting[0] = (data[sent:], done)
            else:
                self._waiting.pop(0)
                done()
        self._loop.remove_writer(fd)
        if self._ending:
            self._no_input()

    def _end_input(self) -> None:
        if self._tty:
            return
        self._ending = True
        if not self._waiting:
            self._no_input()

    def _no_input(self) -> None:
        waiting, self._waiting = self._waiting, []
        fd = self._ours.get(self._input)
        if fd is not None:
            self._loop.remove_writer(fd)
            if not self._tty:
                del self._ours[self._input]
                os.close(fd)
        for _, done in waiting:
            done()

    def _resize(self, rows: int, columns: int) -> None:
        if self._tty and STDOUT in self._ours:
            resize(self._ours[STDOUT], rows, columns)

    # Output

    def _hold(self, held: bool) -> None:
        if held is not self._held:
            self._held = held
            self._watch(not held)

    def _watch(self, on: bool) -> None:
        for stream in self._outputs:
            if on:
                self._loop.add_reader(self._ours[stream], self._read, stream)
            else:
                self._loop.remove_reader(self._ours[stream])

    def _read(self, stream: int) -> None:
        try:
            data = os.read(self._ours[stream], READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # which is how a terminal ends
                raise
            data = b""
        if data:
            self._on_output(stream, data)
        else:
            self._end_output(stream)

    def _end_output(self, stream: int) -> None:
        self._outputs.discard(stream)
        self._loop.remove_reader(self._ours[stream])
        if self._tty:
            self._no_input()
        os.close(self._ours.pop(stream))
        if not self._outputs:
            self._silent.set()

    # Its end

    async def _until_ended(self) -> None:
        code: int | None = None
        try:
            with contextlib.suppress(OSError, KeeperRefused):
                code = await self._line.call("ended", call=self._call)
                self._hold(False)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_S):
                        await self._silent.wait()
        finally:
            self._line.close()
            for stream in tuple(self._outputs):
                self._end_output(stream)
            self._no_input()
            self._on_exit(code)


async def begin(
    client: KeeperClient, task_id: str, spec: dict[str, Any], owner: int | None, question: RunCommand
) -> ProcessSession | NotBegun:
    """Has the keeper run a command; ``owner`` is whose a terminal is. KeeperUnavailable, KeeperRefused, OSError."""
    line = await client.line()
    ends = None
    try:
        ends = Ends(question, owner)
        result = await line.call("run", ends.theirs, id=task_id, spec=spec, fds=ends.order)
        ends.handed_over()
        if "error" in result:
            line.close()
            ends.close()
            return NotBegun(f"{FAILED}{result['error']}", result["code"])
        return ProcessSession(line, ends, question, result["pid"])
    except BaseException:
        line.close()
        if ends is not None:
            ends.close()
        raise
