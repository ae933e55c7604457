"""Tracing of messages: limited, filtered, tied to whoever looks.

Rules kept here (what makes tracing safe on a running system):
1. No trace without limits: a number of messages, a rate and a duration. When one is reached, the trace ends and says
   so.
2. The hot path only filters and appends to a bounded buffer; a full buffer drops and counts, never blocks. What a
   record looks like is made elsewhere.
3. A filter that lets everything through must be asked for; ticks and heartbeats are left out unless they are named.
4. Traces end with their viewer, and all at once by ``clear``.
5. A trace that *follows* takes in, with a message that fits, everything that came of it: all messages of the same trace
   id, those too that were handled a moment before it (a handler may tell others and go on). Where actors gather before
   they act, or a trace crosses to another node, one trace goes on in another: it follows there too. Who looks at
   several nodes at once follows by itself, and is told where one trace goes on in another (``links``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from runtime.stage import Stage
from runtime.stage.cell import Cell
from runtime.stage.mailbox import Envelope

COUNT: Final = 100
COUNT_MAX: Final = 100_000
RATE: Final = 1000
RATE_MAX: Final = 50_000
SECONDS: Final = 60.0
SECONDS_MAX: Final = 3600.0
BUFFER: Final = 10_000
TRACES_MAX: Final = 8
RECENT: Final = 256
FOLLOWED_MAX: Final = 1000
QUIET: Final = ("*Tick", "*Heartbeat*", "_Poll*", "_CheckDeadlines")
"""Types that come all the time and say little."""

Record = tuple[float, float, float, int, str, str, str, str, Any]
"""When it was told and when handling began (the stage's clock), how long that took (seconds), trace id, sender's path
(empty from outside), receiver's path, message type, outcome, and the message itself or None."""


Link = tuple[int, int, float]
"""That a trace goes on in another: the ids of both, and when (the stage's clock)."""


class BadFilter(ValueError):
    """A filter or limit that may not be; the text says which and what may."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """What to trace: paths and types as globs (a message counts if its sender or its receiver fits), and limits."""

    paths: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    count: int = COUNT
    rate: int = RATE
    seconds: float = SECONDS
    everything: bool = False
    bodies: bool = False
    follow: bool = False
    links: bool = False


def checked(
    paths: Any = (),
    types: Any = (),
    count: Any = COUNT,
    rate: Any = RATE,
    seconds: Any = SECONDS,
    everything: Any = False,
    bodies: Any = False,
    follow: Any = False,
    links: Any = False,
) -> TraceRequest:
    """A request out of plain values; BadFilter says what is wrong with it."""
    for name, globs in (("paths", paths), ("types", types)):
        if not isinstance(globs, (list, tuple)) or not all(isinstance(each, str) and each for each in globs):
            raise BadFilter(f"{name} are a list of patterns")
    wide = all(set(pattern) <= {"*", "/"} for pattern in (*paths, *types))
    if wide and everything is not True:
        raise BadFilter("this would trace everything: name paths or types, or ask for everything")
    for name, value, most in (("count", count, COUNT_MAX), ("rate", rate, RATE_MAX), ("seconds", seconds, SECONDS_MAX)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
            raise BadFilter(f"{name} is a number above 0, at most {most:g}")
    flags = (everything is True, bodies is True, follow is True, links is True)
    return TraceRequest(tuple(paths), tuple(types), int(count), int(rate), float(seconds), *flags)


class Trace:
    """One viewer's. ``note`` runs on actors' threads; everything else on the viewer's."""

    def __init__(self, request: TraceRequest, now: float, wake: Callable[[], None]) -> None:
        self.request = request
        self.ended = ""
        self.dropped = 0
        self.taken = 0
        self._wake = wake
        self._until = now + request.seconds
        self._buffer: deque[Record] = deque()
        self._paths: dict[str, bool] = {}
        self._types: dict[str, bool] = {}
        self._second = now
        self._in_second = 0
        self._woken = False
        self._followed: dict[int, None] = {}
        self._recent: deque[Record] = deque(maxlen=RECENT)
        self._links: deque[tuple[int, int]] = deque(maxlen=RECENT)
        self._told_links: deque[Link] = deque()

    def note(self, cell: Cell, message: Envelope, begun: int, ended: int, outcome: str) -> None:
        """Takes a handled message in if the filter says so, or if it came of one that was taken in. Times in
        nanoseconds; a record has seconds."""
        if self.ended:
            return
        body, sender, _reply, enqueued, trace = message
        kind = body.__class__.__name__
        origin = sender.path if sender is not None else ""
        fits = self._wanted_type(kind) and (
            self._wanted_path(cell.path) or (bool(origin) and self._wanted_path(origin))
        )
        if not fits and not self.request.follow:
            return
        kept = body if self.request.bodies else None
        record = (enqueued / 1e9, begun / 1e9, (ended - begun) / 1e9, trace, origin, cell.path, kind, outcome, kept)
        if self.request.follow and trace not in self._followed:
            if not fits:
                self._recent.append(record)
                return
            self._follow(trace, ended / 1e9)
        self._take_in(record, ended / 1e9)

    def link(self, cause: int, effect: int, now: float) -> None:
        """The trace ``cause`` goes on in ``effect``."""
        if self.ended:
            return
        if self.request.links:
            self._tell_link(cause, effect, now)
        if not self.request.follow:
            return
        if cause in self._followed:
            self._follow(effect, now)
        else:
            self._links.append((cause, effect))

    def _tell_link(self, cause: int, effect: int, now: float) -> None:
        if len(self._told_links) >= BUFFER:
            self.dropped += 1
            return
        self._told_links.append((cause, effect, now))
        if not self._woken:
            self._woken = True
            self._wake()

    def _follow(self, trace: int, now: float) -> None:
        due = [trace]
        while due:
            trace = due.pop()
            if trace in self._followed:
                continue
            if len(self._followed) >= FOLLOWED_MAX:
                self._followed.pop(next(iter(self._followed)), None)
            self._followed[trace] = None
            for earlier in list(self._recent):  # a copy in one step: other threads add to it
                if earlier[3] == trace:
                    self._take_in(earlier, now)
            due += [effect for cause, effect in list(self._links) if cause == trace]

    def _take_in(self, record: Record, now: float) -> None:
        if self.ended or not self._within_limits(now):
            return
        if len(self._buffer) >= BUFFER:
            self.dropped += 1
            return
        self._buffer.append(record)
        self.taken += 1
        if self.taken >= self.request.count:
            self.end(f"{self.request.count} messages were traced")
        elif not self._woken:
            self._woken = True
            self._wake()

    def _within_limits(self, now: float) -> bool:
        if now >= self._until:
            self.end(f"{self.request.seconds:g} s are over")
            return False
        if now - self._second >= 1.0:
            self._second, self._in_second = now, 0
        self._in_second += 1
        if self._in_second > self.request.rate:
            self.end(f"more than {self.request.rate} messages in a second")
            return False
        return True

    def _wanted_type(self, kind: str) -> bool:
        wanted = self._types.get(kind)
        if wanted is None:
            types = self.request.types
            if any(fnmatchcase(kind, pattern) for pattern in types):
                wanted = True
            else:
                wanted = not types and not any(fnmatchcase(kind, pattern) for pattern in QUIET)
            self._types[kind] = wanted
        return wanted

    def _wanted_path(self, path: str) -> bool:
        wanted = self._paths.get(path)
        if wanted is None:
            paths = self.request.paths
            wanted = self._paths[path] = not paths or any(fnmatchcase(path, pattern) for pattern in paths)
        return wanted

    def end(self, why: str) -> None:
        """Takes nothing more in; the first reason counts."""
        if not self.ended:
            self.ended = why
            self._wake()

    def take(self) -> list[Record]:
        """What was traced since the last call."""
        self._woken = False
        taken: list[Record] = []
        while self._buffer:
            taken.append(self._buffer.popleft())
        return taken

    def take_links(self) -> list[Link]:
        """Where traces went on in others since the last call; asked for after ``take``."""
        taken: list[Link] = []
        while self._told_links:
            taken.append(self._told_links.popleft())
        return taken


class Tracing:
    """All traces of one stage. Its tracer is there only while somebody looks."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._traces: tuple[Trace, ...] = ()
        self._lock = threading.Lock()

    def begin(self, request: TraceRequest, wake: Callable[[], None]) -> Trace:
        """Starts a trace; ``wake`` (any thread may call it) says that there is something to take. BadFilter when too
        many look already."""
        with self._lock:
            if len(self._traces) >= TRACES_MAX:
                raise BadFilter(f"{TRACES_MAX} traces are under way already: end one, or clear them all")
            trace = Trace(request, self._stage.read_clock(), wake)
            self._set((*self._traces, trace))
        return trace

    def finish(self, trace: Trace) -> None:
        """Ends a trace whose viewer is gone."""
        trace.end("its viewer is gone")
        with self._lock:
            self._set(tuple(each for each in self._traces if each is not trace))

    def clear(self) -> int:
        """Ends all; how many there were."""
        with self._lock:
            ended = self._traces
            self._set(())
        for trace in ended:
            trace.end("all traces were cleared")
        return len(ended)

    def _set(self, traces: tuple[Trace, ...]) -> None:
        self._traces = traces
        self._stage.tracer = self._note if traces else None
        linked = any(each.request.follow or each.request.links for each in traces)
        self._stage.linker = self._link if linked else None

    def _note(self, cell: Cell, message: Envelope, begun: int, outcome: str) -> None:
        ended = self._stage.read_nanos()
        for trace in self._traces:
            trace.note(cell, message, begun, ended, outcome)

    def _link(self, cause: int, effect: int) -> None:
        now = self._stage.read_clock()
        for trace in self._traces:
            trace.link(cause, effect, now)
