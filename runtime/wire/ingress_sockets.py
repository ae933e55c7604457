"""Sockets of published ports: where they are bound, how many there may be, and trouble that is told seldom."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104  # published ports are for everybody
NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
OUR_LACK: Final = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)
"""This machine has no file, port or memory left for a connection: whoever was to be reached is not to blame."""
IP_PKTINFO: Final = 8  # linux/in.h; the socket module does not name it
BACKLOG: Final = 512
CONNECTIONS_MAX: Final = 8192
FLOWS_MAX: Final = 4096
QUIET_S: Final = 60.0


def shares(open_files: int | None = None) -> tuple[int, int]:
    """How many connections and how many clients of UDP there may be at a time.

    A connection takes two files and a client of UDP one: together they have three quarters of what this process may
    open at the most, so that a crowd at a published port leaves the node itself the last quarter.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if open_files is None else open_files
    return min(CONNECTIONS_MAX, files // 4), min(FLOWS_MAX, files // 4)


def opened(hosts: Sequence[str], port: int, kind: socket.SocketKind) -> list[socket.socket]:
    """A socket at each address, all or none (OSError); those of TCP listen. Without IPv6 there is none for that."""
    found: list[socket.socket] = []
    for host in hosts:
        try:
            found.append(_bound(host, port, kind))
        except OSError as error:
            if host == "::" and found and error.errno in NO_IPV6:
                continue
            for each in found:
                each.close()
            raise
    return found


def unbound(host: str, kind: socket.SocketKind) -> socket.socket:
    """One of the family of an address. OSError if there can be none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


async def connected(host: str, port: int, seconds: float) -> socket.socket:
    """A connection of TCP. OSError if there can be none, TimeoutError if the other side does not take it in time: what
    the kernel has brought about by then counts, however late this loop hears of it."""
    made = unbound(host, socket.SOCK_STREAM)
    try:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(made, (host, port))
        except TimeoutError:
            if not _has_peer(made):
                raise
    except BaseException:
        made.close()
        raise
    return made


def _has_peer(made: socket.socket) -> bool:
    try:
        made.getpeername()
    except OSError:
        return False
    return True


def reached_itself(made: Any) -> bool:
    """Whether a connected socket is its own peer. That happens on one machine when nobody has the port that is wanted
    and the system draws that very number for this end: TCP's simultaneous open, or a datagram that comes back."""
    return bool(made.getsockname()[:2] == made.getpeername()[:2])


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    made = unbound(host, kind)
    try:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_DGRAM:
            _tell_destinations(made)
            made.bind((host, port))
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, port))
            made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _tell_destinations(made: socket.socket) -> None:
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


class Seldom:
    """Says something once a minute at the most, however often it happens."""

    __slots__ = ("_log", "_quiet_until")

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._quiet_until = float("-inf")

    def warn(self, text: str, *values: object) -> None:
        """As a logger's."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_S
            self._log.warning(text, *values)
