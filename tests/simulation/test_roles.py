"""Nodes that become managers and workers while the swarm runs: certificates, consensus, the API of the node."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from runtime.disk.state_files import StateFiles
from runtime.errors import Code, Refused
from runtime.pki.certificates import certificate_info
from runtime.pki.key_file import decode_key_file
from runtime.pki.keys import dump_key
from runtime.pki.node_identity import pair_fits
from runtime.pki.pem import load_certificates
from runtime.protocol.cluster import NOT_MANAGER_STARTING, NOT_MANAGER_WORKER, Control, Info, Init, Inspect, Leave
from runtime.protocol.raft import AddMember
from runtime.protocol.store import Write
from runtime.swarm.membership import OUTCOME_UNKNOWN
from runtime.wire.pb import control_pb2, health_pb2, objects_pb2, raft_pb2, specs_pb2
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Access, Credentials
from runtime.wire.services import path, routes
from tests.simulation.cluster import Host, Swarm, joined, replicated, wait, worker_token
from tests.simulation.managers import followers_of, leader_of, managers, raft_of, write

M, W = types.MANAGER, types.WORKER


def listed(manager: Host) -> dict[str, objects_pb2.Node]:
    """Nodes by host name, as this manager shows them."""
    return {node.description.hostname: node for node in manager.control("ListNodes").nodes}


def want(manager: Host, host: Host, role: types.NodeRole) -> None:
    node = listed(manager)[host.name]
    spec = specs_pb2.NodeSpec()
    spec.CopyFrom(node.spec)
    spec.desired_role = role
    manager.control("UpdateNode", node_id=node.id, node_version=node.meta.version, spec=spec)


def want_again(swarm: Swarm, manager: Host, host: Host, role: types.NodeRole) -> None:
    """As `want`, once more while the member is on its way out: then there is none to be demoted."""

    def is_taken() -> bool:
        try:
            want(manager, host, role)
        except Refused as refused:
            assert refused.text == "can't find manager in raft memberlist"
            return False
        return True

    wait(swarm, is_taken, 12.0)


def certificate_role(host: Host) -> str:
    pem = host.disk.files.read("certificates/swarm-node.crt")
    assert pem is not None
    return certificate_info(load_certificates(pem)[0]).role


def is_manager(host: Host) -> bool:
    return bool(host.ask(Info()).control_available)


@pytest.mark.parametrize("seed", range(3))
def test_a_promoted_worker_becomes_a_manager_in_place(seed: int) -> None:
    swarm, (leader, worker, other) = joined(seed, 2)
    service = leader.control("CreateService", spec=replicated("web", 3)).service.id
    before = {task.id for task in swarm.wait_running(leader, service, 3)}
    want(leader, worker, M)
    wait(swarm, lambda: is_manager(worker))
    assert certificate_role(worker) == "swarm-manager"
    assert listed(leader)[worker.name].manager_status.reachability == types.RaftMemberStatus.REACHABLE
    assert {task.id for task in swarm.tasks(worker, service)} >= before
    assert not is_manager(other)
    swarm.simulator.run_for(30.0)
    assert {task.id for task in swarm.running(leader, service)} == before


@pytest.mark.parametrize("seed", range(3))
def test_a_demoted_manager_becomes_a_worker_and_keeps_no_log(seed: int) -> None:
    swarm, (leader, worker) = joined(seed, 1)
    want(leader, worker, M)
    wait(swarm, lambda: is_manager(worker))
    want(leader, worker, W)
    wait(swarm, lambda: not is_manager(worker) and certificate_role(worker) == "swarm-worker")
    assert not listed(leader)[worker.name].HasField("manager_status")
    swarm.simulator.run_for(40.0)
    assert worker.state() == "active"
    assert not is_manager(worker)
    with pytest.raises(Refused, match="Worker nodes can't be used to view or modify cluster state"):
        worker.control("ListNodes")
    want(leader, worker, M)
    wait(swarm, lambda: is_manager(worker))


def test_the_leader_is_demoted_and_another_manager_leads() -> None:
    swarm = managers(4, 3)
    leader = leader_of(swarm)
    others = [host for host in swarm.hosts if host is not leader]
    want(leader, leader, W)
    wait(swarm, lambda: not is_manager(leader) and certificate_role(leader) == "swarm-worker", 90.0)
    now = leader_of(swarm, others)
    assert now is not leader
    wait(swarm, lambda: listed(now)[leader.name].role == W)
    assert leader.state() == "active"


def test_a_manager_that_is_away_is_demoted_and_learns_it_when_it_is_back() -> None:
    swarm = managers(6, 3)
    leader = leader_of(swarm)
    away, _ = (host for host in swarm.hosts if host is not leader)
    away.crash()
    swarm.simulator.run_for(30.0)
    want(leader, away, W)
    wait(swarm, lambda: listed(leader)[away.name].role == W)
    away.boot()
    wait(swarm, lambda: certificate_role(away) == "swarm-worker", 120.0)
    wait(swarm, lambda: listed(leader)[away.name].status.state == types.NodeStatus.READY, 120.0)
    assert not is_manager(away)


def join_as(swarm: Swarm, away: Host, leader: Host) -> Any:
    """The leader's answer to a host that is down, and asks for membership with the certificate that it still has."""
    files = StateFiles(away.disk.files)
    certificate, key = files.load_node(lambda *pair: pair_fits(*pair, b"")) or (b"", b"")
    mine = Credentials(files.root_certificate() or b"", certificate, dump_key(decode_key_file(key, b"").key))
    transport = swarm.network.transport(away.ip, away.clock.now)
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    table = routes({path("Health", "Check"): lambda call: call.reply(serving)})
    access = Access(certificate_info(load_certificates(certificate)[0]).organization)
    server = transport.serve(f"{away.ip}:2377", table, access=lambda: access, credentials=mine)
    answers: list[Any] = []
    request = raft_pb2.JoinRequest(addr=f"{away.ip}:2377")
    channel = transport.connect(f"{leader.ip}:2377", mine)
    channel.unary(path("RaftMembership", "Join"), request, timeout=25.0, done=answers.append)
    swarm.simulator.run_until(lambda: bool(answers), 30.0)
    server.close(0.0)
    swarm.network.crash(away.ip)
    return answers[0]


def test_a_demoted_manager_does_not_get_in_again_with_the_certificate_that_it_has() -> None:
    swarm = managers(12, 3)
    leader = leader_of(swarm)
    away, _ = (host for host in swarm.hosts if host is not leader)
    away.crash()
    swarm.simulator.run_for(5.0)
    want(leader, away, W)
    wait(swarm, lambda: listed(leader)[away.name].role == W)
    before = dict(raft_of(leader).members)
    answer = join_as(swarm, away, leader)
    assert isinstance(answer, Refused)
    assert (answer.code, "is not to be a manager" in answer.text) == (Code.FAILED_PRECONDITION, True)
    assert raft_of(leader).members == before
    want(leader, away, M)
    wait(swarm, lambda: listed(leader)[away.name].role == M)
    assert isinstance(join_as(swarm, away, leader), raft_pb2.JoinResponse)


def test_a_node_that_is_demoted_while_the_group_slows_down_for_it_is_not_taken_in_and_the_group_goes_on_fast() -> None:
    swarm = managers(13, 3)
    leader = leader_of(swarm)
    raft = raft_of(leader)
    wait(swarm, lambda: raft.pace.fast)
    assert leader.stage is not None
    store = leader.stage.at("/cluster/node/manager/store")
    ghost = objects_pb2.Node(id="ghost", role=M, spec=specs_pb2.NodeSpec(desired_role=M))
    swarm.simulator.ask(store, Write(lambda tx: tx.create(ghost)))
    asked = leader.stage.at("/cluster/node/manager/raft").ask(AddMember("ghost", "10.9.9.9:2377"))
    swarm.simulator.run_until(lambda: raft.pace.admitting, 5.0)

    def demote(tx: Any) -> None:
        node = objects_pb2.Node()
        node.CopyFrom(tx.get(objects_pb2.Node, "ghost"))
        node.spec.desired_role = W
        tx.update(node)

    swarm.simulator.ask(store, Write(demote))
    swarm.simulator.run_until(lambda: asked.done, 20.0)
    with pytest.raises(Refused, match="is not to be a manager: it was demoted"):
        asked.result(0)
    swarm.simulator.run_for(5.0)
    assert (raft.pace.fast, raft.pace.admitting, len(raft.members)) == (True, False, 3)


@pytest.mark.parametrize("how", ["crashed", "cut off"])
def test_a_manager_that_was_demoted_while_it_was_away_is_never_a_member_again(how: str) -> None:
    """Its certificate is a manager's until it is renewed: whoever takes it in has a group with a member that ends."""
    swarm = managers(60, 3)
    leader = leader_of(swarm)
    away = next(host for host in swarm.hosts if host is not leader)
    if how == "crashed":
        away.crash()
    for host in swarm.hosts if how == "cut off" else ():
        swarm.cut(host.name, away.name)
        swarm.cut(away.name, host.name)
    swarm.simulator.run_for(20.0)
    want(leader, away, W)
    wait(swarm, lambda: listed(leader)[away.name].role == W)
    swarm.heal()
    if how == "crashed":
        away.boot()
    most = 0
    for _ in range(600):
        swarm.simulator.run_for(0.1)
        most = max(most, *(len(raft_of(host).members) for host in swarm.hosts if host is not away))
    assert most == 2
    assert certificate_role(away) == "swarm-worker"
    assert not is_manager(away)


@pytest.mark.parametrize("late", [31.0, 32.2])
def test_a_demoted_manager_whose_certificate_comes_late_goes_on_as_a_node_until_it_is_a_worker(late: float) -> None:
    """It tries to be taken in again after 32 s, and is refused: that is no failure of the node, which would begin anew
    with the certificate that it has, and never come to renew it."""
    swarm = managers(61, 3)
    leader = leader_of(swarm)
    away = next(host for host in swarm.hosts if host is not leader)
    want(leader, away, W)
    wait(swarm, lambda: away.cell("/cluster/node/manager") is None)
    for host in swarm.hosts:
        swarm.cut(host.name, away.name)
        swarm.cut(away.name, host.name)
    assert certificate_role(away) == "swarm-manager"
    swarm.simulator.run_for(late)
    swarm.heal()
    swarm.simulator.run_for(60.0)
    assert [text for _at, text in swarm.events if "failed over" in text] == []
    assert certificate_role(away) == "swarm-worker"
    assert not is_manager(away)
    assert away.state() == "active"


def test_refused_demotions_in_dockers_words() -> None:
    swarm, (leader, worker) = joined(2, 1)
    with pytest.raises(Refused, match="attempting to demote the last manager of the swarm") as last:
        want(leader, leader, W)
    assert last.value.code is Code.FAILED_PRECONDITION
    three = managers(3, 3)
    leads = leader_of(three)
    up, down = (host for host in three.hosts if host is not leads)
    down.crash()
    wait(
        three,
        lambda: listed(leads)[down.name].manager_status.reachability == types.RaftMemberStatus.UNREACHABLE,
        30.0,
    )
    with pytest.raises(Refused, match="this would result in a loss of quorum"):
        want(leads, up, W)
    assert swarm.simulator.time > 0
    assert worker.state() == "active"


def test_a_removed_manager_is_blacklisted_and_out_of_the_consensus() -> None:
    swarm = managers(8, 3)
    leader = leader_of(swarm)
    gone, _ = (host for host in swarm.hosts if host is not leader)
    node_id = listed(leader)[gone.name].id
    with pytest.raises(Refused, match="must be demoted to worker before removal"):
        leader.control("RemoveNode", node_id=node_id, force=True)
    want(leader, gone, W)
    wait(swarm, lambda: not listed(leader)[gone.name].HasField("manager_status"))
    leader.control("RemoveNode", node_id=node_id, force=True)
    assert gone.name not in listed(leader)
    cluster = leader.control("ListClusters").clusters[0]
    assert node_id in cluster.blacklisted_certificates
    swarm.simulator.run_for(30.0)
    assert gone.name not in listed(leader)
    wait(swarm, lambda: "was removed from the swarm" in gone.ask(Info()).error)
    gone.cluster.ask(Leave(True))
    wait(swarm, lambda: gone.state() == "inactive")
    gone.join(leader, worker_token(leader))
    assert (gone.state(), gone.ask(Info()).error) == ("active", "")


def test_a_promoted_node_that_is_away_cannot_be_demoted_but_removed_and_becomes_a_manager_if_it_comes_back() -> None:
    swarm, (leader, worker, gone) = joined(12, 2)
    for host in (worker, gone):
        host.crash()
        want(leader, host, M)
    swarm.simulator.run_for(2.0)
    with pytest.raises(Refused, match="can't find manager in raft memberlist"):
        want(leader, worker, W)
    leader.control("RemoveNode", node_id=listed(leader)[gone.name].id, force=True)
    worker.boot()
    wait(swarm, lambda: is_manager(worker))
    assert gone.name not in listed(leader)


def test_a_manager_whose_log_is_older_than_a_cluster_made_anew_becomes_a_manager_of_it_in_place() -> None:
    swarm = managers(15, 3)
    first, second, third = swarm.hosts
    node_ids = {host.name: node.id for host in swarm.hosts for node in [listed(first)[host.name]]}
    second.crash()
    third.crash()
    first.ask(Init(dataclasses.replace(first.init_message().request, force_new_cluster=True)))
    for host in (second, third):
        host.boot()
        wait(swarm, lambda host=host: is_manager(host), 20)
    shown = {name: (node.id, node.manager_status.reachability) for name, node in listed(third).items()}
    assert shown == {name: (node_id, types.RaftMemberStatus.REACHABLE) for name, node_id in node_ids.items()}


@pytest.mark.parametrize("seed", range(2))
def test_a_manager_that_is_promoted_again_at_once_is_one_again(seed: int) -> None:
    swarm = managers(seed + 20, 3)
    leader = leader_of(swarm)
    other = next(host for host in swarm.hosts if host is not leader)
    want(leader, other, W)
    wait(swarm, lambda: not listed(leader)[other.name].HasField("manager_status"))
    want(leader, other, M)
    wait(swarm, lambda: listed(leader)[other.name].HasField("manager_status") and is_manager(other), 40)


@pytest.mark.parametrize("pause", [0.0, 0.5, 1.0, 4.0])
def test_a_manager_that_is_demoted_and_promoted_again_at_once_is_one_again_soon(pause: float) -> None:
    swarm, (leader, worker, _) = joined(int(pause * 10), 2)
    want(leader, worker, M)
    wait(swarm, lambda: is_manager(worker))
    for _ in range(3):
        want_again(swarm, leader, worker, W)
        swarm.simulator.run_for(pause)
        want(leader, worker, M)

        def is_one_again() -> bool:
            node = listed(leader)[worker.name]
            return is_manager(worker) and node.role == M and node.HasField("manager_status")

        swarm.simulator.run_for(pause)
        wait(swarm, is_one_again, 12.0)
    assert worker.control("ListNodes").nodes
    swarm.simulator.run_for(60.0)
    assert is_one_again()


@pytest.mark.parametrize("seed", range(2))
def test_a_leader_that_leaves_by_force_has_handed_its_leadership_over(seed: int) -> None:
    swarm = managers(seed, 3)
    leader = leader_of(swarm)
    others = [host for host in swarm.hosts if host is not leader]
    term = raft_of(others[0]).node.raft.term
    left = leader.cluster.ask(Leave(True))
    swarm.simulator.run_until(lambda: left.done, 30.0)
    left.result(0)
    now = leader_of(swarm, others)
    assert raft_of(now).node.raft.term == term + 1
    assert raft_of(now)._leading
    assert write(now, "after")


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_whoever_asks_a_manager_while_it_is_demoted_is_answered_soon(leads: bool) -> None:
    swarm = managers(11, 3)
    leader, follower = leader_of(swarm), followers_of(swarm)[0]
    demoted, other = (leader, follower) if leads else (follower, leader)
    asked: list[tuple[float, Any]] = []
    for number in range(60):
        if number == 10:
            want(other, demoted, W)
        create = control_pb2.CreateServiceRequest(spec=replicated(f"s{number}", 0))
        message = (Control("CreateService", create), Inspect())[number % 2]
        asked.append((swarm.simulator.time, demoted.cluster.ask(message)))
        swarm.simulator.run_for(0.01 if number < 40 else 0.2)
        assert all(future.done for since, future in asked if swarm.simulator.time - since > 3.0)
    wait(swarm, lambda: all(future.done for _, future in asked), 3.0)
    said = {outcome(future) for _, future in asked}
    assert "ok" in said
    assert NOT_MANAGER_WORKER in said
    assert said <= {"ok", OUTCOME_UNKNOWN, NOT_MANAGER_WORKER, NOT_MANAGER_STARTING}, said


def outcome(future: Any) -> str:
    try:
        future.result(0)
    except Refused as refused:
        return refused.text
    return "ok"
