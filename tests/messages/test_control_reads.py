"""Reads at a manager that does not lead: of what was acknowledged before them at any manager, or of what is known
here if the leader cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest

from actors.control_actor import FRESH_WAIT, OUT_OF_TOUCH_WAIT, ControlActor
from runtime.errors import Code, Refused
from runtime.pki.certificates import MANAGER_ROLE
from runtime.pki.unlock_key import format_unlock_key
from runtime.protocol.cluster import Control, UnlockKey
from runtime.protocol.manager import LeaderIs, MembersChanged
from runtime.protocol.raft import ReadIndex
from runtime.protocol.store import AwaitView
from runtime.protocol.wire import Incoming
from runtime.stage import Actor, ActorUnavailable, Reply, handles
from runtime.stage.answers import Future
from runtime.stage.simulator import Simulator
from runtime.store.changes import Action, Change, apply
from runtime.store.view import Published, View
from runtime.swarm.membership import NO_LEADER
from runtime.wire.pb import control_pb2
from runtime.wire.pb import objects_pb2 as pb
from runtime.wire.port import Identity
from runtime.wire.services import path
from tests.messages.test_control_actor import MEMBER

HERE, ELSEWHERE = LeaderIs("", True), LeaderIs("10.0.0.2:2377", False)
LIST = Control("ListServices", control_pb2.ListServicesRequest())


class Consensus(Actor):
    """Is asked for an index, and answers when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Reply] = []

    @handles(ReadIndex)
    def read_index(self, message: ReadIndex) -> None:
        self.waiting.append(self.defer())


class Store(Actor):
    """Holds back whoever awaits a view until the test publishes it."""

    def __init__(self, published: Published) -> None:
        super().__init__()
        self.published = published
        self.awaited: list[tuple[AwaitView, Reply]] = []

    @handles(AwaitView)
    def await_view(self, message: AwaitView) -> int | None:
        if message.holds(self.published.view):
            return self.published.view.version
        self.awaited.append((message, self.defer()))
        return None

    def publish(self, view: View) -> None:
        self.published.view = view
        for message, reply in self.awaited:
            if message.holds(view):
                reply.set(view.version)


class Bench:
    """A control API between the two; services are known by their names."""

    def __init__(self, leader: LeaderIs = ELSEWHERE) -> None:
        self.simulator = Simulator(1)
        self.stage = self.simulator.node("n1")
        self.published = Published()
        store = self.stage.mount("store", Store, self.published)
        consensus = self.stage.mount("consensus", Consensus)
        control = self.stage.mount(
            "control", ControlActor, "node-1", store, self.published, None, self.stage.at("/proxy"), consensus
        )
        self.control = control
        control.tell(MembersChanged({7: MEMBER}))
        control.tell(leader)
        self.simulator.settle()

    def instance(self, name: str) -> Any:
        cell = self.stage.at(f"/{name}").resolve()
        assert cell is not None
        return cell.instance

    def hold(self, version: int, *names: str) -> None:
        """This manager's store has come so far."""
        services = [pb.Service(id=f"id-{name}") for name in names]
        for name, service in zip(names, services, strict=True):
            service.spec.annotations.name = name
        self.publish(version, *services)

    def publish(self, version: int, *objects: Any) -> None:
        """These are all that this manager's store holds."""
        changes = [Change(Action.CREATE, type(each), None, each) for each in objects]
        self.instance("store").publish(apply(View(), changes, version))
        self.simulator.settle()

    def begin(self, question: Any = LIST) -> Future:
        future = self.control.ask(question)
        self.simulator.settle()
        return future

    def confirm(self, index: int | Refused) -> None:
        """The consensus answers what it was asked first."""
        reply = self.instance("consensus").waiting.pop(0)
        if isinstance(index, Refused):
            reply.fail(index)
        else:
            reply.set(index)
        self.simulator.settle()

    @property
    def asked(self) -> int:
        """How many wait for the consensus."""
        return len(self.instance("consensus").waiting)


def names(future: Future) -> list[str]:
    return sorted(each.spec.annotations.name for each in future.result(0).services)


def test_a_read_waits_for_the_leaders_word_and_then_for_this_managers_store() -> None:
    bench = Bench()
    bench.hold(5, "old")
    read = bench.begin()
    assert (read.done, bench.asked) == (False, 1)
    bench.confirm(7)
    assert not read.done
    bench.hold(6, "old", "newer")
    assert not read.done
    bench.hold(8, "old", "newer", "newest")
    assert names(read) == ["newer", "newest", "old"]


def test_a_read_of_what_is_here_already_waits_for_the_leaders_word_alone() -> None:
    bench = Bench()
    bench.hold(5, "web")
    read = bench.begin()
    bench.confirm(5)
    assert names(read) == ["web"]


def test_the_manager_that_leads_asks_nobody() -> None:
    bench = Bench(HERE)
    bench.hold(5, "web")
    assert names(bench.begin()) == ["web"]
    assert bench.asked == 0


def test_what_a_read_is_refused_reaches_who_asked_and_harms_nothing() -> None:
    bench = Bench()
    read = bench.begin(Control("GetService", control_pb2.GetServiceRequest(service_id="none")))
    bench.confirm(0)
    with pytest.raises(Refused) as refused:
        read.result(0)
    assert refused.value.code is Code.NOT_FOUND
    again = bench.begin()
    bench.confirm(0)
    assert names(again) == []


def test_without_the_leaders_word_a_read_shows_what_is_known_here() -> None:
    bench = Bench()
    bench.hold(5, "web")
    read = bench.begin()
    bench.simulator.run_for(FRESH_WAIT - 0.01)
    assert not read.done
    bench.simulator.run_for(0.02)
    assert names(read) == ["web"]


def test_a_store_that_lags_behind_is_waited_for_no_longer_than_the_leader() -> None:
    bench = Bench()
    bench.hold(5, "web")
    read = bench.begin()
    bench.simulator.run_for(FRESH_WAIT / 2)
    bench.confirm(9)
    bench.simulator.run_for(FRESH_WAIT / 2 - 0.01)
    assert not read.done
    bench.simulator.run_for(0.02)
    assert names(read) == ["web"]


def test_after_one_wait_in_vain_reads_are_short_until_the_leader_is_reached_again() -> None:
    bench = Bench()
    bench.hold(5, "web")
    bench.begin()
    bench.confirm(Refused(Code.UNAVAILABLE, NO_LEADER))
    short = bench.begin()
    bench.simulator.run_for(OUT_OF_TOUCH_WAIT + 0.01)
    assert names(short) == ["web"]
    bench.confirm(5)  # too late for that one
    reached = bench.begin()
    bench.confirm(5)
    assert names(reached) == ["web"]
    patient = bench.begin()
    bench.simulator.run_for(OUT_OF_TOUCH_WAIT + 0.01)
    assert not patient.done
    bench.confirm(5)
    assert names(patient) == ["web"]


class CallOfTheWire:
    """A read that came over the control socket or the remote port."""

    method = path("Control", "ListServices")
    identity = Identity()
    request = control_pb2.ListServicesRequest()

    def __init__(self) -> None:
        self.metadata: dict[str, tuple[str, ...]] = {}


def test_a_read_over_the_wire_waits_as_one_from_this_process() -> None:
    bench = Bench()
    bench.hold(5, "web")
    read = bench.begin(Incoming(CallOfTheWire()))  # type: ignore[arg-type]
    assert not read.done
    bench.confirm(5)
    assert names(read) == ["web"]


def test_the_unlock_key_is_the_one_that_was_made_last_at_any_manager() -> None:
    bench = Bench()
    read = bench.begin(UnlockKey())
    bench.confirm(6)
    assert not read.done
    cluster = pb.Cluster(id="cluster")
    cluster.spec.encryption_config.auto_lock_managers = True
    cluster.unlock_keys.add(subsystem=MANAGER_ROLE, key=bytes(32))
    bench.publish(6, cluster)
    assert read.result(0) == format_unlock_key(bytes(32))


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_a_read_that_waits_when_the_control_api_ends_is_not_left_without_an_answer(fails: bool) -> None:
    bench = Bench()
    read = bench.begin()
    control = bench.instance("control")

    def end(_: Any) -> None:
        if fails:
            raise RuntimeError("made to fail")
        control.stop()

    control.sink(end)(None)
    bench.simulator.settle()
    with pytest.raises(ActorUnavailable):
        read.result(0)
