"""The keeper's loop: descriptors, timers and signals on one thread.

Signals arrive through a pipe that Python's C handler writes to, so none is missed and none interrupts anything.
Imported by the keeper: standard library only.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable

Call = Callable[[], None]


class Timer:
    """Something to do later, unless cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call: Call | None = call

    def cancel(self) -> None:
        """It is not done."""
        self.call = None


class Reactor:
    """Runs until ``stopped`` is set. ``on_turn`` is called after each turn, before the next wait."""

    def __init__(self, on_turn: Call) -> None:
        self.stopped = False
        self._on_turn = on_turn
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._signals: dict[int, Call] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self.watch(self._wake_read, self._signalled)

    def on_signal(self, number: int, call: Call) -> None:
        """Has ``call`` made, on the loop, after a signal."""
        self._signals[number] = call
        signal.signal(number, _noted)

    def watch(self, fd: int, call: Call) -> None:
        """Has ``call`` made while ``fd`` can be read."""
        self._selector.register(fd, selectors.EVENT_READ, call)

    def watch_both(self, fd: int, call: Call, *, writing: bool) -> None:
        """For a watched descriptor: whether ``call`` is also made while it can be written."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        self._selector.modify(fd, events, call)

    def forget(self, fd: int) -> None:
        """No longer watches ``fd``; before it is closed."""
        self._selector.unregister(fd)

    def after(self, delay: float, call: Call) -> Timer:
        """Has ``call`` made in ``delay`` seconds."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._numbers), timer))
        return timer

    def run(self) -> None:
        """Turns until ``stopped``."""
        while not self.stopped:
            for key, _ in self._selector.select(self._timeout()):
                # An earlier callback of this turn may have closed it, and another may have got its number.
                if self._selector.get_map().get(key.fd) == key:
                    key.data()
            self._fire()
            self._on_turn()

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _fire(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                call()

    def _signalled(self) -> None:
        try:
            numbers = set(os.read(self._wake_read, 4096))
        except BlockingIOError:
            return
        for number in sorted(numbers):
            if number in self._signals:
                self._signals[number]()


def _noted(number: int, frame: object) -> None:
    """Python's side of a signal: the wake-up pipe already says all."""
