"""The ports of the disk: what the log, the task database and the state files stand on.

Rules owned here: a batch is all or nothing; ``sync=True`` returns only when this batch will survive a power cut (which
of the unsynced batches before it do is anybody's guess: LevelDB may have begun another log file in between, and syncs
the newest); after any failure a handle is dead. Paths are relative to the disk's root, with ``/``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

Pair = tuple[bytes, bytes]

TEMPORARY = ".tmp-"
"""What the names of half-written files begin with."""


class Database(Protocol):
    """An ordered map of bytes to bytes, owned by one thread."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or None. Raises ``DiskFailed`` (``DiskDamaged`` when checksums do not match)."""

    def write(self, puts: Iterable[Pair], deletes: Iterable[bytes] = (), *, sync: bool, before_sync: str = "") -> None:
        """Applies one atomic batch (deletes first, then puts).

        ``before_sync`` names a failpoint between writing and syncing; only the in-memory twin has such a moment. Any
        failure closes the database and raises ``DiskFailed``, and so does every later call.
        """

    def iterate(self, start: bytes, stop: bytes) -> Iterator[Pair]:
        """Pairs with start <= key < stop, in order, as they were at the call. To be used up at once."""

    def close(self) -> None:
        """Gives the data free for the next one to open. Closing twice is harmless."""


class Lock(Protocol):
    """A hold on the data root."""

    def release(self) -> None:
        """Lets go. Releasing twice is harmless."""


class Files(Protocol):
    """Small files, written whole. Every change is durable when the call returns. Failures raise ``DiskFailed``."""

    def read(self, path: str) -> bytes | None:
        """The content, or None when there is no such file."""

    def write_atomic(self, path: str, data: bytes, mode: int) -> None:
        """Replaces a file by way of a temporary one (``.tmp-<name>...``) beside it; readers see old or new."""

    def rename(self, source: str, target: str) -> None:
        """Moves a file over another in one step."""

    def remove(self, path: str) -> None:
        """Removes a file; one that is not there is fine."""

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted; none when there is no such directory."""

    def exists(self, path: str) -> bool:
        """Whether a file or directory is there."""

    def is_file(self, path: str) -> bool:
        """Whether a regular file is there."""

    def make_dirs(self, path: str, mode: int) -> None:
        """Makes a directory and what is missing above it; one that is there keeps its mode."""

    def remove_tree(self, path: str) -> None:
        """Removes a file, or a directory with all that is in it; nothing there is fine."""

    def remove_tree_contents(self, path: str) -> None:
        """Empties a directory and keeps it (it may be a mount point)."""

    def reserve(self, path: str, size: int) -> None:
        """Makes a file that takes up ``size`` bytes of the disk, whatever is in them."""

    def free_bytes(self) -> int:
        """How much this process may still write to the file system that the data root is on."""

    def lock(self) -> Lock:
        """Takes the data root for this process; ``DiskInUse`` when another has it."""


class Disk(Protocol):
    """A node's disk."""

    @property
    def files(self) -> Files:
        """The files under the same root."""

    def open_database(self, name: str) -> Database:
        """Opens or makes a database; ``DiskInUse`` when it is open already, ``DiskDamaged`` when it is damaged."""
