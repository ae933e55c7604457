"""A database on LevelDB, used in the one way in which it can be trusted.

Rules owned here: checksums are verified on opening and on every read, and after any failed write the handle is
closed for good. LevelDB itself would go on: it acknowledges synced writes after a full disk that are gone when it is
opened again, and its repair drops and resurrects, so neither is ever relied upon.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import plyvel

from runtime.disk.errors import DiskDamaged, DiskFailed, DiskInUse
from runtime.disk.port import Pair

_HELD = ("already held by process", os.strerror(errno.EAGAIN), os.strerror(errno.EACCES))


class LevelDatabase:
    """A ``Database`` in a directory of its own."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the database; the directory above it must be there."""
        self._name = str(path)
        self._why_closed = "it was closed"
        try:
            self._db = plyvel.DB(self._name, create_if_missing=True, paranoid_checks=True)
        except plyvel.CorruptionError as error:
            raise DiskDamaged(f"database {self._name} is damaged: {error}") from error
        except (plyvel.Error, OSError) as error:
            text = str(error)
            if _is_held(self._name, text):
                raise DiskInUse(f"database {self._name} is in use by another process") from error
            raise DiskFailed(f"cannot open database {self._name}: {text}") from error

    def get(self, key: bytes) -> bytes | None:
        """See ``Database.get``."""
        self._check_open()
        try:
            value: bytes | None = self._db.get(key, verify_checksums=True)
        except Exception as error:
            raise self._failed("read", error) from error
        return value

    def write(self, puts: Iterable[Pair], deletes: Iterable[bytes] = (), *, sync: bool, before_sync: str = "") -> None:
        """See ``Database.write``. LevelDB writes and syncs in one call, so there is no moment for ``before_sync``."""
        self._check_open()
        try:
            batch = self._db.write_batch(sync=sync)
            for key in deletes:
                batch.delete(key)
            for key, value in puts:
                batch.put(key, value)
            batch.write()
        except Exception as error:
            raise self._failed("write", error) from error

    def iterate(self, start: bytes, stop: bytes) -> Iterator[Pair]:
        """See ``Database.iterate``."""
        self._check_open()
        try:
            pairs = self._db.iterator(start=start, stop=stop, verify_checksums=True)
        except Exception as error:
            raise self._failed("read", error) from error
        return self._read_out(pairs)

    def _read_out(self, pairs: Any) -> Iterator[Pair]:
        # An iterator keeps files of the database in use, deleted ones too: it is closed as soon as it ends or is left.
        with pairs:
            try:
                yield from pairs
            except (plyvel.Error, RuntimeError, OSError) as error:
                raise self._failed("read", error) from error

    def close(self) -> None:
        """See ``Database.close``."""
        self._db.close()

    def _check_open(self) -> None:
        if self._db.closed:
            raise DiskFailed(f"database {self._name} is closed: {self._why_closed}")

    def _failed(self, what: str, error: Exception) -> DiskFailed:
        self._why_closed = f"a {what} failed: {error}"
        self._db.close()
        kind = DiskDamaged if isinstance(error, plyvel.CorruptionError) else DiskFailed
        return kind(f"database {self._name}: {what} failed: {error}")


def _is_held(name: str, text: str) -> bool:
    """Whether LevelDB refused to open because another handle or process holds its lock. A lock that fails for another
    reason (no locks left, no right to the file) is a failure of the disk."""
    return f"lock {name}/LOCK: " in text and any(sign in text for sign in _HELD)
