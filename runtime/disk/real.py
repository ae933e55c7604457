"""The real disk: files under one directory, made durable step by step, and LevelDB beside them."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from runtime.disk.errors import DiskFailed, DiskInUse
from runtime.disk.level import LevelDatabase
from runtime.disk.port import TEMPORARY, Database


@contextmanager
def _failing(what: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskFailed(f"cannot {what} {path or 'the data root'}: {error.strerror or error}") from error


class DirectoryLock:
    """An flock on the directory itself: it leaves no file behind and outlasts the clearing of the content."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise DiskInUse(f"the data root {path} is in use by another swarmlet process") from None
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """See ``Lock.release``."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealFiles:
    """``Files`` under a directory of the file system."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        """See ``Files.read``."""
        with _failing("read", path):
            try:
                return self._path(path).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write_atomic(self, path: str, data: bytes, mode: int) -> None:
        """See ``Files.write_atomic``."""
        target = self._path(path)
        with _failing("write", path):
            fd, name = tempfile.mkstemp(prefix=f"{TEMPORARY}{target.name}", dir=target.parent)
            try:
                with os.fdopen(fd, "wb") as file:
                    os.fchmod(fd, mode)
                    file.write(data)
                    file.flush()
                    os.fsync(fd)
                os.replace(name, target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            _sync_directory(target.parent)

    def rename(self, source: str, target: str) -> None:
        """See ``Files.rename``."""
        with _failing("rename", source):
            os.replace(self._path(source), self._path(target))
            _sync_directory(self._path(target).parent)

    def remove(self, path: str) -> None:
        """See ``Files.remove``."""
        with _failing("remove", path):
            try:
                self._path(path).unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            _sync_directory(self._path(path).parent)

    def listdir(self, path: str) -> list[str]:
        """See ``Files.listdir``."""
        with _failing("list", path):
            try:
                return sorted(os.listdir(self._path(path)))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def exists(self, path: str) -> bool:
        """See ``Files.exists``."""
        with _failing("examine", path):
            return self._path(path).exists()

    def is_file(self, path: str) -> bool:
        """See ``Files.is_file``."""
        with _failing("examine", path):
            try:
                return stat.S_ISREG(self._path(path).stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def make_dirs(self, path: str, mode: int) -> None:
        """See ``Files.make_dirs``."""
        with _failing("make directory", path):
            _make_directories(self._path(path), mode)

    def remove_tree(self, path: str) -> None:
        """See ``Files.remove_tree``."""
        target = self._path(path)
        with _failing("remove", path):
            _remove(target)
            if target.parent.exists():
                _sync_directory(target.parent)

    def remove_tree_contents(self, path: str) -> None:
        """See ``Files.remove_tree_contents``."""
        directory = self._path(path)
        with _failing("empty", path):
            if directory.exists():
                for entry in sorted(directory.iterdir()):
                    _remove(entry)
                _sync_directory(directory)

    def reserve(self, path: str, size: int) -> None:
        """See ``Files.reserve``."""
        target = self._path(path)
        with _failing("reserve", path):
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)
                os.fsync(fd)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            finally:
                os.close(fd)
            _sync_directory(target.parent)

    def free_bytes(self) -> int:
        """See ``Files.free_bytes``."""
        with _failing("examine", ""):
            space = os.statvfs(self._root)
        return space.f_bavail * space.f_frsize

    def lock(self) -> DirectoryLock:
        """See ``Files.lock``."""
        with _failing("lock", ""):
            return DirectoryLock(self._root)

    def _path(self, path: str) -> Path:
        parts = PurePosixPath(path)
        assert not parts.is_absolute() and ".." not in parts.parts, f"{path!r} leads out of the data root"  # noqa: PT018
        return self._root / parts


def _remove(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _make_directories(target: Path, mode: int) -> None:
    """Makes what is missing, from the top, each entry durable before what is below it."""
    missing = []
    while not target.exists():
        missing.append(target)
        target = target.parent
    if not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{target} is not a directory")
    for directory in reversed(missing):
        directory.mkdir(mode)
        _sync_directory(directory.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class RealDisk:
    """A ``Disk`` in a directory, which is made when missing."""

    def __init__(self, root: Path) -> None:
        self._root = root
        with _failing("make directory", str(root)):
            _make_directories(root.absolute(), 0o700)
        self._files = RealFiles(root)

    @property
    def files(self) -> RealFiles:
        """See ``Disk.files``."""
        return self._files

    def open_database(self, name: str) -> Database:
        """See ``Disk.open_database``. Its directory, and those above it, are private to this user.

        LevelDB would make the directory itself, but not make sure that it outlasts a power cut.
        """
        self._files.make_dirs(name, 0o700)
        return LevelDatabase(self._root / name)
