"""What a task that is an actor says, in memory: as much of the newest as its service allows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from runtime.executor.log_reading import Chosen, Tail
from runtime.executor.logfile import LineSplitter, Piece
from runtime.executor.port import LogOptions, OnEnd, OnLine, Stream

LOG_BYTES = 1 << 20
OVERHEAD = 100  # bytes that a line counts for beyond its text: empty ones take room too


class Reading:
    """One reader. As the port's Operation."""

    def __init__(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> None:
        self.chosen = Chosen(options, on_line)
        self._on_end: OnEnd | None = on_end
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether its end was told."""
        return self._on_end is None

    def give(self, pieces: list[Piece]) -> None:
        """Lines as they were written; nothing after the end."""
        if not self.over:
            self.chosen.give(self.chosen.wanted(pieces))

    def end(self, error: str | None = None) -> None:
        """Tells the end, once."""
        with self._lock:
            on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(error)

    def cancel(self) -> None:
        """As the port's."""
        self.end()


class ActorLog:
    """The log of one task. ``write`` and ``read`` may be called from any thread; readers are called with the lock
    held, so that every one of them sees the lines in the same order. With no ``limit`` nothing is kept."""

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self._limit = limit
        self._now = now
        self._pieces: deque[Piece] = deque()
        self._size = 0
        self._last_ns = 0
        self._ended = False
        self._readers: list[Reading] = []
        self._lock = threading.RLock()

    @property
    def readable(self) -> bool:
        """False for the log driver ``none``."""
        return self._limit > 0

    def write(self, text: str, stream: Stream = Stream.STDOUT) -> None:
        """One line, or several; nothing once the task has ended."""
        data = text.encode("utf-8", "replace").removesuffix(b"\n")
        with self._lock:
            if self._ended or not self.readable:
                return
            new = [self._piece(stream, piece, partial) for piece, partial in LineSplitter().feed(data + b"\n")]
            for piece in new:
                self._keep(piece)
            self._readers = [reader for reader in self._readers if not reader.over]
            for reader in self._readers:
                reader.give(new)

    def _piece(self, stream: Stream, data: bytes, partial: bool) -> Piece:
        self._last_ns = max(self._last_ns + 1, int(self._now() * 1e9))
        return Piece(self._last_ns, int(stream), data, partial)

    def _keep(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._size += len(piece.data) + OVERHEAD
        while self._size > self._limit and len(self._pieces) > 1:
            self._size -= len(self._pieces.popleft().data) + OVERHEAD

    def read(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> Reading:
        """As the port's ``logs``: what was written is given at once."""
        reading = Reading(options, on_line, on_end)
        with self._lock:
            past = list(self._pieces)
            if options.tail < 0:
                tail = Tail(-options.tail - 1)
                tail.add(reading.chosen.wanted(past))
                past = list(tail.pieces)
            reading.give(past)
            if options.follow and not self._ended:
                self._readers.append(reading)
            else:
                reading.end()
        return reading

    def end(self) -> None:
        """The task has ended: no more comes."""
        with self._lock:
            self._ended = True
            readers, self._readers = self._readers, []
            for reader in readers:
                reader.end()
