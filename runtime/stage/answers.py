"""Questions and answers.

Between actors a question is a ``tell`` whose answer comes back as a message. At the edges (HTTP, gRPC, a host program)
it is a future with a deadline, and waiting for that inside a handler is an error everywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.errors import Code, Refused

_local = threading.local()


class BlockingGet(RuntimeError):
    """A handler waited for an answer: an actor never blocks on another."""


class AskTimeout(Refused):
    """No answer came within the deadline."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(Code.DEADLINE_EXCEEDED, f"no answer from {path} within {seconds:g} s")


class ActorUnavailable(Refused):
    """Nobody handles messages at that address now, or the actor failed over this one."""

    def __init__(self, text: str) -> None:
        super().__init__(Code.UNAVAILABLE, text)


def enter_turn() -> None:
    """Marks this thread as running a handler."""
    _local.handling = True


def leave_turn() -> None:
    """Ends what ``enter_turn`` began."""
    _local.handling = False


def forbid_blocking() -> None:
    """Raises BlockingGet inside a handler."""
    if getattr(_local, "handling", False):
        raise BlockingGet("an actor waited for an answer inside a handler: take the answer as a message instead")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question: a value, or an error."""

    value: Any = None
    error: BaseException | None = None

    def get(self) -> Any:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.value


class Reply:
    """Where one answer goes. The first answer counts, later ones are ignored."""

    __slots__ = ("_deliver",)

    def __init__(self, deliver: Callable[[Answer], None]) -> None:
        self._deliver: Callable[[Answer], None] | None = deliver

    def set(self, value: Any = None) -> None:
        """Answers with a value."""
        deliver, self._deliver = self._deliver, None
        if deliver is not None:
            deliver(Answer(value))

    def fail(self, error: BaseException) -> None:
        """Answers with an error."""
        deliver, self._deliver = self._deliver, None
        if deliver is not None:
            deliver(Answer(None, error))

    def pass_on(self, answer: Answer) -> None:
        """Answers with what was answered elsewhere, a value or an error."""
        deliver, self._deliver = self._deliver, None
        if deliver is not None:
            deliver(answer)

    @property
    def open(self) -> bool:
        """True until it is answered."""
        return self._deliver is not None


class Future:
    """A reply that an edge waits for, with a deadline."""

    __slots__ = ("_answer", "_done", "_path", "reply")

    def __init__(self, path: str) -> None:
        self._path = path
        self._done = threading.Event()
        self._answer: Answer | None = None
        self.reply = Reply(self._arrived)

    def _arrived(self, answer: Answer) -> None:
        self._answer = answer
        self._done.set()

    @property
    def done(self) -> bool:
        """True once there is an answer."""
        return self._answer is not None

    def result(self, timeout: float) -> Any:
        """Waits for the answer; raises AskTimeout, or the error that was answered."""
        if self._answer is None:
            forbid_blocking()
            if not self._done.wait(timeout):
                raise AskTimeout(self._path, timeout)
        assert self._answer is not None
        return self._answer.get()
