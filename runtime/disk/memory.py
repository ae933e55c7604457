"""The simulated disk: what a real one does to a program, on command.

Rules owned here: what was synced outlasts a crash; of what was not, a crash keeps a prefix; a killed process loses
nothing that it had written. A handle from before a crash is dead. Faults are switched on per database: the disk is
full after some writes, a sync fails or lies, a stored bit flips, and a sync covers its own batch alone.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from runtime.disk.errors import DiskFailed, DiskInUse
from runtime.disk.port import TEMPORARY, Pair
from runtime.failpoints import failpoint

_Batch = tuple[list[bytes], list[Pair]]


def _apply(image: dict[bytes, bytes], batch: _Batch) -> None:
    deletes, puts = batch
    for key in deletes:
        image.pop(key, None)
    for key, value in puts:
        image[key] = value


@dataclass(slots=True)
class MemoryImage:
    """What a database's directory holds: the synced state, the batches since, and the faults to come."""

    synced: dict[bytes, bytes] = field(default_factory=dict)
    tail: list[tuple[_Batch, bool]] = field(default_factory=list)
    """Batches in the order of writing, each with whether it was synced; only under ``rotates`` some of them were."""
    writes_until_full: int | None = None
    syncs_until_error: int | None = None
    lying: bool = False
    """A sync says that it was done and does nothing: only to prove that checkers notice."""
    rotates: bool = False
    """LevelDB's log file is replaced before every write: a sync reaches its own batch, not the unsynced before it."""
    handle: MemoryDatabase | None = None
    refused_writes: int = 0
    failed_syncs: int = 0

    def current(self) -> dict[bytes, bytes]:
        """What a process that opens the database now would read."""
        image = dict(self.synced)
        for batch, _ in self.tail:
            _apply(image, batch)
        return image

    def sync(self) -> None:
        """Makes the newest batch last, and (but for ``rotates``) everything before it."""
        if self.rotates and self.tail:
            self.tail[-1] = self.tail[-1][0], True
            if not all(synced for _, synced in self.tail):
                return
        self._settle()

    def _settle(self) -> None:
        for batch, _ in self.tail:
            _apply(self.synced, batch)
        self.tail.clear()

    def crash(self, rng: random.Random, lose_all: bool = False) -> None:
        """Power cut: a random suffix of what was not synced is gone (a torn batch counts as gone), or all of it; under
        ``rotates`` any of it, also from between batches that stay."""
        if lose_all:
            self.tail = [(batch, synced) for batch, synced in self.tail if synced]
        elif self.rotates:
            self.tail = [(batch, synced) for batch, synced in self.tail if synced or rng.random() < 0.5]
        else:
            del self.tail[rng.randint(0, len(self.tail)) :]
        self._settle()
        self.kill()

    def kill(self) -> None:
        """The process dies: its handle is dead, and the kernel keeps what was written."""
        if self.handle is not None:
            self.handle.invalidate("its process died")
            self.handle = None

    def full_after(self, writes: int) -> None:
        """The disk takes this many more batches, then refuses all."""
        self.writes_until_full = writes

    def sync_error_at(self, syncs: int) -> None:
        """The sync after this many more good ones fails, once."""
        self.syncs_until_error = syncs

    def heal(self) -> None:
        """Switches pending faults off."""
        self.writes_until_full = self.syncs_until_error = None
        self.lying = self.rotates = False

    def corrupt(self, rng: random.Random) -> bytes:
        """Flips one bit of one stored value behind the database's back; returns the key it hit."""
        self._settle()
        candidates = sorted(key for key, value in self.synced.items() if value)
        assert candidates, "there is nothing to damage"
        key = rng.choice(candidates)
        value = bytearray(self.synced[key])
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        self.synced[key] = bytes(value)
        return key


class MemoryDatabase:
    """A ``Database`` over an image that outlasts it."""

    def __init__(self, image: MemoryImage, name: str = "memory") -> None:
        if image.handle is not None:
            raise DiskInUse(f"database {name} is in use by another process")
        image.handle = self
        self._image = image
        self._name = name
        self._dead = ""
        self._view = image.current()
        self._keys = sorted(self._view)

    def get(self, key: bytes) -> bytes | None:
        """See ``Database.get``."""
        self._check_open()
        return self._view.get(key)

    def write(self, puts: Iterable[Pair], deletes: Iterable[bytes] = (), *, sync: bool, before_sync: str = "") -> None:
        """See ``Database.write``."""
        self._check_open()
        batch = list(deletes), list(puts)
        self._take_space()
        self._image.tail.append((batch, False))
        self._show(batch)
        if sync:
            if before_sync:
                failpoint(before_sync)
            self._sync()

    def iterate(self, start: bytes, stop: bytes) -> Iterator[Pair]:
        """See ``Database.iterate``."""
        self._check_open()
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, stop)]
        return iter([(key, self._view[key]) for key in keys])

    def close(self) -> None:
        """See ``Database.close``."""
        if not self._dead:
            self.invalidate("it was closed")
            self._image.handle = None

    def invalidate(self, why: str) -> None:
        """Every later call fails with this reason."""
        self._dead = why

    def _show(self, batch: _Batch) -> None:
        deletes, puts = batch
        for key in deletes:
            if self._view.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        for key, value in puts:
            if key not in self._view:
                insort(self._keys, key)
            self._view[key] = value

    def _take_space(self) -> None:
        left = self._image.writes_until_full
        if left == 0:
            self._image.refused_writes += 1
            raise self._failed("no space left on device")
        if left is not None:
            self._image.writes_until_full = left - 1

    def _sync(self) -> None:
        left = self._image.syncs_until_error
        if left == 0:
            self._image.syncs_until_error = None
            self._image.failed_syncs += 1
            raise self._failed("input/output error while syncing")
        if left is not None:
            self._image.syncs_until_error = left - 1
        if not self._image.lying:
            self._image.sync()

    def _failed(self, what: str) -> DiskFailed:
        self.close()
        self._dead = f"a write failed: {what}"
        return DiskFailed(f"database {self._name}: write failed: {what}")

    def _check_open(self) -> None:
        if self._dead:
            raise DiskFailed(f"database {self._name} is closed: {self._dead}")


@dataclass(slots=True)
class _File:
    data: bytes = field(repr=False)
    mode: int


class MemoryLock:
    """A hold on a simulated data root."""

    def __init__(self, files: MemoryFiles) -> None:
        self._files: MemoryFiles | None = files

    def release(self) -> None:
        """See ``Lock.release``."""
        if self._files is not None:
            self._files.locked = False
            self._files = None


class MemoryFiles:
    """``Files`` in memory. Each call is durable when it returns; a write that fails leaves half a temporary file."""

    def __init__(self) -> None:
        self.locked = False
        self.fail_after: int | None = None
        """How many more writes succeed; None for all."""
        self.free = 1 << 40
        """Bytes that are left; only what is reserved counts against them."""
        self._reserved: dict[PurePosixPath, int] = {}
        self._files: dict[PurePosixPath, _File] = {}
        self._directories: dict[PurePosixPath, int] = {PurePosixPath(): 0o700}

    def read(self, path: str) -> bytes | None:
        """See ``Files.read``."""
        file = self._files.get(self._path(path))
        return None if file is None else file.data

    def mode(self, path: str) -> int:
        """The permissions of a file or directory."""
        where = self._path(path)
        return self._files[where].mode if where in self._files else self._directories[where]

    def write_atomic(self, path: str, data: bytes, mode: int) -> None:
        """See ``Files.write_atomic``."""
        where = self._path(path)
        if where.parent not in self._directories or where in self._directories:
            raise DiskFailed(f"cannot write {path}: no such directory, or it is one")
        if self.fail_after == 0:
            self._files[where.with_name(f"{TEMPORARY}{where.name}")] = _File(data[: len(data) // 2], 0o600)
            raise DiskFailed(f"cannot write {path}: no space left on device")
        if self.fail_after is not None:
            self.fail_after -= 1
        self._files[where] = _File(bytes(data), mode)

    def rename(self, source: str, target: str) -> None:
        """See ``Files.rename``."""
        if self._path(source) not in self._files:
            raise DiskFailed(f"cannot rename {source}: no such file")
        self._files[self._path(target)] = self._files.pop(self._path(source))

    def remove(self, path: str) -> None:
        """See ``Files.remove``."""
        self._files.pop(self._path(path), None)
        self.free += self._reserved.pop(self._path(path), 0)

    def reserve(self, path: str, size: int) -> None:
        """See ``Files.reserve``."""
        where = self._path(path)
        needed = size - self._reserved.get(where, 0)
        if needed > self.free:
            raise DiskFailed(f"cannot reserve {path}: no space left on device")
        self.free -= needed
        self._reserved[where] = size
        self._files[where] = _File(b"", 0o600)

    def free_bytes(self) -> int:
        """See ``Files.free_bytes``."""
        return self.free

    def listdir(self, path: str) -> list[str]:
        """See ``Files.listdir``."""
        where = self._path(path)
        return sorted(p.name for p in (*self._files, *self._directories) if p.parent == where and p != where)

    def exists(self, path: str) -> bool:
        """See ``Files.exists``."""
        return self._path(path) in self._files or self._path(path) in self._directories

    def is_file(self, path: str) -> bool:
        """See ``Files.is_file``."""
        return self._path(path) in self._files

    def make_dirs(self, path: str, mode: int) -> None:
        """See ``Files.make_dirs``."""
        where = self._path(path)
        for directory in (*reversed(where.parents), where):
            if directory in self._files:
                raise DiskFailed(f"cannot make directory {path}: {directory} is a file")
            self._directories.setdefault(directory, mode)

    def remove_tree(self, path: str) -> None:
        """See ``Files.remove_tree``."""
        where = self._path(path)
        self.remove_tree_contents(path)
        self.remove(path)
        if where.parts:
            self._directories.pop(where, None)

    def remove_tree_contents(self, path: str) -> None:
        """See ``Files.remove_tree_contents``."""
        where = self._path(path)
        self._files = {p: file for p, file in self._files.items() if where not in p.parents}
        self._directories = {p: mode for p, mode in self._directories.items() if where not in p.parents}

    def lock(self) -> MemoryLock:
        """See ``Files.lock``."""
        if self.locked:
            raise DiskInUse("the data root is in use by another swarmlet process")
        self.locked = True
        return MemoryLock(self)

    def _path(self, path: str) -> PurePosixPath:
        where = PurePosixPath(path)
        assert not where.is_absolute() and ".." not in where.parts, f"{path!r} leads out of the data root"  # noqa: PT018
        return where


class MemoryDisk:
    """A ``Disk`` that a test can crash, kill, fill and damage. Removing a database's directory removes its image."""

    def __init__(self) -> None:
        self._files = MemoryFiles()
        self._images: dict[str, MemoryImage] = {}

    @property
    def files(self) -> MemoryFiles:
        """See ``Disk.files``."""
        return self._files

    def open_database(self, name: str) -> MemoryDatabase:
        """See ``Disk.open_database``."""
        if self._files.is_file(name):
            raise DiskFailed(f"cannot open database {name}: it is a file")
        if not self._files.exists(name):
            self._images.pop(name, None)
            self._files.make_dirs(name, 0o700)
        return MemoryDatabase(self.image(name), name)

    def image(self, name: str) -> MemoryImage:
        """The image of one database, to switch faults on."""
        return self._images.setdefault(name, MemoryImage())

    def crash(self, rng: random.Random, lose_all: bool = False) -> None:
        """Power cut for all of it."""
        for name in sorted(self._images):
            self._images[name].crash(rng, lose_all)
        self._files.locked = False

    @property
    def images(self) -> list[tuple[str, MemoryImage]]:
        """Every database's image by name."""
        return sorted(self._images.items())

    def kill(self) -> None:
        """The process dies."""
        for name in sorted(self._images):
            self._images[name].kill()
        self._files.locked = False
