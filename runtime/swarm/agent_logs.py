"""How a node publishes logs: which tasks a subscription means, how fast they may be sent, where reading goes on.

Rules owned here: 10 MB/s for each task with a burst of 10 MB, as SwarmKit's publisher; a reader that got ahead of
that is broken off and begun again behind the last line that was taken, so what waits in memory is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runtime.wire.pb import logs_pb2 as logs

if TYPE_CHECKING:
    from runtime.executor.port import LogLine

RATE: Final = 10_000_000.0
BURST: Final = 10_000_000.0
WAITING_MAX: Final = 4 << 20
LINE_OVERHEAD: Final = 64  # bytes that a line costs beside its data


class LogRate:
    """A bucket of bytes that fills with time. May be overdrawn by one piece, which then is waited for."""

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, now: float, rate: float = RATE, burst: float = BURST) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until the next piece may go; 0 if it may go now."""
        self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = now
        return max(0.0, -self._level / self.rate)

    def spend(self, size: int) -> None:
        """A piece of ``size`` bytes goes."""
        self._level -= size


class LogPosition:
    """The last line that was taken from a reader. Lines with its very timestamp are counted, for several may share
    one; a reader that begins again there gives those first, and ``admit`` leaves them out."""

    __slots__ = ("_again", "_seen", "since_ns")

    def __init__(self, since_ns: int = 0) -> None:
        self.since_ns = since_ns
        self._seen = 0
        self._again = 0

    @property
    def began(self) -> bool:
        """Whether any line was taken."""
        return self._seen > 0

    def resume(self) -> None:
        """Reading begins again at ``since_ns``."""
        self._again = self._seen

    def admit(self, timestamp_ns: int) -> bool:
        """Whether the next line of the reader is a new one."""
        if timestamp_ns != self.since_ns:
            self.since_ns = timestamp_ns
            self._seen, self._again = 1, 0
            return True
        if self._again > 0:
            self._again -= 1
            return False
        self._seen += 1
        return True


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Which tasks a subscription means: those of the listed services and nodes, and the listed ones."""

    service_ids: frozenset[str]
    node_ids: frozenset[str]
    task_ids: frozenset[str]

    @classmethod
    def of(cls, selector: logs.LogSelector) -> LogTarget:
        """As the selector says."""
        return cls(frozenset(selector.service_ids), frozenset(selector.node_ids), frozenset(selector.task_ids))

    def means(self, task_id: str, service_id: str, node_id: str) -> bool:
        """Whether a task is meant."""
        return task_id in self.task_ids or service_id in self.service_ids or node_id in self.node_ids


class LogFeed:
    """Lines on their way from an executor's thread to a publisher: one writer, one reader, no lock.

    ``wake`` is called when lines wait and the reader has looked since the last call. Beyond ``limit`` bytes the feed
    is ``overfull``: the reading is broken off (``cancel``, once it is known), and further lines are left to the next
    feed. The writer alone changes ``_written``, the reader alone ``_read``.
    """

    __slots__ = ("_limit", "_lines", "_read", "_told", "_wake", "_written", "cancel", "ended", "overfull")

    def __init__(self, wake: Callable[[None], None], limit: int = WAITING_MAX) -> None:
        self._wake = wake
        self._limit = limit
        self._lines: deque[LogLine] = deque()
        self._written = 0
        self._read = 0
        self._told = False
        self.overfull = False
        self.ended = False
        self.cancel: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        return bool(self._lines)

    def line(self, line: LogLine) -> None:
        """Takes a line, in the writer's thread."""
        if self.overfull:
            return
        self._lines.append(line)
        self._written += len(line.data) + LINE_OVERHEAD
        if self._written - self._read > self._limit:
            self.overfull = True
            if self.cancel is not None:
                self.cancel()
        if not self._told:  # after the append: a reader that looks now finds the line, one that looked is told
            self._told = True
            self._wake(None)

    def begun(self, cancel: Callable[[], None]) -> None:
        """The reading can be broken off from now on."""
        self.cancel = cancel
        if self.overfull:
            cancel()

    def look(self) -> None:
        """The reader is about to take lines: it wants to be woken for those that come later."""
        self._told = False

    def take(self) -> LogLine:
        """The next line, in the reader's thread; there must be one."""
        line = self._lines.popleft()
        self._read += len(line.data) + LINE_OVERHEAD
        return line
