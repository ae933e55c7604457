"""The console's pages: what each asks for, how it is shown, and where Enter leads. No terminal here either.

``fetch`` runs on a thread of its own and may block; ``show`` makes what is drawn out of what was fetched. A page that
follows something (a trace, logs, events) has a ``Follower`` and shows what that gathered so far.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from runtime.introspection import render, render_domain, render_waits, sequence
from runtime.introspection.client import NoAnswer
from swarmlet.console import views
from swarmlet.console.engine import EngineError
from swarmlet.console.source import Lost, Source
from swarmlet.console.views import Table

LINES_MAX: Final = 5000
TRACE_COUNT: Final = 500
TRACE_SECONDS: Final = 300.0
WINDOWS_S: Final = (10.5, 60.5)
PAST_MAX: Final = 120


class Page:
    """One screenful. ``name`` is what ``:`` jumps to; ``subject`` is what it is about (a path, a service)."""

    name: ClassVar[str] = ""
    is_text: ClassVar[bool] = False
    marks: ClassVar[bool] = False
    """Whether words of its text that mean trouble stand out."""
    empty: ClassVar[str] = "nothing to show"
    """What is said where there are no rows."""
    wraps: bool = False
    """Whether long lines of text are wrapped, as sentences want it, or run on to the right, as tables do."""

    def __init__(self, subject: str = "") -> None:
        self.subject = subject
        self.wanted = ""
        """The filter that the viewer typed, for pages that have the node look for it."""
        self.column: int | None = None
        self.descending = False
        self.chosen = ""
        """How the viewer had it sorted, and the row under the cursor: as it is found when Esc leads back."""

    @property
    def title(self) -> str:
        """What stands above it."""
        return f"{self.name} {self.subject}".strip()

    def fetch(self, source: Source) -> Any:
        """What is shown next."""
        raise NotImplementedError

    def show(self, fetched: Any) -> Table | str:
        """A table, or text."""
        raise NotImplementedError

    def deeper(self, key: str) -> Page | None:
        """Where Enter leads from the row with this key."""
        return None

    @property
    def leads(self) -> bool:
        """Whether Enter leads anywhere."""
        return type(self).deeper is not Page.deeper

    def logs(self, key: str) -> Page | None:
        """Where ``l`` leads: what the chosen row's tasks print."""
        return None

    def close(self) -> None:
        """The page is left for good."""


class TreePage(Page):
    """The actor tree, live."""

    name = "tree"

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self.folded: frozenset[str] = frozenset()
        self._before: Any = None
        self._last: Any = None

    def fetch(self, source: Source) -> Any:
        answer = source.ask("tree")
        self._before, self._last = self._last, answer
        return self._before, answer

    def show(self, fetched: Any) -> Table:
        before, after = fetched
        return views.tree(before, after, self.folded)

    def fold(self, path: str) -> None:
        """Hides or shows what is below an actor."""
        self.folded = self.folded ^ {path}

    def deeper(self, key: str) -> Page:
        return ActorPage(key)


class ActorPage(Page):
    """All that is known of one actor, with what it did over windows of time."""

    name = "actor"
    is_text = True
    marks = True

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._past: deque[Any] = deque(maxlen=PAST_MAX)

    def fetch(self, source: Source) -> Any:
        answer = source.ask("actor", path=self.subject)
        if "clock" not in answer:
            return answer  # a node of an older version
        if self._past and answer["clock"] < self._past[-1]["clock"]:
            self._past.clear()  # it is another process now
        answer["windows"] = [render.actor_window(before, answer) for before in self._earlier(answer["clock"])]
        if self._past:
            last = self._past[-1]
            seconds = answer["clock"] - last["clock"]
            answer["messages"] = render.with_rates(last["messages"], answer["messages"], seconds)
            last["messages"] = ()
        self._past.append(answer)
        return answer

    def _earlier(self, now: float) -> list[Any]:
        """The last answer, and the oldest within each of the windows where that says more."""
        found = [self._past[-1]] if self._past else []
        for seconds in WINDOWS_S:
            oldest = next((each for each in self._past if now - each["clock"] <= seconds), None)
            if oldest is not None and oldest is not found[-1]:
                found.append(oldest)
        return found

    def show(self, fetched: Any) -> str:
        return render.actor(fetched)


class MessagesPage(Page):
    """Figures by message type, of all actors."""

    name = "messages"

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._last: tuple[float, Any] | None = None

    def fetch(self, source: Source) -> Any:
        answer, now = source.ask("messages"), time.monotonic()
        before, self._last = self._last, (now, answer)
        return render.with_rates(before[1], answer, now - before[0]) if before is not None else answer

    def show(self, fetched: Any) -> Table:
        return views.messages(fetched)

    def deeper(self, key: str) -> Page:
        return TracePage("", types=(key,))


class CrashesPage(Page):
    """The last failures."""

    name = "crashes"
    empty = "nothing failed"

    def fetch(self, source: Source) -> Any:
        return source.ask("crashes")

    def show(self, fetched: Any) -> Table:
        self._found = {row.key: report for row, report in zip(views.crashes(fetched).rows, fetched[::-1], strict=True)}
        return views.crashes(fetched)

    def deeper(self, key: str) -> Page | None:
        report = self._found.get(key)
        return CrashPage(report) if report is not None else None


class CrashPage(Page):
    """One failure with its traceback and the state that the actor declared."""

    name = "crash"
    is_text = True

    def __init__(self, report: Any) -> None:
        super().__init__(report["path"])
        self._report = report

    def fetch(self, source: Source) -> Any:
        return self._report

    def show(self, fetched: Any) -> str:
        state = render.states(fetched["state"]) if fetched["state"] else "  (none declared)"
        return f"{render.crashes([fetched], tracebacks=True)}\n\nSTATE\n{state}"


class RaftPage(Page):
    """Consensus, store, dispatcher, scheduler, certificates."""

    name = "raft"
    is_text = True
    marks = True

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._last: Any = None

    def fetch(self, source: Source) -> Any:
        before, self._last = self._last, source.ask("raft")
        return before, self._last

    def show(self, fetched: Any) -> str:
        before, after = fetched
        return render_domain.raft(after, before)


class WaitingPage(Page):
    """The tasks that wait, and why."""

    name = "waiting"
    empty = "no task waits"

    def fetch(self, source: Source) -> Any:
        return source.ask("waiting")

    def show(self, fetched: Any) -> Table:
        return views.waiting(fetched)

    def deeper(self, key: str) -> Page:
        return ExplainPage(key)


class ExplainPage(Page):
    """What a service, a task or a node waits for."""

    name = "explain"
    is_text = True
    marks = True
    wraps = True

    def fetch(self, source: Source) -> Any:
        if not self.subject:
            raise ValueError("Type :explain and the name of a service, a task or a node.")
        return source.ask("explain", name=self.subject)

    def show(self, fetched: Any) -> str:
        return render_waits.explanation(fetched)


class PlanPage(Page):
    """What would happen without a node."""

    name = "plan"
    is_text = True
    marks = True
    wraps = True

    def fetch(self, source: Source) -> Any:
        if not self.subject:
            raise ValueError("Type :plan and the name of a node, or press Enter on one in nodes.")
        return source.ask("plan", action="rm", name=self.subject)

    def show(self, fetched: Any) -> str:
        return render_waits.plan(fetched)


class WaitsPage(Page):
    """Who waits for whom."""

    name = "waits"
    is_text = True
    marks = True

    def fetch(self, source: Source) -> Any:
        return source.ask("waits")

    def show(self, fetched: Any) -> str:
        return render_domain.waits(fetched)


class BeliefsPage(Page):
    """What this node's agent believes, and what its manager does."""

    name = "beliefs"
    is_text = True
    marks = True

    def fetch(self, source: Source) -> Any:
        return source.ask("beliefs", node=self.subject)

    def show(self, fetched: Any) -> str:
        return render_domain.beliefs(fetched)


# The swarm, by the API


class NodesPage(Page):
    """As docker node ls."""

    name = "nodes"

    def fetch(self, source: Source) -> Any:
        return source.get("/nodes"), source.ask("node")

    def show(self, fetched: Any) -> Table:
        return views.nodes(*fetched)

    def deeper(self, key: str) -> Page:
        return PlanPage(key)


class ServicesPage(Page):
    """As docker service ls."""

    name = "services"
    empty = "no services: docker service create makes one"

    def fetch(self, source: Source) -> Any:
        return source.get("/services", status="true"), source.ask("node")

    def show(self, fetched: Any) -> Table:
        return views.services(*fetched)

    def deeper(self, key: str) -> Page:
        return LogsPage(key)

    def logs(self, key: str) -> Page:
        return LogsPage(key)


class TasksPage(Page):
    """As docker service ps, of all services."""

    name = "tasks"
    empty = "no tasks: those of a service are made by the manager that leads"

    def logs(self, key: str) -> Page:
        return LogsPage(key, "tasks")

    def fetch(self, source: Source) -> Any:
        return source.ask("tasks", text=self.wanted)

    def show(self, fetched: Any) -> Table:
        return views.tasks(fetched)

    def deeper(self, key: str) -> Page:
        return ExplainPage(key)


# What goes on


@dataclass(slots=True)
class Follower:
    """Reads a stream on a thread of its own into a bounded memory."""

    open: Callable[[], tuple[Iterator[Any], Callable[[], None]]]
    items: deque[Any] = field(default_factory=lambda: deque(maxlen=LINES_MAX))
    ended: str = ""
    _close: Callable[[], None] | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="console-follower")
            self._thread.start()

    def _run(self) -> None:
        try:
            items, self._close = self.open()
            if self.ended:
                self._close()  # it was left before it began
            for item in items:
                self.items.append(item)
            self.ended = self.ended or "the stream ended"
        except (Lost, NoAnswer, EngineError, ValueError, OSError) as error:
            self.ended = self.ended or str(error)

    def close(self) -> None:
        """Ends it."""
        self.ended = "closed"
        if self._close is not None:
            self._close()


class FollowPage(Page):
    """A page over a follower, which begins with the first fetch and again after the node was lost."""

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self.follower: Follower | None = None

    def opened(self, source: Source) -> tuple[Iterator[Any], Callable[[], None]]:
        """The stream's items, and what ends it."""
        raise NotImplementedError

    def fetch(self, source: Source) -> Any:
        if self.follower is None:
            self.follower = Follower(lambda: self.opened(source))
            self.follower.start()
        return list(self.follower.items), self.follower.ended

    def close(self) -> None:
        if self.follower is not None:
            self.follower.close()

    def again(self) -> None:
        """Begins anew."""
        self.close()
        self.follower = None


class TracePage(FollowPage):
    """Messages of an actor, or of a type, up to the trace's limits; as a table or as a sequence diagram."""

    name = "trace"

    def __init__(self, subject: str = "", types: tuple[str, ...] = ()) -> None:
        super().__init__(subject)
        self.types = types
        self.diagram = False
        self.end = ""

    @property
    def title(self) -> str:
        return f"trace {self.subject} {' '.join(self.types)}".strip() if self.subject or self.types else "trace"

    def opened(self, source: Source) -> tuple[Iterator[Any], Callable[[], None]]:
        link = source.link()
        wanted = {"paths": [self.subject] if self.subject else [], "types": list(self.types)}
        return self._records(link, wanted), link.close

    def _records(self, link: Any, wanted: dict[str, Any]) -> Iterator[Any]:
        with link:
            for piece in link.follow("trace", count=TRACE_COUNT, seconds=TRACE_SECONDS, **wanted):
                yield from piece.get("more", ())
                if "end" in piece:
                    dropped = f", {piece['dropped']} dropped" if piece["dropped"] else ""
                    self.end = f"{piece['end']}{dropped}: a begins anew"

    def show(self, fetched: Any) -> Table | str:
        records, ended = fetched
        closing = self.end or ended or f"{len(records)} messages so far; at most {TRACE_COUNT}, or {TRACE_SECONDS:g} s"
        if not self.subject and not self.types:
            return "Choose an actor in the tree and press t, or a message type and press Enter."
        if self.diagram:
            return f"{sequence.text(records)}\n{closing}"
        table = views.trace(records)
        return Table(table.columns, table.rows, table.right, closing)


class LinesPage(FollowPage):
    """Lines of text as they come."""

    is_text = True

    def show(self, fetched: Any) -> str:
        lines, ended = fetched
        return "\n".join([*lines, f"({ended})" if ended else ""]).rstrip() or f"({self.empty})"


class LogsPage(LinesPage):
    """What a service's tasks print, or (``kind`` tasks) one task."""

    name = "logs"
    empty = "nothing was printed yet"

    def __init__(self, subject: str = "", kind: str = "services") -> None:
        super().__init__(subject)
        self.kind = kind

    def opened(self, source: Source) -> tuple[Iterator[Any], Callable[[], None]]:
        stream = source.engine.logs(self.subject, self.kind)
        return iter(stream), stream.close

    def fetch(self, source: Source) -> Any:
        if not self.subject:
            return ["Choose a service in services and press Enter."], ""
        return super().fetch(source)


class EventsPage(LinesPage):
    """What happens to the swarm."""

    name = "events"
    empty = "nothing happened since this page was opened"

    def opened(self, source: Source) -> tuple[Iterator[Any], Callable[[], None]]:
        stream = source.engine.events()
        return (views.event(each) for each in stream), stream.close


_ACTORS: Final = (TreePage, MessagesPage, TracePage, CrashesPage, RaftPage)
_SWARM: Final = (NodesPage, ServicesPage, TasksPage, LogsPage, EventsPage)
_BY_NAME: Final = (WaitingPage, WaitsPage, BeliefsPage)
PAGES: Final[dict[str, type[Page]]] = {page.name: page for page in (*_ACTORS, *_SWARM, *_BY_NAME)}
"""What ``:`` leads to; the digits to the first ten of them, in their order."""
JUMPS: Final[dict[str, type[Page]]] = {**PAGES, "actor": ActorPage, "explain": ExplainPage, "plan": PlanPage}
"""And what it leads to besides, with what it is about: ``:actor PATH``, ``:explain NAME``, ``:plan NODE``."""
EXPLAINED: Final = (NodesPage, ServicesPage, TasksPage, WaitingPage)
"""Pages whose rows can be explained."""
