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


ESCALATES = ("store", "raft", "log")
"""These fail together with the manager above them: what they hold is read from disk again."""


def failures(host: Host) -> dict[str, int]:
    """How often each actor failed, by path."""
    assert host.stage is not None
    return {path: cell.failures.total for path, cell in host.stage.cells.items() if cell.failures.total}


def inject(swarm: Swarm, host: Host, name: str) -> None:
    """A failure of this actor; it is back, and nobody failed with it but who has to."""
    before = failures(host)
    cell = find(host, name)
    cell.control(lambda: cell.failed(RuntimeError("injected"), None))
    swarm.simulator.run_for(0.01)
    swarm.simulator.run_until(lambda: find_alive(host, cell), within=60)
    assert cell.failures.total > before.get(cell.path, 0) or cell.gone
    if name.split("/")[-1] in ESCALATES:
        return
    others = {path for path, count in failures(host).items() if count > before.get(path, 0)} - {cell.path}
    assert not others, f"{name} took others with it: {others}"


def ask_around(swarm: Swarm, manager: Host, worker: Host) -> None:
    """Everybody is answered in time: with what was asked for, or with a refusal."""
    questions = [host.cluster.ask(Info()) for host in (manager, worker)]
    questions.append(manager.cluster.ask(Control("ListNodes", control_pb2.ListNodesRequest())))
    swarm.simulator.run_until(lambda: all(question.done for question in questions), within=20)
    for question in questions:
        try:
            question.result(0)
        except Refused:
            continue  # an answer too


def check(which: int, name: str) -> None:
    swarm, manager, worker, service_id = running_swarm()
    host = swarm.hosts[which]
    cell = find(host, name)
    before = cell.failures.total
    cell.control(lambda: cell.failed(RuntimeError("injected"), None))
    began = swarm.simulator.time
    swarm.simulator.run_for(0.01)
    ask_around(swarm, manager, worker)
    swarm.simulator.run_until(lambda: find_alive(host, cell), within=60)
    assert cell.failures.total > before or cell.gone
    assert swarm.simulator.time - began >= 0.1, "the reconnect delay was not kept"
    swarm.simulator.run_for(30)
    whole(swarm, manager, service_id)


def whole(swarm: Swarm, manager: Host, service_id: str) -> None:
    """The service is as it was, both nodes are ready, and new services get their tasks."""
    tasks = swarm.wait_running(manager, service_id, 4)
    assert len({task.slot for task in tasks}) == 4
    states = {node.description.hostname: node.status.state for node in manager.control("ListNodes").nodes}
    assert states == {"node-1": types.NodeStatus.READY, "node-2": types.NodeStatus.READY}
    made = manager.control("CreateService", spec=replicated(f"after-{int(swarm.simulator.time)}", 3)).service
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


@pytest.mark.parametrize("which", [0, 1])
def test_each_actor_fails_alone_and_its_next_life_hears_what_changes_afterwards(which: int) -> None:
    """One after the other in one swarm, with failures of the manager and of the node itself in between: whoever
    subscribed to an actor that began a new life, or was told something by it, must not be forgotten."""
    swarm, manager, _, service_id = running_swarm()
    host = swarm.hosts[which]
    for name in paths(which):
        inject(swarm, host, name)
        swarm.simulator.run_for(10)
    for name in ("/cluster/node/manager", "/cluster/node") if which == 0 else ("/cluster/node",):
        inject(swarm, host, name)
        swarm.simulator.run_for(20)
    whole(swarm, manager, service_id)
