"""Listening sockets of the Engine API.

Rules: a unix socket is readable by its owner alone from its first moment (with a group: by that too); a stale socket
file is replaced, a live one and anything that is no socket are left alone and refused; only a file that is still
ours is removed at the end.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

UNIX_PATH_MAX: Final = 107
"""Bytes that Linux takes for the path of a unix socket."""
PROBE_TIMEOUT_S: Final = 1.0
BACKLOG: Final = 512


class ListenError(OSError):
    """A socket that cannot be listened on, with a sentence that says why."""


@dataclass(frozen=True, slots=True)
class TlsListener:
    """A TCP address with the TLS context that guards it; port 0 takes a free one."""

    host: str
    port: int
    context: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class UnixListener:
    """A bound unix socket, with the file's identity for its removal."""

    path: str
    sock: socket.socket
    identity: tuple[int, int]

    def remove(self) -> None:
        """Remove the socket's file if it is still the one that was bound."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if (found.st_dev, found.st_ino) == self.identity:
            os.unlink(self.path)


def listen_unix(path: str, group: str | None = None) -> UnixListener:
    """Bind and listen on ``path``. Raises ListenError for a path that is too long, taken, or no socket."""
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise ListenError(
            f"the path of the socket is too long: {len(os.fsencode(path))} bytes, at most {UNIX_PATH_MAX}: {path}"
        )
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # On Linux the mode of the unbound socket becomes the file's, so that nobody else ever sees it open.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        os.chmod(path, 0o600)
        if group:
            shutil.chown(path, group=group)
            os.chmod(path, 0o660)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        found = os.lstat(path)
    except (OSError, LookupError) as error:
        sock.close()
        raise ListenError(f"cannot listen on {path}: {error}") from error
    return UnixListener(path, sock, (found.st_dev, found.st_ino))


def _clear(path: str) -> None:
    """Remove a stale socket file at ``path``."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen on {path}: something that is no socket is there")
    if _answers(path):
        raise ListenError(f"cannot listen on {path}: another process listens on it")
    os.unlink(path)


def _answers(path: str) -> bool:
    """Whether somebody listens. Doubt (no permission, no answer in time) counts as yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def adopt(fd: int) -> socket.socket:
    """A socket that is listened on already and was handed over by number, as systemd does."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ListenError(f"file descriptor {fd} is no socket: {error}") from error
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise ListenError(f"file descriptor {fd} is a socket that nobody listens on")
    sock.setblocking(False)
    return sock
