"""A manager that joins managers of its kind listens first, and has a vote once it has caught up (thesis 4.2.1)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from runtime.errors import Refused
from runtime.protocol.cluster import Init, Join
from runtime.protocol.raft import AddMember, CanRemoveMember, RemoveMember, TransferLeadership
from runtime.protocol.store import Write
from runtime.stage import Address
from runtime.wire.pb import objects_pb2, specs_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm, manager_token
from tests.simulation.managers import leader_of, managers, names, raft_of, until_written, write


def consensus(host: Host) -> Address:
    assert host.stage is not None
    return host.stage.at("/cluster/node/manager/raft")


def learners(host: Host) -> set[int]:
    """The raft ids that listen only, as this manager knows it."""
    return set(raft_of(host).node.raft.members.learners)


def voters(host: Host) -> set[int]:
    return set(raft_of(host).node.raft.members.voters)


def with_a_learner(seed: int, before: int = 1, advertises: bool = True) -> tuple[Swarm, Host, Host]:
    """So many managers, and one more that was just taken in and has nothing of the log yet."""
    swarm = managers(seed, before)
    first = leader_of(swarm)
    newcomer = Host(swarm, "newcomer", "10.0.9.9")
    swarm.hosts.append(newcomer)
    newcomer.boot()
    request = newcomer.join_message(first, manager_token(first)).request
    where = request.advertise_addr if advertises else ""
    newcomer.cluster.ask(Join(dataclasses.replace(request, advertise_addr=where)))
    swarm.simulator.run_until(lambda: bool(learners(first)), 30.0)
    return swarm, first, newcomer


@pytest.mark.parametrize("seed", range(3))
def test_a_manager_alone_takes_another_one_in_without_needing_it(seed: int) -> None:
    swarm, first, newcomer = with_a_learner(seed)
    newcomer.crash()
    assert len(voters(first)) == 1
    for number in range(5):
        assert write(first, f"alone-{number}")
    swarm.simulator.run_for(60.0)
    assert write(first, "still-alone")
    newcomer.boot()
    swarm.simulator.run_until(lambda: len(voters(first)) == 2, 60.0)
    assert not learners(first)
    swarm.simulator.run_for(5.0)
    assert len(names(newcomer)) == 6
    newcomer.crash()
    swarm.simulator.run_for(2.0)
    assert not write(first, "needs-both")


@pytest.mark.parametrize("before", [1, 3])
def test_who_has_joined_has_a_vote(before: int) -> None:
    swarm = managers(4, before)
    first = leader_of(swarm)
    host = Host(swarm, "late", "10.0.9.9")
    swarm.hosts.append(host)
    host.boot()
    host.join(first, manager_token(first))
    assert len(voters(host)) == len(voters(first)) == before + 1
    assert not learners(first)


def test_a_listener_is_not_counted_where_a_quorum_is_and_nobody_hands_over_to_it() -> None:
    swarm, first, newcomer = with_a_learner(5)
    newcomer.crash()
    (listener,) = learners(first)
    assert swarm.simulator.ask(consensus(first), CanRemoveMember(listener)) is True
    with pytest.raises(Refused, match="no other member can be reached"):
        swarm.simulator.ask(consensus(first), TransferLeadership())
    statuses = raft_of(first).member_statuses()
    assert [statuses[id].votes for id in (raft_of(first).node.raft.id, listener)] == [True, False]
    swarm.simulator.ask(consensus(first), RemoveMember(listener))
    assert (learners(first), len(raft_of(first).members)) == (set(), 1)
    assert write(first, "after")


def test_a_manager_alone_with_a_listener_leads_again_at_once_after_a_restart() -> None:
    swarm, first, newcomer = with_a_learner(6)
    newcomer.crash()
    first.crash()
    begun = swarm.simulator.time
    first.boot()
    leader_of(swarm, [first])
    assert swarm.simulator.time - begun < 1.0
    assert len(learners(first)) == 1
    swarm.simulator.run_for(1.0)
    assert write(first, "again")


def test_another_leader_goes_on_with_a_listener_of_the_one_before() -> None:
    swarm, first, newcomer = with_a_learner(7, before=3)
    swarm.simulator.run_until(lambda: raft_of(newcomer) is not None and raft_of(newcomer).node is not None, 10.0)
    swarm.network.isolate(newcomer.ip)
    others = [host for host in swarm.hosts if host not in (first, newcomer)]
    swarm.simulator.run_until(lambda: all(learners(host) for host in others), 10.0)
    first.crash()
    second = leader_of(swarm, others)
    until_written(second, "led")
    assert learners(second)
    swarm.network.heal()
    swarm.simulator.run_until(lambda: not learners(second) and len(voters(second)) == 4, 90.0)


@pytest.mark.parametrize("advertises", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_one_that_listened_in_a_cluster_that_was_made_anew_becomes_a_manager_of_the_new_one(
    seed: int, advertises: bool
) -> None:
    """Its own log says for ever that it has no vote, so that it stands for no election and nobody tells it."""
    swarm, first, newcomer = with_a_learner(seed, before=2, advertises=advertises)
    swarm.simulator.run_until(lambda: raft_of(newcomer) is not None and raft_of(newcomer).node is not None, 10.0)
    old = raft_of(newcomer).node.raft.id
    swarm.simulator.run_until(lambda: old in learners(newcomer), 10.0)
    newcomer.crash()
    next(host for host in swarm.hosts if host not in (first, newcomer)).crash()
    order = first.init_message().request
    first.ask(Init(dataclasses.replace(order, force_new_cluster=True)))
    assert old not in raft_of(first).members
    newcomer.boot()
    swarm.simulator.run_until(lambda: len(voters(first)) == 2 and newcomer.state() == "active", 60.0)
    swarm.simulator.run_for(5.0)
    assert raft_of(newcomer).node.raft.id in voters(first) - {old}
    assert write(newcomer, "through-it")
    assert not learners(first)


def test_where_a_manager_of_another_kind_is_nobody_listens_first() -> None:
    swarm = managers(8, 1)
    first = leader_of(swarm)
    swarm.simulator.run_for(2.0)
    another_kind(swarm, first)
    host = Host(swarm, "late", "10.0.9.9")
    swarm.hosts.append(host)
    host.boot()
    host.cluster.ask(host.join_message(first, manager_token(first)))
    swarm.simulator.run_until(lambda: len(raft_of(first).members) == 2, 30.0)
    assert not learners(first)
    assert len(voters(first)) == 2


def test_a_group_that_comes_to_have_another_kind_has_nobody_who_listens_any_more() -> None:
    swarm, first, newcomer = with_a_learner(10, before=3)
    newcomer.crash()
    swarm.simulator.run_for(5.0)
    assert learners(first)
    another_kind(swarm, first)
    swarm.simulator.run_until(lambda: len(voters(first)) == 4, 10.0)
    assert not learners(first)


def test_a_listener_that_is_demoted_gets_no_vote_and_is_put_out() -> None:
    swarm, first, newcomer = with_a_learner(11)
    newcomer.crash()
    node_id = raft_of(first).members[next(iter(learners(first)))].node_id
    edit_node(swarm, first, node_id, lambda node: setattr(node.spec, "desired_role", types.WORKER))
    newcomer.boot()
    swarm.simulator.run_until(lambda: len(raft_of(first).members) == 1, 30.0)
    assert len(voters(first)) == 1
    swarm.simulator.run_for(30.0)
    assert len(raft_of(first).members) == 1


def edit_node(swarm: Swarm, leader: Host, node_id: str, edit: Any) -> None:
    """Writes to a node's entry what no operator could."""
    assert leader.stage is not None

    def step(tx: Any) -> None:
        node = objects_pb2.Node()
        node.CopyFrom(tx.get(objects_pb2.Node, node_id))
        edit(node)
        tx.update(node)

    swarm.simulator.ask(leader.stage.at("/cluster/node/manager/store"), Write(step))


def another_kind(swarm: Swarm, leader: Host) -> None:
    """From now on the leader's node does not say that it is of our kind."""
    own = raft_of(leader).setup.node_id
    edit_node(swarm, leader, own, lambda node: node.description.engine.labels.clear())


def test_who_does_not_say_that_it_may_listen_has_a_vote_at_once() -> None:
    swarm = managers(9, 1)
    first = leader_of(swarm)
    swarm.simulator.run_for(2.0)
    assert first.stage is not None
    ghost = objects_pb2.Node(id="ghost", spec=specs_pb2.NodeSpec(desired_role=types.MANAGER))
    store = first.stage.at("/cluster/node/manager/store")
    swarm.simulator.ask(store, Write(lambda tx: tx.create(ghost)))
    joined = swarm.simulator.ask(consensus(first), AddMember("ghost", "10.9.9.9:2377"))
    assert joined.raft_id in voters(first)
