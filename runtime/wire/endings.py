"""How calls end that nobody answered. Each is made anew: an exception that is raised holds the frames that it passed
through, so one that is kept keeps channels, and gRPC's own thread with them, alive for good."""

from __future__ import annotations

from runtime.errors import Code, NotSent, Refused


def cancelled() -> Refused:
    """Whoever called gave up, or its connection was closed on this side."""
    return Refused(Code.CANCELLED, "the call was cancelled")


def not_begun() -> NotSent:
    """As ``cancelled``, of a call that never reached a connection."""
    return NotSent(Code.CANCELLED, "the call was cancelled")


def closed() -> Refused:
    """The other side ended the connection in good order."""
    return Refused(Code.UNAVAILABLE, "the server has closed the connection")


def reset() -> Refused:
    """The connection broke."""
    return Refused(Code.UNAVAILABLE, "connection reset by peer")


def deadline() -> Refused:
    """The caller's time was over."""
    return Refused(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
