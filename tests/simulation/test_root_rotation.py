"""A swarm moves to another root CA while it runs, with a node that is away for a part of it."""

from __future__ import annotations

import pytest

from actors.node_actor import NodeActor
from runtime.protocol.agent import RootSeen
from runtime.protocol.cluster import Inspect, Update
from runtime.wire.pb import control_pb2, objects_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm, joined, replicated, wait, worker_token
from tests.simulation.managers import leader_of, managers


def inspect(manager: Host) -> objects_pb2.Cluster:
    found: objects_pb2.Cluster = manager.ask(Inspect())
    return found


def rotate(manager: Host) -> None:
    cluster = inspect(manager)
    cluster.spec.ca_config.force_rotate += 1
    manager.ask(Update(cluster.meta.version.index, cluster.spec, control_pb2.KeyRotation()))


def rotating(manager: Host) -> bool:
    return inspect(manager).root_ca.HasField("root_rotation")


def issuers(manager: Host) -> set[bytes]:
    """The keys that the nodes say their certificates were signed with."""
    return {node.description.tls_info.cert_issuer_public_key for node in manager.control("ListNodes").nodes}


@pytest.mark.parametrize("seed", range(3))
def test_every_node_moves_to_the_new_root_and_tasks_do_not_notice(seed: int) -> None:
    swarm, hosts = joined(seed, 3)
    manager = hosts[0]
    service = manager.control("CreateService", spec=replicated("web", 4)).service.id
    before = {task.id for task in swarm.wait_running(manager, service, 4)}
    old = inspect(manager).root_ca
    rotate(manager)
    assert rotating(manager)
    wait(swarm, lambda: not rotating(manager), 20.0)
    new = inspect(manager).root_ca
    assert new.ca_cert != old.ca_cert
    assert new.join_tokens.worker != old.join_tokens.worker
    assert len(issuers(manager)) == 1
    wait(swarm, lambda: all(root_on_disk(host) == new.ca_cert for host in hosts), 20.0)
    swarm.simulator.run_for(30.0)
    assert {task.id for task in swarm.running(manager, service)} == before


def root_on_disk(host: Host) -> bytes:
    return host.disk.files.read("certificates/swarm-root-ca.crt") or b""


@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_is_away_is_waited_for_and_moves_when_it_is_back(seed: int) -> None:
    swarm, hosts = joined(seed, 3)
    manager, away = hosts[0], hosts[3]
    away.crash()
    rotate(manager)
    swarm.simulator.run_for(60.0)
    assert rotating(manager)
    assert len(issuers(manager)) == 2
    away.boot()
    wait(swarm, lambda: not rotating(manager), 30.0)
    assert len(issuers(manager)) == 1


def test_a_rotation_outlives_the_leader() -> None:
    swarm, hosts = joined(11, 2)
    manager, away = hosts[0], hosts[2]
    away.crash()
    rotate(manager)
    swarm.simulator.run_for(5.0)
    manager.crash()
    swarm.simulator.run_for(2.0)
    manager.boot()
    wait(swarm, lambda: manager.state() == "active", 30.0)
    assert rotating(manager)
    away.boot()
    wait(swarm, lambda: not rotating(manager), 60.0)


def test_a_manager_that_no_session_tells_of_the_new_root_learns_it_from_its_own_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others come to trust the new root alone; without it there is no session that could tell."""
    swarm = managers(7, 3)
    leader = leader_of(swarm)
    deaf = next(host for host in swarm.hosts if host is not leader)
    heard = NodeActor.root_seen

    def hears(self: NodeActor, message: RootSeen) -> None:
        if self.world.name != deaf.name:
            heard(self, message)

    monkeypatch.setitem(NodeActor._handlers, RootSeen, hears)
    rotate(leader)
    wait(swarm, lambda: not rotating(leader), 20.0)
    wait(swarm, lambda: root_on_disk(deaf) == inspect(leader).root_ca.ca_cert, 5.0)
    others = [host for host in swarm.hosts if host is not deaf]
    wait(swarm, lambda: all(root_on_disk(host) == root_on_disk(deaf) for host in others), 20.0)


def test_a_worker_joins_while_the_root_is_rotated_and_another_one_after_it() -> None:
    swarm = Swarm(5, 4)
    hosts = swarm.boot()
    manager, away, early, late = hosts
    manager.init()
    away.join(manager, worker_token(manager))
    away.crash()
    rotate(manager)
    early.join(manager, worker_token(manager))
    away.boot()
    wait(swarm, lambda: not rotating(manager), 60.0)
    late.join(manager, worker_token(manager))
    wait(swarm, lambda: len(issuers(manager)) == 1, 10.0)
    states = [node.status.state for node in manager.control("ListNodes").nodes]
    assert states == [types.NodeStatus.READY] * 4


def test_a_removed_node_no_longer_holds_the_rotation_up() -> None:
    swarm, hosts = joined(3, 2)
    manager, away = hosts[0], hosts[2]
    away.crash()
    rotate(manager)
    wait(swarm, lambda: any(each.status.state == types.NodeStatus.DOWN for each in listed(manager)), 60.0)
    down = next(each.id for each in listed(manager) if each.status.state == types.NodeStatus.DOWN)
    assert rotating(manager)
    manager.control("RemoveNode", node_id=down)
    wait(swarm, lambda: not rotating(manager), 20.0)


def listed(manager: Host) -> list[objects_pb2.Node]:
    return list(manager.control("ListNodes").nodes)
