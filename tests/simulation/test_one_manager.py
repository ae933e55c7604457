"""A swarm of one manager and two workers under virtual time, from init to a worker's crash, one run for each seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Swarm, replicated, worker_token

SEEDS = int(os.environ.get("SWARMLET_SEEDS", "40"))


def scenario(seed: int) -> str:
    """Init, two joins, a service of 10, a worker's crash; the digest of all deliveries."""
    swarm = Swarm(seed, hosts=3)
    manager, one, two = swarm.boot()
    manager.init()
    token = worker_token(manager)
    one.join(manager, token)
    two.join(manager, token)
    service = manager.control("CreateService", spec=replicated("web", 10)).service
    tasks = swarm.wait_running(manager, service.id, 10)
    by_node = {node.id: 0 for node in manager.control("ListNodes").nodes}
    assert len(by_node) == 3
    for task in tasks:
        by_node[task.node_id] += 1
    assert max(by_node.values()) - min(by_node.values()) <= 1, by_node
    assert len({task.slot for task in tasks}) == 10
    one.crash()
    one.executor.power_off()
    gone = next(node.id for node in manager.control("ListNodes").nodes if node.description.hostname == one.name)
    swarm.simulator.run_for(30)
    node = manager.control("GetNode", node_id=gone).node
    assert node.status.state == types.NodeStatus.DOWN
    tasks = swarm.wait_running(manager, service.id, 10)
    assert gone not in {task.node_id for task in tasks}
    return swarm.simulator.digest


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_service_stays_whole_when_a_worker_is_lost_and_a_seed_gives_one_history(seed: int) -> None:
    assert scenario(seed) == scenario(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS, SEEDS + 200))
def test_a_service_stays_whole_and_a_seed_gives_one_history_for_many_more_seeds(seed: int) -> None:
    assert scenario(seed) == scenario(seed)


def test_a_seed_gives_the_same_deliveries_in_two_processes_with_different_hash_seeds() -> None:
    program = "from tests.simulation.test_one_manager import scenario; print(scenario(3))"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("seed", range(30))
def test_a_machine_that_dies_while_it_founds_a_swarm_ends_with_a_swarm_or_with_none(seed: int) -> None:
    swarm = Swarm(seed)
    (host,) = swarm.boot()
    founding = host.cluster.ask(host.init_message())
    for _ in range(seed * 6):
        if not founding.done:
            swarm.simulator.step()
    host.crash(power=seed)
    host.boot()
    swarm.simulator.run_for(30)
    state = host.state()
    assert state in ("inactive", "active")
    if state == "inactive":
        assert not founding.done
        host.init()
    (node,) = host.control("ListNodes").nodes
    assert node.manager_status.leader
    assert not host.disk.files.exists("certificates/.founding-root-ca.key")
