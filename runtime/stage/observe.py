"""Figures about actors, counted in passing: nobody is stopped to be looked at.

In passing, what is known of a message is put at the end of a list; it is counted when there is much of it, or when
somebody looks (``Tally``). Amid an actor's own work each step touches what no cache of the processor holds any more,
and so costs several times what it costs among its like.

A histogram has one bucket per power of two nanoseconds: bucket b counts durations in [2^(b-1), 2^b) ns, bucket 0 none.
"""

from __future__ import annotations

import threading
import traceback
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from runtime.stage.cell import Cell
    from runtime.stage.mailbox import Envelope

BUCKETS = 64
"""Enough for 292 years."""
COUNTED_AT = 64
"""How many handled messages an actor leaves uncounted."""
REMEMBERED = 10
"""How many of an actor's last messages a crash report names."""
NOTED = 4
"""Entries of a message in ``Tally.noted``."""

Tracer: TypeAlias = "Callable[[Cell, Envelope, int, str], None]"
"""Is told of every message once it was handled, on the actor's thread: the cell, the envelope, when handling began
(nanoseconds) and how it ended (``ok``, ``refused``, ``failed``). It must be quick and may not raise."""

Linker: TypeAlias = "Callable[[int, int], None]"
"""Is told that a trace goes on in another one (cause, effect), on the actor's thread. As quick as a Tracer."""
CAUSES_MAX = 256


class Causes:
    """Trace ids of what an actor gathers before it acts on all of it at once: the first ``CAUSES_MAX`` of them."""

    __slots__ = ("_traces",)

    def __init__(self) -> None:
        self._traces: dict[int, None] = {}

    def add(self, trace: int) -> None:
        """One more."""
        if len(self._traces) < CAUSES_MAX:
            self._traces[trace] = None

    def copy(self) -> Causes:
        """The same again, for what is acted on in two steps."""
        copied = Causes()
        copied._traces = dict(self._traces)
        return copied

    def take(self) -> tuple[int, ...]:
        """All of them, in the order in which they came; they are forgotten here."""
        taken, self._traces = tuple(self._traces), {}
        return taken


@dataclass(frozen=True, slots=True)
class Moment:
    """What whoever runs a node wants to know of, apart from failures of actors: ``type`` and ``action`` as in events of
    an engine, ``id`` of what it is about, ``at`` by the time of day; ``attributes`` has its ``text`` among others."""

    path: str
    type: str
    action: str
    id: str
    at: float
    attributes: Mapping[str, str]


class MessageStats:
    """What one actor did with messages of one type: how many it handled and failed over, how long they waited in its
    mailbox and kept it busy. Times in nanoseconds."""

    __slots__ = ("busy", "busy_buckets", "busy_max", "failed", "wait_buckets", "wait_max")

    def __init__(self) -> None:
        self.failed = self.busy = self.wait_max = self.busy_max = 0
        self.wait_buckets = [0] * BUCKETS
        self.busy_buckets = [0] * BUCKETS

    @property
    def count(self) -> int:
        """How many were handled."""
        return sum(self.busy_buckets)

    @property
    def busy_s(self) -> float:
        """All of the time in the handler, in seconds."""
        return self.busy / 1e9


class Tally:
    """What one actor did, by type of message.

    The actor's thread puts four entries for each message it handled at the end of ``noted``: its type, and when it was
    enqueued, when its handler began and when it ended, in nanoseconds. Counting them is for one thread at a time: who
    looks waits for its turn, the actor itself does not (``count_if_free``).
    """

    __slots__ = ("_counted", "_counting", "_last", "noted")

    def __init__(self) -> None:
        self.noted: list[Any] = []
        self._counted: dict[type[Any], MessageStats] = {}
        self._last: tuple[type[Any], ...] = ()
        self._counting = threading.Lock()

    @property
    def stats(self) -> dict[type[Any], MessageStats]:
        """The figures, with all that is noted up to now, also where somebody else is about to count it."""
        with self._counting:
            if self.noted:
                self._count()
        return self._counted

    @property
    def recent(self) -> tuple[type[Any], ...]:
        """The types of the last ten messages, the newest last."""
        with self._counting:
            return (*self._last, *self.noted[::NOTED])[-REMEMBERED:]

    def failed(self, kind: type[Any]) -> None:
        """The actor failed over a message of this type."""
        with self._counting:
            self._of(kind).failed += 1

    def count_if_free(self) -> None:
        """Counts what is noted, unless somebody else does so just now."""
        if self._counting.acquire(False):
            try:
                self._count()
            finally:
                self._counting.release()

    def _count(self) -> None:
        taken = self.noted[:]  # what the actor goes on to put behind these stays
        del self.noted[: len(taken)]
        self._last = (*self._last, *taken[-REMEMBERED * NOTED :: NOTED])[-REMEMBERED:]
        fields, known = iter(taken), None
        for kind, enqueued, begun, ended in zip(fields, fields, fields, fields, strict=True):
            if kind is not known:
                stats, known = self._of(kind), kind
                waits, busies = stats.wait_buckets, stats.busy_buckets
            wait, busy = begun - enqueued, ended - begun
            stats.busy += busy
            if wait > stats.wait_max:
                stats.wait_max = wait
            if busy > stats.busy_max:
                stats.busy_max = busy
            busies[busy.bit_length()] += 1
            waits[wait.bit_length()] += 1

    def _of(self, kind: type[Any]) -> MessageStats:
        found = self._counted.get(kind)
        if found is None:
            found = self._counted[kind] = MessageStats()
        return found


class Durations:
    """A histogram of durations in seconds with Prometheus' usual bounds. One actor writes, anybody reads."""

    BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS) + 1)
        self.sum = 0.0

    def note(self, seconds: float) -> None:
        """Counts one."""
        self.counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.sum += seconds


class Past:
    """What the actors of one class did who are gone, so that sums over the class never fall."""

    __slots__ = ("busy", "failed", "handled", "restarts")

    def __init__(self) -> None:
        self.handled = self.failed = self.restarts = 0
        self.busy = 0.0

    def add(self, cell: Cell) -> None:
        """Takes over the figures of a cell."""
        stats = list(cell.tally.stats.values())
        self.handled += sum(each.count for each in stats)
        self.failed += sum(each.failed for each in stats)
        self.busy += sum(each.busy_s for each in stats)
        self.restarts += cell.failures.total


def quantile(buckets: list[int], share: float) -> float:
    """The upper bound in seconds of the bucket that holds the given share of all durations; 0 without any."""
    total = sum(buckets)
    if total == 0:
        return 0.0
    seen = 0
    for exponent, count in enumerate(buckets):
        seen += count
        if seen >= share * total:
            return (1 << exponent) / 1e9 if exponent else 0.0
    return (1 << BUCKETS) / 1e9


@dataclass(frozen=True, slots=True)
class CrashReport:
    """One failure: what was handled, what came before it, and the state as the actor declares it."""

    path: str
    actor: str
    at: float
    error: str
    message: str
    before: tuple[str, ...]
    state: dict[str, Any]
    traceback: str


class Crashes:
    """The last failures, the newest last: at most ``PER_PATH`` of each actor, so that one that fails over and over
    hides nobody else's, and ``MOST`` in all. Any thread may add one; reading takes a copy."""

    PER_PATH = 20
    MOST = 500

    def __init__(self) -> None:
        self._kept: dict[int, CrashReport] = {}
        self._by_path: dict[str, deque[int]] = {}
        self._number = 0
        self._lock = threading.Lock()

    def append(self, report: CrashReport) -> None:
        """Keeps one more; the oldest of its actor, or of all, may have to go."""
        with self._lock:
            self._number += 1
            own = self._by_path.setdefault(report.path, deque())
            own.append(self._number)
            self._kept[self._number] = report
            if len(own) > self.PER_PATH:
                del self._kept[own.popleft()]
            elif len(self._kept) > self.MOST:
                oldest = self._kept.pop(next(iter(self._kept)))
                others = self._by_path[oldest.path]
                others.popleft()
                if not others:
                    del self._by_path[oldest.path]

    def __iter__(self) -> Iterator[CrashReport]:
        return iter(list(self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(slots=True)
class Observations:
    """What a stage knows of itself beyond its actors: dead letters and crashes, both bounded."""

    enabled: bool = True
    dead_letters: int = 0
    late_answers: int = 0
    refused_full: int = 0
    last_dead: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=100))
    crashes: Crashes = field(default_factory=Crashes)
    crashed: int = 0
    past: dict[str, Past] = field(default_factory=dict)
    timings: dict[str, Durations] = field(default_factory=dict)

    def dead_letter(self, path: str, message: object) -> None:
        """Counts a message that nobody could be given."""
        self.dead_letters += 1
        self.last_dead.append((path, type(message).__name__))


def describe_error(error: BaseException) -> str:
    """Type and text of an error on one line."""
    return f"{type(error).__name__}: {error}"[:2000]


def format_traceback(error: BaseException) -> str:
    """The traceback as text; values of variables are not in it."""
    return "".join(traceback.format_exception(error))[-20000:]
