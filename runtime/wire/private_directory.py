"""A directory of this process alone, for the unix sockets that nobody else may reach.

Rules owned here: its mode is 0700, and it is locked as long as its process lives. A process that was killed cannot
remove its own: whoever makes one beside it does, once its lock is free. Nothing is removed from the system's temporary
directory, where names are everybody's. Names are short, since a socket's path is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile

PREFIX = "w."
TEMPORARY_PREFIX = "swarmlet-"


class PrivateDirectory:
    """Made at once below ``parent``, which is there and private itself; without one, in the temporary directory.
    OSError if it cannot be."""

    LONGEST = f"{PREFIX}12345678/c12345678"
    """As long as the path of a socket in it can be, from the parent on."""

    def __init__(self, parent: str = "") -> None:
        if parent:
            remove_left_over(parent)
        self.path, self._lock = _made(parent, PREFIX) if parent else _made(tempfile.gettempdir(), TEMPORARY_PREFIX)

    def remove(self) -> None:
        """With all that is in it."""
        shutil.rmtree(self.path)
        os.close(self._lock)


def remove_left_over(parent: str) -> None:
    """Removes those whose processes are gone."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if name.startswith(PREFIX) and (lock := _locked(path)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _made(parent: str, prefix: str) -> tuple[str, int]:
    """Until it is locked, another process may take it for a left-over and remove it: then another one is made."""
    while True:
        path = tempfile.mkdtemp(prefix=prefix, dir=parent)
        lock = _locked(path)
        if lock is None:
            continue
        if os.path.isdir(path):
            return path, lock
        os.close(lock)


def _locked(path: str) -> int | None:
    """A lock on a directory; None if somebody has it, or if it is no directory of ours."""
    try:
        found = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(found)
        return None
    return found
