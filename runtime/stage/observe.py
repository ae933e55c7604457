"""Figures about actors, counted in passing: nobody is stopped to be looked at.

A histogram has one bucket per power of two microseconds: bucket b counts durations in [2^(b-1), 2^b) us, bucket 0
those under one.
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

BUCKETS = 40

Tracer: TypeAlias = "Callable[[Cell, Envelope, float, str], None]"
"""Is told of every message once it was handled, on the actor's thread: the cell, the envelope, when handling began (the
stage's clock) and how it ended (``ok``, ``refused``, ``failed``). It must be quick and may not raise."""

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
    """What one actor did with messages of one type. Times in seconds."""

    __slots__ = ("busy", "busy_buckets", "busy_max", "count", "failed", "wait", "wait_buckets", "wait_max")

    def __init__(self) -> None:
        self.count = 0
        self.failed = 0
        self.wait = 0.0
        self.busy = 0.0
        self.wait_max = 0.0
        self.busy_max = 0.0
        self.wait_buckets = [0] * BUCKETS
        self.busy_buckets = [0] * BUCKETS

    def note(self, wait: float, busy: float) -> None:
        """Counts one handled message."""
        self.count += 1
        self.wait += wait
        self.busy += busy
        if wait > self.wait_max:
            self.wait_max = wait
        if busy > self.busy_max:
            self.busy_max = busy
        try:
            self.busy_buckets[int(busy * 1e6).bit_length()] += 1
            self.wait_buckets[int(wait * 1e6).bit_length()] += 1
        except IndexError:  # over six days: only virtual time gets there, and only in a mailbox
            self.wait_buckets[-1] += 1


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
        stats = list(cell.stats.values())
        self.handled += sum(each.count for each in stats)
        self.failed += sum(each.failed for each in stats)
        self.busy += sum(each.busy for each in stats)
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
            return float(2**exponent) / 1e6
    return float(2**BUCKETS) / 1e6


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
