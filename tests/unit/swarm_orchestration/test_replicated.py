"""Reconciliation of replicated services, decided and carried out on a real store."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.swarm import replicated
from runtime.swarm.replicated import Round, reconcile, remove_tasks, tasks_to_restart
from runtime.swarm.restart import RestartSupervisor
from runtime.swarm.task_changes import Create, Desire, apply
from runtime.swarm.task_model import the_cluster, wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import LittleStore, node_of_id, service_of, task_of


def rounds(store: LittleStore, supervisor: RestartSupervisor | None = None, limit: int = 200) -> Round:
    """Rounds until one is the last."""
    guard = supervisor or RestartSupervisor()

    def step(tx: Any) -> Round:
        service = store.service()
        would = lambda task: guard.should_restart(task, service, tx.now)  # noqa: E731
        made = reconcile(tx, "web", store.new_id, would, tx.now, limit)
        apply(tx, made.changes)
        return made

    for _number in range(100):
        made = store.run(step)
        assert len(made.changes) <= limit
        if not made.more:
            return made
    raise AssertionError("a hundred rounds and no end")


def scaled(replicas: int, *tasks: objects.Task, **more: Any) -> LittleStore:
    store = LittleStore()
    store.put(service_of(replicas=replicas, **more), *tasks)
    return store


def slots(store: LittleStore) -> list[int]:
    return sorted(task.slot for task in store.tasks() if wanted(task))


def test_slots_are_numbered_from_one() -> None:
    store = scaled(3)
    rounds(store)
    assert slots(store) == [1, 2, 3]
    assert {(task.desired_state, task.status.state) for task in store.tasks()} == {(types.RUNNING, types.NEW)}


def test_the_lowest_free_slots_are_filled_first() -> None:
    service = service_of()
    store = scaled(4, task_of(service, "a", slot=2), task_of(service, "b", slot=5))
    rounds(store)
    assert slots(store) == [1, 2, 3, 5]


def test_a_slot_that_is_filled_again_keeps_its_history_others_lose_theirs() -> None:
    service = service_of()
    dead = [task_of(service, f"dead{slot}", slot=slot, state=types.FAILED, desired=types.SHUTDOWN) for slot in (1, 7)]
    store = scaled(1, *dead)
    rounds(store)
    assert slots(store) == [1]
    assert {task.id for task in store.tasks()} >= {"dead1"}
    assert store.view.get(objects.Task, "dead7") is None


def test_what_still_runs_in_a_dead_slot_is_removed_only_when_it_stopped() -> None:
    service = service_of()
    store = scaled(0, task_of(service, "a", slot=1, state=types.RUNNING, desired=types.SHUTDOWN, node="n1"))
    rounds(store)
    assert store.task("a").desired_state == types.REMOVE


def test_running_tasks_are_kept_before_those_that_are_not() -> None:
    service = service_of()
    states = {1: types.PENDING, 2: types.RUNNING, 3: types.READY, 4: types.RUNNING}
    store = scaled(2, *(task_of(service, f"t{slot}", slot=slot, state=state) for slot, state in states.items()))
    rounds(store)
    assert slots(store) == [2, 4]


def test_what_is_kept_lies_evenly_over_the_nodes() -> None:
    service = service_of()
    nodes = {1: "n1", 2: "n1", 3: "n1", 4: "n2", 5: "n3", 6: "n2"}
    store = scaled(3, *(task_of(service, f"t{slot}", slot=slot, node=node) for slot, node in nodes.items()))
    rounds(store)
    assert Counter(task.node_id for task in store.tasks() if wanted(task)) == {"n1": 1, "n2": 1, "n3": 1}


def test_a_slot_with_two_tasks_goes_before_one_with_one() -> None:
    service = service_of()
    tasks = [task_of(service, f"a{number}", slot=1, node=f"n{number}") for number in (1, 2)]
    store = scaled(1, *tasks, task_of(service, "b", slot=2, node="n1"))
    rounds(store)
    assert slots(store) == [2]


def test_a_slot_given_up_takes_its_history_along() -> None:
    service = service_of()
    old = task_of(service, "old", slot=2, state=types.FAILED, desired=types.SHUTDOWN)
    store = scaled(1, task_of(service, "a", slot=1), task_of(service, "b", slot=2), old)
    rounds(store)
    assert store.view.get(objects.Task, "old") is None
    assert store.task("b").desired_state == types.REMOVE


def test_a_task_that_finished_for_good_fills_its_slot() -> None:
    done = service_of(condition=types.RestartPolicy.NONE)
    store = scaled(
        1, task_of(done, "a", state=types.COMPLETE, desired=types.SHUTDOWN), condition=types.RestartPolicy.NONE
    )
    assert [list(places) for places in (rounds(store).update,)] == [[1]]
    assert [task.id for task in store.tasks()] == ["a"]


@pytest.mark.parametrize("limit", [1, 7, 200])
def test_a_large_change_is_made_in_rounds_of_bounded_size(limit: int) -> None:
    store = scaled(45)
    rounds(store, limit=limit)
    assert slots(store) == list(range(1, 46))
    store.edit(objects.Service, "web", lambda service: setattr(service.spec.replicated, "replicas", 3))
    rounds(store, limit=limit)
    assert slots(store) == [1, 2, 3]


def test_places_to_update_are_named_in_the_last_round_alone() -> None:
    store = scaled(5)
    made = store.run(lambda tx: reconcile(tx, "web", store.new_id, lambda task: True, tx.now, 3))
    assert (made.more, made.update) == (True, {})


def test_other_services_and_none_come_to_nothing() -> None:
    store = scaled(2)
    store.edit(objects.Service, "web", lambda service: getattr(service.spec, "global").SetInParent())
    assert rounds(store).changes == []
    store.delete(objects.Service, "web")
    assert store.run(lambda tx: reconcile(tx, "web", store.new_id, lambda task: True, tx.now)).changes == []


def test_the_tasks_of_a_removed_service_are_to_be_removed_in_rounds() -> None:
    service = service_of()
    store = LittleStore()
    store.put(*(task_of(service, f"t{number}", slot=number) for number in range(5)))
    first = remove_tasks(store.view, "web", 3)
    assert (len(first.changes), first.more) == (3, True)
    store.run(lambda tx: apply(tx, first.changes))
    second = remove_tasks(store.view, "web", 3)
    assert (second.changes, second.more) == ([Desire("t3", types.REMOVE), Desire("t4", types.REMOVE)], False)


@pytest.mark.parametrize(
    ("state", "availability", "gives_up"),
    [
        (types.NodeStatus.READY, specs.NodeSpec.ACTIVE, False),
        (types.NodeStatus.UNKNOWN, specs.NodeSpec.ACTIVE, False),
        (types.NodeStatus.DISCONNECTED, specs.NodeSpec.ACTIVE, False),
        (types.NodeStatus.READY, specs.NodeSpec.PAUSE, False),
        (types.NodeStatus.READY, specs.NodeSpec.DRAIN, True),
        (types.NodeStatus.DOWN, specs.NodeSpec.ACTIVE, True),
    ],
)
def test_a_node_gives_up_its_tasks_when_it_is_down_or_drained(state: int, availability: int, gives_up: bool) -> None:
    service = service_of()
    store = scaled(1, task_of(service, "a", node="n1"), task_of(service, "b", node="n1", desired=types.SHUTDOWN))
    store.put(node_of_id("n1", state=state, availability=availability))
    assert [task.id for task in tasks_to_restart(store.view, "n1")] == (["a"] if gives_up else [])


def test_a_created_task_of_a_service_that_went_is_left_out() -> None:
    store = scaled(1)
    made = reconcile(store.view, "web", store.new_id, lambda task: True, store.now)
    assert isinstance(made.changes[0], Create)
    store.delete(objects.Service, "web")
    assert store.run(lambda tx: apply(tx, made.changes)) == 0


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("scale"), st.integers(0, 8)),
        st.tuples(st.just("fail"), st.integers(0, 30)),
        st.tuples(st.just("run"), st.integers(0, 30)),
        st.tuples(st.just("stop"), st.integers(0, 30)),
        st.tuples(st.just("start"), st.integers(0, 3)),
        st.tuples(st.just("drain"), st.integers(0, 2)),
        st.tuples(st.just("update"), st.integers(0, 2)),
    ),
    max_size=40,
)


class Cluster:
    """Orchestration without actors: each operation is followed by what the orchestrator does about it."""

    def __init__(self, condition: int) -> None:
        self.store = scaled(3, condition=condition, delay=2.0)
        self.store.put(*(node_of_id(f"n{number}") for number in range(3)))
        self.supervisor = RestartSupervisor()
        self.settle()

    def do(self, what: str, number: int) -> None:
        self.store.now += 1.0
        tasks = self.store.tasks()
        task = tasks[number % len(tasks)] if tasks else None
        if what == "scale":
            self.store.edit(objects.Service, "web", lambda it: setattr(it.spec.replicated, "replicas", number))
        elif what == "start":
            self.store.now += number
        elif what == "drain":
            self.store.edit(objects.Node, f"n{number}", lambda it: setattr(it.spec, "availability", number))
        elif what == "update":
            self.store.edit(objects.Service, "web", lambda it: setattr(it.spec.task.container, "image", str(number)))
        elif task is not None:
            self.move(task, what, number)
        self.settle()

    def move(self, task: objects.Task, what: str, number: int) -> None:
        if task.status.state > types.RUNNING:
            return
        if what == "run" and task.desired_state == types.RUNNING:
            self.store.observe(task.id, types.RUNNING)
            self.store.edit(objects.Task, task.id, lambda it: setattr(it, "node_id", f"n{number % 3}"))
        elif what == "fail":
            self.store.observe(task.id, types.FAILED)
        elif what == "stop" and task.desired_state > types.RUNNING:
            self.store.observe(task.id, types.SHUTDOWN)

    def settle(self) -> None:
        for task in self.store.tasks():
            self.supervisor.task_changed(task.id, self.store.now)
            if not wanted(task):
                self.supervisor.cancel(task.id)
            elif replicated.needs_restart(self.store.view, task):
                self.restart(task)
        starts = self.supervisor.fire(self.store.view, self.store.now)
        self.store.run(lambda tx: apply(tx, starts))
        for start in starts:
            if replicated.needs_restart(self.store.view, self.store.task(start.task_id)):
                self.restart(self.store.task(start.task_id))
        rounds(self.store, self.supervisor)

    def restart(self, task: objects.Task) -> None:
        store, view = self.store, self.store.view
        if self.supervisor.is_delayed(task.id):
            return
        node = view.get(objects.Node, task.node_id)
        plan = self.supervisor.plan(task, store.service(), node, the_cluster(view), store.now, store.new_id())
        assert plan is not None
        store.run(lambda tx: apply(tx, plan.changes))
        self.supervisor.committed(plan, store.now)


@settings(max_examples=60)
@given(OPERATIONS, st.sampled_from([types.RestartPolicy.ANY, types.RestartPolicy.ON_FAILURE, types.RestartPolicy.NONE]))
def test_no_slot_has_two_wanted_tasks_and_the_number_is_right_after_any_operations(
    operations: list[tuple[str, int]], condition: int
) -> None:
    cluster = Cluster(condition)
    for what, number in operations:
        cluster.do(what, number)
        held = Counter(task.slot for task in cluster.store.tasks() if wanted(task))
        assert max(held.values(), default=0) <= 1
        replicas = cluster.store.service().spec.replicated.replicas
        if condition == types.RestartPolicy.ANY:
            assert sum(held.values()) == replicas
        else:
            assert sum(held.values()) <= replicas
