"""A task's log as its readers want it: chosen streams, from a time on, the last lines or all but the first, followed.

Files are read on a helper thread, lines are given on the loop's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from runtime.executor.logfile import LogReader, Piece, Position
from runtime.executor.port import LogLine, LogOptions, OnLine, Stream

NOT_BEGUN_POLL = 0.25  # seconds between looks for the log of a task that was not started yet
Grown = Callable[[Position], Awaitable[bool | None]]


class Chosen:
    """Which pieces a reader gets."""

    def __init__(self, options: LogOptions, on_line: OnLine) -> None:
        self._streams = frozenset(int(stream) for stream in options.streams)
        self._since = options.since_ns
        self._skip = max(0, options.tail)
        self._on_line = on_line

    def wanted(self, pieces: list[Piece]) -> list[Piece]:
        """Those of the streams that were asked for."""
        return [piece for piece in pieces if piece.stream in self._streams]

    def give(self, pieces: list[Piece]) -> None:
        """Gives on what is not skipped."""
        for piece in pieces:
            if self._skip:
                self._skip -= not piece.partial
            elif piece.timestamp_ns >= self._since:
                self._on_line(LogLine(piece.timestamp_ns, Stream(piece.stream), piece.data, piece.partial))


class Tail:
    """Keeps the pieces of the last ``count`` lines."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lines = 0
        self.pieces: deque[Piece] = deque()

    def add(self, pieces: list[Piece]) -> None:
        """Later pieces."""
        for piece in pieces:
            self.pieces.append(piece)
            self._lines += not piece.partial
            while self._lines > self._count or (self._lines == self._count and self._open(piece)):
                self._lines -= not self.pieces.popleft().partial

    def _open(self, last: Piece) -> bool:
        """Whether a line that has no end yet makes one too many."""
        return last.partial and (self._count == 0 or self.pieces[0] is not last) and self._lines >= self._count


async def read_log(
    directory: str, options: LogOptions, on_line: OnLine, grown: Grown, written: Callable[[], Awaitable[None]]
) -> None:
    """Gives lines until the end (or, following, the end of the task's output).

    ``grown(position)`` waits until there is more than that: True if the output has ended, None if it has not begun.
    ``written()`` sees to it that what the task has said until now is in the files: it was in a pipe a moment ago.
    """
    loop = asyncio.get_running_loop()
    reader = LogReader(directory)
    chosen = Chosen(options, on_line)
    await written()
    try:
        if options.tail < 0:
            tail = Tail(-options.tail - 1)
            while pieces := await loop.run_in_executor(None, reader.read):
                tail.add(chosen.wanted(pieces))
            chosen.give(list(tail.pieces))
        ended: bool | None = False
        while True:
            pieces = await loop.run_in_executor(None, reader.read)
            chosen.give(chosen.wanted(pieces))
            if pieces:
                continue
            if not options.follow or ended or reader.ended:
                return
            ended = await grown(reader.position)
            if ended is None:
                await asyncio.sleep(NOT_BEGUN_POLL)
    finally:
        reader.close()
