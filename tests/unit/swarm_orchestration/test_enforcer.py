"""Which tasks may not stay on their node."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.swarm import generic
from runtime.swarm.enforcer import ERR, MESSAGE, enforce, matters, unfit
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import NOW, LittleStore, node_of_id, service_of, task_of


def node_with(cpus: int = 0, memory: int = 0, gpus: str = "", **more: Any) -> objects.Node:
    node = node_of_id("n1", **more)
    node.description.resources.nano_cpus = cpus
    node.description.resources.memory_bytes = memory
    if gpus:
        node.description.resources.generic.extend(generic.parse(gpus))
    return node


def world(node: objects.Node, *constraints: str) -> tuple[LittleStore, objects.Service]:
    store, service = LittleStore(), service_of()
    service.spec.task.placement.constraints.extend(constraints)
    store.put(node, service)
    return store, service


def ids(store: LittleStore) -> list[str]:
    return [task.id for task in unfit(store.view, "n1")]


def reserving(service: objects.Service, id: str, at: float, cpus: int = 0, memory: int = 0) -> objects.Task:
    task = task_of(service, id, node="n1", at=at)
    task.spec.resources.reservations.nano_cpus = cpus
    task.spec.resources.reservations.memory_bytes = memory
    return task


def test_a_node_that_lost_a_label_loses_the_tasks_that_need_it() -> None:
    store, service = world(node_with(labels={"disk": "ssd"}), "node.labels.disk == ssd")
    store.put(task_of(service, "t", node="n1"))
    assert ids(store) == []
    store.edit(objects.Node, "n1", lambda node: node.spec.annotations.labels.clear())
    assert ids(store) == ["t"]


def test_the_constraints_are_those_of_the_services_present_spec() -> None:
    store, service = world(node_with())
    store.put(task_of(service, "t", node="n1"))
    store.edit(objects.Service, "web", lambda it: it.spec.task.placement.constraints.append("node.id == other"))
    assert ids(store) == ["t"]


def test_a_task_without_a_service_has_its_own_constraints() -> None:
    store, _service = world(node_with())
    task = objects.Task(id="t", node_id="n1", desired_state=types.RUNNING)
    task.spec.placement.constraints.append("node.id == other")
    store.put(task)
    assert ids(store) == ["t"]


def test_rejection_is_observed_and_the_desire_stays() -> None:
    store, service = world(node_with(), "node.id == other")
    store.put(task_of(service, "t", node="n1"))
    assert store.run(lambda tx: enforce(tx, "n1")) == 1
    task = store.task("t")
    assert (task.status.state, task.desired_state) == (types.REJECTED, types.RUNNING)
    assert (task.status.message, task.status.err) == (MESSAGE, ERR)
    assert store.run(lambda tx: enforce(tx, "n1")) == 0


@pytest.mark.parametrize("availability", [specs.NodeSpec.PAUSE, specs.NodeSpec.DRAIN])
def test_only_active_nodes_are_looked_at(availability: int) -> None:
    store, service = world(node_with(availability=availability), "node.id == other")
    store.put(task_of(service, "t", node="n1"))
    assert ids(store) == []


@pytest.mark.parametrize(
    ("state", "desired", "concerned"),
    [
        (types.RUNNING, types.RUNNING, True),
        (types.ASSIGNED, types.READY, True),
        (types.RUNNING, types.COMPLETE, True),
        (types.RUNNING, types.SHUTDOWN, False),
        (types.COMPLETE, types.RUNNING, False),
        (types.FAILED, types.RUNNING, False),
    ],
)
def test_tasks_that_are_over_or_leave_anyway_are_left_alone(state: int, desired: int, concerned: bool) -> None:
    store, service = world(node_with(), "node.id == other")
    store.put(task_of(service, "t", node="n1", state=state, desired=desired))
    assert ids(store) == (["t"] if concerned else [])


def test_the_newest_tasks_go_when_the_node_shrinks() -> None:
    store, service = world(node_with(cpus=4, memory=100))
    for number in range(4):
        store.now = NOW + 10 - number
        store.put(reserving(service, f"t{number}", NOW, cpus=1, memory=20))
    assert ids(store) == []
    store.edit(objects.Node, "n1", lambda node: setattr(node.description.resources, "nano_cpus", 2))
    assert ids(store) == ["t1", "t0"]


def test_a_rejected_task_takes_nothing_from_the_others() -> None:
    store, service = world(node_with(cpus=4, memory=100))
    for number, (cpus, memory) in enumerate([(3, 10), (3, 10), (1, 10), (1, 90)]):
        store.now = NOW + number
        store.put(reserving(service, f"t{number}", NOW, cpus, memory))
    assert ids(store) == ["t1", "t3"]


def test_tasks_without_reservations_stay_on_a_node_that_offers_nothing() -> None:
    store, service = world(node_with())
    store.put(reserving(service, "t", NOW))
    assert ids(store) == []


def test_generic_resources_that_are_gone_reject_their_tasks_and_no_others() -> None:
    store, service = world(node_with(gpus="gpu=a,gpu=b,ssd=2"))
    for id, what in (("named", "gpu=c"), ("many", "ssd=3"), ("fine", "gpu=a,ssd=1"), ("last", "ssd=2")):
        store.now += 1
        task = task_of(service, id, node="n1")
        task.assigned_generic_resources.extend(generic.parse(what))
        store.put(task)
    assert ids(store) == ["named", "many", "last"]


def test_a_node_that_is_gone_has_nothing_to_enforce() -> None:
    store, _service = world(node_with())
    assert store.run(lambda tx: enforce(tx, "nobody")) == 0


def test_which_changes_of_a_node_matter() -> None:
    old = node_with(cpus=4, labels={"a": "b"})

    def changed(**more: Any) -> objects.Node:
        new = objects.Node()
        new.CopyFrom(old)
        for path, value in more.items():
            target: Any = new
            *parents, name = path.split("__")
            for parent in parents:
                target = getattr(target, parent)
            setattr(target, name, value)
        return new

    assert matters(None, old)
    assert not matters(old, changed(status__state=types.NodeStatus.UNKNOWN))
    assert not matters(old, changed(status__message="heartbeat failure"))
    assert matters(old, changed(status__addr="10.0.0.1"))
    assert matters(old, changed(role=1))
    assert matters(old, changed(description__resources__nano_cpus=2))
    assert not matters(old, changed(spec__availability=specs.NodeSpec.DRAIN))
    assert matters(changed(spec__availability=specs.NodeSpec.DRAIN), old)
