"""Questions to actors from an event loop: the answer comes from a foreign thread and completes an awaitable.

Rules it owns:
- What foreign threads hand over is taken in order, on the loop; everything handed over before the loop wakes shares
  one wake-up, because a wake-up is a system call and the dearest part of a short question.
- Every question has a deadline. Whoever gives up first (deadline, cancelled request) frees its entry; a late answer
  is dropped.
- A loop that is closed hears nothing more: actors that answer it are not to suffer from that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from runtime.errors import Code, Refused
from runtime.stage.address import Address
from runtime.stage.answers import Answer, AskTimeout, Reply

Delivery = tuple[Callable[[Any], None], Any]


class Landing:
    """Brings values from any thread to one event loop."""

    __slots__ = ("_delivered", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._delivered: deque[Delivery] = deque()
        self._woken = False

    def put(self, then: Callable[[Any], None], value: Any) -> None:
        """Have ``then(value)`` run on the loop. Callable from any thread; If ``then`` raises, the loop's exception
        handler is told and what comes behind it still arrives.

        No lock is needed: whoever appends and then reads ``_woken`` as true did so before ``_run`` cleared it, and so
        before ``_run`` looked at the queue. Two threads that both read false cost a wake-up too many, nothing else.
        """
        self._delivered.append((then, value))
        if not self._woken:
            self._woken = True
            self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._run)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._delivered.clear()

    def _run(self) -> None:
        self._woken = False
        delivered = self._delivered
        try:
            while delivered:
                then, value = delivered.popleft()
                then(value)
        finally:
            if delivered:
                self._wake()


class Questions:
    """The questions that one event loop waits for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, landing: Landing) -> None:
        self._loop = loop
        self._landing = landing
        self._open: dict[asyncio.Future[Answer], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many questions have neither an answer nor been given up."""
        return len(self._open)

    async def ask(self, address: Address, message: Any, seconds: float) -> Any:
        """The answer's value. Raises what was answered instead, ``Refused(DEADLINE_EXCEEDED)`` after ``seconds``."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        deadline = self._loop.time() + seconds
        self._open[future] = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._arm(deadline)
        landing = self._landing
        address.send(message, None, Reply(lambda answer: landing.put(_complete, (future, answer))), 0)
        try:
            answer = await future
        finally:
            del self._open[future]
        if answer.error is not None:
            raise answer.error if not isinstance(answer.error, AskTimeout) else overdue()
        return answer.value

    def _arm(self, deadline: float) -> None:
        """One timer stands for all deadlines: it is set to the earliest, and set anew when it fires."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._check)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        for future, deadline in self._open.items():
            if deadline <= now and not future.done():
                future.set_result(Answer(None, overdue()))
        later = [deadline for deadline in self._open.values() if deadline > now]
        if later:
            self._arm(min(later))


def overdue() -> Refused:
    """The refusal of a question whose time is up, in the words of gRPC."""
    return Refused(Code.DEADLINE_EXCEEDED, "context deadline exceeded")


def _complete(arrived: tuple[asyncio.Future[Answer], Answer]) -> None:
    future, answer = arrived
    if not future.done():
        future.set_result(answer)
