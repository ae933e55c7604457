"""The port's Controller whose operations are coroutines on an I/O loop: what processes and containers have in common.

Rules owned here: each operation's outcome is told once; closing breaks off what is open and nothing else; an exception
that the kind of task does not know (``own_failure``, ``own_refusal``) is told with its type.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from runtime.errors import Code, Refused
from runtime.executor.inspection import Look, OnLooked
from runtime.executor.port import CONTROLLER_CLOSED, Already, Done, Failed, OnDone, OnEnd, Outcome
from runtime.executor.work import Loop, Work
from runtime.wire.pb import objects_pb2

CANCELLED: Final = "cancelled"
DRAIN_S: Final = 2.0
"""So long a task that is published goes on after it was told to stop: who forwards to it hears of that meanwhile."""


class CoroutineController(abc.ABC):
    """One task; what a kind of task does is in the coroutines that begin with an underscore."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._open: list[Work] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @abc.abstractmethod
    async def _prepare(self) -> Outcome: ...

    @abc.abstractmethod
    async def _start(self) -> Outcome: ...

    @abc.abstractmethod
    async def _wait(self) -> Outcome: ...

    @abc.abstractmethod
    async def _shutdown(self) -> Outcome: ...

    @abc.abstractmethod
    async def _terminate(self) -> Outcome: ...

    @abc.abstractmethod
    async def _remove(self) -> Outcome: ...

    @abc.abstractmethod
    async def _look(self, question: Look) -> Any: ...

    @staticmethod
    @abc.abstractmethod
    def own_failure(error: Any) -> Failed | None:
        """What an exception of this kind of task means for it; None for another's."""

    @staticmethod
    @abc.abstractmethod
    def own_refusal(error: Any) -> Refused | None:
        """The same for who looks at the task."""

    # The port

    def update(self, task: objects_pb2.Task, done: OnDone) -> Work:
        """As the port's: nothing of a task that was made changes."""
        return self._begin(_unchanged(), done)

    def prepare(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._prepare(), done)

    def start(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._start(), done)

    def wait(self, done: OnDone) -> Work:
        """As the port's; one that falls ill is stopped."""
        return self._begin(self._wait(), done)

    def shutdown(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._shutdown(), done)

    def terminate(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._terminate(), done)

    def remove(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._remove(), done)

    def close(self, done: OnDone) -> Work:
        """As the port's."""
        self._closed = True
        for work in self._open:
            work.cancel(CONTROLLER_CLOSED)
        work = Work(lambda result: done(self._outcome(result)))
        work.ended(Done())
        return work

    def look(self, question: Look, done: OnLooked) -> Work:
        """As ``Inspectable.look``."""
        return self._run(self._look(question), lambda result: done(self._looked(result)))

    # Coroutines

    def _begin(self, coro: Coroutine[Any, Any, Outcome], done: OnDone) -> Work:
        return self._run(coro, lambda result: done(self._outcome(result)))

    def _read(self, coro: Coroutine[Any, Any, None], on_end: OnEnd) -> Work:
        """A log that is read."""

        def ended(result: Any) -> None:
            quiet = result is None or result == CANCELLED
            on_end(None if quiet else self._outcome(result).text)  # type: ignore[union-attr]  # never Done here

        return self._run(coro, ended)

    def _run(self, coro: Coroutine[Any, Any, Any], finish: Callable[[Any], None]) -> Work:
        work = Work(finish)
        if self._closed:
            coro.close()
            work.ended(Failed(CONTROLLER_CLOSED))
            return work
        self._open = [each for each in self._open if not each.over]
        self._open.append(work)
        work.begin(self._loop, coro)
        return work

    def _outcome(self, result: Any) -> Outcome:
        """What a coroutine's end means for the task."""
        if isinstance(result, Done | Already | Failed):
            return result
        if result == CONTROLLER_CLOSED:
            return Failed(CONTROLLER_CLOSED)
        if result == CANCELLED or isinstance(result, asyncio.CancelledError):
            return Failed(CANCELLED, cancelled=True)
        return self.own_failure(result) or Failed(f"{type(result).__name__}: {result}")

    def _looked(self, result: Any) -> Any:
        """What a coroutine's end means for who looks."""
        if isinstance(result, Failed):
            return Refused(Code.UNAVAILABLE, result.text)
        if result in (CONTROLLER_CLOSED, CANCELLED):
            return Refused(Code.UNAVAILABLE, result)
        if isinstance(result, BaseException) and not isinstance(result, Refused):
            return self.own_refusal(result) or Refused(Code.UNKNOWN, f"{type(result).__name__}: {result}")
        return result


async def _unchanged() -> Outcome:
    return Done()


def not_running() -> Refused:
    """The refusal to look at what does not run."""
    return Refused(Code.FAILED_PRECONDITION, "the task does not run")


def why_not_given(error: Exception) -> str:
    """Why a task could not be given its secrets and configs."""
    if isinstance(error, Refused):
        return error.text
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}"
    return f"a secret or config is not on this node: {error.args[0]}"
