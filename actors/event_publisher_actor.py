"""EventPublisherActor tells whoever listens what happens to the swarm's objects, as long as this node is a manager.

Who talks to it: ClusterActor, which passes on subscriptions; ConnectionActor, which says when the manager's store can
be watched; the store, with its commits. It must never hold anybody up: subscribers take events at once or end.

Rules kept here:
1. Each committed change is told once, in the order of commits. After a manager's restart the watch goes on behind the
   last commit seen; where the store cannot do that, the subscribers hear of a gap and their streams end.
2. The last 256 events are kept for ``since``; that older ones are missing is told, not hidden.
3. A life that fails ends its subscribers' streams with a gap: what they might miss is not known to the next one.
"""

from __future__ import annotations

from typing import Any

from runtime.engine_api.events import KINDS, NANOS, EventHistory, event_of, gap
from runtime.errors import Code, Refused
from runtime.protocol.cluster import (
    ConfigEvent,
    ConfigEventKind,
    EventSubscriber,
    SubscribeConfigEvents,
    SubscribeEvents,
    SwarmEvent,
    UnsubscribeEvents,
)
from runtime.protocol.node import ControlConnection, SubscribeControlConnection
from runtime.protocol.store import Commits, Watch
from runtime.stage import Actor, ActorDown, ActorUp, Address, Answer, GiveUp, Policy, handles
from runtime.store.events import WatchFilter

WATCHED = WatchFilter.kinds(*KINDS)
WATCH_WAIT = 20.0
WATCH_AGAIN = 0.5
BEGINS_HERE = "no events from before this daemon's part in the swarm was watched are kept"
FAILED = "the publisher of events failed and begins anew"


class _WatchAgain:
    """Time to ask the store again."""


class EventPublisherActor(Actor):
    """``cluster`` says when the node leaves, ``connection`` when a manager answers, ``store`` is where its store is."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, cluster: Address, connection: Address, store: Address) -> None:
        super().__init__()
        self.cluster = cluster
        self.connection = connection
        self.store = store
        self.version: int | None = None
        self.connected = False
        self._watching = False
        self._history = EventHistory(0, BEGINS_HERE)
        self._subscribers: dict[int, EventSubscriber] = {}

    def started(self) -> None:
        self._history = EventHistory(self._now_ns(), BEGINS_HERE)
        self.watch(self.cluster)
        self.watch(self.connection)

    def stopped(self) -> None:
        self._end()

    def crashed(self) -> None:
        self._deliver((gap("", FAILED, self._now_ns()),))
        self._end()

    def snapshot(self) -> dict[str, Any]:
        return {
            "watching": self._watching,
            "version": self.version,
            "kept": len(self._history),
            "subscribers": len(self._subscribers),
        }

    def _now_ns(self) -> int:
        return int(self.now() * NANOS)

    @handles(ActorUp)
    def up(self, message: ActorUp) -> None:
        """A life of one of them begins, which knows no subscribers."""
        if message.path == self.cluster.path:
            self.tell(self.cluster, SubscribeConfigEvents())
        if message.path == self.connection.path:
            self.tell(self.connection, SubscribeControlConnection())

    @handles(ActorDown)
    def down(self, message: ActorDown) -> None:
        """They are back soon, and say then what holds."""

    # The store

    @handles(ControlConnection)
    def control_changed(self, message: ControlConnection) -> None:
        """The manager answers (again), or no longer."""
        self.connected, self._watching = message.control is not None, False
        self._watch()

    @handles(ConfigEvent)
    def config_event(self, message: ConfigEvent) -> None:
        """This node left its swarm: another one's versions mean nothing to this one's."""
        if message.kind is ConfigEventKind.NODE_LEFT:
            self.version = None

    @handles(_WatchAgain)
    def watch_again(self, message: _WatchAgain) -> None:
        """The store did not answer; perhaps it does now."""
        self._watch()

    def _watch(self) -> None:
        if self.connected and not self._watching:
            self._watching = True
            self.ask(self.store, Watch(WATCHED, self.version), self._watch_began, WATCH_WAIT)

    def _watch_began(self, answer: Answer) -> None:
        error = answer.error
        if error is None:
            if self.version is None:
                self.version = answer.value.version
            return
        self._watching = False
        if isinstance(error, Refused) and error.code is Code.OUT_OF_RANGE:
            self._lose_place(error.text)
            self._watch()
        elif self.connected:
            self.after(WATCH_AGAIN, _WatchAgain())

    def _lose_place(self, reason: str) -> None:
        self.version = None
        lost = gap("", f"changes in between are not known: {reason}", self._now_ns())
        self._history.add(lost)
        self._deliver((lost,))
        self._end()

    @handles(Commits)
    def commits(self, message: Commits) -> None:
        """Changes, in order; what was seen before comes again after a new watch and is left out."""
        now = self._now_ns()
        told: list[SwarmEvent] = []
        for commit in message.commits:
            if self.version is None or commit.version > self.version:
                self.version = commit.version
                told += (event_of(change, now) for change in commit.events)
        for event in told:
            self._history.add(event)
        self._deliver(tuple(told))

    # Subscribers

    @handles(SubscribeEvents)
    def subscribe(self, message: SubscribeEvents) -> None:
        """What is kept first, then everything as it comes."""
        self._subscribers[id(message.subscriber)] = message.subscriber
        if message.since_ns is not None:
            kept = self._history.since(message.since_ns, "")
            if kept:
                message.subscriber.events(tuple(kept))

    @handles(UnsubscribeEvents)
    def unsubscribe(self, message: UnsubscribeEvents) -> None:
        """Its client is gone."""
        self._subscribers.pop(id(message.subscriber), None)

    def _deliver(self, events: tuple[SwarmEvent, ...]) -> None:
        if events:
            for subscriber in self._subscribers.values():
                subscriber.events(events)

    def _end(self) -> None:
        ended, self._subscribers = self._subscribers, {}
        for subscriber in ended.values():
            subscriber.end()
