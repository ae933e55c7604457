"""Reconciliation of global services: one task on every node that fits."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.swarm.global_service import node_gone, reconcile, reconcile_node, restart_or_shut_down
from runtime.swarm.replicated import Round
from runtime.swarm.task_changes import Desire, apply
from runtime.swarm.task_model import wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import LittleStore, node_of_id, service_of, task_of

ACTIVE, PAUSE, DRAIN = specs.NodeSpec.ACTIVE, specs.NodeSpec.PAUSE, specs.NodeSpec.DRAIN


def world(*nodes: objects.Node, constraint: str = "") -> LittleStore:
    store, service = LittleStore(), service_of()
    getattr(service.spec, "global").SetInParent()
    if constraint:
        service.spec.task.placement.constraints.append(constraint)
    store.put(service, *nodes)
    return store


def again(task: objects.Task) -> bool:
    return True


def settle(store: LittleStore) -> Round:
    def step(tx: Any) -> Round:
        made = reconcile(tx, "web", store.new_id, again, tx.now)
        apply(tx, made.changes)
        return made

    return store.run(step)


def settle_node(store: LittleStore, node_id: str = "n1") -> Round:
    def step(tx: Any) -> Round:
        made = reconcile_node(tx, node_id, store.new_id, again, tx.now)
        apply(tx, made.changes)
        return made

    return store.run(step)


def held(store: LittleStore) -> list[str]:
    return sorted(task.node_id for task in store.tasks() if wanted(task))


def add(store: LittleStore, id: str, node: str = "n1", **more: Any) -> None:
    store.put(task_of(store.service(), id, slot=0, node=node, **more))


def availability(store: LittleStore, value: int) -> None:
    store.edit(objects.Node, "n1", lambda node: setattr(node.spec, "availability", value))


def test_every_valid_node_gets_one_task() -> None:
    store = world(node_of_id("n1"), node_of_id("n2", state=types.NodeStatus.UNKNOWN), node_of_id("n3", state=2))
    settle(store)
    assert held(store) == sorted(node.id for node in store.view.all(objects.Node) if node.status.state != 1)
    assert settle(store).changes == []


@pytest.mark.parametrize("value", [PAUSE, DRAIN])
def test_paused_and_drained_nodes_get_nothing(value: int) -> None:
    store = world(node_of_id("n1", availability=value), node_of_id("n2"))
    settle(store)
    assert held(store) == ["n2"]


def test_a_drained_node_loses_what_it_has_a_paused_one_keeps_it() -> None:
    store = world(node_of_id("n1"))
    settle(store)
    availability(store, PAUSE)
    settle(store)
    settle_node(store)
    assert held(store) == ["n1"]
    availability(store, DRAIN)
    settle_node(store)
    assert held(store) == []


def test_nodes_that_do_not_fit_lose_their_tasks_when_the_service_changes() -> None:
    store = world(node_of_id("n1"), node_of_id("n2", labels={"a": "b"}))
    settle(store)
    store.edit(objects.Service, "web", lambda it: it.spec.task.placement.constraints.append("node.labels.a == b"))
    settle(store)
    assert held(store) == ["n2"]


def test_a_node_that_stops_fitting_is_left_to_the_enforcer() -> None:
    store = world(node_of_id("n1", labels={"a": "b"}), constraint="node.labels.a == b")
    settle(store)
    store.edit(objects.Node, "n1", lambda node: node.spec.annotations.labels.clear())
    assert settle_node(store).changes == []


def test_tasks_of_unknown_nodes_are_shut_down() -> None:
    store = world(node_of_id("n1"))
    add(store, "lost", node="nowhere")
    settle(store)
    assert store.task("lost").desired_state == types.SHUTDOWN


def test_a_node_that_comes_up_gets_what_is_missing() -> None:
    store = world(node_of_id("n1"))
    settle_node(store)
    assert held(store) == ["n1"]
    assert settle_node(store).changes == []


def test_a_node_that_changes_has_dirty_tasks_replaced_at_once() -> None:
    store = world(node_of_id("n1"))
    add(store, "old")
    store.edit(
        objects.Service, "web", lambda it: (setattr(it.spec.task, "force_update", 1), it.spec_version.SetInParent())
    )
    store.edit(objects.Service, "web", lambda it: setattr(it.spec_version, "index", 2))
    settle_node(store)
    assert held(store) == ["n1"]
    assert store.task("old").desired_state == types.SHUTDOWN


def test_of_several_clean_tasks_on_a_node_the_running_one_is_kept() -> None:
    store = world(node_of_id("n1"))
    for id, state in (("a", types.READY), ("b", types.RUNNING), ("c", types.READY)):
        add(store, id, state=state)
    settle_node(store)
    assert [task.id for task in store.tasks() if wanted(task)] == ["b"]


def test_a_node_that_is_gone_has_its_global_tasks_forgotten_and_no_others() -> None:
    store = world()
    add(store, "mine")
    other = service_of("other")
    store.put(other, task_of(other, "theirs", node="n1"))
    store.run(lambda tx: apply(tx, node_gone(tx, "n1").changes))
    assert store.view.get(objects.Task, "mine") is None
    assert store.view.get(objects.Task, "theirs") is not None


@pytest.mark.parametrize(
    ("value", "constraint", "decision"),
    [
        (ACTIVE, "", True),
        (PAUSE, "", Desire("t", types.SHUTDOWN)),
        (DRAIN, "", False),
        (ACTIVE, "node.id == other", Desire("t", types.SHUTDOWN)),
    ],
)
def test_what_an_ended_task_comes_to(value: int, constraint: str, decision: Any) -> None:
    store = world(node_of_id("n1", availability=value), constraint=constraint)
    add(store, "t", state=types.FAILED)
    assert restart_or_shut_down(store.view, store.task("t")) == decision
    add(store, "lives")
    assert restart_or_shut_down(store.view, store.task("lives")) is False
    store.delete(objects.Node, "n1")
    assert restart_or_shut_down(store.view, store.task("t")) is False


def test_places_under_update_are_those_that_hold_tasks() -> None:
    store = world(node_of_id("n1"), node_of_id("n2"))
    add(store, "t")
    made = settle(store)
    assert list(made.update) == ["n1"]
    assert held(store) == ["n1", "n2"]
