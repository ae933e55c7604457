"""The keeper's memory: one record a task, in a file that is appended to and synced before anybody is told.

Rules owned here: a record replaces the one before it of the same task; what was torn by a crash at the end of the file
is cut off; what could not be written whole is cut off at once, so that nothing after it is lost. The file is written
anew when it is four times as long as what is in it. Imported by the keeper: standard library and msgpack only.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Any

import msgpack

Record = dict[str, Any]
_HEAD = struct.Struct(">II")  # length and CRC-32 of the body
COMPACT_BYTES = 256 << 10
RECORD_MAX = 1 << 20


class Journal:
    """The records of all tasks by id. ``put`` and ``drop`` are durable after ``sync``."""

    def __init__(self, path: str, compact_bytes: int = COMPACT_BYTES) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self._compact_bytes = compact_bytes
        self._pending: list[bytes] = []
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = self._load()
        os.ftruncate(self._fd, self._size)
        os.lseek(self._fd, self._size, os.SEEK_SET)
        _sync_directory(path)

    @property
    def dirty(self) -> bool:
        """Whether something waits for a sync."""
        return bool(self._pending)

    def put(self, record: Record) -> None:
        """Sets the record of ``record["id"]``."""
        self.records[record["id"]] = record
        self._pending.append(_entry(record))

    def drop(self, task_id: str) -> None:
        """Forgets a task."""
        if self.records.pop(task_id, None) is not None:
            self._pending.append(_entry({"id": task_id, "dropped": True}))

    def sync(self) -> None:
        """Writes what waits. OSError if that fails: it then still waits, and the file is as it was."""
        if not self._pending:
            return
        if not self._is_there():  # a node that leaves its swarm clears its state while its keeper goes on
            self._make_anew()
            return
        data = b"".join(self._pending)
        try:
            _write(self._fd, data)
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
            raise
        self._size += len(data)
        self._pending.clear()
        if self._size > self._compact_bytes and self._size > 4 * sum(len(_entry(r)) for r in self.records.values()):
            self.rewrite()

    def revert(self, task_id: str) -> None:
        """Takes a record that could not be synced back."""
        self.records.pop(task_id, None)
        self._pending = [entry for entry in self._pending if _body(entry)["id"] != task_id]

    def ensure_there(self) -> None:
        """Writes the file anew if somebody removed or replaced it under us."""
        if not self._is_there():
            self._make_anew()

    def _is_there(self) -> bool:
        try:
            return os.stat(self.path).st_ino == os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False

    def _make_anew(self) -> None:
        os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        self.rewrite()

    def rewrite(self) -> None:
        """The file with nothing but what counts, in place of the old one at once."""
        new = f"{self.path}.new"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        data = b"".join(_entry(self.records[task_id]) for task_id in sorted(self.records))
        try:
            _write(fd, data)
            os.fsync(fd)
            os.replace(new, self.path)
        except OSError:
            os.close(fd)
            raise
        _sync_directory(self.path)
        os.close(self._fd)
        self._fd, self._size = fd, len(data)
        self._pending.clear()

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._fd)

    def _load(self) -> int:
        """Reads what is whole; where that ends."""
        with os.fdopen(os.dup(self._fd), "rb") as file:
            self.records, whole = read(file.read())
        return whole


def read(data: bytes) -> tuple[dict[str, Record], int]:
    """The records of a journal's content by id, and where what is whole ends."""
    records: dict[str, Record] = {}
    offset = 0
    while offset + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, offset)
        body = data[offset + _HEAD.size : offset + _HEAD.size + length]
        if length > RECORD_MAX or len(body) < length or zlib.crc32(body) != crc:
            break
        record = msgpack.unpackb(body)
        if record.get("dropped"):
            records.pop(record["id"], None)
        else:
            records[record["id"]] = record
        offset += _HEAD.size + length
    return records, offset


def _entry(record: Record) -> bytes:
    body: bytes = msgpack.packb(record)
    assert len(body) <= RECORD_MAX, f"a record of {len(body)} bytes"
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _body(entry: bytes) -> Record:
    record: Record = msgpack.unpackb(entry[_HEAD.size :])
    return record


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(path: str) -> None:
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
