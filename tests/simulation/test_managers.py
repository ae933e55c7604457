"""A quorum of managers under virtual time: joining, losing a leader, being cut off, all at once, and nothing lost."""

from __future__ import annotations

import dataclasses

import pytest

from runtime.errors import Refused
from runtime.protocol.cluster import Control, Join
from runtime.protocol.raft import CanRemoveMember, ReadIndex, RemoveMember, TransferLeadership
from runtime.stage import Address
from runtime.swarm.membership import CANNOT_REMOVE, OUTCOME_UNKNOWN
from runtime.wire.pb import control_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm, replicated
from tests.simulation.managers import (
    followers_of,
    leader_of,
    listed,
    manager_token,
    managers,
    names,
    outcome,
    raft_of,
    service,
    settle_alike,
    until_written,
    write,
)
from tests.simulation.seeds import seeds

SEEDS = seeds(1, 5)


def consensus(host: Host) -> Address:
    assert host.stage is not None
    return host.stage.at("/cluster/node/manager/raft")


def raft_id(host: Host) -> int:
    return int(raft_of(host).node.raft.id)


@pytest.mark.parametrize("seed", SEEDS)
def test_managers_that_join_are_members_and_every_manager_shows_the_same(seed: int) -> None:
    swarm = managers(seed, 3)
    swarm.simulator.run_for(2)
    first = swarm.hosts[0]
    for host in swarm.hosts:
        shown = {
            node.description.hostname: (node.manager_status.leader, node.manager_status.addr, node.role)
            for node in host.control("ListNodes").nodes
        }
        assert shown == {
            each.name: (each is first, f"{each.ip}:2377", types.MANAGER if each is first else shown[each.name][2])
            for each in swarm.hosts
        }
        reachable = {node.manager_status.reachability for node in host.control("ListNodes").nodes}
        assert reachable == {types.RaftMemberStatus.REACHABLE}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_follower_takes_writes_and_shows_them_at_once_although_the_leader_carried_them_out(seed: int) -> None:
    swarm = managers(seed, 3)
    for host in swarm.hosts:
        created = host.control("CreateService", spec=service(f"of-{host.name}")).service
        assert f"of-{host.name}" in names(host)
        spec = created.spec
        spec.annotations.labels["seen"] = "yes"
        version = host.control("GetService", service_id=created.id).service.meta.version
        host.control("UpdateService", service_id=created.id, service_version=version, spec=spec)
        assert host.control("GetService", service_id=created.id).service.spec.annotations.labels["seen"] == "yes"
        host.control("RemoveService", service_id=created.id)
        assert names(host) == []


def test_a_refusal_of_the_leader_comes_back_through_a_follower_in_its_words() -> None:
    swarm = managers(1, 3)
    follower = followers_of(swarm)[0]
    follower.control("CreateService", spec=service("web"))
    with pytest.raises(Refused, match="name conflicts with an existing object"):
        follower.control("CreateService", spec=service("web"))


@pytest.mark.parametrize("seed", SEEDS)
def test_when_the_leader_dies_another_one_leads_and_every_acknowledged_write_is_there(seed: int) -> None:
    swarm = managers(seed, 3)
    old = leader_of(swarm)
    assert write(old, "before")
    old.crash()
    survivor = followers_of(swarm)[0]
    until_written(survivor, "after")
    assert leader_of(swarm) is not old
    old.boot()
    swarm.simulator.run_for(30)
    kept = settle_alike(swarm)
    assert "before" in kept
    assert len([name for name in kept if name.startswith("after")]) >= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_tasks_go_on_after_the_leader_died_and_new_ones_are_placed(seed: int) -> None:
    swarm = managers(seed, 3)
    first = swarm.hosts[0].control("CreateService", spec=replicated("web", 3)).service
    swarm.wait_running(swarm.hosts[1], first.id, 3)
    swarm.hosts[0].crash()
    leader = leader_of(swarm, swarm.hosts[1:])
    second = leader.control("CreateService", spec=replicated("more", 4)).service
    swarm.wait_running(leader, second.id, 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_cut_off_from_the_others_acknowledges_nothing_and_says_that_the_outcome_is_unknown(seed: int) -> None:
    swarm = managers(seed, 3)
    old = leader_of(swarm)
    swarm.network.isolate(old.ip)
    lost = old.cluster.ask(Control("CreateService", control_pb2.CreateServiceRequest(spec=service("lost"))))
    swarm.simulator.run_for(40)
    assert outcome(lost) == OUTCOME_UNKNOWN
    others = [host for host in swarm.hosts if host is not old]
    new = leader_of(swarm, others)
    until_written(new, "majority")
    swarm.network.heal()
    swarm.simulator.run_for(40)
    kept = settle_alike(swarm)
    assert "lost" not in kept
    assert any(name.startswith("majority") for name in kept)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_managers_die_at_once_under_writes_and_nothing_acknowledged_is_lost_or_doubled(seed: int) -> None:
    swarm = managers(seed, 3)
    asked = {
        f"w{number}": swarm.hosts[number % 3].cluster.ask(
            Control("CreateService", control_pb2.CreateServiceRequest(spec=service(f"w{number}")))
        )
        for number in range(60)
    }
    swarm.simulator.run_until(lambda: sum(each.done for each in asked.values()) >= 10 + 10 * seed, 30)
    for host in swarm.hosts:
        host.crash(power=seed)
    acknowledged = {name for name, each in asked.items() if outcome(each) == "acknowledged"}
    for host in swarm.hosts:
        host.boot()
    leader_of(swarm)
    swarm.simulator.run_for(30)
    kept = settle_alike(swarm)
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))


def test_five_managers_go_on_with_two_of_them_gone_and_stop_with_three() -> None:
    swarm = managers(5, 5)
    for host in swarm.hosts[3:]:
        host.crash()
    until_written(swarm.hosts[1], "two-gone")
    swarm.hosts[2].crash()
    swarm.simulator.run_for(60)
    with pytest.raises(Refused, match="does not have a leader"):
        swarm.hosts[1].control("CreateService", spec=service("three-gone"))
    assert any(name.startswith("two-gone") for name in listed(swarm.hosts[1]))  # reads still answer
    swarm.hosts[3].boot()
    leader_of(swarm)
    until_written(swarm.hosts[1], "back")


def test_managers_join_while_others_write() -> None:
    swarm = Swarm(4, hosts=4)
    first, *others = swarm.boot()
    first.init()
    token = manager_token(first)
    asked = []
    for number, host in enumerate(others):
        asked += [
            first.cluster.ask(
                Control("CreateService", control_pb2.CreateServiceRequest(spec=service(f"s{number}-{each}")))
            )
            for each in range(30)
        ]
        host.join(first, token)
    swarm.simulator.run_for(5)
    assert {outcome(each) for each in asked} == {"acknowledged"}
    assert len(settle_alike(swarm)) == 90
    assert len(first.control("ListNodes").nodes) == 4


@pytest.mark.parametrize("seed", SEEDS)
def test_leadership_is_handed_over_without_waiting_for_an_election_timeout(seed: int) -> None:
    swarm = managers(seed, 3)
    old = leader_of(swarm)
    begun = swarm.simulator.time
    assert swarm.simulator.ask(consensus(old), TransferLeadership()) is True
    new = leader_of(swarm, [host for host in swarm.hosts if host is not old])
    assert swarm.simulator.time - begun < 1.0
    assert write(new, "new")
    assert write(old, "old")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_removed_member_is_told_keeps_no_log_and_joins_under_another_id_since_its_node_is_a_managers_still(
    seed: int,
) -> None:
    swarm = managers(seed, 3)
    leader = leader_of(swarm)
    gone = followers_of(swarm)[0]
    removed = raft_id(gone)
    swarm.simulator.ask(consensus(leader), RemoveMember(removed))
    assert removed in raft_of(leader).removed
    swarm.simulator.run_until(lambda: raft_of(gone) is None and gone.disk.image("raft/log").handle is None, 40)
    database = gone.disk.open_database("raft/log")
    assert database.get(b"m") is None
    database.close()
    assert write(leader, "without")
    swarm.simulator.run_until(lambda: raft_of(gone) is not None and raft_of(gone).node is not None, 40)
    assert raft_id(gone) not in raft_of(leader).removed
    swarm.simulator.run_for(10)
    assert write(gone, "back")


def test_a_member_removed_while_it_was_away_learns_it_when_it_comes_back() -> None:
    swarm = managers(2, 3)
    leader = leader_of(swarm)
    away = followers_of(swarm)[0]
    removed = raft_id(away)
    away.crash()
    swarm.simulator.run_for(5)
    swarm.simulator.ask(consensus(leader), RemoveMember(removed))
    away.boot()
    swarm.simulator.run_until(lambda: raft_of(away) is None and away.disk.image("raft/log").handle is None, 120)


def test_a_member_is_not_removed_where_the_rest_would_have_no_quorum() -> None:
    swarm = managers(3, 3)
    leader = leader_of(swarm)
    one, two = followers_of(swarm)
    victim = raft_id(two)
    one.crash()
    swarm.simulator.run_for(5)
    assert swarm.simulator.ask(consensus(leader), CanRemoveMember(victim)) is False
    with pytest.raises(Refused, match=CANNOT_REMOVE):
        swarm.simulator.ask(consensus(leader), RemoveMember(victim))


def test_a_member_back_with_another_address_is_found_there() -> None:
    swarm = managers(6, 3)
    moved = followers_of(swarm)[0]
    moved.crash()
    moved.ip = "10.0.9.9"
    state = moved.disk.files.read("docker-state.json")
    assert state is not None
    moved.disk.files.write_atomic(
        "docker-state.json",
        state.replace(b"10.0.0.", b"10.0.9.").replace(b"10.0.9.2", b"10.0.9.9").replace(b"10.0.9.3", b"10.0.9.9"),
        0o600,
    )
    moved.boot()
    swarm.simulator.run_for(30)
    shown = {node.manager_status.addr for node in leader_of(swarm).control("ListNodes").nodes}
    assert "10.0.9.9:2377" in shown
    assert write(moved, "from-there")


@pytest.mark.parametrize("seed", SEEDS)
def test_writes_while_the_leadership_is_handed_over_are_carried_out_or_unknown_and_never_refused(seed: int) -> None:
    swarm = managers(40 + seed, 3)
    leader = leader_of(swarm)
    futures = []
    for turn in range(4):
        swarm.simulator.run_for(1)
        leader = leader_of(swarm)
        handed = consensus(leader).ask(TransferLeadership())
        for number in range(40):
            for at, host in enumerate(swarm.hosts):
                request = control_pb2.CreateServiceRequest(spec=service(f"s{turn}-{at}-{number}"))
                futures.append(host.cluster.ask(Control("CreateService", request)))
            swarm.simulator.run_for(0.002)
        swarm.simulator.run_until(lambda handed=handed: handed.done, 30)  # type: ignore[misc]
    swarm.simulator.run_until(lambda: all(each.done for each in futures), 60)
    outcomes = {outcome(each) for each in futures}
    assert outcomes <= {"acknowledged", OUTCOME_UNKNOWN}
    assert leader_of(swarm) is not None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_is_removed_knows_it_at_once_and_not_at_its_next_election(seed: int) -> None:
    swarm = managers(60 + seed, 3)
    leader, gone = leader_of(swarm), followers_of(swarm)[0]
    swarm.simulator.run_for(1)
    swarm.simulator.ask(consensus(leader), RemoveMember(raft_id(gone)))
    swarm.simulator.run_for(0.5)
    assert raft_of(gone) is None or raft_of(gone).node is None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_read_index_holds_every_write_that_was_acknowledged_before(seed: int) -> None:
    swarm = managers(seed, 3)
    leader = leader_of(swarm)
    assert write(leader, "written")
    version = raft_of(leader).published.view.version
    for host in swarm.hosts:
        assert swarm.simulator.ask(consensus(host), ReadIndex()) >= version


def test_a_follower_far_behind_is_sent_a_snapshot_while_the_others_go_on() -> None:
    swarm = managers(7, 3)
    leader = leader_of(swarm)
    cluster = leader.control("ListClusters").clusters[0]
    spec = cluster.spec
    spec.raft.snapshot_interval, spec.raft.log_entries_for_slow_followers = 40, 5
    leader.control("UpdateCluster", cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=spec)
    behind = followers_of(swarm)[0]
    behind.crash()
    for number in range(120):
        assert write(leader, f"s{number}")
    swarm.simulator.run_for(3)
    assert raft_of(leader)._snapshots.index > 40
    behind.boot()
    swarm.simulator.run_for(20)
    assert len(settle_alike(swarm)) == 120
    assert raft_of(behind)._storage.last_snapshot.index > 40
    assert write(behind, "after")


def test_a_member_without_an_address_of_its_own_is_found_where_its_machine_is_now() -> None:
    swarm = Swarm(7, hosts=3)
    first, *others = swarm.boot()
    first.init()
    for host in others:
        joins = host.join_message(first, manager_token(first))
        host.ask(Join(dataclasses.replace(joins.request, listen_addr="0.0.0.0:2377", advertise_addr="")))
    moved = followers_of(swarm)[0]
    moved.crash()
    moved.ip = "10.0.9.9"
    moved.boot()
    swarm.simulator.run_for(30)
    shown = {node.manager_status.addr for node in leader_of(swarm).control("ListNodes").nodes}
    assert "10.0.9.9:2377" in shown
    assert len(shown) == 3
    assert write(moved, "from-there")
