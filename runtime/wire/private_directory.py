"""A directory of this process alone, for the unix sockets that nobody else may reach.

Rules owned here: its mode is 0700, and it is locked as long as its process lives. A process that was killed cannot
remove its own: whoever makes one beside it does, once its lock is free. Nothing is removed from the system's temporary
directory, where names are everybody's. Names are short, since a socket's path is (107 bytes); where the temporary
directory leaves no room for them, they are below /tmp.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile

PREFIX = "w."
TEMPORARY_PREFIX = "swarmlet-"
PARENT_MAX = 107 - len("/swarmlet-4294967294/0123456789ab/w.12345678/c12345678")
"""So many bytes may the path of a directory have below which any of our sockets finds room."""


def for_sockets(directory: str = "") -> str:
    """The directory itself (the system's temporary one), or /tmp if no socket of ours has room below it."""
    found = directory or tempfile.gettempdir()
    return found if len(os.fsencode(found)) <= PARENT_MAX else "/tmp"  # noqa: S108 - what is made there is private


class PrivateDirectory:
    """Made at once below ``parent``, which is there and private itself; without one, in the temporary directory.
    OSError if it cannot be."""

    LONGEST = f"{PREFIX}12345678/c12345678"
    """As long as the path of a socket in it can be, from the parent on."""

    def __init__(self, parent: str = "") -> None:
        if parent:
            remove_left_over(parent)
        self.path, self._lock = _made(parent or for_sockets(), PREFIX if parent else TEMPORARY_PREFIX)

    def remove(self) -> None:
        """With all that is in it."""
        shutil.rmtree(self.path)
        os.close(self._lock)


def remove_left_over(parent: str) -> None:
    """Removes those whose processes are gone."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if not name.startswith(PREFIX):
            continue
        try:
            lock = _locked(path)
        except OSError:
            continue  # somebody has it, or it is no directory of ours
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _made(parent: str, prefix: str) -> tuple[str, int]:
    """Until it is locked, another process may take it for a left-over and remove it: then another one is made."""
    while True:
        path = tempfile.mkdtemp(prefix=prefix, dir=parent)
        try:
            lock = _locked(path)
        except (FileNotFoundError, BlockingIOError):
            continue
        except OSError:
            os.rmdir(path)
            raise
        if os.path.isdir(path):
            return path, lock
        os.close(lock)


def _locked(path: str) -> int:
    """A lock on a directory. BlockingIOError if somebody has it; another OSError if it cannot be locked at all."""
    found = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(found)
        raise
    return found
