"""A host program's ear: what happens to the swarm and which actors failed, told to a callback on a thread of its own.

Rules it owns: nobody in the tree ever waits for the callback; what waits for it is bounded, the oldest goes first and a
gap says how many; order is kept; a callback that raises is logged and told the next event all the same.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from runtime.engine_api.events import NANOS, gap
from runtime.introspection.redact import redact
from runtime.protocol.cluster import SubscribeEvents, SwarmEvent, UnsubscribeEvents
from runtime.stage import Answer, Reply
from runtime.stage.observe import CrashReport, Moment
from swarmlet.errors import UsageError

if TYPE_CHECKING:
    from swarmlet.assembly import Assembly

log = logging.getLogger("swarmlet.events")

EVENTS_MAX: Final = 1000
AGAIN_S: Final = 0.5
CLOSE_S: Final = 5.0
EventCallback = Callable[[SwarmEvent], None]


class Subscription:
    """Usable from any thread. Events are those of ``/events`` (``type``, ``action``, ``id``, ``attributes``,
    ``time_ns``), besides ``actor``/``crash`` (``id`` is the path), this node's moments and ``daemon``/``gap``."""

    def __init__(
        self, assembly: Assembly, on_event: EventCallback, capacity: int, closed: Callable[[Subscription], None]
    ) -> None:
        if capacity < 1:
            raise UsageError(f"at least one event has to wait, not {capacity}")
        assert assembly.stage is not None
        self.dropped = 0
        self._stage = assembly.stage
        self._cluster = assembly.cluster
        self._on_event = on_event
        self._closed = closed
        self._capacity = capacity
        self._waiting: deque[SwarmEvent] = deque()
        self._untold = 0
        self._listening = False
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"{self._stage.name}-events", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._stage.crash_listeners.append(self._crashed)
        self._stage.moment_listeners.append(self._happened)
        self._thread.start()

    def close(self) -> None:
        """Ends it; what waits is not told any more. Waits for a call under way, but not for ever. Again is nothing."""
        with self._changed:
            if self._ended:
                return
            self._ended = True
            self._changed.notify_all()
        self._stage.crash_listeners.remove(self._crashed)
        self._stage.moment_listeners.remove(self._happened)
        self._cluster.tell(UnsubscribeEvents(self))
        self._closed(self)
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                log.error("a callback for events has not returned within %g s", CLOSE_S)

    # From actors' threads: quick, and without a wait for anybody

    def events(self, batch: tuple[SwarmEvent, ...]) -> None:
        """Some of the swarm's events."""
        with self._changed:
            self._waiting += batch
            while len(self._waiting) > self._capacity:
                self._waiting.popleft()
                self.dropped += 1
                self._untold += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Whoever told of the swarm begins anew: it is asked again, a moment later."""
        with self._changed:
            if self._listening and not self._waiting:
                self._changed.notify_all()
            self._listening = False

    def _crashed(self, report: CrashReport) -> None:
        attributes = {"actor": report.actor, "message": report.message, "error": str(redact(report.error))}
        self.events((SwarmEvent("actor", "crash", report.path, attributes, int(report.at * NANOS), {}, "local"),))

    def _happened(self, moment: Moment) -> None:
        attributes = {name: str(redact(value)) for name, value in moment.attributes.items()}
        at = int(moment.at * NANOS)
        self.events((SwarmEvent(moment.type, moment.action, moment.id, attributes, at, {}, "local"),))

    # On its own thread

    def _run(self) -> None:
        self._listen()
        while True:
            with self._changed:
                if not self._waiting and not self._untold and not self._ended:
                    self._changed.wait(None if self._listening else AGAIN_S)
                    if not self._listening and not self._ended:
                        self._listen()
                if self._ended:
                    return
                event = self._next()
            if event is not None:
                self._tell(event)

    def _listen(self) -> None:
        self._listening = True
        self._cluster.send(SubscribeEvents(self, None), None, Reply(self._subscribed), 0)

    def _subscribed(self, answer: Answer) -> None:
        if answer.error is not None:
            self.end()

    def _next(self) -> SwarmEvent | None:
        if self._untold:
            count, self._untold = self._untold, 0
            now = int(self._stage.world.clock.now() * NANOS)
            return gap("", f"{count} events were dropped: this subscriber is too slow", now)
        return self._waiting.popleft() if self._waiting else None

    def _tell(self, event: SwarmEvent) -> None:
        try:
            self._on_event(event)
        except Exception:
            log.exception("the callback for events failed over %s %s", event.type, event.action)
