"""EventPublisherActor over a real store: order, restarts of its manager, lost places, subscribers that come and go."""

from __future__ import annotations

from typing import Any

from actors.event_publisher_actor import FAILED, EventPublisherActor
from actors.store_actor import StoreActor
from runtime.protocol.cluster import ConfigEvent, ConfigEventKind, SubscribeConfigEvents, SubscribeEvents, SwarmEvent
from runtime.protocol.cluster import UnsubscribeEvents as Unsubscribe
from runtime.protocol.node import ControlConnection, SubscribeControlConnection
from runtime.protocol.store import Entries, Leading, Restore
from runtime.stage import Actor, GiveUp, Policy, handles
from runtime.stage.simulator import Simulator
from runtime.store.changes import Action, Change, encode_request
from runtime.store.view import Published
from runtime.wire.pb import objects_pb2 as objects


class Reader:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.read: list[SwarmEvent] = []
        self.ended = False

    def events(self, batch: tuple[SwarmEvent, ...]) -> None:
        assert not self.ended
        self.read += batch

    def end(self) -> None:
        self.ended = True

    @property
    def names(self) -> list[str]:
        return [f"{event.action} {event.attributes.get('name', '(gap)')}" for event in self.read]


class Neighbour(Actor):
    """The cluster's and the connection's actors: it only hears of subscribers."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self.heard = heard

    @handles(SubscribeConfigEvents, SubscribeControlConnection)
    def subscribed(self, message: Any) -> None:
        self.heard.append(type(message).__name__)


class Bench:
    """A publisher whose manager's store can be replaced."""

    def __init__(self) -> None:
        self.simulator = Simulator(7)
        self.stage = self.simulator.node("n1")
        self.heard: list[str] = []
        self.neighbour = self.stage.mount("neighbour", Neighbour, self.heard)
        self.connection = self.stage.mount("connection", Neighbour, self.heard)
        self.store = self.stage.at("/store")
        self.index = 10
        self.log: list[tuple[int, bytes]] = []
        self.publisher = self.stage.mount("events", EventPublisherActor, self.neighbour, self.connection, self.store)
        self.start_store()

    def start_store(self, history: int = 10_000) -> None:
        self.published = Published()
        self.stage.mount("store", StoreActor, self.neighbour, self.published, history)
        self.store.tell(Leading(1, 0))
        self.simulator.settle()

    def stop_store(self) -> None:
        self.connect(False)
        cell = self.store.resolve()
        assert cell is not None
        cell.request_stop()
        self.simulator.settle()

    def replay(self) -> None:
        """The store reads its log again, as a restarted manager does."""
        for index, data in self.log:
            self.store.tell(Entries(((index, 0, data),)))
        self.simulator.settle()

    def connect(self, up: bool = True) -> None:
        self.publisher.tell(ControlConnection(self.neighbour if up else None))
        self.simulator.settle()

    def subscribe(self, since_ns: int | None = None) -> Reader:
        reader = Reader()
        self.simulator.ask(self.publisher, SubscribeEvents(reader, since_ns))
        return reader

    def commit(self, *changes: Change) -> None:
        self.index += 1
        data = encode_request(0, changes)
        self.log.append((self.index, data))
        self.store.tell(Entries(((self.index, 0, data),)))
        self.simulator.settle()

    def create(self, name: str) -> objects.Service:
        service = objects.Service(id=f"id-{name}")
        service.spec.annotations.name = name
        self.commit(Change(Action.CREATE, objects.Service, None, service))
        return service


def test_changes_are_told_in_order_and_only_those_of_what_people_watch() -> None:
    bench = Bench()
    bench.connect()
    reader = bench.subscribe()
    one = bench.create("one")
    bench.commit(Change(Action.CREATE, objects.Task, None, objects.Task(id="t")))
    bench.commit(Change(Action.UPDATE, objects.Service, one, one), Change(Action.REMOVE, objects.Service, one, None))
    assert reader.names == ["create one", "update one", "remove one"]


def test_what_happened_before_is_told_to_those_who_ask_since() -> None:
    bench = Bench()
    bench.connect()
    bench.simulator.run_for(1)
    before = int(bench.stage.world.clock.now() * 1e9)
    bench.create("one")
    plain, late = bench.subscribe(), bench.subscribe(since_ns=before)
    bench.create("two")
    assert plain.names == ["create two"]
    assert late.names == ["create one", "create two"]


def test_a_time_before_the_first_event_kept_is_answered_with_a_gap_first() -> None:
    bench = Bench()
    bench.connect()
    bench.create("one")
    assert bench.subscribe(since_ns=0).names == ["gap (gap)", "create one"]


def test_a_restarted_manager_goes_on_behind_the_last_event() -> None:
    bench = Bench()
    bench.connect()
    reader = bench.subscribe()
    bench.create("one")
    bench.stop_store()
    bench.log.append(
        (bench.index + 1, encode_request(0, [Change(Action.CREATE, objects.Service, None, _named("two"))]))
    )
    bench.index += 1
    bench.start_store()
    bench.replay()
    bench.connect()
    bench.create("three")
    assert reader.names == ["create one", "create two", "create three"]
    assert not reader.ended


def _named(name: str) -> objects.Service:
    service = objects.Service(id=f"id-{name}")
    service.spec.annotations.name = name
    return service


def test_a_store_that_cannot_go_on_from_there_ends_the_streams_with_a_gap() -> None:
    bench = Bench()
    bench.connect()
    reader = bench.subscribe()
    bench.create("one")
    bench.stop_store()
    bench.start_store()
    bench.store.tell(Restore(50, {objects.Service: [_named("two")]}))
    bench.simulator.settle()
    bench.connect()
    assert reader.names == ["create one", "gap (gap)"]
    assert reader.ended
    after = bench.subscribe()
    bench.index = 50
    bench.create("three")
    assert after.names == ["create three"]


def test_another_swarm_begins_without_a_gap() -> None:
    bench = Bench()
    bench.connect()
    bench.create("one")
    bench.stop_store()
    bench.publisher.tell(ConfigEvent(ConfigEventKind.NODE_LEFT))
    reader = bench.subscribe()
    bench.start_store()
    bench.index = 2
    bench.connect()
    bench.create("two")
    assert reader.names == ["create two"]
    assert not reader.ended


def test_a_store_that_does_not_answer_is_asked_again() -> None:
    bench = Bench()
    reader = bench.subscribe()
    bench.stop_store()
    bench.connect()
    bench.start_store()
    bench.simulator.run_for(2)
    bench.create("one")
    assert reader.names == ["create one"]


def test_who_unsubscribed_hears_nothing_more() -> None:
    bench = Bench()
    bench.connect()
    gone, here = bench.subscribe(), bench.subscribe()
    for _ in range(2):
        bench.publisher.tell(Unsubscribe(gone))
    bench.create("one")
    assert (gone.names, here.names) == ([], ["create one"])


def test_a_failure_ends_the_streams_with_a_gap_and_the_next_life_tells_again() -> None:
    bench = Bench()
    bench.connect()
    reader = bench.subscribe()
    cell = bench.publisher.resolve()
    assert cell is not None
    cell.control(lambda: cell.failed(ValueError("a fault of the test"), None))
    bench.simulator.run_for(5)
    assert reader.read[-1].attributes["reason"] == FAILED
    assert reader.ended
    bench.connect()
    after = bench.subscribe()
    bench.create("one")
    assert after.names == ["create one"]


def test_it_subscribes_again_when_whom_it_listens_to_begins_a_new_life() -> None:
    bench = Bench()
    bench.simulator.settle()
    assert sorted(bench.heard) == ["SubscribeConfigEvents", "SubscribeControlConnection"]
    for address, again in (
        (bench.neighbour, "SubscribeConfigEvents"),
        (bench.connection, "SubscribeControlConnection"),
    ):
        cell = address.resolve()
        assert cell is not None
        cell.control(lambda cell=cell: cell.failed(ValueError("a fault of the test"), None))  # type: ignore[misc]
        bench.simulator.run_for(1)
        assert bench.heard.pop() == again
    assert len(bench.heard) == 2
