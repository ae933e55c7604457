"""What a new leader makes of the tasks that it finds."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.swarm.replicated import is_replicated, needs_restart
from runtime.swarm.restart import RestartSupervisor
from runtime.swarm.task_changes import Delete
from runtime.swarm.task_init import Findings, held_for, initialise, is_held, predecessor, rebuild_history
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import NOW, LittleStore, node_of_id, service_of, task_of

READY = types.READY


def world(**policy: Any) -> tuple[LittleStore, objects.Service]:
    store, service = LittleStore(), service_of(**policy)
    store.put(service, node_of_id("n1"), node_of_id("down", state=types.NodeStatus.DOWN))
    return store, service


def find(store: LittleStore, now: float = NOW) -> Findings:
    return initialise(store.view, RestartSupervisor(), is_replicated, needs_restart, now)


def test_tasks_of_services_that_are_gone_are_deleted() -> None:
    store, service = world()
    store.put(task_of(service_of("gone"), "stray"), task_of(service, "fine"), objects.Task(id="attachment"))
    findings = find(store)
    assert (findings.changes, findings.restarts, findings.held) == ([Delete("stray")], [], [])


def test_tasks_that_ended_or_lost_their_node_are_restarted() -> None:
    store, service = world()
    store.put(
        task_of(service, "failed", state=types.FAILED, node="n1"),
        task_of(service, "lost", node="down"),
        task_of(service, "nowhere", node="no such node"),
        task_of(service, "fine", node="n1"),
        task_of(service, "waiting", state=types.PENDING),
        task_of(service, "over", state=types.FAILED, desired=types.SHUTDOWN),
    )
    assert find(store).restarts == ["failed", "lost", "nowhere"]


def test_tasks_of_other_modes_are_left_alone() -> None:
    store, service = world()
    store.edit(objects.Service, "web", lambda it: getattr(it.spec, "global").SetInParent())
    store.put(task_of(service, "t", state=types.FAILED), task_of(service, "held", desired=READY, state=READY))
    assert find(store) == Findings()


@pytest.mark.parametrize(("passed", "left"), [(0.0, 8.0), (3.0, 5.0), (8.0, 0.0), (99.0, 0.0), (-50.0, 8.0)])
def test_a_held_task_waits_for_the_rest_of_its_delay(passed: float, left: float) -> None:
    store, service = world(delay=8.0)
    store.put(task_of(service, "held", state=READY, desired=READY, at=NOW - passed))
    held = find(store).held
    assert [(each.task.id, each.delay, each.old) for each in held] == [("held", left, None)]


def test_a_held_task_without_a_time_waits_for_all_of_its_delay() -> None:
    store, service = world(delay=8.0)
    task = task_of(service, "held", state=READY, desired=READY)
    task.status.ClearField("timestamp")
    store.put(task)
    assert [each.delay for each in find(store).held] == [8.0]


@pytest.mark.parametrize(
    ("state", "desired", "held"),
    [
        (types.NEW, READY, True),
        (types.COMPLETE, READY, True),
        (types.FAILED, READY, False),
        (READY, types.RUNNING, False),
    ],
)
def test_which_tasks_are_held(state: int, desired: int, held: bool) -> None:
    assert is_held(task_of(service_of(), "t", state=state, desired=desired)) is held


def test_a_held_task_waits_for_the_newest_that_may_still_run_in_its_place() -> None:
    store, service = world()
    leaving = {"desired": types.SHUTDOWN, "node": "n1"}
    held = task_of(service, "held", state=READY, desired=READY)
    store.put(
        held,
        task_of(service, "stopped", state=types.SHUTDOWN, at=NOW + 3, **leaving),
        task_of(service, "old", at=NOW + 2, **leaving),
        task_of(service, "older", at=NOW + 1, **leaving),
        task_of(service, "elsewhere", slot=2, at=NOW + 9, **leaving),
        task_of(service, "lost", at=NOW + 9, desired=types.SHUTDOWN, node="down"),
    )
    old = predecessor(store.view, held)
    assert old is not None
    assert old.id == "old"


def test_a_task_held_by_an_update_waits_for_the_old_task_alone_one_by_a_restart_for_the_delay_too() -> None:
    store, service = world(delay=8.0)
    store.put(task_of(service, "old", node="n1", desired=types.SHUTDOWN))
    same = task_of(service, "same", state=READY, desired=READY, at=NOW + 1)
    service.spec_version.index = 2
    newer = task_of(service, "newer", state=READY, desired=READY, at=NOW + 1)
    for task, delay in ((same, 8.0), (newer, 0.0)):
        held = held_for(store.view, task)
        assert (held.delay, held.old and held.old.id) == (delay, "old")


def history_of(store: LittleStore) -> dict[Any, tuple[int | None, int]]:
    supervisor = RestartSupervisor()
    rebuild_history(supervisor, store.view, store.service())
    return {place: (each.generation[1], each.count) for place, each in supervisor._history.get("web", {}).items()}


def test_all_but_the_first_of_a_slots_newest_version_were_restarts() -> None:
    store, service = world(attempts=5)
    for slot, number in ((1, 4), (2, 1), (3, 2)):
        store.put(*(task_of(service, f"s{slot}t{index}", slot=slot) for index in range(number)))
    assert history_of(store) == {1: (1, 3), 3: (1, 1)}


def test_restarts_of_older_versions_are_forgotten() -> None:
    store, service = world(attempts=5)
    store.put(*(task_of(service, f"old{index}") for index in range(3)))
    service.spec_version.index = 2
    store.put(*(task_of(service, f"new{index}") for index in range(2)))
    assert history_of(store) == {1: (2, 1)}


def test_the_times_of_restarts_are_those_of_the_tasks_creation() -> None:
    store, service = world(attempts=2, window=10.0)
    for index in range(3):
        store.now = NOW + 4 * index
        store.put(task_of(service, f"t{index}", at=NOW - 1000))
    supervisor = RestartSupervisor()
    rebuild_history(supervisor, store.view, service)
    failed = task_of(service, "x", state=types.FAILED, at=NOW + 9)
    assert not supervisor.should_restart(failed, service, NOW)
    failed.status.timestamp.seconds += 6
    assert supervisor.should_restart(failed, service, NOW)


def test_without_a_limit_of_attempts_no_history_is_read() -> None:
    store, service = world()
    store.put(*(task_of(service, f"t{index}") for index in range(3)))
    assert history_of(store) == {}
