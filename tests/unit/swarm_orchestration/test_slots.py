"""Which places of a service an update looks at, and which are dead."""

from __future__ import annotations

import pytest

from runtime.swarm.slots import has_successor, is_dirty_place, split, updatable_tasks
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import NOW, LittleStore, service_of, task_of


def yes(task: objects.Task) -> bool:
    return True


def no(task: objects.Task) -> bool:
    return False


def ended(service: objects.Service, id: str, at: float, desired: types.TaskState = types.SHUTDOWN) -> objects.Task:
    return task_of(service, id, state=types.COMPLETE, desired=desired, at=at)


def test_wanted_tasks_alone_make_a_place_updatable() -> None:
    service = service_of()
    old, new = ended(service, "t1", NOW), task_of(service, "t2", state=types.READY, desired=types.READY)
    assert updatable_tasks([old, new], service, no) == [new]


def test_a_place_that_ended_for_good_is_updatable_by_its_newest_task() -> None:
    service = service_of()
    tasks = [ended(service, "t2", NOW), ended(service, "t1", NOW + 5)]
    assert updatable_tasks(tasks, service, no) == [tasks[1]]


def test_a_task_without_a_time_counts_as_the_oldest() -> None:
    service = service_of()
    tasks = [ended(service, "t1", NOW), ended(service, "t2", NOW)]
    tasks[1].status.ClearField("timestamp")
    assert updatable_tasks(tasks, service, no) == [tasks[0]]


def test_applied_at_goes_before_the_time_of_the_status() -> None:
    service = service_of()
    tasks = [ended(service, "t1", NOW), ended(service, "t2", NOW + 5)]
    tasks[0].status.applied_at.seconds = int(NOW) + 9
    assert updatable_tasks(tasks, service, no) == [tasks[0]]


def test_a_place_whose_newest_task_would_come_back_is_dead() -> None:
    service = service_of()
    assert updatable_tasks([ended(service, "t1", NOW)], service, yes) == []


def test_during_a_rollback_finished_places_are_dead() -> None:
    service = service_of()
    service.update_status.state = types.UpdateStatus.ROLLBACK_STARTED
    assert updatable_tasks([ended(service, "t1", NOW)], service, no) == []


def test_a_task_to_be_removed_fills_no_place() -> None:
    service = service_of()
    assert updatable_tasks([ended(service, "t1", NOW, types.REMOVE)], service, no) == []


def test_places_are_told_apart_by_slot_or_by_node() -> None:
    service = service_of()
    tasks = [task_of(service, f"t{slot}", slot=slot, node=f"n{slot % 2}") for slot in (1, 2, 3)]
    tasks.append(ended(service, "t4", NOW))
    places = split(tasks, service, yes)
    assert {place: [task.id for task in held] for place, held in places.updatable.items()} == {
        1: ["t1"],
        2: ["t2"],
        3: ["t3"],
    }
    service.spec.ClearField("replicated")
    getattr(service.spec, "global").SetInParent()
    places = split(tasks[:3], service, yes)
    assert {place: [task.id for task in held] for place, held in places.updatable.items()} == {
        "n0": ["t2"],
        "n1": ["t1", "t3"],
    }


def test_a_place_is_dirty_with_two_tasks_or_one_that_is_old() -> None:
    store, service = LittleStore(), service_of()
    one, two = task_of(service, "t1"), task_of(service, "t2")
    assert not is_dirty_place(store.view, service, [one])
    assert is_dirty_place(store.view, service, [one, two])
    service.spec_version.index = 2
    service.spec.task.container.image = "two"
    assert is_dirty_place(store.view, service, [one])


@pytest.mark.parametrize(
    ("state", "desired", "slot", "version", "succeeds"),
    [
        (types.NEW, types.RUNNING, 1, 1, True),
        (types.RUNNING, types.RUNNING, 1, 1, True),
        (types.NEW, types.READY, 1, 1, True),
        (types.RUNNING, types.RUNNING, 2, 1, False),
        (types.RUNNING, types.SHUTDOWN, 1, 1, False),
        (types.FAILED, types.RUNNING, 1, 1, False),
        (types.RUNNING, types.RUNNING, 1, 0, False),
    ],
)
def test_a_task_has_a_successor_where_another_of_the_present_spec_is_to_live_in_its_place(
    state: types.TaskState, desired: types.TaskState, slot: int, version: int, succeeds: bool
) -> None:
    before = service_of()
    old = task_of(before, "old", state=types.FAILED, slot=1)
    service = objects.Service()
    service.CopyFrom(before)
    service.spec.task.container.image, service.spec_version.index = "two", 2
    other = task_of(service if version else before, "other", state=state, desired=desired, slot=slot)
    store = LittleStore()
    store.put(service, old, other)
    assert has_successor(store.view, service, old) is succeeds


def test_no_task_succeeds_itself() -> None:
    service = service_of()
    task = task_of(service, "t", state=types.RUNNING)
    store = LittleStore()
    store.put(service, task)
    assert not has_successor(store.view, service, task)
