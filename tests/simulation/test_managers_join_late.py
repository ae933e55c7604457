"""A manager that joins a swarm whose log begins with a snapshot, from before anybody knew of it."""

from __future__ import annotations

import pytest

from actors.raft_log_actor import RaftLogActor
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
