"""A worker of the one kind in the swarm of the other: tasks, logs, drain, leaving."""

from __future__ import annotations

from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.waiting import until


def logged(manager: Peer, service: str) -> str:
    return manager.docker("service", "logs", service)


def service_moves_away(manager: Peer, worker: Peer, service: str) -> None:
    """Drained, the worker stops its tasks; they are not lost but wait for a place."""
    manager.docker("node", "update", "--availability", "drain", worker.name)
    ended = ("shutdown", "complete", "failed")
    node_id = manager.node(worker)["ID"]

    def over() -> bool:
        here = [task for task in manager.get("/tasks", service=service) if task.get("NodeID") == node_id]
        return bool(here) and all(task["Status"]["State"] in ended for task in here)

    until(over, f"{worker.name} has stopped its tasks")

    def wait() -> bool:
        """A replacement is to run only once the manager has seen that the old task stopped."""
        wanted = manager.get("/tasks", service=service, desired_state="running")
        return {task["Status"]["State"] for task in wanted} == {"pending"}

    until(wait, "its tasks wait for a place")


def leaves(manager: Peer, worker: Peer) -> None:
    """A worker leaves without force; its manager misses it, and may then forget it."""
    assert worker.docker("swarm", "leave") == "Node left the swarm.\n"
    assert worker.get("/info")["Swarm"]["LocalNodeState"] == "inactive"
    manager.wait_state(worker, "down")
    manager.docker("node", "rm", worker.name)
    assert manager.node(worker) == {}


def test_dockerd_works_for_a_swarmlet_manager(start: Start) -> None:
    manager, worker = start(Swarmlet, "alpha"), start(Dockerd, "beta")
    manager.init()
    worker.join(manager)
    manager.wait_state(worker, "ready")
    assert worker.get("/info")["Swarm"]["RemoteManagers"] == [
        {"NodeID": manager.node_id, "Addr": f"{manager.address}:2377"}
    ]
    manager.create("web", "busybox:latest", "--replicas", "2", "--constraint", "node.hostname==beta")
    manager.wait_tasks("web", 2, at=worker)
    until(lambda: "tick 3" in logged(manager, "web"), "the logs of the service come")
    assert "web.1" in manager.docker("service", "ps", "web")
    assert len(worker.docker("ps", "-q").split()) == 2
    manager.docker("service", "scale", "--detach", "web=1")
    manager.wait_tasks("web", 1, at=worker)
    until(lambda: len(worker.docker("ps", "-q").split()) == 1, "one container is left")
    service_moves_away(manager, worker, "web")
    leaves(manager, worker)


def test_swarmlet_works_for_a_dockerd_manager(start: Start) -> None:
    manager, worker = start(Dockerd, "alpha"), start(Swarmlet, "beta")
    manager.init()
    worker.join(manager)
    manager.wait_state(worker, "ready")
    swarm = worker.get("/info")["Swarm"]
    assert swarm["RemoteManagers"] == [{"NodeID": manager.node_id, "Addr": f"{manager.address}:2377"}]
    assert swarm["NodeAddr"] == worker.address
    here = "engine.labels.swarmlet.executor==process"
    manager.create("web", "host", "--replicas", "2", "--constraint", here)
    manager.wait_tasks("web", 2, at=worker)
    until(lambda: "tick 3" in logged(manager, "web"), "the logs of the service come")
    manager.docker("service", "scale", "--detach", "web=1")
    manager.wait_tasks("web", 1, at=worker)
    service_moves_away(manager, worker, "web")
    leaves(manager, worker)
