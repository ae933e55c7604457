"""A container's output as lines: what the engine sends (frames of two streams, a terminal's bytes) cut into LogLines.

Rules owned here: every piece bears the engine's own time stamp in front, which is taken off; a piece without a newline
is part of a line; a reading that was cut in the middle goes on behind the last piece that was given, and nothing is
given twice.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from runtime.executor.port import LogLine, LogOptions, OnLine, Stream

_HEAD: Final = struct.Struct(">B3xI")
SYSTEM: Final = 3
_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
LONGEST: Final = 16 << 20  # of a frame; the engine's own pieces have 16 KiB


class BrokenLog(Exception):
    """What the engine sent is no log, or says why there is none."""


class Frames:
    """Cuts a multiplexed stream into (stream, payload)."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are whole by now. BrokenLog for what is none."""
        rest = self._rest
        rest += data
        while len(rest) >= _HEAD.size:
            stream, length = _HEAD.unpack_from(rest)
            if stream > SYSTEM or length > LONGEST:
                raise BrokenLog("the container engine sent a log that is none")
            end = _HEAD.size + length
            if len(rest) < end:
                return
            payload = bytes(rest[_HEAD.size : end])
            del rest[:end]
            if stream == SYSTEM:
                raise BrokenLog(payload.decode("utf-8", "replace").strip())
            yield stream, payload


class TerminalLines:
    """Cuts the bytes of a terminal at its newlines; all of it is stdout."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The lines that are whole by now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield int(Stream.STDOUT), line + b"\n"

    def rest(self) -> Iterator[tuple[int, bytes]]:
        """What the output ended with."""
        if self._rest:
            yield int(Stream.STDOUT), self._rest
            self._rest = b""


def line_of(stream: int, payload: bytes) -> LogLine:
    """One piece with its time stamp taken off. BrokenLog if there is none."""
    stamp, space, data = payload.partition(b" ")
    if not space:
        raise BrokenLog("the container engine sent a line without its time")
    return LogLine(nanoseconds(stamp.decode("ascii", "replace")), Stream(stream or 1), data, not data.endswith(b"\n"))


def nanoseconds(stamp: str) -> int:
    """RFC 3339 with up to nine digits as nanoseconds since 1970. BrokenLog."""
    found = _STAMP.fullmatch(stamp)
    try:
        if found is None:
            raise ValueError
        seconds = int(datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00")).timestamp())
    except ValueError:
        raise BrokenLog(f"the container engine sent a line whose time is none: {stamp}") from None
    return seconds * 1_000_000_000 + int((found[2] or "0").ljust(9, "0"))


class Reading:
    """What one reader was given, and what to ask for when the engine has to be asked again. ``begun``: there was a
    container to read from."""

    def __init__(self, options: LogOptions, on_line: OnLine) -> None:
        self._options = options
        self._streams = frozenset(int(stream) for stream in options.streams)
        self._on_line = on_line
        self._skip = max(0, options.tail)
        self.begun = False
        self._last = 0
        self._at_last = 0
        self._repeated = 0

    def query(self, follow: bool) -> dict[str, str]:
        """The engine's parameters; asked again, everything from the last piece on, which was given."""
        since = self._last or self._options.since_ns
        self._repeated = self._at_last
        query = {
            "stdout": "1" if Stream.STDOUT in self._streams else "0",
            "stderr": "1" if Stream.STDERR in self._streams else "0",
            "timestamps": "1",
            "follow": "1" if follow else "0",
            "tail": str(-self._options.tail - 1) if self._options.tail < 0 and not self._last else "all",
        }
        if since:
            query["since"] = f"{since // 1_000_000_000}.{since % 1_000_000_000:09d}"
        return query

    def give(self, line: LogLine) -> None:
        """Gives on what is wanted and was not given yet."""
        if line.timestamp_ns < self._last or int(line.stream) not in self._streams:
            return
        if line.timestamp_ns == self._last and self._repeated:
            self._repeated -= 1
            return
        if line.timestamp_ns > self._last:
            self._last, self._at_last, self._repeated = line.timestamp_ns, 0, 0
        self._at_last += 1
        if self._skip:
            self._skip -= not line.partial
        elif line.timestamp_ns >= self._options.since_ns:
            self._on_line(line)
