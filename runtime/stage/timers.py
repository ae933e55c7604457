"""Timers: a handle that can be cancelled, and one thread with a heap for real time."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Protocol


class Timer:
    """A timer that was set; ``due`` in monotonic seconds, ``period`` in seconds if it repeats."""

    __slots__ = ("call", "due", "period")

    def __init__(self, due: float, call: Callable[[], None], period: float | None = None) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call
        self.period = period

    def cancel(self) -> None:
        """Takes it back; nothing happens if it has fired."""
        self.call = None

    @property
    def active(self) -> bool:
        """True until it fires for the last time or is cancelled."""
        return self.call is not None

    def fire(self) -> None:
        """Calls what was set: once, or each time it is due."""
        call = self.call
        if self.period is None:
            self.call = None
        if call is not None:
            call()


class TimerService(Protocol):
    """Calls functions later; they must be quick."""

    def set(self, delay: float, call: Callable[[], None], period: float | None = None) -> Timer: ...

    def close(self) -> None: ...


class ThreadTimers:
    """Real time: one thread that sleeps until the next timer is due."""

    def __init__(self, monotonic: Callable[[], float], name: str) -> None:
        self._monotonic = monotonic
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"{name}-timers", daemon=True)
        self._thread.start()

    def set(self, delay: float, call: Callable[[], None], period: float | None = None) -> Timer:
        """Sets a timer; a negative delay counts as none."""
        timer = Timer(self._monotonic() + max(0.0, delay), call, period)
        with self._changed:
            first = not self._heap or timer.due < self._heap[0][0]
            heapq.heappush(self._heap, (timer.due, next(self._numbers), timer))
            if first:
                self._changed.notify()
        return timer

    def close(self) -> None:
        """Ends the thread; timers that are not due are forgotten."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while (due := self._next_due()) is not None:
            for timer in due:
                timer.fire()
                self._again(timer)

    def _again(self, timer: Timer) -> None:
        if timer.period is not None and timer.active:
            # A repetition that is late is not made up for: the next one counts from now.
            timer.due = max(timer.due + timer.period, self._monotonic())
            with self._changed:
                heapq.heappush(self._heap, (timer.due, next(self._numbers), timer))

    def _next_due(self) -> list[Timer] | None:
        with self._changed:
            while not self._closed:
                now = self._monotonic()
                due = []
                while self._heap and (self._heap[0][0] <= now or not self._heap[0][2].active):
                    due.append(heapq.heappop(self._heap)[2])
                if due:
                    return due
                self._changed.wait(self._heap[0][0] - now if self._heap else None)
            return None
