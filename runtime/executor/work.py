"""What every executor's operations are made of: coroutines on an I/O loop whose outcome is told once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol


class Loop(Protocol):
    """The part of the I/O loop that is needed here (``runtime.wire.loop.IoLoop`` has it)."""

    def submit(self, coro: Coroutine[Any, Any, Any], done: Callable[[Any], None] | None = None) -> Callable[[], None]:
        """Runs a coroutine; ``done`` hears its result or exception; what is returned cancels it."""


def answer_of(loop: Loop, coro: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """A coroutine's result or exception, waited for; ``TimeoutError`` if it was broken off after so many seconds."""
    told: list[Any] = []
    over = threading.Event()

    def ended(result: Any) -> None:
        told.append(result)
        over.set()

    cancel = loop.submit(coro, ended)
    if over.wait(seconds):
        return told[0]
    cancel()
    return TimeoutError()


class Work:
    """An operation under way: ``finish`` hears the coroutine's result or exception, or why it was broken off."""

    def __init__(self, finish: Callable[[Any], None]) -> None:
        self._finish: Callable[[Any], None] | None = finish
        self._lock = threading.Lock()
        self._reason = ""
        self._cancel: Callable[[], None] | None = None

    @property
    def over(self) -> bool:
        """Whether it was told."""
        return self._finish is None

    def begin(self, loop: Loop, coro: Coroutine[Any, Any, Any]) -> None:
        """Starts it."""
        cancel = loop.submit(coro, self.ended)
        with self._lock:
            self._cancel = cancel
            broken_off = bool(self._reason)
        if broken_off:
            cancel()

    def ended(self, result: Any) -> None:
        """The coroutine's end."""
        with self._lock:
            finish, self._finish = self._finish, None
            reason = self._reason
        if finish is not None:
            finish(reason if isinstance(result, asyncio.CancelledError) and reason else result)

    def cancel(self, reason: str = "cancelled") -> None:
        """As the port's Operation; ``reason`` is what ``finish`` hears."""
        with self._lock:
            self._reason = self._reason or reason
            cancel = self._cancel
        if cancel is not None and not self.over:
            cancel()
