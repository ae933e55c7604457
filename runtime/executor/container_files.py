"""Secrets and configs of a container as files of this machine, each mounted read-only where its spec says.

They are in memory where this machine has such a place, in a directory that its owner alone may enter: the engine, which
is root or this very user, mounts each file by itself, so nothing of the directory is seen in the container. The engine
wants a source to exist when a container is made; what stands in it is written only when the container starts, and
removed when it has ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from runtime.executor.container_plan import PayloadFile, Plan
from runtime.executor.payload_files import clear_payloads, payload_root, remove_payloads

PRIVATE: Final = 0o700

__all__ = ["clear_payloads", "fill", "lay_out", "payload_root", "remove_payloads"]


def lay_out(plan: Plan) -> None:
    """Empty files where the container's mounts will look for them. OSError."""
    if not plan.files:
        return
    _make(os.path.dirname(plan.directory))
    _make(plan.directory)
    for each in plan.files:
        os.close(os.open(each.source, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))


def fill(plan: Plan, secret: Callable[[str], bytes], config: Callable[[str], bytes]) -> None:
    """Writes what belongs into them. KeyError or Refused for what the node was not given, OSError for what can't be
    written."""
    read = {"secret": secret, "config": config}
    contents = [(each, read[each.kind](each.id)) for each in plan.files]
    lay_out(plan)
    for each, data in contents:
        _write(each, data)


def _write(file: PayloadFile, data: bytes) -> None:
    os.unlink(file.source)  # one that was filled before may be read-only to ourselves
    fd = os.open(file.source, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as opened:
        opened.write(data)
        opened.flush()
        if os.geteuid() == 0:
            os.fchown(fd, file.uid, file.gid)
        os.fchmod(fd, file.mode)


def _make(path: str) -> None:
    os.makedirs(os.path.dirname(path), PRIVATE, exist_ok=True)
    try:
        os.mkdir(path, PRIVATE)
    except FileExistsError:
        if os.lstat(path).st_uid != os.geteuid() or os.path.islink(path):
            raise PermissionError(1, "a directory that is not ours", path) from None
