"""Quorums of several managers: what would break one is refused in Docker's words, what is left of one is made whole."""

from __future__ import annotations

import dataclasses

import pytest

from runtime.errors import Code, Refused
from runtime.protocol.cluster import Init, Inspect
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host
from tests.simulation.managers import followers_of, leader_of, managers, names, raft_of, write
from tests.simulation.seeds import seeds

QUORUM_WOULD_BE_LOST = "can't remove member from the raft: this would result in a loss of quorum"


def node_of(host: Host, at: Host) -> objects.Node:
    """A host's node object, as another manager shows it."""
    return next(node for node in at.control("ListNodes").nodes if node.description.hostname == host.name)


def demote(at: Host, node: objects.Node) -> None:
    spec = node.spec
    spec.desired_role = types.WORKER
    at.control("UpdateNode", node_id=node.id, node_version=node.meta.version, spec=spec)


def force(host: Host) -> Init:
    return Init(dataclasses.replace(host.init_message().request, force_new_cluster=True))


@pytest.mark.parametrize("asked_at_follower", [False, True])
def test_with_one_of_three_gone_neither_of_the_others_is_demoted_and_the_gone_one_is(asked_at_follower: bool) -> None:
    swarm = managers(4, 3)
    leader = leader_of(swarm)
    gone, other = followers_of(swarm)
    gone.crash()
    swarm.simulator.run_for(30)
    at = other if asked_at_follower else leader
    for member in (leader, other):
        with pytest.raises(Refused) as refused:
            demote(at, node_of(member, at))
        assert refused.value.code is Code.FAILED_PRECONDITION
        assert QUORUM_WOULD_BE_LOST in refused.value.text
        assert node_of(member, at).spec.desired_role == types.MANAGER
    demote(at, node_of(gone, at))
    swarm.simulator.run_for(20)
    assert len(raft_of(leader).members) == 2
    with pytest.raises(Refused, match="is a cluster manager and is a member of the raft cluster"):
        at.control("RemoveNode", node_id=node_of(other, at).id, force=True)


def test_the_last_manager_is_not_demoted() -> None:
    swarm = managers(5, 1)
    (manager,) = swarm.hosts
    with pytest.raises(Refused, match="attempting to demote the last manager of the swarm"):
        demote(manager, node_of(manager, manager))


@pytest.mark.parametrize("seed", seeds(2, 6))
def test_the_last_of_three_managers_is_made_a_new_cluster_with_every_write_that_it_knew(seed: int) -> None:
    swarm = managers(seed, 3)
    leader = leader_of(swarm)
    for number in range(5):
        assert write(leader, f"s{number}")
    survivor, other = followers_of(swarm)
    swarm.simulator.run_for(2)
    token = leader.ask(Inspect()).root_ca.join_tokens
    leader.crash()
    other.crash(power=seed)
    swarm.simulator.run_for(60)
    assert not write(survivor, "lost")
    node_id = node_of(survivor, survivor).id
    assert survivor.ask(force(survivor)) == node_id
    assert {f"s{number}" for number in range(5)} <= set(names(survivor))
    assert survivor.ask(Inspect()).root_ca.join_tokens == token
    assert write(survivor, "after")
    assert [member.node_id for member in raft_of(survivor).members.values()] == [node_id]
    for host in (leader, other):
        # Back with their old logs, they are told that they are members no more, and harm nothing.
        host.boot()
        swarm.simulator.run_for(40)
        assert write(survivor, f"with-{host.name}")
    assert leader_of(swarm, [survivor]) is survivor


@pytest.mark.parametrize("seed", seeds(2, 6))
def test_a_manager_that_lost_its_log_comes_back_as_another_member_and_never_under_its_old_raft_id(seed: int) -> None:
    swarm = managers(seed, 3)
    leader = leader_of(swarm)
    victim, _other = followers_of(swarm)
    for number in range(4):
        assert write(leader, f"s{number}")
    old = raft_of(victim).node.raft.id
    victim.crash()
    victim.disk.files.remove_tree("raft")
    victim.boot()
    swarm.simulator.run_for(60)
    assert victim.state() == "active"
    new = raft_of(victim).node.raft.id
    assert new != old
    for host in swarm.hosts:
        assert old in raft_of(host).removed
        assert set(raft_of(host).members) == {raft_of(each).node.raft.id for each in swarm.hosts}
    assert names(victim) == [f"s{number}" for number in range(4)]
    leader.crash()
    swarm.simulator.run_for(60)
    assert write(victim, "after")


def test_a_lost_log_that_the_others_need_for_a_quorum_is_told_and_nothing_votes_in_its_stead() -> None:
    swarm = managers(3, 2)
    leader = leader_of(swarm)
    (victim,) = followers_of(swarm)
    victim.crash()
    victim.disk.files.remove_tree("raft")
    victim.boot()
    swarm.simulator.run_for(60)
    assert victim.state() == "pending"
    assert raft_of(victim).node is None
    assert len(raft_of(leader).members) == 2
    assert victim.stage is not None
    joining = victim.stage.cells["/cluster/node/manager/raft/join"].instance
    assert joining is not None
    assert joining.snapshot()["trouble"]
