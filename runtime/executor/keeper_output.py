"""The keeper's side of one task's output: two pipes read into lines, written to the task's log files.

Readers never go through the keeper: they read the files, and only ask to be told when there is more than they have
seen. Imported by the keeper: standard library only.
"""

from __future__ import annotations

import os
import time
from typing import Any

from runtime.executor.logfile import STDERR, STDOUT, LineSplitter, LogWriter, Position
from runtime.executor.reactor import Call, Reactor

READ_BYTES = 64 << 10
DRAIN_READS = 64  # more than the largest pipe holds, and an end to what somebody writes without end


class GrowthWaiter:
    """Somebody who has read up to ``position``; ``reply`` hears of more."""

    __slots__ = ("position", "reply")

    def __init__(self, position: Position, reply: Any) -> None:
        self.position = position
        self.reply = reply


class Output:
    """Both streams of one task. ``on_end`` is called once, when they have ended and all is written."""

    __slots__ = ("_on_end", "_pipes", "_reactor", "_splitters", "_waiters", "ended", "writer")

    def __init__(self, reactor: Reactor, writer: LogWriter, stdout_fd: int, stderr_fd: int, on_end: Call) -> None:
        self.writer = writer
        self.ended = False
        self._reactor = reactor
        self._on_end = on_end
        self._pipes = {STDOUT: stdout_fd, STDERR: stderr_fd}
        self._splitters = {STDOUT: LineSplitter(), STDERR: LineSplitter()}
        self._waiters: list[GrowthWaiter] = []
        reactor.watch(stdout_fd, lambda: self._readable(STDOUT))
        reactor.watch(stderr_fd, lambda: self._readable(STDERR))

    def grown(self, waiter: GrowthWaiter) -> None:
        """Answers when there is more than ``waiter`` has seen, or when there will be no more."""
        self._waiters.append(waiter)
        self._tell()

    def forget(self, waiter: GrowthWaiter) -> None:
        """It asks no more."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def drain(self) -> None:
        """Takes what is in the pipes now, without waiting for their end."""
        for stream in list(self._pipes):
            for _ in range(DRAIN_READS):
                if stream not in self._pipes or not self._read(stream):
                    break

    def end(self) -> None:
        """Ends it now: what is in the pipes is read, what holds them open still is not waited for."""
        self.drain()
        for stream in list(self._pipes):
            self._close(stream)

    def _readable(self, stream: int) -> None:
        self._read(stream)

    def _read(self, stream: int) -> bool:
        """Whether there was something."""
        try:
            data = os.read(self._pipes[stream], READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close(stream)
            return False
        self.writer.write(time.time_ns(), stream, self._splitters[stream].feed(data))
        self._tell()
        return True

    def _close(self, stream: int) -> None:
        fd = self._pipes.pop(stream)
        self._reactor.forget(fd)
        os.close(fd)
        self.writer.write(time.time_ns(), stream, self._splitters[stream].flush())
        if not self._pipes:
            self.writer.end(time.time_ns())
            self.ended = True
            self._on_end()
        self._tell()

    def _tell(self) -> None:
        position = self.writer.position
        told = [waiter for waiter in self._waiters if self.ended or position > waiter.position]
        if told:
            self._waiters = [waiter for waiter in self._waiters if waiter not in told]
        for waiter in told:
            waiter.reply(self.ended)
