"""One failure injected into each actor of a running swarm in turn: everybody gets an answer, and it is back."""

from __future__ import annotations

import functools

import pytest

from runtime.errors import Refused
from runtime.protocol.cluster import Control, Info
from runtime.stage.cell import Cell, Life
from runtime.wire.pb import control_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm, replicated, worker_token


def running_swarm(seed: int = 11) -> tuple[Swarm, Host, Host, str]:
    """A manager, a worker, and a service of four."""
    swarm = Swarm(seed, hosts=2)
    manager, worker = swarm.boot()
    manager.init()
    worker.join(manager, worker_token(manager))
    service = manager.control("CreateService", spec=replicated("web", 4)).service
    swarm.wait_running(manager, service.id, 4)
    return swarm, manager, worker, service.id


def named(path: str) -> str:
    """A path without the task's random id."""
    head, dash, _ = path.partition("/task-")
    return f"{head}/task-*" if dash else path


@functools.cache
def paths(which: int) -> tuple[str, ...]:
    """Every actor of the manager's tree (0) or of the worker's (1)."""
    swarm, *_ = running_swarm()
    stage = swarm.hosts[which].stage
    assert stage is not None
    return tuple(dict.fromkeys(named(path) for path in sorted(stage.cells)))


def find(host: Host, name: str) -> Cell:
    assert host.stage is not None
    return next(cell for path, cell in sorted(host.stage.cells.items()) if named(path) == name)


def check(which: int, name: str) -> None:
    swarm, manager, worker, service_id = running_swarm()
    cell = find(swarm.hosts[which], name)
    failures = cell.failures.total
    cell.control(lambda: cell.failed(RuntimeError("injected"), None))
    began = swarm.simulator.time
    swarm.simulator.run_for(0.01)
    questions = [host.cluster.ask(Info()) for host in (manager, worker)]
    questions.append(manager.cluster.ask(Control("ListNodes", control_pb2.ListNodesRequest())))
    swarm.simulator.run_until(lambda: all(question.done for question in questions), within=20)
    for question in questions:
        try:
            question.result(0)
        except Refused:
            continue  # an answer too
    swarm.simulator.run_until(lambda: find_alive(swarm.hosts[which], cell), within=60)
    assert cell.failures.total > failures or cell.gone
    assert swarm.simulator.time - began >= 0.1, "the reconnect delay was not kept"
    swarm.simulator.run_for(30)
    tasks = swarm.wait_running(manager, service_id, 4)
    assert len({task.slot for task in tasks}) == 4
    states = {node.description.hostname: node.status.state for node in manager.control("ListNodes").nodes}
    assert states == {"node-1": types.NodeStatus.READY, "node-2": types.NodeStatus.READY}
    made = manager.control("CreateService", spec=replicated("after", 3)).service
    swarm.wait_running(manager, made.id, 3)


def find_alive(host: Host, cell: Cell) -> bool:
    """The actor lives again: in the same place, or (below a parent that was restarted) in a new one."""
    if cell.life is Life.RUNNING and cell.failures.total:
        return True
    assert host.stage is not None
    return any(
        path == cell.path and other is not cell and other.life is Life.RUNNING
        for path, other in host.stage.cells.items()
    )


@pytest.mark.parametrize("name", paths(0))
def test_an_actor_of_the_manager_fails_and_is_back(name: str) -> None:
    check(0, name)


@pytest.mark.parametrize("name", paths(1))
def test_an_actor_of_the_worker_fails_and_is_back(name: str) -> None:
    check(1, name)
