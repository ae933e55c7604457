"""A task's output on disk: numbered files of records, the oldest removed when there are too many.

A record is a head (time stamp in nanoseconds, flags, length) and a line with its newline, or a piece of one of at most
16 KiB. Only whole records are ever in a file: what could not be written whole is cut off and counted, and a line that
says how many are missing is written once there is room again. A position (file number, offset) only grows, so readers
can ask for what is beyond it. Imported by the keeper: standard library only.
"""

from __future__ import annotations

import os
import shutil
import struct
from typing import NamedTuple

PIECE_MAX = 16 << 10
STDOUT, STDERR = 1, 2
_STREAM, _PARTIAL, _END = 0x0F, 0x80, 0x40
_HEAD = struct.Struct(">QBH")
_SUFFIX = ".log"
READ_BYTES = 256 << 10

Position = tuple[int, int]


class Piece(NamedTuple):
    """One record. ``end``: the task's output has ended, and this is no line."""

    timestamp_ns: int
    stream: int
    data: bytes
    partial: bool
    end: bool = False


class LineSplitter:
    """Cuts a stream of bytes into lines with their newline and pieces of overlong ones: (data, partial)."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """What ``data`` completes."""
        *whole, rest = (self._rest + data).split(b"\n")
        pieces: list[tuple[bytes, bool]] = []
        for line in whole:
            tail = _cut(line, pieces)
            pieces.append((tail + b"\n", False))
        self._rest = _cut(rest, pieces)
        return pieces

    def flush(self) -> list[tuple[bytes, bool]]:
        """The last line, if it had no newline."""
        rest, self._rest = self._rest, b""
        return [(rest, True)] if rest else []


def _cut(line: bytes, pieces: list[tuple[bytes, bool]]) -> bytes:
    """Moves whole pieces off the front of a line; what is left (shorter than a piece)."""
    start = 0
    while len(line) - start >= PIECE_MAX:
        pieces.append((line[start : start + PIECE_MAX], True))
        start += PIECE_MAX
    return line[start:]


class LogWriter:
    """Writes one task's records; opens its files when there is something to write. With no ``files`` it keeps nothing
    but the end."""

    __slots__ = ("_fd", "_last_ns", "_number", "_size", "directory", "dropped", "files", "limit", "reason")

    def __init__(self, directory: str, limit: int, files: int) -> None:
        self.directory = directory
        self.limit = limit
        self.files = files
        self.dropped = 0
        self.reason = ""
        self._fd = -1
        self._number = 0
        self._size = 0
        self._last_ns = 0

    @property
    def position(self) -> Position:
        """Where the next record goes."""
        return self._number, self._size

    def write(self, now_ns: int, stream: int, pieces: list[tuple[bytes, bool]]) -> None:
        """Appends lines. Never raises for the disk's sake: what it can't write is counted in ``dropped``."""
        if not self.files:
            return
        if self.dropped:
            text = f"swarmlet: {self.dropped} lines of this log were lost: {self.reason}\n".encode()
            if not self._append([self._record(now_ns, STDERR, text)], count=0):
                self.dropped += len(pieces)
                return
            self.dropped = 0
        records = [self._record(now_ns, stream | (_PARTIAL if partial else 0), data) for data, partial in pieces]
        self._append(records, count=len(records))

    def end(self, now_ns: int) -> None:
        """Says that no more comes, and closes."""
        if self.dropped:
            self.write(now_ns, STDOUT, [])
        self._append([self._record(now_ns, _END, b"")], count=0)
        self.close()

    def close(self) -> None:
        """Closes the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _record(self, now_ns: int, flags: int, data: bytes) -> bytes:
        self._last_ns = max(self._last_ns + 1, now_ns)
        return _HEAD.pack(self._last_ns, flags, len(data)) + data

    def _append(self, records: list[bytes], count: int) -> bool:
        """Whole records, as many in each file as it has room for, one at least. ``count`` of them are lines."""
        done = 0
        try:
            while done < len(records):
                self._open()
                end, size = done, self._size
                while end < len(records) and (end == done or size < self.limit):
                    size += len(records[end])
                    end += 1
                self._write(b"".join(records[done:end]))
                done = end
        except OSError as error:
            self.dropped += max(0, count - done)
            self.reason = error.strerror or str(error)
            return False
        return True

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, view[written:])
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += written

    def _open(self) -> None:
        if self._fd >= 0 and self._size < self.limit:
            return
        os.makedirs(self.directory, 0o700, exist_ok=True)
        number = self._number + 1
        path = os.path.join(self.directory, f"{number}{_SUFFIX}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.close()
        self._fd, self._number, self._size = fd, number, 0
        for old in file_numbers(self.directory):
            if old <= number - self.files:
                os.unlink(os.path.join(self.directory, f"{old}{_SUFFIX}"))


def file_numbers(directory: str) -> list[int]:
    """The numbers of a task's log files, oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    stems = (name[: -len(_SUFFIX)] for name in names if name.endswith(_SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def remove_logs(directory: str) -> None:
    """Removes a task's log files; none is fine."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return


class LogReader:
    """Reads a task's records from the oldest on, through files that are being written and removed meanwhile."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1
        self._number = 0
        self._offset = 0
        self._rest = b""
        self.ended = False

    @property
    def position(self) -> Position:
        """Up to where it has read."""
        return self._number, self._offset

    def read(self) -> list[Piece]:
        """The next records, about READ_BYTES of them; [] at the end of what is there now."""
        while not self.ended:
            data = os.read(self._fd, READ_BYTES) if self._fd >= 0 else b""
            if data:
                pieces = self._decode(data)
                if pieces or self.ended:
                    return pieces
            elif not self._advance():
                break
        return []

    def close(self) -> None:
        """Lets go of the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _advance(self) -> bool:
        """Opens the next file there is. A file is only left once a later one is there: then it grows no more, but it
        may have grown between our last read and that later file's birth, so it is read once more."""
        later = [number for number in file_numbers(self._directory) if number > self._number]
        if not later:
            return False
        if self._fd >= 0 and os.fstat(self._fd).st_size > self._offset:
            return True
        try:
            fd = os.open(os.path.join(self._directory, f"{later[0]}{_SUFFIX}"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # rotated away meanwhile: look again
            return True
        self.close()
        self._fd, self._number, self._offset, self._rest = fd, later[0], 0, b""
        return True

    def _decode(self, data: bytes) -> list[Piece]:
        self._offset += len(data)
        data = self._rest + data
        pieces, at = [], 0
        while at + _HEAD.size <= len(data):
            timestamp_ns, flags, length = _HEAD.unpack_from(data, at)
            if at + _HEAD.size + length > len(data):
                break
            at += _HEAD.size
            if flags & _END:
                self.ended = True
            else:
                pieces.append(Piece(timestamp_ns, flags & _STREAM, data[at : at + length], bool(flags & _PARTIAL)))
            at += length
        self._rest = data[at:]
        return pieces
