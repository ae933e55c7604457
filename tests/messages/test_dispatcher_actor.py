"""DispatcherActor over a real store whose log commits at once: sessions, heartbeats, assignments, statuses.

The benches here stand for a leading manager in the log broker's tests as well.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from actors.dispatcher_actor import DispatcherActor
from actors.store_actor import StoreActor
from runtime.errors import Code, Refused
from runtime.protocol.explain import AskWaits
from runtime.protocol.manager import LeaderContext, MembersChanged
from runtime.protocol.raft import MemberStatus
from runtime.protocol.store import Entries, Leading, ProposalRefused, Propose, Write
from runtime.stage import Actor, Address, handles
from runtime.stage.cell import Life
from runtime.stage.simulator import Simulator
from runtime.store.view import Published
from runtime.swarm.agent_session import trace_in
from runtime.swarm.ingress_tables import Backend, PublishedPort, routes
from runtime.swarm.labels import LOST_AFTER
from runtime.wire.inbound import Ending, InboundCall
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Access, Credentials, Identity, StreamLimits
from runtime.wire.services import METHODS, path
from runtime.wire.services import routes as service_routes
from runtime.wire.to_actor import to_actor
from tests.unit.wire.authority import CLUSTER, authority

READY, DOWN, UNKNOWN = types.NodeStatus.READY, types.NodeStatus.DOWN, types.NodeStatus.UNKNOWN
DISCONNECTED = types.NodeStatus.DISCONNECTED
DAY = 24 * 3600


class Log(Actor):
    """A consensus of one: commits at once, refuses the next ``refuse`` entries, keeps what comes while ``held``."""

    def __init__(self, bench: LeaderBench) -> None:
        super().__init__()
        self.bench = bench
        self.index = 8
        self.epoch = 0
        self.waiting: list[Propose] = []

    @handles(Propose)
    def propose(self, message: Propose) -> None:
        self.bench.entries += 1
        if message.epoch != self.epoch:
            return
        if self.bench.refuse:
            self.bench.refuse -= 1
            self.epoch += 1
            self.tell(self.bench.store, ProposalRefused(message.number, "refused by the test", self.epoch))
            return
        self.waiting.append(message)
        if not self.bench.held:
            self.release()

    @handles(str)
    def decide(self, message: str) -> None:
        """What was held is committed, or refused."""
        if message == "refuse":
            number, self.waiting = self.waiting[0].number, []
            self.epoch += 1
            self.tell(self.bench.store, ProposalRefused(number, "refused by the test", self.epoch))
        self.release()

    def release(self) -> None:
        for each in self.waiting:
            self.index += 1
            self.tell(self.bench.store, Entries(((self.index, each.number, each.data),)))
        self.waiting = []


class Sent:
    """A call as its caller sees it."""

    def __init__(self, call: InboundCall, response: type[Any]) -> None:
        self.call = call
        self._response = response
        self.items: list[Any] = []
        self.ending: Ending | None = None

    def look(self) -> Sent:
        """Takes what has come."""
        while self.ending is None:
            piece = self.call.take()
            if piece is None:
                break
            if isinstance(piece, Ending):
                self.ending = piece
            else:
                self.items.append(self._response.FromString(piece))
        return self

    def take(self) -> list[Any]:
        """The items that came since the last time."""
        items, self.items = self.look().items, []
        return items

    @property
    def refused(self) -> Refused:
        ending = self.look().ending
        assert ending is not None, "the call is under way"
        assert ending.refused is not None, "the call ended well"
        return ending.refused

    @property
    def open(self) -> bool:
        return self.look().ending is None


class LeaderBench:
    """A store that leads, and one actor of the leader's subtree on it."""

    def __init__(self, cls: type[Actor], *stored: Any, seed: int = 7) -> None:
        self.simulator = Simulator(seed)
        self.stage = self.simulator.node("n1")
        self.published = Published()
        self.entries = 0
        self.refuse = 0
        self.held = False
        self.log = self.stage.mount("raft", Log, self)
        self.store: Address = self.stage.mount("store", StoreActor, self.log, self.published)
        self.store.tell(Leading(2, 8))
        self.create(*stored)
        context = LeaderContext("manager-1", "cluster", self.store, self.published, Credentials(b""))
        self.actor = self.stage.mount("part", cls, context)
        self.simulator.settle()

    def create(self, *stored: Any) -> None:
        self.simulator.ask(self.store, Write(lambda tx: [tx.create(each) for each in stored] and None))
        self.simulator.settle()

    def change(self, kind: type[Any], id: str, edit: Any) -> None:
        def run(tx: Any) -> None:
            new = kind()
            new.CopyFrom(tx.get(kind, id))
            edit(new)
            tx.update(new)

        self.simulator.ask(self.store, Write(run))
        self.simulator.settle()

    def delete(self, kind: type[Any], *ids: str) -> None:
        self.simulator.ask(self.store, Write(lambda tx: [tx.delete(kind, id) for id in ids] and None))
        self.simulator.settle()

    def call(self, service: str, name: str, request: Any, node: str = "", limits: Any = None, **who: Any) -> Sent:
        method = METHODS[path(service, name)]
        identity = Identity(node, **{"remote_addr": "10.0.0.7:40123", **who})
        call = InboundCall(method, request, identity, {}, limits or StreamLimits(), lambda: None)
        to_actor(self.actor)(call)
        self.simulator.settle()
        return Sent(call, method.response)

    def get(self, kind: type[Any], id: str) -> Any:
        found = self.published.view.get(kind, id)
        assert found is not None
        return found

    def run_for(self, seconds: float) -> None:
        """Lets time pass; a timer at its end keeps a jump over cancelled timers from going beyond."""
        self.simulator.set(seconds, lambda: None)
        self.simulator.run_for(seconds)

    @property
    def instance(self) -> Any:
        cell = self.actor.resolve()
        assert cell is not None
        return cell.instance

    @property
    def alive(self) -> bool:
        cell = self.actor.resolve()
        return cell is not None and cell.life is Life.RUNNING

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Meanwhile the actor handles nothing."""
        cell = self.actor.resolve()
        assert cell is not None
        cell.suspend(True)
        self.simulator.settle()
        yield
        cell.suspend(False)
        self.simulator.settle()

    def fail(self) -> None:
        """The actor fails, and lives again."""
        cell = self.actor.resolve()
        assert cell is not None
        cell.control(lambda: cell.failed(RuntimeError("broken by the test"), None))
        self.simulator.settle()


def cluster(period: float = 0.0) -> objects.Cluster:
    made = objects.Cluster(id="cluster")
    made.spec.annotations.name = "default"
    made.root_ca.ca_cert = b"root"
    if period:
        made.spec.dispatcher.heartbeat_period.FromMilliseconds(int(period * 1000))
    return made


def node(id: str, state: int = UNKNOWN) -> objects.Node:
    return objects.Node(id=id, status=types.NodeStatus(state=state))  # type: ignore[arg-type]


def task(id: str, node_id: str = "w1", state: int = types.ASSIGNED, secret: str = "") -> objects.Task:
    made = objects.Task(
        id=id,
        node_id=node_id,
        service_id="web",
        desired_state=types.RUNNING,
        status=types.TaskStatus(state=state),  # type: ignore[arg-type]
    )
    made.spec.container.image = "host"
    if secret:
        made.spec.container.secrets.add(secret_id=secret)
    return made


class Bench(LeaderBench):
    """A dispatcher, and what agents do."""

    def __init__(self, *stored: Any, nodes: tuple[str, ...] = ("w1", "w2"), period: float = 0.0, seed: int = 7) -> None:
        super().__init__(DispatcherActor, cluster(period), *map(node, nodes), *stored, seed=seed)

    def register(self, node_id: str = "w1", session_id: str = "", **who: Any) -> tuple[Sent, str]:
        """A session, and its id."""
        request = dispatcher.SessionRequest(session_id=session_id)
        request.description.hostname = f"host-{node_id}"
        stream = self.call("Dispatcher", "Session", request, node_id, **who)
        self.simulator.run_for(0.15)
        assert stream.look().items, stream.ending
        return stream, stream.items[-1].session_id

    def beat(self, session_id: str, node_id: str = "w1") -> Sent:
        request = dispatcher.HeartbeatRequest(session_id=session_id)
        return self.call("Dispatcher", "Heartbeat", request, node_id)

    def assign(self, session_id: str, node_id: str = "w1", **more: Any) -> Sent:
        request = dispatcher.AssignmentsRequest(session_id=session_id)
        return self.call("Dispatcher", "Assignments", request, node_id, **more)

    def report(self, session_id: str, *updates: tuple[str, int], node_id: str = "w1") -> Sent:
        request = dispatcher.UpdateTaskStatusRequest(session_id=session_id)
        for id, state in updates:
            request.updates.add(task_id=id).status.state = state  # type: ignore[assignment]
        return self.call("Dispatcher", "UpdateTaskStatus", request, node_id)

    def keep_alive(self, session_id: str, seconds: float, node_id: str = "w1") -> None:
        """Heartbeats for a while, as told."""
        until = self.simulator.time + seconds
        while self.simulator.time < until:
            (answer,) = self.beat(session_id, node_id).take()
            self.simulator.run_for(answer.period.ToMicroseconds() / 1e6)

    def state(self, node_id: str = "w1") -> tuple[int, str]:
        status = self.get(objects.Node, node_id).status
        return status.state, status.message

    def task_state(self, id: str) -> int:
        return int(self.get(objects.Task, id).status.state)


def told(message: dispatcher.AssignmentsMessage) -> list[str]:
    lines = []
    for each in message.changes:
        kind = str(each.assignment.WhichOneof("item"))
        sign = "+" if each.action == dispatcher.AssignmentChange.UPDATE else "-"
        lines.append(f"{sign}{kind} {getattr(each.assignment, kind).id}")
    return lines


def refusal(sent: Sent) -> tuple[Code, str]:
    return sent.refused.code, sent.refused.text


INVALID = (Code.INVALID_ARGUMENT, "session invalid")
UNREGISTERED = (Code.NOT_FOUND, "node not registered")
STOPPED = (Code.ABORTED, "dispatcher is stopped")


# Sessions


def test_a_session_begins_when_the_node_is_stored_as_ready_with_what_it_said() -> None:
    bench = Bench()
    request = dispatcher.SessionRequest()
    request.description.hostname = "alpha"
    stream = bench.call("Dispatcher", "Session", request, "w1")
    bench.simulator.run_for(0.09)
    assert stream.look().items == []
    bench.simulator.run_for(0.02)
    (first,) = stream.take()
    assert len(first.session_id) == 25
    assert first.RootCA == b"root"
    assert first.node == bench.get(objects.Node, "w1")
    assert first.node.status == types.NodeStatus(state=READY, addr="10.0.0.7")
    assert first.node.description.hostname == "alpha"
    assert not first.network_bootstrap_keys


def test_a_node_that_the_store_does_not_know_is_refused() -> None:
    stream = Bench().call("Dispatcher", "Session", dispatcher.SessionRequest(), "stranger")
    assert refusal(stream) == (Code.UNKNOWN, "node not found")


def test_a_node_that_is_removed_while_it_registers_is_refused() -> None:
    bench = Bench()
    stream = bench.call("Dispatcher", "Session", dispatcher.SessionRequest(), "w1")
    bench.delete(objects.Node, "w1")
    bench.simulator.run_for(0.2)
    assert refusal(stream) == (Code.UNKNOWN, "node not found")


def test_every_session_hears_of_managers_root_keys_and_its_own_node() -> None:
    bench = Bench()
    one, _ = bench.register("w1")
    two, _ = bench.register("w2")
    one.take(), two.take()
    members = {
        9: MemberStatus(9, "m9", "10.0.0.9:2377", False, True),
        4: MemberStatus(4, "m4", "10.0.0.4:2377", True, True),
    }
    bench.actor.tell(MembersChanged(members))
    bench.simulator.settle()
    for stream in (one, two):
        (message,) = stream.take()
        assert [(m.peer.node_id, m.peer.addr, m.weight) for m in message.managers] == [
            ("m4", "10.0.0.4:2377", 10),
            ("m9", "10.0.0.9:2377", 10),
        ]
    bench.actor.tell(MembersChanged(members))
    bench.change(objects.Cluster, "cluster", lambda c: c.spec.annotations.labels.update(a="b"))
    assert (one.take(), two.take()) == ([], []), "nothing of theirs changed"

    def rotate(changed: objects.Cluster) -> None:
        changed.root_ca.ca_cert = b"two roots"
        changed.network_bootstrap_keys.add(subsystem="networking:gossip", key=b"k", lamport_time=1)

    bench.change(objects.Cluster, "cluster", rotate)
    for stream in (one, two):
        (message,) = stream.take()
        assert message.RootCA == b"two roots"
        assert message.network_bootstrap_keys[0].lamport_time == 1
        assert len(message.managers) == 2
    bench.change(objects.Node, "w2", lambda n: setattr(n.spec, "availability", specs.NodeSpec.DRAIN))
    (message,) = two.take()
    assert message.node.spec.availability == specs.NodeSpec.DRAIN
    assert one.take() == []


def test_a_session_goes_on_under_its_id_and_announces_a_new_description() -> None:
    bench = Bench()
    first, session_id = bench.register()
    first.call.cancelled()
    request = dispatcher.SessionRequest(session_id=session_id)
    request.description.hostname = "renamed"
    again = bench.call("Dispatcher", "Session", request, "w1", remote_addr="[fd00::1]:77")
    assert again.take()[0].session_id == session_id
    bench.simulator.run_for(0.2)
    stored = bench.get(objects.Node, "w1")
    assert (stored.description.hostname, stored.status.addr) == ("renamed", "fd00::1")
    assert again.take()[0].node.description.hostname == "renamed"


def test_the_newest_session_of_a_node_is_its_only_one() -> None:
    bench = Bench()
    first, one = bench.register()
    assignments = bench.assign(one)
    _, two = bench.register()
    assert one != two
    assert refusal(first) == refusal(assignments) == INVALID
    for old in (bench.beat(one), bench.assign(one), bench.report(one, ("t", types.RUNNING))):
        assert refusal(old) == INVALID
    assert bench.beat(two).take()


def test_an_id_that_is_not_the_present_one_registers_anew() -> None:
    bench = Bench()
    _, session_id = bench.register("w1", "of-another-manager")
    assert session_id != "of-another-manager"


def test_a_node_without_a_session_is_told_apart_from_one_that_is_unknown() -> None:
    bench = Bench()
    for call in (bench.beat("s", "w1"), bench.assign("s", "w1"), bench.report("s", node_id="w1")):
        assert refusal(call) == INVALID
    for call in (bench.beat("s", "w9"), bench.assign("s", "w9"), bench.report("s", node_id="w9")):
        assert refusal(call) == UNREGISTERED


def test_the_fourth_registration_in_a_row_is_refused() -> None:
    bench = Bench()
    for _ in range(3):
        bench.register()
    stream = bench.call("Dispatcher", "Session", dispatcher.SessionRequest(), "w1")
    assert refusal(stream) == (Code.UNAVAILABLE, "node w1 exceeded rate limit count of registrations")
    bench.register("w2")
    bench.simulator.run_for(8.1)
    bench.register()


def test_this_nodes_own_agent_is_stored_under_the_managers_address() -> None:
    bench = Bench(nodes=("manager-1",))
    bench.register("manager-1", local=True, remote_addr="")
    assert bench.get(objects.Node, "manager-1").status.addr == "127.0.0.1"
    bench.actor.tell(MembersChanged({1: MemberStatus(1, "manager-1", "192.168.3.4:2377", True, True)}))
    bench.register("manager-1", local=True, remote_addr="")
    assert bench.get(objects.Node, "manager-1").status.addr == "192.168.3.4"


def test_an_address_that_is_none_is_left_out() -> None:
    bench = Bench()
    bench.register(remote_addr="nonsense")
    assert bench.get(objects.Node, "w1").status.addr == ""


def test_a_removed_node_loses_its_streams_at_once() -> None:
    bench = Bench()
    stream, session_id = bench.register()
    assignments = bench.assign(session_id)
    bench.delete(objects.Node, "w1")
    assert refusal(stream) == refusal(assignments) == UNREGISTERED
    assert refusal(bench.beat(session_id)) == UNREGISTERED


def test_a_slow_reader_ends_its_own_stream_and_its_session_lives_on() -> None:
    bench = Bench()
    slow, session_id = bench.register("w1", limits=StreamLimits(items_max=2))
    other, _ = bench.register("w2")
    for number in range(4):
        bench.change(objects.Cluster, "cluster", lambda c, n=number: setattr(c.root_ca, "ca_cert", b"%d" % n))
    assert slow.refused.code is Code.RESOURCE_EXHAUSTED
    assert other.open
    assert set(bench.instance.sessions) == {"w2"}
    assert bench.beat(session_id).take()


def test_a_client_that_goes_away_is_forgotten_and_its_node_stays_ready() -> None:
    bench = Bench()
    stream, session_id = bench.register()
    assignments = bench.assign(session_id)
    stream.call.cancelled()
    assignments.call.cancelled()
    bench.simulator.settle()
    assert (bench.instance.sessions, bench.instance.assignments) == ({}, {})
    assert bench.state() == (READY, "")


# Heartbeats


def test_heartbeats_are_answered_with_a_period_of_about_5_seconds() -> None:
    bench = Bench()
    _, session_id = bench.register()
    periods = [bench.beat(session_id).take()[0].period.ToMicroseconds() / 1e6 for _ in range(50)]
    assert all(4.5 <= period < 5.5 for period in periods)
    assert len(set(periods)) > 40


def test_the_clusters_period_is_followed_live() -> None:
    bench = Bench(period=2.0)
    _, session_id = bench.register()
    assert 1.5 <= bench.beat(session_id).take()[0].period.ToMicroseconds() / 1e6 < 2.5
    bench.change(objects.Cluster, "cluster", lambda c: c.spec.dispatcher.heartbeat_period.FromSeconds(30))
    assert 29.5 <= bench.beat(session_id).take()[0].period.ToMicroseconds() / 1e6 < 30.5


def test_a_node_that_beats_as_told_stays_ready_and_nothing_is_written() -> None:
    bench = Bench()
    _, session_id = bench.register()
    bench.simulator.run_for(40)  # w2 was never heard of: it goes down
    _, session_id = bench.register()
    entries = bench.entries
    bench.keep_alive(session_id, 300)
    assert bench.state() == (READY, "")
    assert bench.entries == entries


def test_a_node_that_falls_silent_is_down_after_three_periods() -> None:
    bench = Bench()
    stream, session_id = bench.register()
    bench.beat(session_id)
    bench.simulator.run_for(13.4)
    assert bench.state() == (READY, "")
    bench.simulator.run_for(3.4)
    assert bench.state() == (DOWN, "heartbeat failure")
    assert refusal(stream) == refusal(bench.beat(session_id)) == UNREGISTERED
    _, again = bench.register("w1", session_id)
    assert again != session_id
    assert bench.state() == (READY, "")


def patient(id: str, label: str) -> objects.Node:
    made = node(id, READY)
    made.spec.annotations.labels[LOST_AFTER] = label
    return made


KEEPS = "heartbeat failure; it keeps its tasks for 120 s: label swarmlet.lost-after"


def test_a_node_that_may_be_out_of_touch_is_disconnected_first_and_down_after_that() -> None:
    bench = Bench(patient("p", "2m"))
    stream, session_id = bench.register("p")
    bench.simulator.run_for(17)
    assert bench.state("p") == (DISCONNECTED, KEEPS)
    assert refusal(stream) == refusal(bench.beat(session_id, "p")) == UNREGISTERED
    bench.simulator.run_for(110)
    assert bench.state("p") == (DISCONNECTED, KEEPS)
    bench.simulator.run_for(11)
    assert bench.state("p") == (DOWN, "heartbeat failure")


def test_a_node_that_is_in_touch_again_in_time_was_never_down() -> None:
    bench = Bench(patient("p", "2m"))
    bench.register("p")
    bench.simulator.run_for(100)
    _, session_id = bench.register("p")
    assert bench.state("p") == (READY, "")
    bench.keep_alive(session_id, 300, "p")
    assert bench.state("p") == (READY, "")


def test_a_node_that_was_out_of_touch_does_not_go_on_in_the_session_that_ended() -> None:
    bench = Bench(patient("p", "2m"))
    _, session_id = bench.register("p")
    bench.simulator.run_for(50)
    _, again = bench.register("p", session_id)
    assert again != session_id
    bench.keep_alive(again, 300, "p")
    assert bench.state("p") == (READY, "")
    bench.simulator.run_for(17)
    assert bench.state("p") == (DISCONNECTED, KEEPS)


def test_a_new_leader_gives_a_node_all_of_its_time_again() -> None:
    lost = patient("p", "2m")
    lost.status.state = DISCONNECTED
    bench = Bench(lost)
    assert bench.state("p")[0] == UNKNOWN
    bench.simulator.run_for(140)
    assert bench.state("p") == (
        DISCONNECTED,
        'heartbeat failure for node in "unknown" state; it keeps its tasks for 120 s: label swarmlet.lost-after',
    )
    bench.simulator.run_for(14)
    assert bench.state("p")[0] == DOWN


def test_a_node_that_is_found_out_of_touch_while_it_registers_is_ready_in_the_end() -> None:
    bench = Bench(patient("p", "1h"))
    bench.simulator.run_for(20)
    bench.held = True
    stream = bench.call("Dispatcher", "Session", dispatcher.SessionRequest(), "p")
    bench.simulator.run_for(17)
    assert bench.instance.registry.keeps_until("p") is not None
    bench.held = False
    bench.log.tell("go on")
    bench.simulator.run_for(1)
    assert stream.take()
    assert bench.state("p") == (READY, "")


def test_what_a_node_that_is_out_of_touch_waits_for_is_said_with_its_time() -> None:
    bench = Bench(patient("p", "2m"))
    bench.register("p")
    bench.simulator.run_for(50)
    (wait,) = bench.simulator.ask(bench.actor, AskWaits(node_id="p")).waits
    assert wait.why == "it is out of touch; it keeps its tasks until it counts as down"
    assert wait.seconds is not None
    assert 80 < wait.seconds < 90


def test_nodes_are_unknown_when_a_manager_begins_to_lead_and_down_after_six_periods() -> None:
    bench = Bench(node("d", DOWN), node("r", READY))
    assert (
        bench.state("r")
        == bench.state("w1")
        == (
            UNKNOWN,
            'Node moved to "unknown" state due to leadership change in cluster',
        )
    )
    assert bench.state("d") == (DOWN, "")
    bench.register("w1")
    bench.simulator.run_for(26.5)
    assert bench.state("r")[0] == UNKNOWN
    bench.simulator.run_for(7)
    assert bench.state("r") == (DOWN, 'heartbeat failure for node in "unknown" state')


def test_a_node_that_is_given_up_while_it_registers_is_ready_in_the_end() -> None:
    bench = Bench(nodes=("w1",))
    bench.simulator.run_for(20)
    bench.held = True
    stream = bench.call("Dispatcher", "Session", dispatcher.SessionRequest(), "w1")
    bench.simulator.run_for(17)
    assert bench.instance.registry.is_down("w1")
    bench.held = False
    bench.log.tell("go on")
    bench.simulator.run_for(1)
    assert stream.take()
    assert bench.state() == (READY, "")


def test_the_tasks_of_a_node_that_is_down_for_a_day_are_orphans() -> None:
    states = {"a": types.ASSIGNED, "r": types.RUNNING, "f": types.FAILED}
    bench = Bench(
        *(task(id, "w1", state) for id, state in states.items()), task("o", "w2", types.RUNNING), nodes=("w1",)
    )
    bench.register()
    bench.simulator.run_for(DAY)
    assert bench.state()[0] == DOWN
    assert bench.task_state("r") == types.RUNNING
    bench.simulator.run_for(30)
    assert [bench.task_state(id) for id in "arfo"] == [types.ORPHANED, types.ORPHANED, types.FAILED, types.RUNNING]


def test_a_node_that_comes_back_within_the_day_keeps_its_tasks() -> None:
    bench = Bench(task("r", "w1", types.RUNNING))
    bench.register()
    bench.simulator.run_for(3600)
    _, session_id = bench.register()
    bench.keep_alive(session_id, DAY)
    assert bench.task_state("r") == types.RUNNING


def test_orphans_that_could_not_be_written_are_written_later() -> None:
    bench = Bench(task("r", "d", types.RUNNING), node("d", DOWN), nodes=())
    bench.simulator.run_for(DAY - 1)
    bench.refuse = 1
    bench.simulator.run_for(2)
    assert bench.task_state("r") == types.RUNNING
    bench.simulator.run_for(6)
    assert bench.task_state("r") == types.ORPHANED


# Assignments


def test_assignments_begin_complete_and_go_on_with_what_changes() -> None:
    bench = Bench(task("a"), task("other", "w2"), task("waits", "w1", types.PENDING))
    _, session_id = bench.register()
    stream = bench.assign(session_id)
    (first,) = stream.take()
    assert (first.type, first.applies_to, first.results_in) == (dispatcher.AssignmentsMessage.COMPLETE, "", "1")
    assert told(first) == ["+task a"]
    bench.change(objects.Task, "waits", lambda t: setattr(t.status, "state", types.ASSIGNED))
    bench.change(objects.Task, "a", lambda t: setattr(t, "desired_state", types.SHUTDOWN))
    assert stream.take() == []
    bench.simulator.run_for(0.11)
    (second,) = stream.take()
    assert (second.type, second.applies_to, second.results_in) == (dispatcher.AssignmentsMessage.INCREMENTAL, "1", "2")
    assert told(second) == ["+task waits", "+task a"]
    bench.delete(objects.Task, "a")
    bench.simulator.run_for(0.11)
    assert [told(each) for each in stream.take()] == [["-task a"]]


def test_changes_wait_for_fifty_quiet_milliseconds() -> None:
    bench = Bench()
    _, session_id = bench.register()
    stream = bench.assign(session_id)
    stream.take()
    for number in range(3):
        bench.create(task(f"t{number}"))
        bench.simulator.run_for(0.02)
    assert stream.take() == []
    bench.simulator.run_for(0.04)
    (message,) = stream.take()
    assert len(message.changes) == 3
    bench.simulator.run_for(5)
    assert stream.take() == []


def test_changes_that_keep_coming_wait_for_a_tenth_of_a_second_at_most() -> None:
    bench = Bench()
    _, session_id = bench.register()
    stream = bench.assign(session_id)
    stream.take()
    told_at = []
    for number in range(12):
        bench.create(task(f"t{number:02}"))
        bench.simulator.run_for(0.02)
        told_at += [(number, len(message.changes)) for message in stream.take()]
    bench.simulator.run_for(0.1)
    counts = [count for _, count in told_at] + [len(message.changes) for message in stream.take()]
    assert counts == [5, 5, 2]


def test_a_hundred_changes_do_not_wait() -> None:
    bench = Bench()
    _, session_id = bench.register()
    stream = bench.assign(session_id)
    stream.take()
    bench.create(*(task(f"t{number:03}") for number in range(250)))
    messages = stream.take()
    assert [len(each.changes) for each in messages] == [100, 100]
    bench.simulator.run_for(0.11)
    messages += stream.take()
    assert [each.applies_to for each in messages] == ["1", "2", "3"]
    assert len({told(each)[i] for each in messages for i in range(len(each.changes))}) == 250


def test_what_the_agent_said_is_not_said_back() -> None:
    bench = Bench(task("a"))
    _, session_id = bench.register()
    stream = bench.assign(session_id)
    stream.take()
    for state in (types.ACCEPTED, types.PREPARING, types.RUNNING):
        bench.report(session_id, ("a", state))
        bench.simulator.run_for(1)
    assert bench.task_state("a") == types.RUNNING
    assert stream.take() == []


def test_a_secret_comes_with_its_first_task_and_goes_with_the_last() -> None:
    secret = objects.Secret(id="s1")
    secret.spec.annotations.name = "password"
    secret.spec.data = b"xyzzy"
    bench = Bench(secret, task("a", secret="s1"))
    _, session_id = bench.register()
    stream = bench.assign(session_id)
    (first,) = stream.take()
    assert told(first) == ["+secret s1", "+task a"]
    assert first.changes[0].assignment.secret.spec.data == b"xyzzy"
    bench.create(task("b", secret="s1"))
    bench.report(session_id, ("a", types.FAILED))
    bench.simulator.run_for(0.5)
    assert [told(each) for each in stream.take()] == [["+task b"]]
    bench.report(session_id, ("b", types.COMPLETE))
    bench.simulator.run_for(0.5)
    assert [told(each) for each in stream.take()] == [["-secret s1"]]


def test_streams_are_told_nothing_older_than_their_beginning() -> None:
    """Calls that waited in the mailbox find a view that is ahead of the commits behind them."""
    bench = Bench(task("a"), task("b"))
    _, session_id = bench.register()
    with bench.suspended():
        request = dispatcher.AssignmentsRequest(session_id=session_id)
        assignments = bench.call("Dispatcher", "Assignments", request, "w1")
        again = dispatcher.SessionRequest(session_id=session_id)
        again.description.hostname = "host-w1"
        session = bench.call("Dispatcher", "Session", again, "w1")
        for number in range(5):
            bench.simulator.ask(bench.store, Write(_set_slot("a", number)))
        bench.delete(objects.Task, "b")
        bench.change(objects.Node, "w1", lambda n: setattr(n.spec, "availability", specs.NodeSpec.PAUSE))
    bench.run_for(1)
    (message,) = assignments.take()
    assert [each.assignment.task.slot for each in message.changes] == [4]
    assert [each.node.spec.availability for each in session.take()] == [specs.NodeSpec.PAUSE]


def _set_slot(id: str, slot: int) -> Any:
    def run(tx: Any) -> None:
        new = objects.Task()
        new.CopyFrom(tx.get(objects.Task, id))
        new.slot = slot
        tx.update(new)

    return run


@pytest.mark.parametrize("seed", range(8))
def test_streams_opened_in_the_middle_of_changes_end_up_with_the_truth(seed: int) -> None:
    bench = Bench(*(task(f"t{n}") for n in range(5)), seed=seed)
    _, session_id = bench.register()
    rng = random.Random(seed)
    held: dict[str, int] = {}
    for _ in range(6):
        for _ in range(rng.randrange(1, 12)):
            bench.store.tell(Write(_set_slot(f"t{rng.randrange(5)}", rng.randrange(1000))))
        for _ in range(rng.randrange(30)):
            if bench.simulator._ready:  # no timer is to pass: nobody beats here
                bench.simulator.step()
        held.clear()
        stream = bench.assign(session_id)
        bench.run_for(rng.random() * 0.3)
    bench.run_for(1)
    for message in stream.take():
        for change in message.changes:
            held[change.assignment.task.id] = change.assignment.task.slot
    assert held == {each.id: each.slot for each in bench.published.view.all(objects.Task)}


def test_a_second_stream_of_a_node_replaces_the_first() -> None:
    bench = Bench(task("a"))
    _, session_id = bench.register()
    first = bench.assign(session_id)
    bench.create(task("b"))
    second = bench.assign(session_id)
    assert first.refused.code is Code.ABORTED
    bench.simulator.run_for(1)
    (message,) = second.take()
    assert told(message) == ["+task a", "+task b"]


def test_a_slow_reader_of_assignments_ends_that_stream_alone() -> None:
    bench = Bench()
    session, session_id = bench.register()
    stream = bench.assign(session_id, limits=StreamLimits(items_max=2))
    for number in range(4):
        bench.create(task(f"t{number}"))
        bench.simulator.run_for(0.2)
    assert stream.refused.code is Code.RESOURCE_EXHAUSTED
    assert bench.instance.assignments == {}
    assert session.open
    assert told(bench.assign(session_id).take()[0]) == [f"+task t{number}" for number in range(4)]


def test_agents_that_know_no_changes_get_the_whole_list_each_time() -> None:
    bench = Bench(task("a"))
    _, session_id = bench.register()
    stream = bench.call("Dispatcher", "Tasks", dispatcher.TasksRequest(session_id=session_id), "w1")
    assert [[t.id for t in message.tasks] for message in stream.take()] == [["a"]]
    bench.create(task("b"))
    bench.simulator.run_for(0.2)
    assert [[t.id for t in message.tasks] for message in stream.take()] == [["a", "b"]]


def test_a_commit_touches_only_the_nodes_that_it_names() -> None:
    bench = Bench()
    _, one = bench.register("w1")
    _, two = bench.register("w2")
    bench.assign(one, "w1").take()
    quiet = bench.assign(two, "w2")
    quiet.take()
    before = bench.instance.assignments["w2"].assigned._changes
    bench.create(*(task(f"t{number}") for number in range(20)))
    assert bench.instance.assignments["w2"].assigned._changes is before
    assert bench.instance.assignments["w2"].timer is None
    assert quiet.take() == []


# Statuses


def test_statuses_are_written_together_after_a_tenth_of_a_second() -> None:
    bench = Bench(*(task(f"t{number}") for number in range(50)))
    _, session_id = bench.register()
    entries = bench.entries
    for number in range(50):
        assert bench.report(session_id, (f"t{number}", types.PREPARING)).take()
    bench.simulator.run_for(0.09)
    assert bench.entries == entries
    bench.simulator.run_for(0.06)
    assert bench.entries == entries + 1
    assert bench.get(objects.Task, "t49").status.state == types.PREPARING


def test_a_status_that_others_wait_for_is_written_after_a_quarter_of_the_time_and_leaves_others_their_own() -> None:
    bench = Bench(*(task(f"t{number}") for number in range(50)))
    _, session_id = bench.register()
    entries = bench.entries
    for number in range(49):
        assert bench.report(session_id, (f"t{number}", types.PREPARING)).take()
    assert bench.report(session_id, ("t49", types.RUNNING)).take()
    bench.simulator.run_for(0.02)
    assert bench.entries == entries
    bench.simulator.run_for(0.01)
    assert bench.entries == entries + 1
    assert (bench.task_state("t0"), bench.task_state("t49")) == (types.ASSIGNED, types.RUNNING)
    bench.simulator.run_for(0.09)
    assert bench.entries == entries + 2
    assert bench.task_state("t0") == types.PREPARING
    bench.simulator.run_for(1)
    assert bench.entries == entries + 2
    written = bench.get(objects.Task, "t49").status
    assert (written.state, written.applied_by) == (types.RUNNING, "manager-1")
    assert written.HasField("applied_at")


def test_states_that_a_task_passes_through_are_not_written_while_others_are() -> None:
    """Each look of the store's is at the words that somebody waits for, and at those that have waited long enough."""
    bench = Bench(task("slow"), *(task(f"t{number}") for number in range(4)))
    _, session_id = bench.register()
    seen = []
    steps = (types.ACCEPTED, types.PREPARING, types.READY, types.STARTING)
    for number, state in enumerate(steps):
        bench.report(session_id, ("slow", state), (f"t{number}", types.RUNNING))
        bench.simulator.run_for(0.06)
        assert bench.task_state(f"t{number}") == types.RUNNING
        seen.append(bench.task_state("slow"))
    assert seen == [types.ASSIGNED, types.PREPARING, types.PREPARING, types.STARTING]
    bench.simulator.run_for(1)
    assert bench.task_state("slow") == types.STARTING


def test_what_a_task_passed_through_is_not_written_behind_its_last_word() -> None:
    bench = Bench(task("a"))
    _, session_id = bench.register()
    entries = bench.entries
    bench.report(session_id, ("a", types.STARTING))
    bench.report(session_id, ("a", types.RUNNING))
    bench.report(session_id, ("a", types.PREPARING))
    bench.simulator.run_for(1)
    assert (bench.task_state("a"), bench.entries) == (types.RUNNING, entries + 1)


def test_the_last_word_about_a_task_counts_and_an_older_state_is_left_out() -> None:
    bench = Bench(task("a"))
    _, session_id = bench.register()
    bench.report(session_id, ("a", types.STARTING), ("a", types.RUNNING))
    bench.simulator.run_for(0.2)
    bench.report(session_id, ("a", types.PREPARING))
    bench.simulator.run_for(0.2)
    assert bench.task_state("a") == types.RUNNING


def test_a_call_that_was_lost_and_made_again_does_not_take_back_what_a_later_one_said() -> None:
    bench = Bench(task("a"))
    _, session_id = bench.register()
    bench.report(session_id, ("a", types.COMPLETE))
    bench.report(session_id, ("a", types.RUNNING))
    bench.simulator.run_for(0.2)
    assert bench.task_state("a") == types.COMPLETE


def test_a_task_of_another_node_refuses_all_and_unknown_ones_are_left_out() -> None:
    bench = Bench(task("a"), task("b", "w2"))
    _, session_id = bench.register()
    refused = bench.report(session_id, ("a", types.RUNNING), ("b", types.RUNNING))
    assert refusal(refused) == (Code.PERMISSION_DENIED, "cannot update a task not assigned this node")
    bench.simulator.run_for(0.2)
    assert (bench.task_state("a"), bench.task_state("b")) == (types.ASSIGNED, types.ASSIGNED)
    assert bench.report(session_id, ("gone", types.RUNNING), ("a", types.ACCEPTED)).take()
    request = dispatcher.UpdateTaskStatusRequest(session_id=session_id)
    request.updates.add(task_id="a")
    assert bench.call("Dispatcher", "UpdateTaskStatus", request, "w1").take()
    bench.simulator.run_for(0.2)
    assert bench.task_state("a") == types.ACCEPTED


def test_a_status_that_was_stored_already_costs_no_entry() -> None:
    bench = Bench(task("a"))
    _, session_id = bench.register()
    bench.report(session_id, ("a", types.RUNNING))
    bench.simulator.run_for(0.2)
    entries = bench.entries
    bench.report(session_id, ("a", types.RUNNING))
    bench.simulator.run_for(1)
    assert bench.entries == entries


def test_ten_thousand_statuses_do_not_wait() -> None:
    bench = Bench()
    _, session_id = bench.register()
    waiting = bench.instance._waiting.tasks
    for number in range(9_999):
        waiting[f"gone{number}"] = ("w1", types.TaskStatus())
    bench.create(task("a"))
    bench.report(session_id, ("a", types.RUNNING))
    assert bench.task_state("a") == types.RUNNING


def test_what_could_not_be_written_is_written_again_unless_newer_words_came() -> None:
    bench = Bench(task("a"), task("b"))
    _, session_id = bench.register()
    bench.held = True
    bench.report(session_id, ("a", types.STARTING), ("b", types.STARTING))
    bench.run_for(0.15)
    bench.report(session_id, ("a", types.RUNNING))
    bench.held = False
    bench.log.tell("refuse")
    bench.run_for(0.11)
    assert (bench.task_state("a"), bench.task_state("b")) == (types.RUNNING, types.STARTING)


def test_while_statuses_are_being_written_the_next_ones_wait_and_only_their_last_words_are_written() -> None:
    bench = Bench(task("a"), task("b"), task("c"))
    _, session_id = bench.register()
    entries = bench.entries
    bench.held = True
    bench.report(session_id, ("a", types.RUNNING))
    bench.run_for(0.05)
    assert bench.entries == entries + 1
    for state in (types.ACCEPTED, types.PREPARING, types.STARTING, types.RUNNING):
        bench.report(session_id, ("b", state), ("c", min(state, types.STARTING)))
        bench.run_for(0.15)
    assert bench.entries == entries + 1
    bench.held = False
    bench.log.tell("commit")
    bench.run_for(0.01)  # at once: what waited has waited long enough
    assert bench.entries == entries + 2
    states = tuple(map(bench.task_state, ("a", "b", "c")))
    assert states == (types.RUNNING, types.RUNNING, types.STARTING)


def test_states_that_nobody_waits_for_have_their_time_behind_a_write_that_was_quick() -> None:
    bench = Bench(task("a"), task("b"))
    _, session_id = bench.register()
    bench.report(session_id, ("a", types.RUNNING), ("b", types.ACCEPTED))
    bench.run_for(0.09)
    assert (bench.task_state("a"), bench.task_state("b")) == (types.RUNNING, types.ASSIGNED)
    bench.run_for(0.02)
    assert bench.task_state("b") == types.ACCEPTED


def test_nodes_and_volumes_do_not_wait_for_statuses_that_are_being_written() -> None:
    volume = objects.Volume(id="v")
    volume.spec.annotations.name = "v"
    volume.publish_status.add(node_id="w1", state=types.VolumePublishStatus.PENDING_NODE_UNPUBLISH)
    bench = Bench(task("a"), task("b"), volume)
    _, session_id = bench.register()
    entries = bench.entries
    bench.held = True
    bench.report(session_id, ("a", types.RUNNING))
    bench.run_for(0.05)
    bench.report(session_id, ("b", types.RUNNING))
    stream = bench.call("Dispatcher", "Session", dispatcher.SessionRequest(), "w2")
    request = dispatcher.UpdateVolumeStatusRequest(session_id=session_id)
    request.updates.add(id="v", unpublished=True)
    bench.call("Dispatcher", "UpdateVolumeStatus", request, "w1")
    bench.run_for(0.15)
    assert bench.entries == entries + 2  # the first status; the node and the volume together
    bench.held = False
    bench.log.tell("commit")
    bench.run_for(0.01)
    assert stream.look().items
    assert bench.entries == entries + 3
    assert bench.task_state("b") == types.RUNNING


def test_however_many_statuses_wait_for_others_that_are_written_they_are_written_once() -> None:
    bench = Bench(task("a"), task("b"))
    _, session_id = bench.register()
    bench.held = True
    bench.report(session_id, ("a", types.RUNNING))
    bench.run_for(0.05)
    entries = bench.entries
    for number in range(10_000):
        bench.instance._waiting.tasks[f"gone{number}"] = ("w1", types.TaskStatus())
    bench.report(session_id, ("b", types.RUNNING))
    bench.run_for(1)
    assert bench.entries == entries
    bench.held = False
    bench.log.tell("commit")
    bench.run_for(0.01)
    assert bench.entries == entries + 1
    assert (bench.task_state("b"), bench.instance._waiting.statuses) == (types.RUNNING, 0)


def test_a_registration_that_could_not_be_written_is_refused_with_the_reason() -> None:
    bench = Bench()
    bench.refuse = 1
    stream = bench.call("Dispatcher", "Session", dispatcher.SessionRequest(), "w1")
    bench.simulator.run_for(0.3)
    assert refusal(stream) == (Code.UNAVAILABLE, "refused by the test")
    bench.register()


def test_volumes_that_a_node_uses_no_more_are_written() -> None:
    volume = objects.Volume(id="v")
    volume.spec.annotations.name = "v"
    volume.publish_status.add(node_id="w1", state=types.VolumePublishStatus.PENDING_NODE_UNPUBLISH)
    bench = Bench(volume)
    _, session_id = bench.register()
    request = dispatcher.UpdateVolumeStatusRequest(session_id=session_id)
    request.updates.add(id="v", unpublished=True)
    request.updates.add(id="gone", unpublished=True)
    bench.call("Dispatcher", "UpdateVolumeStatus", request, "w1")
    bench.refuse = 1
    bench.simulator.run_for(1)
    (status,) = bench.get(objects.Volume, "v").publish_status
    assert status.state == types.VolumePublishStatus.PENDING_UNPUBLISH


# Ends


def test_a_dispatcher_that_stops_says_its_last_and_ends_all_streams() -> None:
    bench = Bench()
    session, session_id = bench.register()
    assignments = bench.assign(session_id)
    waiting = bench.call("Dispatcher", "Session", dispatcher.SessionRequest(), "w2")
    session.take()
    cell = bench.actor.resolve()
    assert cell is not None
    cell.request_stop()
    bench.simulator.settle()
    assert session.take()[0].session_id == session_id
    assert refusal(session) == refusal(assignments) == refusal(waiting) == STOPPED
    assert bench.beat(session_id).refused.code is Code.UNAVAILABLE


def test_a_life_that_fails_ends_its_streams_and_the_next_one_begins_as_a_new_leader_does() -> None:
    bench = Bench()
    session, session_id = bench.register()
    assignments = bench.assign(session_id)
    waiting = bench.call("Dispatcher", "Session", dispatcher.SessionRequest(), "w2")
    bench.fail()
    assert refusal(session) == refusal(assignments) == refusal(waiting) == STOPPED
    bench.simulator.run_for(0.2)
    assert bench.state()[0] == UNKNOWN
    assert refusal(bench.beat(session_id)) == INVALID
    _, again = bench.register("w1", session_id)
    assert again != session_id
    assert bench.state() == (READY, "")


def test_a_session_that_went_away_unnoticed_does_not_disturb_the_end() -> None:
    bench = Bench()
    gone, _ = bench.register("w1")
    stays, _ = bench.register("w2")
    cell = bench.actor.resolve()
    assert cell is not None
    gone.call.cancelled()
    cell.request_stop()
    bench.simulator.settle()
    assert cell.gone
    assert refusal(stays) == STOPPED


def test_a_store_that_refuses_everything_is_asked_ten_times_a_second() -> None:
    bench = Bench(task("a"))
    _, session_id = bench.register()
    for number in range(10_000):
        bench.instance._waiting.tasks[f"gone{number}"] = ("w1", types.TaskStatus())
    bench.refuse = 1000
    bench.report(session_id, ("a", types.RUNNING))
    before = bench.entries
    bench.run_for(2)
    assert 15 <= bench.entries - before <= 21
    bench.refuse = 0
    bench.run_for(0.2)
    assert bench.task_state("a") == types.RUNNING


class Node:
    """An agent with all its streams: begins a session when it has none, beats, follows, reports what it was given."""

    def __init__(self, bench: Bench, node_id: str) -> None:
        self.bench = bench
        self.id = node_id
        self.session_id = ""
        self.session: Sent | None = None
        self.assignments: Sent | None = None
        self.held: dict[str, objects.Task] = {}
        self.last = ""
        self.registrations = 0
        self.registered = False

    def turn(self) -> None:
        """About every second."""
        streams = (self.session, self.assignments)
        if self.session is None or not all(stream is None or stream.open for stream in streams):
            self._begin()
        self._hear()
        if not self.registered:
            return
        if self.assignments is None:
            self.assignments, self.last = self.bench.assign(self.session_id, self.id), ""
        for message in self.assignments.take():
            self._follow(message)
        if self.bench.beat(self.session_id, self.id).take():
            self.bench.report(self.session_id, *((id, types.RUNNING) for id in self.held), node_id=self.id)

    def _begin(self) -> None:
        """One broken stream ends them all."""
        for stream in (self.session, self.assignments):
            if stream is not None:
                stream.call.cancelled()
        request = dispatcher.SessionRequest(session_id=self.session_id)
        self.session = self.bench.call("Dispatcher", "Session", request, self.id)
        self.registrations += 1
        self.registered = False
        self.assignments = None
        self.bench.run_for(0.25)

    def _hear(self) -> None:
        """A manager in trouble may answer late."""
        assert self.session is not None
        for message in self.session.take():
            self.session_id, self.registered = message.session_id, True

    def _follow(self, message: dispatcher.AssignmentsMessage) -> None:
        assert message.applies_to == self.last
        self.last = message.results_in
        if message.type == dispatcher.AssignmentsMessage.COMPLETE:
            self.held = {}
        for change in message.changes:
            given = change.assignment.task
            if change.action == dispatcher.AssignmentChange.UPDATE:
                self.held[given.id] = given
            else:
                self.held.pop(given.id, None)


def change_tasks(bench: Bench, rng: random.Random, number: int) -> None:
    """Some task comes, changes or goes."""
    stored = [each.id for each in bench.published.view.all(objects.Task)]
    what = rng.randrange(4)
    if what <= 1 or not stored:
        bench.create(task(f"t{number}", f"w{rng.randrange(1, 4)}"))
    elif what == 2:
        bench.delete(objects.Task, rng.choice(stored))
    else:
        bench.change(objects.Task, rng.choice(stored), lambda t: setattr(t, "slot", t.slot + 1))


def do_harm(bench: Bench, rng: random.Random, nodes: list[Node]) -> None:
    """Some stream breaks, the log refuses, or the dispatcher fails."""
    what = rng.randrange(10)
    streams = [nodes[what].session, nodes[what].assignments] if what < 3 else []
    for stream in streams:
        if stream is not None and rng.random() < 0.7:
            stream.call.cancelled()
    if 3 <= what < 6:
        bench.refuse = rng.randrange(1, 4)
    elif what == 6 and bench.alive:
        bench.fail()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_nodes_end_up_ready_with_what_the_store_holds(seed: int) -> None:
    bench = Bench(nodes=("w1", "w2", "w3"), seed=seed)
    rng = random.Random(seed)
    nodes = [Node(bench, each) for each in ("w1", "w2", "w3")]
    for number in range(60):
        bench.refuse = 0
        change_tasks(bench, rng, number)
        do_harm(bench, rng, nodes)
        bench.run_for(rng.random() * 3)
        for each in nodes:
            if rng.random() < 0.8:
                each.turn()
    bench.refuse = 0
    while not bench.alive:
        bench.run_for(1)
    bench.run_for(9)  # what the limit of registrations remembers; sessions outlive it
    for _ in range(4):
        for each in nodes:
            each.turn()
        bench.run_for(1)
    for each in nodes:
        stored = bench.published.view.find(objects.Task, "node", each.id)
        assert bench.state(each.id) == (READY, "")
        assert {id: given.slot for id, given in each.held.items()} == {one.id: one.slot for one in stored}
        assert {one.status.state for one in stored} <= {types.RUNNING}
        assert each.registrations > 1
    assert set(bench.instance.sessions) == {"w1", "w2", "w3"}


# Over a network


def test_over_a_network_with_certificates() -> None:
    bench = Bench(task("a"), nodes=("w1",))
    simulator = bench.simulator
    begun = time.time()  # the certificates are of today

    def schedule(delay: float, call: Any) -> None:
        simulator.set(delay, call)

    network = MemoryNetwork(
        schedule, random.Random(5), clock=lambda: begun + simulator.time, jitter=0.002, dead_after=3.0
    )
    names = ("Session", "Assignments", "Heartbeat", "UpdateTaskStatus")
    table = service_routes({path("Dispatcher", name): to_actor(bench.actor) for name in names})
    network.transport("manager").serve(
        "manager:2377", table, access=lambda: Access(CLUSTER), credentials=authority().manager()
    )
    channel = network.transport("worker").connect("manager:2377", authority().worker(node_id="w1"))
    said: list[Any] = []
    ends: list[Any] = []
    channel.stream(path("Dispatcher", "Session"), dispatcher.SessionRequest(), on_item=said.append, on_end=ends.append)
    simulator.run_until(lambda: bool(said), 5)
    session_id = said[0].session_id
    assert said[0].node.id == "w1"
    given: list[Any] = []
    request = dispatcher.AssignmentsRequest(session_id=session_id)
    channel.stream(path("Dispatcher", "Assignments"), request, on_item=given.append, on_end=ends.append)
    simulator.run_until(lambda: bool(given), 5)
    assert told(given[0]) == ["+task a"]
    answers: list[Any] = []
    report = dispatcher.UpdateTaskStatusRequest(session_id=session_id)
    report.updates.add(task_id="a").status.state = types.RUNNING
    channel.unary(path("Dispatcher", "UpdateTaskStatus"), report, timeout=5, done=answers.append)
    simulator.run_until(lambda: bench.task_state("a") == types.RUNNING, 5)
    network.partition("manager", "worker")
    simulator.run_for(17)
    assert bench.state() == (DOWN, "heartbeat failure")
    assert len(ends) == 2
    assert bench.instance.sessions == {}


# Published services


WEB = PublishedPort(8080)


def process_node(bench: Bench, node_id: str = "w1") -> Sent:
    """The assignments of a node of processes."""
    request = dispatcher.SessionRequest()
    request.description.engine.labels["swarmlet.executor"] = "process"
    stream = bench.call("Dispatcher", "Session", request, node_id)
    bench.simulator.run_for(0.15)
    return bench.assign(stream.look().items[-1].session_id, node_id)


def published_service(port: int = 8080) -> objects.Service:
    made = objects.Service(id="web")
    made.spec.annotations.name = "web"
    made.endpoint.ports.add(target_port=80, published_port=port)
    return made


def serving(id: str, node_id: str = "w2") -> objects.Task:
    made = task(id, node_id, types.RUNNING)
    made.status.port_status.ports.add(target_port=80, published_port=9000, publish_mode=types.PortConfig.HOST)
    return made


def tables(*messages: dispatcher.AssignmentsMessage) -> list[Any]:
    """The routes of every table in messages."""
    changes = [each for message in messages for each in message.changes]
    configs = [each.assignment.config for each in changes if each.assignment.WhichOneof("item") == "config"]
    return [routes([config.spec.data]) for config in configs]


def test_a_node_of_processes_goes_on_with_the_trace_that_its_assignments_come_of() -> None:
    bench = Bench()
    links: list[tuple[int, int]] = []
    bench.simulator.linkers.append(lambda cause, effect: links.append((cause, effect)))
    stream = process_node(bench)
    stream.take()
    links.clear()
    for id in ("t1", "t2"):
        bench.create(task(id))
    bench.simulator.run_for(0.2)
    (message,) = stream.take()
    trace = trace_in(message)
    assert trace
    assert len([cause for cause, effect in links if effect == trace]) == 2
    assert message.results_in == f"2.{trace:x}"


def test_a_node_of_containers_is_told_no_trace() -> None:
    bench = Bench()
    _, session_id = bench.register()
    stream = bench.assign(session_id)
    stream.take()
    bench.create(task("t1"))
    bench.simulator.run_for(0.2)
    assert [each.results_in for each in stream.take()] == ["2"]


def test_a_node_of_processes_is_told_where_the_tasks_of_published_services_answer() -> None:
    bench = Bench(published_service(), serving("t1"))
    bench.register("w2", remote_addr="10.0.0.9:1000")
    bench.run_for(0.3)
    stream = process_node(bench)
    first = stream.take()
    assert told(first[0]) == ["+config swarmlet.ingress.web"]
    assert tables(*first)[-1] == {WEB: (Backend("10.0.0.9", 9000, "t1"),)}
    bench.create(serving("t2"))
    bench.run_for(0.3)
    (told_now,) = tables(*stream.take())
    assert [each.task_id for each in told_now[WEB]] == ["t1", "t2"]


def test_a_task_is_taken_out_when_it_is_to_stop_and_a_lost_nodes_tasks_are_too() -> None:
    bench = Bench(published_service(), serving("t1"), serving("t2", "w1"), period=5)
    bench.register("w2", remote_addr="10.0.0.9:1000")
    stream = process_node(bench)
    bench.run_for(0.3)
    stream.take()
    bench.change(objects.Task, "t2", lambda made: setattr(made, "desired_state", types.SHUTDOWN))
    bench.run_for(0.3)
    (told_now,) = tables(*stream.take())
    assert [each.task_id for each in told_now[WEB]] == ["t1"]
    bench.change(objects.Node, "w2", lambda made: setattr(made.status, "state", DOWN))
    bench.run_for(0.3)
    assert tables(*stream.take()) == [{WEB: ()}]
    bench.delete(objects.Service, "web")
    bench.run_for(0.3)
    assert [told(message) for message in stream.take()] == [["-config swarmlet.ingress.web"]]


def test_a_node_of_containers_is_told_no_tables() -> None:
    bench = Bench(published_service(), serving("t1"))
    _, session = bench.register("w1")
    stream = bench.assign(session)
    bench.change(objects.Service, "web", lambda made: setattr(made.endpoint.ports[0], "published_port", 8081))
    bench.run_for(0.5)
    assert [told(message) for message in stream.take()] == [[]]
