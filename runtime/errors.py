"""One way to say no: a refusal with a code, that whoever asked gets as an answer.

An exception of any other type is a failure: the actor that raised it is restarted by its supervisor.
The codes are gRPC's, because that is what SwarmKit's peers and the Engine API's statuses are defined by.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """gRPC's status codes by number."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def title(self) -> str:
        """The name as it stands in error texts, for example ``InvalidArgument``."""
        return "OK" if self is Code.OK else "".join(word.capitalize() for word in self.name.split("_"))


class Refused(Exception):
    """A request that was understood and is refused; nothing of it was carried out.

    ``text`` is what a person reads; it never holds secrets.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code.title}: {self.text}"

    @property
    def rpc_text(self) -> str:
        """The text in the form that clients of the Engine API match: ``rpc error: code = X desc = Y``."""
        return f"rpc error: code = {self.code.title} desc = {self.text}"


class NotSent(Refused):
    """A call that never left this side: no connection to the peer came about. It can be made anew, whatever it asks."""


def invalid(text: str) -> Refused:
    """A request that can never be right."""
    return Refused(Code.INVALID_ARGUMENT, text)


def not_found(text: str) -> Refused:
    """Something named that is not there."""
    return Refused(Code.NOT_FOUND, text)


def precondition(text: str) -> Refused:
    """A request that is refused in the present state."""
    return Refused(Code.FAILED_PRECONDITION, text)
