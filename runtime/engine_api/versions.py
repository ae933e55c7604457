"""API versions: which this daemon speaks, how a path names one, and what the gate says.

Rule: a version is a pair of integers everywhere but in texts; a path without a version means the newest.
"""

from __future__ import annotations

from typing import Final

from runtime.engine_api.errors import ApiError

Version = tuple[int, int]

NEWEST: Final[Version] = (1, 45)
OLDEST: Final[Version] = (1, 24)


def text(version: Version) -> str:
    """``(1, 45)`` as ``1.45``."""
    return f"{version[0]}.{version[1]}"


NEWEST_TEXT: Final = text(NEWEST)
OLDEST_TEXT: Final = text(OLDEST)


class TooOld(ApiError):
    """A client below the oldest version: answered in plain text, as clients that old expect."""


def parse(segment: str) -> Version | None:
    """The version in a path segment such as ``v1.41``, or None if the segment is no version at all."""
    if segment[:1] != "v":
        return None
    major, dot, minor = segment[1:].partition(".")
    if not (major.isascii() and major.isdecimal()) or len(segment) > 12:
        return None
    if not dot:
        return int(major), 0
    return (int(major), int(minor)) if minor.isascii() and minor.isdecimal() else None


def gate(version: Version, shown: str) -> None:
    """Refuse what is too old or too new; ``shown`` is the version as the client wrote it, without the ``v``."""
    if version < OLDEST:
        raise TooOld(
            400,
            f"client version {shown} is too old. Minimum supported API version is {OLDEST_TEXT}, "
            "please upgrade your client to a newer version",
        )
    if version > NEWEST:
        raise ApiError(400, f"client version {shown} is too new. Maximum supported API version is {NEWEST_TEXT}")
