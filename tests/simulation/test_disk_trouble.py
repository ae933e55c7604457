"""A manager's disk fills up, and has room again: changes are refused in a sentence, and what is there goes on."""

from __future__ import annotations

import random

import pytest

from actors.raft_actor import LOG_LOST
from runtime.disk.ballast import BALLAST, BALLAST_BYTES, DISK_FULL, FLOOR
from runtime.disk.data_root import RAFT_DATABASE
from runtime.errors import Code, Refused
from runtime.protocol.cluster import Info
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm, replicated, worker_token


def failures(*hosts: Host) -> dict[str, str | None]:
    return {
        f"{host.name}{path}": cell.last_error
        for host in hosts
        if host.stage is not None
        for path, cell in host.stage.cells.items()
        if cell.failures.total
    }


def refused_write(manager: Host) -> Refused:
    with pytest.raises(Refused) as refused:
        manager.control("CreateService", spec=replicated("more", 1))
    return refused.value


def test_a_disk_that_fills_up_refuses_changes_and_keeps_the_swarm_running_until_there_is_space() -> None:
    swarm = Swarm(21, hosts=3)
    manager, one, two = swarm.boot()
    manager.init()
    token = worker_token(manager)
    one.join(manager, token)
    two.join(manager, token)
    service = manager.control("CreateService", spec=replicated("web", 6)).service.id
    swarm.wait_running(manager, service, 6)
    files = manager.disk.files
    assert files.exists(BALLAST)

    files.free = FLOOR
    swarm.simulator.run_for(2)
    assert not files.exists(BALLAST)
    assert files.free == FLOOR + BALLAST_BYTES
    error = refused_write(manager)
    assert (error.code, error.text) == (Code.RESOURCE_EXHAUSTED, DISK_FULL)
    assert len(manager.control("ListServices").services) == 1
    one.crash()
    one.executor.power_off()
    swarm.simulator.run_for(30)
    assert len({task.slot for task in swarm.wait_running(manager, service, 6)}) == 6
    assert failures(manager, two) == {}

    files.free = 1 << 40
    swarm.simulator.run_for(2)
    assert files.exists(BALLAST)
    more = manager.control("CreateService", spec=replicated("more", 1)).service.id
    swarm.wait_running(manager, more, 1)


def test_with_nothing_left_nothing_is_written_and_all_of_it_comes_back() -> None:
    swarm = Swarm(22, hosts=2)
    manager, worker = swarm.boot()
    manager.init()
    worker.join(manager, worker_token(manager))
    service = manager.control("CreateService", spec=replicated("web", 4)).service.id
    before = {task.id for task in swarm.wait_running(manager, service, 4)}
    files = manager.disk.files
    files.free = 0
    swarm.simulator.run_for(1.5)
    files.free = 0
    swarm.simulator.run_for(1.5)
    image = manager.disk.image(RAFT_DATABASE)
    image.full_after(0)
    written = len(image.current())
    worker.executor.power_off()
    swarm.simulator.run_for(20)
    assert len(image.current()) == written
    assert refused_write(manager).code is Code.RESOURCE_EXHAUSTED
    assert manager.stage is not None
    assert manager.stage.cells["/cluster/node/manager/raft"].failures.total == 0
    image.heal()
    files.free = 1 << 40
    swarm.simulator.run_for(60)
    running = swarm.wait_running(manager, service, 4)
    assert len({task.slot for task in running}) == 4
    assert before
    states = {node.description.hostname: node.status.state for node in manager.control("ListNodes").nodes}
    assert states == {"node-1": types.NodeStatus.READY, "node-2": types.NodeStatus.READY}


def test_the_reserve_is_given_back_by_a_clean_stop_and_found_again_after_a_crash() -> None:
    swarm = Swarm(23)
    (manager,) = swarm.boot()
    manager.init()
    swarm.simulator.run_for(2)
    files = manager.disk.files
    free = files.free
    manager.crash()
    assert files.exists(BALLAST)
    manager.boot()
    swarm.simulator.run_for(5)
    assert (files.free, files.exists(BALLAST)) == (free, True)
    assert manager.stage is not None
    manager.stage.cells["/cluster"].request_stop()
    swarm.simulator.run_for(5)
    assert (files.free, files.exists(BALLAST)) == (free + BALLAST_BYTES, False)


def swarm_of_two(seed: int) -> tuple[Swarm, Host, Host, str]:
    swarm = Swarm(seed, hosts=2)
    manager, worker = swarm.boot()
    manager.init()
    worker.join(manager, worker_token(manager))
    service = manager.control("CreateService", spec=replicated("web", 4)).service.id
    swarm.wait_running(manager, service, 4)
    return swarm, manager, worker, service


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_log_keeps_the_manager_down_says_where_and_leaves_it_as_it_is(seed: int) -> None:
    swarm, manager, _worker, _ = swarm_of_two(seed)
    manager.crash(power=seed)
    image = manager.disk.image(RAFT_DATABASE)
    image.corrupt(random.Random(seed))
    before = image.current()
    manager.boot()
    swarm.simulator.run_for(40)
    info = manager.ask(Info())
    assert info.local_node_state == "error"
    assert "damaged" in info.error or "data key" in info.error
    assert image.current() == before
    assert manager.stage is not None
    assert manager.stage.cells["/cluster/node"].failures.total == 0, "the node itself goes on"
    assert manager.stage.cells["/cluster/node/agent"].failures.total == 0


def test_what_is_wrong_is_still_said_after_the_cluster_layer_failed_and_began_again() -> None:
    swarm, manager, _worker, _ = swarm_of_two(41)
    manager.crash()
    manager.disk.image(RAFT_DATABASE).corrupt(random.Random(41))
    manager.boot()
    swarm.simulator.run_for(20)
    before = manager.ask(Info())
    swarm.crash_actor(manager.name, "/cluster")
    swarm.simulator.run_for(5)
    after = manager.ask(Info())
    assert (after.local_node_state, after.error) == ("error", before.error)
    assert "damaged" in after.error


def test_a_manager_whose_log_is_gone_begins_no_other_one() -> None:
    swarm, manager, _worker, _ = swarm_of_two(31)
    manager.crash()
    manager.disk.files.remove_tree("raft")
    for _ in range(2):
        manager.boot()
        swarm.simulator.run_for(40)
        info = manager.ask(Info())
        assert (info.local_node_state, info.error) == ("error", LOG_LOST)
        assert manager.disk.image(RAFT_DATABASE).current() == {}
        manager.crash()


@pytest.mark.parametrize("failing", ["sync", "full"])
def test_a_disk_that_fails_twice_within_a_minute_keeps_the_manager_down_and_tasks_run_on(failing: str) -> None:
    swarm, manager, worker, service = swarm_of_two(33)
    image = manager.disk.image(RAFT_DATABASE)
    for number in range(2):
        if failing == "sync":
            image.sync_error_at(0)
        else:
            image.full_after(0)
        swarm.simulator.run_for(8)
        try:
            manager.control("CreateService", spec=replicated(f"more-{number}", 1))
        except Refused as refused:
            assert refused.text
        swarm.simulator.run_for(2)
    info = manager.ask(Info())
    assert info.local_node_state == "error"
    assert "write failed" in info.error
    image.heal()
    manager.crash()
    manager.boot()
    swarm.simulator.run_for(15)
    assert len(swarm.wait_running(manager, service, 4)) == 4
    assert worker.state() == "active"
