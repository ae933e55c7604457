"""Linearizable reads under virtual time: on followers, on deposed leaders that do not know it, through faults."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from actors.raft_peer import COMMIT_PAUSE
from runtime.errors import Refused
from runtime.protocol.cluster import Inspect, ReadBarrier, Update
from runtime.stage.answers import Future
from runtime.wire.pb import control_pb2, specs_pb2
from runtime.wire.pb import objects_pb2 as pb
from tests.simulation.cluster import Host, Swarm, worker_token
from tests.simulation.managers import (
    followers_of,
    leader_of,
    listed,
    managers,
    names,
    outcome,
    raft_of,
    until_written,
    write,
)

SEEDS = range(3)


def begin(host: Host) -> Future:
    return host.cluster.ask(ReadBarrier())


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_barrier_every_manager_shows_what_was_acknowledged_before(seed: int) -> None:
    swarm = managers(seed, 3)
    leader = leader_of(swarm)
    for number in range(5):
        assert write(leader, f"s{number}")
        version = leader.ask(ReadBarrier())
        for host in followers_of(swarm):
            assert host.ask(ReadBarrier()) >= version
            assert f"s{number}" in names(host)


def change_of_cluster(host: Host, turn: int) -> None:
    cluster = host.ask(Inspect())
    cluster = pb.Cluster.FromString(cluster.SerializeToString())
    cluster.spec.orchestration.task_history_retention_limit = turn
    host.ask(Update(cluster.meta.version.index, cluster.spec, control_pb2.KeyRotation()))


def change_of_service(host: Host, turn: int) -> None:
    (service,) = host.control("ListServices").services
    spec = specs_pb2.ServiceSpec.FromString(service.spec.SerializeToString())
    spec.annotations.labels["turn"] = str(turn)
    host.control("UpdateService", service_id=service.id, service_version=service.meta.version, spec=spec)


def change_of_node(host: Host, turn: int) -> None:
    node = min(host.control("ListNodes").nodes, key=lambda each: each.id)
    node = host.control("GetNode", node_id=node.id).node
    spec = specs_pb2.NodeSpec.FromString(node.spec.SerializeToString())
    spec.annotations.labels["turn"] = str(turn)
    host.control("UpdateNode", node_id=node.id, node_version=node.meta.version, spec=spec)


@pytest.mark.parametrize("change", [change_of_cluster, change_of_service, change_of_node])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_read_after_an_acknowledged_change_at_any_manager_can_be_changed(
    seed: int, change: Callable[[Host, int], None]
) -> None:
    swarm, dice = managers(400 + seed, 3), random.Random(seed)
    assert write(leader_of(swarm), "web")
    for turn in range(30):
        change(dice.choice(swarm.hosts), turn)  # "update out of sequence" if it read what was there before


@pytest.mark.parametrize("seed", SEEDS)
def test_reads_are_fresh_again_at_once_when_a_manager_that_was_cut_off_is_back(seed: int) -> None:
    swarm = managers(500 + seed, 3)
    assert write(leader_of(swarm), "before")
    away = followers_of(swarm)[0]
    others = [host for host in swarm.hosts if host is not away]
    assert listed(away) == ["before"]
    swarm.network.isolate(away.ip)
    until_written(leader_of(swarm, others), "meanwhile")
    assert listed(away) == ["before"], "what is known there"
    swarm.network.heal()
    swarm.simulator.run_for(15)
    assert write(leader_of(swarm), "after")
    assert {"before", "meanwhile-0", "after"} <= set(listed(away))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_that_is_cut_off_confirms_no_read_although_it_takes_itself_for_the_leader(seed: int) -> None:
    swarm = managers(seed, 3)
    old = leader_of(swarm)
    assert write(old, "before")
    others = followers_of(swarm)
    swarm.network.isolate(old.ip)
    early = begin(old)
    swarm.simulator.run_for(0.2)
    assert outcome(early) == "open"
    until_written(leader_of(swarm, others), "after")
    late = begin(old)
    swarm.simulator.run_until(lambda: early.done and late.done, 30)
    for read in (early, late):
        with pytest.raises(Refused, match="leader"):
            read.result(0)
    swarm.network.heal()
    swarm.simulator.run_for(15)
    old.ask(ReadBarrier())
    assert names(old) == names(others[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_read_that_waits_while_its_leader_goes_is_answered_by_the_next_one(seed: int) -> None:
    swarm = managers(seed, 3)
    leader = leader_of(swarm)
    reader, other = followers_of(swarm)
    swarm.simulator.run_until(lambda: all(raft_of(host).pace.fast for host in swarm.hosts), 60)
    assert write(leader, "before")
    leader.crash()
    read = begin(reader)
    swarm.simulator.run_until(lambda: read.done, 30)
    assert read.result(0) > 0
    assert "before" in names(reader)
    assert other.ask(ReadBarrier()) >= read.result(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_quorum_a_read_is_refused_within_its_time(seed: int) -> None:
    swarm = managers(seed, 3)
    leader_of(swarm).crash()
    reader, other = [host for host in swarm.hosts if host.stage is not None]
    other.crash()
    read = begin(reader)
    swarm.simulator.run_until(lambda: read.done, 10)
    with pytest.raises(Refused, match="leader"):
        read.result(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_through_partitions_no_barrier_is_passed_without_what_was_acknowledged_before_it_began(seed: int) -> None:
    swarm, dice = managers(100 + seed, 3), random.Random(seed)
    acknowledged: set[str] = set()
    passed = 0
    for turn in range(25):
        if turn % 5 == 2:
            swarm.network.isolate(dice.choice(swarm.hosts).ip)
        elif turn % 5 == 4:
            swarm.network.heal()
        writing = dice.choice(swarm.hosts)
        if write(writing, f"w{turn}"):
            acknowledged.add(f"w{turn}")
        reads = [(host, begin(host)) for host in swarm.hosts]
        swarm.simulator.run_until(lambda reads=reads: all(read.done for _, read in reads), 40)  # type: ignore[misc]
        for host, read in reads:
            if outcome(read) == "acknowledged":
                passed += 1
                assert acknowledged <= set(names(host))
    assert passed > 25


@pytest.mark.parametrize("seed", SEEDS)
def test_a_write_at_a_manager_that_does_not_lead_waits_for_no_append_of_others(seed: int) -> None:
    swarm = managers(300 + seed, 3)
    swarm.simulator.run_until(lambda: all(raft_of(host).pace.fast for host in swarm.hosts), 60)
    writing = followers_of(swarm)[0]
    assert write(writing, "first")
    took = []
    for number in range(10):
        swarm.simulator.run_for(1.0)
        begun = swarm.simulator.time
        assert write(writing, f"w{number}")
        assert f"w{number}" in names(writing)
        took.append(swarm.simulator.time - begun)
    assert sorted(took)[5] < COMMIT_PAUSE, took


@pytest.mark.parametrize("seed", SEEDS)
def test_managers_that_were_all_killed_show_everything_acknowledged_from_their_first_answer_on(seed: int) -> None:
    swarm = managers(200 + seed, 3)
    acknowledged = {f"w{number}" for number in range(40) if write(swarm.hosts[number % 3], f"w{number}")}
    assert acknowledged
    for host in swarm.hosts:
        host.crash()
    for host in swarm.hosts:
        host.boot()
    silent = list(swarm.hosts)
    until = swarm.simulator.time + 60
    while silent:
        assert swarm.simulator.time < until, [host.ip for host in silent]
        swarm.simulator.run_for(0.002)
        for host in list(silent):
            try:
                assert acknowledged <= set(names(host))
            except Refused as refused:
                assert "being prepared" in str(refused)
            else:
                silent.remove(host)


def test_a_manager_that_is_alone_confirms_its_own_reads_and_a_worker_has_none_to_confirm() -> None:
    swarm = Swarm(7, 2)
    manager, worker = swarm.boot()
    manager.init()
    worker.join(manager, worker_token(manager))
    assert write(manager, "s")
    assert manager.ask(ReadBarrier()) > 0
    with pytest.raises(Refused, match="not a swarm manager"):
        worker.ask(ReadBarrier())
