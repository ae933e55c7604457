"""SessionActor: registering, heartbeats, assignments, back-off, and whom it turns to."""

from __future__ import annotations

from typing import Any

import pytest

from actors.session_actor import SessionActor
from runtime.errors import Code, Refused
from runtime.protocol.agent import (
    AgentSetup,
    Assignments,
    CertificateRenewed,
    IngressBlocked,
    Managers,
    ManagersSeen,
    RootSeen,
    SendStatuses,
    SessionBegan,
    SessionDown,
    SessionEnded,
    SessionLife,
    SessionUp,
)
from runtime.protocol.node import NodeChanged
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.swarm.agent_remotes import Remotes
from runtime.swarm.ingress_blocked import blocked_on
from runtime.wire.pb import dispatcher_pb2, objects_pb2, types_pb2
from runtime.wire.port import MANAGER, WORKER
from tests.unit.agent import dispatcher
from tests.unit.agent.dispatcher import SOCKET, later, silence, task
from tests.unit.agent.executor import FakeExecutor
from tests.unit.wire.authority import authority

REMOTE = "m1:2377"


class Bench:
    """A session's actor beside a manager at the local socket; the test plays agent and node."""

    def __init__(self, seed: int = 3, *, begin: bool = True, **manager: Any) -> None:
        self.simulator = Simulator(seed)
        self.network = dispatcher.network(self.simulator)
        self.transport = self.network.transport("n1")
        self.executor = FakeExecutor()
        self.stage = self.simulator.node("n1", transport=self.transport, executor=self.executor)
        self.agent = Probe(self.simulator, self.stage, "agent")
        self.node = Probe(self.simulator, self.stage, "node")
        self.manager = dispatcher.Manager(self.transport, **manager)
        self.credentials = dispatcher.worker()
        setup = AgentSetup("n1", "host1", self.credentials)
        self.session = self.stage.mount("session", SessionActor, self.agent.address, self.node.address, setup)
        self.agent.expect(SessionLife)
        if begin:
            self.tell(Managers(SOCKET))

    def tell(self, message: Any) -> None:
        self.session.tell(message)
        later(self.simulator, 0.02)

    def up(self) -> None:
        self.agent.expect(SessionBegan)
        self.node.expect(SessionUp)
        later(self.simulator, 0.02)

    @property
    def actor(self) -> SessionActor:
        cell = self.session.resolve()
        assert cell is not None
        assert isinstance(cell.instance, SessionActor)
        return cell.instance


def status(state: int = types_pb2.RUNNING) -> types_pb2.TaskStatus:
    return types_pb2.TaskStatus(state=state)  # type: ignore[arg-type]


# Beginnings


def test_a_session_is_announced_to_agent_and_node() -> None:
    bench = Bench()
    assert bench.agent.expect(SessionBegan) == SessionBegan("session-1", SOCKET)
    assert bench.node.expect(SessionUp) == SessionUp("n1")
    (call,) = bench.manager.sessions
    assert isinstance(call.request, dispatcher_pb2.SessionRequest)
    assert call.request.session_id == ""
    assert call.request.description.hostname == "host1"
    assert call.request.description.platform.os == "linux"


def test_the_description_says_who_signed_the_certificate() -> None:
    bench = Bench()
    bench.up()
    tls = bench.manager.sessions[0].request.description.tls_info  # type: ignore[attr-defined]
    assert tls.trust_root == authority().pem
    assert tls.cert_issuer_subject == authority().certificate.subject.public_bytes()
    assert tls.cert_issuer_public_key


def test_nothing_is_tried_while_no_manager_is_known() -> None:
    bench = Bench(begin=False)
    bench.tell(Managers(None))
    silence(bench.simulator, bench.node, SessionDown, 60)
    bench.tell(Managers(SOCKET))
    bench.up()


def test_a_manager_that_says_nothing_for_five_seconds_is_left() -> None:
    bench = Bench(silent=True)
    silence(bench.simulator, bench.node, SessionDown, 4.9)
    assert "timed out" in bench.node.expect(SessionDown, within=0.2).text
    assert bench.agent.messages == [], "a session that never was has not ended"


def test_a_manager_that_cannot_be_reached_is_tried_again_with_a_growing_bound() -> None:
    bench = Bench()
    bench.up()
    bench.manager.server.close(0.0)
    bench.node.expect(SessionDown)
    bounds = []
    for _ in range(9):
        bounds.append(round(bench.actor.backoff.bound, 3))
        bench.node.expect(SessionDown, within=20)
    assert bounds[:5] == [0.1, 0.3, 0.7, 1.5, 3.1]
    assert bounds[-1] == 8.0
    bench.agent.expect(SessionEnded)
    silence(bench.simulator, bench.agent, SessionEnded)


def test_the_next_session_offers_the_old_ones_id_and_forgets_the_errors() -> None:
    bench = Bench()
    bench.up()
    bench.manager.sessions[0].fail(Refused(Code.ABORTED, "the leader stopped"))
    assert bench.agent.expect(SessionEnded).text == "Aborted: the leader stopped"
    bench.up()
    assert bench.manager.sessions[1].request.session_id == "session-1"  # type: ignore[attr-defined]
    assert bench.actor.backoff.bound == 0.0


# Heartbeats


def test_the_first_heartbeat_goes_at_once_and_the_next_after_the_managers_period() -> None:
    bench = Bench(begin=False)
    bench.manager.period = 3.5
    bench.tell(Managers(SOCKET))
    bench.up()
    assert len(bench.manager.beats) == 1
    later(bench.simulator, 3.4)
    assert len(bench.manager.beats) == 1
    later(bench.simulator, 0.2)
    assert len(bench.manager.beats) == 2
    assert bench.manager.beats[1].request.session_id == "session-1"  # type: ignore[attr-defined]


def test_a_manager_cannot_make_a_node_spin() -> None:
    bench = Bench(begin=False)
    bench.manager.period = 0.0
    bench.tell(Managers(SOCKET))
    bench.up()
    later(bench.simulator, 1.0)
    assert 8 <= len(bench.manager.beats) <= 12


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Refused(Code.NOT_FOUND, "node n1"), "node not registered"),
        (Refused(Code.INVALID_ARGUMENT, "session invalid"), "heartbeat failed: InvalidArgument: session invalid"),
    ],
)
def test_a_refused_heartbeat_ends_the_session(error: Refused, text: str) -> None:
    bench = Bench()
    bench.up()
    bench.manager.beat_error = error
    assert bench.agent.expect(SessionEnded).text == text
    assert bench.node.expect(SessionDown).text == text


def removed(node_id: str = "n1") -> Refused:
    text = f"Permission denied: node {node_id} was removed from swarm"
    return Refused(Code.PERMISSION_DENIED, f"Permission denied: unauthorized peer role: rpc error: desc = {text}")


def test_a_removed_node_hears_so_from_a_heartbeat_and_tries_again_but_once_a_minute() -> None:
    bench = Bench()
    bench.up()
    bench.manager.beat_error = removed()
    assert bench.node.expect(SessionDown).removed
    sessions = len(bench.manager.sessions)
    later(bench.simulator, 59.0)
    assert len(bench.manager.sessions) == sessions
    bench.manager.beat_error = None
    later(bench.simulator, 2.0)
    bench.up()


@pytest.mark.parametrize("error", [removed("n2"), removed("n"), Refused(Code.UNKNOWN, removed().text)])
def test_a_refusal_that_says_nothing_of_this_nodes_removal_does_not_count_as_one(error: Refused) -> None:
    bench = Bench()
    bench.up()
    bench.manager.beat_error = error
    assert not bench.node.expect(SessionDown).removed
    later(bench.simulator, 1.0)
    assert len(bench.manager.sessions) > 1


def test_a_manager_that_vanishes_behind_the_network_is_noticed_by_heartbeats() -> None:
    bench = Bench(begin=False)
    far = bench.network.transport("m1")
    dispatcher.Manager(far, "m1:2377")
    bench.tell(Managers(None, (("m1", REMOTE),)))
    bench.up()
    bench.network.partition("n1", "m1")
    ended = bench.agent.expect(SessionEnded, within=11)
    assert "DeadlineExceeded" in ended.text


def test_no_heartbeat_of_an_ended_session_is_sent_in_the_next_one() -> None:
    bench = Bench()
    bench.up()
    for _ in range(3):
        bench.manager.sessions[-1].end()
        bench.agent.expect(SessionEnded)
        bench.up()
    assert len(bench.network._connections) == 1, "what an ended session used is closed"
    before = len(bench.manager.beats)
    later(bench.simulator, 20.1)
    assert len(bench.manager.beats) - before == 4


# Assignments


def test_assignments_reach_the_agent_in_order() -> None:
    bench = Bench()
    bench.up()
    bench.manager.assign(task("t1"))
    bench.manager.assign(task("t2"))
    first, second = (bench.agent.expect(Assignments).message for _ in range(2))
    assert (first.type, second.type) == (dispatcher_pb2.AssignmentsMessage.COMPLETE, 1)
    assert second.changes[0].assignment.task.id == "t2"


def test_a_trace_goes_on_with_assignments_and_back_with_the_statuses_that_came_of_them() -> None:
    bench = Bench()
    bench.up()
    seen: list[int] = []
    kept = bench.simulator.observers
    kept.append(lambda _cell, told: seen.append(told[4]) if isinstance(told[0], Assignments) else None)
    bench.manager.assign(task("t1"))
    bench.manager.assign(task("t2"), results_in="2.abc")
    for _ in range(2):
        bench.agent.expect(Assignments)
    assert seen[1] == 0xABC
    assert seen[0] != 0xABC
    bench.session.send(SendStatuses((("t2", status()),)), None, None, 0xABC)
    bench.simulator.run_for(0.1)
    assert bench.manager.report_metadata[-1]["swarmlet-trace"] == ("abc",)
    silence(bench.simulator, bench.agent, SessionEnded)


def test_a_gap_in_the_assignments_ends_the_session_and_the_next_begins_complete() -> None:
    bench = Bench()
    bench.up()
    bench.manager.assign(task("t1"))
    bench.manager.assign(task("t2"), applies_to="7")
    assert "out of sequence" in bench.agent.expect(SessionEnded).text
    assert bench.agent.expect(Assignments).message.changes[0].assignment.task.id == "t1"
    bench.up()
    bench.manager.assign(task("t2"))
    assert bench.agent.expect(Assignments).message.type == dispatcher_pb2.AssignmentsMessage.COMPLETE
    silence(bench.simulator, bench.agent, SessionEnded)


def test_a_manager_without_assignments_is_asked_for_its_list_of_tasks() -> None:
    bench = Bench(tasks_only=True)
    bench.up()
    bench.manager.task_streams[0].send(dispatcher_pb2.TasksMessage(tasks=[task("t1"), task("t2")]))
    message = bench.agent.expect(Assignments).message
    assert message.type == dispatcher_pb2.AssignmentsMessage.COMPLETE
    assert [change.assignment.task.id for change in message.changes] == ["t1", "t2"]
    silence(bench.simulator, bench.agent, SessionEnded)


def test_the_end_of_the_assignments_is_the_end_of_the_session() -> None:
    bench = Bench()
    bench.up()
    bench.manager.streams[0].end()
    bench.agent.expect(SessionEnded)


# Statuses


def test_many_statuses_go_in_one_call() -> None:
    bench = Bench()
    bench.up()
    bench.simulator.ask(bench.session, SendStatuses((("t1", status()), ("t2", status()))))
    (report,) = bench.manager.reports
    assert report.session_id == "session-1"
    assert [update.task_id for update in report.updates] == ["t1", "t2"]


def test_a_manager_that_knows_nothing_of_it_has_nothing_more_to_hear() -> None:
    bench = Bench()
    bench.up()
    bench.manager.report_error = Refused(Code.NOT_FOUND, "no such task")
    assert bench.simulator.ask(bench.session, SendStatuses((("t1", status()),))) is None
    silence(bench.simulator, bench.agent, SessionEnded)


def test_a_refused_report_ends_the_session() -> None:
    bench = Bench()
    bench.up()
    bench.manager.report_error = Refused(Code.PERMISSION_DENIED, "not yours")
    with pytest.raises(Refused, match="not yours"):
        bench.simulator.ask(bench.session, SendStatuses((("t1", status()),)))
    assert "reporting statuses failed" in bench.agent.expect(SessionEnded).text


def test_without_a_session_nothing_is_reported() -> None:
    bench = Bench(begin=False)
    with pytest.raises(Refused, match="no session"):
        bench.simulator.ask(bench.session, SendStatuses((("t1", status()),)))


def test_reports_under_way_are_refused_when_the_session_ends() -> None:
    bench = Bench()
    bench.up()
    bench.manager.hold_reports = True
    future = bench.session.ask(SendStatuses((("t1", status()),)))
    later(bench.simulator, 0.1)
    bench.manager.sessions[0].end()
    bench.agent.expect(SessionEnded)
    with pytest.raises(Refused, match="session ended"):
        future.result(0)


# What managers say


def test_the_managers_of_a_session_are_remembered_and_told() -> None:
    bench = Bench(begin=False)
    bench.manager.managers = [
        types_pb2.WeightedPeer(peer=types_pb2.Peer(node_id="m3", addr="m3:2377"), weight=10),
        types_pb2.WeightedPeer(peer=types_pb2.Peer(node_id="m1", addr="m1:2377"), weight=10),
        types_pb2.WeightedPeer(peer=types_pb2.Peer(node_id="m2", addr=""), weight=10),
    ]
    bench.tell(Managers(SOCKET, (("m9", "m9:2377"),)))
    bench.up()
    assert bench.node.expect(ManagersSeen).remotes == (("m1", "m1:2377", 10), ("m3", "m3:2377", 10))
    assert ("m1", "m1:2377") in bench.actor.remotes
    assert ("m9", "m9:2377") not in bench.actor.remotes


def test_an_empty_list_of_managers_makes_nobody_forgotten() -> None:
    bench = Bench(begin=False)
    bench.tell(Managers(SOCKET, (("m9", "m9:2377"),)))
    bench.up()
    assert ("m9", "m9:2377") in bench.actor.remotes


def test_a_changed_node_is_told_once_whatever_its_status() -> None:
    bench = Bench()
    bench.up()
    assert bench.node.expect(NodeChanged) == NodeChanged(WORKER)
    bench.manager.node.status.state = types_pb2.NodeStatus.READY
    bench.manager.node.meta.version.index = 99
    bench.manager.say()
    silence(bench.simulator, bench.node, NodeChanged)
    bench.manager.node.spec.desired_role = types_pb2.MANAGER
    bench.manager.say()
    assert bench.node.expect(NodeChanged) == NodeChanged(MANAGER)
    bench.manager.node.certificate.status.state = types_pb2.IssuanceStatus.ROTATE
    bench.manager.say()
    assert bench.node.expect(NodeChanged) == NodeChanged(MANAGER, rotate=True)


def test_every_session_tells_what_the_node_is_to_be() -> None:
    bench = Bench()
    bench.up()
    bench.node.expect(NodeChanged)
    bench.manager.sessions[0].end()
    bench.agent.expect(SessionEnded)
    bench.up()
    assert bench.node.expect(NodeChanged) == NodeChanged(WORKER)


def test_another_root_is_told_once() -> None:
    bench = Bench(begin=False)
    bench.manager.root = bench.credentials.material.roots
    bench.tell(Managers(SOCKET))
    bench.up()
    silence(bench.simulator, bench.node, RootSeen)
    bench.manager.root = b"-----BEGIN CERTIFICATE-----"
    bench.manager.say()
    assert bench.node.expect(RootSeen).root_pem == bench.manager.root
    bench.manager.say()
    silence(bench.simulator, bench.node, RootSeen)


# Whom to turn to


def test_the_local_manager_is_preferred() -> None:
    bench = Bench(begin=False)
    other = dispatcher.Manager(bench.network.transport("m1"), REMOTE)
    bench.tell(Managers(SOCKET, (("m1", REMOTE),)))
    bench.up()
    assert not other.sessions


def test_a_remote_manager_is_reached_over_tls() -> None:
    bench = Bench(begin=False)
    other = dispatcher.Manager(bench.network.transport("m1"), REMOTE)
    bench.tell(Managers(None, (("m1", REMOTE),)))
    bench.up()
    assert other.sessions[0].identity.node_id == "n1"


def test_a_local_manager_that_appears_during_the_back_off_is_taken_at_once() -> None:
    bench = Bench(begin=False)
    bench.tell(Managers(None, (("m1", "nowhere:2377"),)))
    for _ in range(8):
        bench.node.expect(SessionDown, within=20)
    bench.tell(Managers(SOCKET, (("m1", "nowhere:2377"),)))
    bench.agent.expect(SessionBegan, within=0.1)


def test_a_manager_that_fails_is_thought_less_of_and_the_other_gets_its_turn() -> None:
    bench = Bench(begin=False)
    other = dispatcher.Manager(bench.network.transport("m2"), "m2:2377")
    bad, good = ("m1", "nowhere:2377"), ("m2", "m2:2377")
    bench.actor.remotes.told([bad, good])
    bench.actor.remotes.keep_only([bad])
    bench.tell(Managers(None, (bad,)))
    bench.node.expect(SessionDown)
    assert bench.actor.remotes.weight(bad) < 0
    bench.tell(Managers(None, (bad, good)))
    bench.agent.expect(SessionBegan, within=60)
    assert len(other.sessions) == 1


def test_every_end_that_was_not_wanted_counts_against_the_manager() -> None:
    bench = Bench(begin=False)
    far = dispatcher.Manager(bench.network.transport("m1"), REMOTE)
    bench.tell(Managers(None, (("m1", REMOTE),)))
    bench.up()
    before = bench.actor.remotes.weight(("m1", REMOTE))
    far.sessions[0].end()
    bench.agent.expect(SessionEnded)
    assert bench.actor.remotes.weight(("m1", REMOTE)) < before


# What this node is


def test_a_changed_description_is_announced_in_a_new_session_within_twenty_seconds() -> None:
    bench = Bench()
    bench.up()
    later(bench.simulator, 45)
    assert len(bench.manager.sessions) == 1
    bench.executor.description = types_pb2.NodeDescription(engine=types_pb2.EngineDescription(engine_version="2"))
    bench.agent.expect(SessionEnded, within=20.1)
    bench.agent.expect(SessionBegan, within=0.2)
    assert bench.manager.sessions[1].request.description.engine.engine_version == "2"  # type: ignore[attr-defined]


def test_published_ports_that_are_somebody_elses_are_in_the_description_until_they_are_free() -> None:
    bench = Bench()
    bench.up()
    for number, ports in enumerate(((("8080/tcp", "Address already in use"), ("53/udp", "Permission denied")), ()), 1):
        bench.tell(IngressBlocked(ports))
        bench.agent.expect(SessionEnded)
        bench.up()
        described = bench.manager.sessions[number].request.description  # type: ignore[attr-defined]
        assert blocked_on(objects_pb2.Node(description=described)) == dict(ports)
        bench.tell(IngressBlocked(ports))
        silence(bench.simulator, bench.agent, SessionEnded)


def test_a_renewed_certificate_changes_nothing() -> None:
    bench = Bench()
    bench.up()
    chain, key = authority().issue("n1", WORKER, start=dispatcher.LONG_AGO)
    bench.credentials.replace(roots=authority().pem, certificate=chain, key=key)
    bench.tell(CertificateRenewed())
    silence(bench.simulator, bench.agent, SessionEnded)


def test_a_new_role_needs_a_new_session() -> None:
    bench = Bench()
    bench.up()
    chain, key = authority().issue("n1", MANAGER, start=dispatcher.LONG_AGO)
    bench.credentials.replace(roots=authority().pem, certificate=chain, key=key)
    bench.tell(CertificateRenewed())
    bench.agent.expect(SessionEnded)
    bench.up()
    bench.tell(CertificateRenewed(MANAGER))
    silence(bench.simulator, bench.agent, SessionEnded)


def test_another_issuer_is_announced_at_once() -> None:
    bench = Bench()
    bench.up()
    chain, key = authority().issue("n1", WORKER, start=dispatcher.LONG_AGO)
    bench.credentials.replace(roots=authority().pem * 2, certificate=chain, key=key)
    bench.tell(CertificateRenewed())
    assert "issuer" in bench.agent.expect(SessionEnded).text


# Lives


def test_a_failed_life_ends_its_session_and_asks_for_managers_again() -> None:
    bench = Bench()
    bench.up()
    cancelled: list[bool] = []
    bench.manager.sessions[0].on_cancel(lambda: cancelled.append(True))
    cell = bench.session.resolve()
    assert cell is not None
    cell.failed(RuntimeError("broken"), None)
    bench.agent.expect(SessionLife)
    later(bench.simulator, 0.1)
    assert cancelled == [True]
    assert "failed" in bench.node.expect(SessionDown).text
    bench.tell(Managers(SOCKET))
    bench.up()


def test_the_end_of_the_actor_ends_the_session() -> None:
    bench = Bench()
    bench.up()
    cell = bench.session.resolve()
    assert cell is not None
    cell.request_stop()
    later(bench.simulator, 0.1)
    beats = len(bench.manager.beats)
    later(bench.simulator, 30)
    assert len(bench.manager.beats) == beats
    assert len(bench.manager.sessions) == 1


def test_equal_seeds_choose_alike() -> None:
    def choices(seed: int) -> list[Any]:
        rng = Simulator(seed).node("n").world.random
        remotes = Remotes()
        remotes.told([(f"m{i}", f"m{i}:1") for i in range(5)])
        return [remotes.select(rng) for _ in range(20)]

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)
