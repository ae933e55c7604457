"""A manager that joins a swarm whose log begins with a snapshot, from before anybody knew of it."""

from __future__ import annotations

import pytest

from actors.raft_actor import RaftActor
from actors.raft_log_actor import RaftLogActor
from actors.store_actor import StoreActor
from runtime.protocol.raft import TransferLeadership
from runtime.wire.pb.objects_pb2 import Service
from tests.simulation.cluster import Swarm, manager_token, replicated


@pytest.mark.parametrize("kept", [0, 3])
def test_a_manager_joins_although_the_newest_snapshot_does_not_know_it(kept: int) -> None:
    swarm = Swarm(4, hosts=3)
    first, second, third = swarm.boot()
    first.init()
    second.join(first, manager_token(first))
    (cluster,) = first.control("ListClusters").clusters
    spec = type(cluster.spec)()
    spec.CopyFrom(cluster.spec)
    spec.raft.snapshot_interval, spec.raft.log_entries_for_slow_followers = 5, kept
    first.control("UpdateCluster", cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=spec)
    swarm.simulator.run_for(2)
    service = first.control("CreateService", spec=replicated("web", 10)).service
    swarm.wait_running(first, service.id, 10)
    cell = first.cell("/cluster/node/manager/raft/log")
    assert cell is not None
    assert isinstance(cell.instance, RaftLogActor)
    swarm.simulator.run_for(2)
    assert cell.instance.snapshot()["snapshot"] > 0
    third.join(first, manager_token(first))
    swarm.simulator.run_for(20)
    nodes = first.control("ListNodes").nodes
    assert [node.manager_status.reachability for node in nodes] == [2, 2, 2]
    mine = third.control("ListServices").services
    assert [each.id for each in mine] == [service.id]
    first.crash()
    swarm.simulator.run_until(lambda: bool(second.leads() or third.leads()), within=60)


def test_a_manager_that_was_away_is_led_by_one_that_joined_meanwhile_and_catches_up() -> None:
    swarm = Swarm(7, hosts=4)
    first, second, away, joined = swarm.boot()
    first.init()
    for host in (second, away):
        host.join(first, manager_token(first))
    away.crash()
    joined.join(first, manager_token(first))
    raft = joined.cell("/cluster/node/manager/raft")
    assert raft is not None
    assert isinstance(raft.instance, RaftActor)
    assert raft.instance.node is not None
    leader = first.cell("/cluster/node/manager/raft")
    assert leader is not None
    swarm.simulator.ask(leader.address, TransferLeadership(raft.instance.node.raft.id))
    swarm.simulator.run_until(lambda: bool(joined.leads()), within=30)
    service = joined.control("CreateService", spec=replicated("web", 2)).service
    away.boot()
    swarm.simulator.run_for(20)
    cell = away.cell("/cluster/node/manager/store")
    assert cell is not None
    assert isinstance(cell.instance, StoreActor)
    assert [each.id for each in cell.instance.published.view.all(Service)] == [service.id]
