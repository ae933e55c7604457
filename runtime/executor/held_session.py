"""A command whose output goes far away: what it says waits here, within bounds, for whoever may send it.

The executor's thread writes, one reader takes; everything is under one lock that nobody holds for long. Beyond
``HOLD_BYTES`` the command itself is held, at once and by the thread that brought the bytes, so that no mailbox between
the two can let more through. Whatever the order of its beginning, its end and the reader's: a command that began after
``close`` is ended.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from runtime.executor.inspection import Session

HOLD_BYTES: Final = 256 << 10


class HeldSession:
    """``wake`` is called, from any thread, when there may be something to take; each call stands for all that came
    until then."""

    def __init__(self, wake: Callable[[None], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._held = False
        self._woken = False
        self._closed = False
        self._ended: tuple[int | None] | None = None
        self._session: Session | None = None

    # The executor's side

    def output(self, stream: int, data: bytes) -> None:
        """What the command says."""
        with self._lock:
            if self._closed:
                return
            self._waiting.append((stream, data))
            self._bytes += len(data)
            self._hold_if_full()
        self._tell()

    def exit(self, code: int | None) -> None:
        """Its end, behind all output."""
        with self._lock:
            self._ended = (code,)
        self._tell()

    def begun(self, session: Session) -> None:
        """It runs."""
        with self._lock:
            self._session, closed = session, self._closed
            self._hold_if_full()
        if closed:
            session.close()

    def _hold_if_full(self) -> None:
        if self._bytes > HOLD_BYTES and not self._held and self._session is not None:
            self._held = True
            self._session.hold(True)

    def _tell(self) -> None:
        with self._lock:
            woken, self._woken = self._woken, True
        if not woken:
            self._wake(None)

    # The reader's

    @property
    def session(self) -> Session | None:
        """The command, once it has begun."""
        return self._session

    def look(self) -> None:
        """Whoever was woken looks now: what comes from here on wakes anew."""
        with self._lock:
            self._woken = False

    def take(self, most: Callable[[bytes], bytes]) -> tuple[int, bytes] | None:
        """The next piece; ``most`` says how much of what waits may go, from its beginning (nothing: not now). None if
        there is none to go."""
        with self._lock:
            if not self._waiting:
                return None
            stream, data = self._waiting[0]
            taken = most(data)
            if not taken:
                return None
            if len(taken) == len(data):
                self._waiting.popleft()
            else:
                self._waiting[0] = (stream, data[len(taken) :])
            self._bytes -= len(taken)
            self._go_on_if_low()
            return stream, taken

    def _go_on_if_low(self) -> None:
        if self._held and self._bytes < HOLD_BYTES // 2 and self._session is not None:
            self._held = False
            self._session.hold(False)

    @property
    def ended(self) -> tuple[int | None] | None:
        """Its exit code, once it has ended and all output was taken."""
        with self._lock:
            return None if self._waiting else self._ended

    def close(self) -> None:
        """Ends it, now or as soon as it begins; what waits is dropped."""
        with self._lock:
            self._closed, session = True, self._session
            self._waiting.clear()
            self._bytes = 0
        if session is not None:
            session.close()
