"""Which tasks are forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.swarm.reaper import PlaceKey, Reaper, is_done, kept, reap_place, reap_task
from runtime.swarm.task_model import age_key, wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import NOW, LittleStore, cluster_with, service_of, task_of

FAILED = {"state": types.FAILED, "desired": types.SHUTDOWN}


def history(number: int, limit: int = 3, **service: Any) -> tuple[LittleStore, objects.Service]:
    """A slot with so many failed tasks and a running one."""
    store, web = LittleStore(), service_of(**service)
    old = [task_of(web, f"t{index}", at=NOW + index, **FAILED) for index in range(number)]
    store.put(cluster_with(limit), web, *old, task_of(web, "live", at=NOW + number))
    return store, web


def reap(store: LittleStore, slot: int = 1, node: str = "") -> list[str]:
    store.run(lambda tx: reap_place(tx, PlaceKey("web", slot, node)))
    return [task.id for task in store.tasks()]


def test_the_oldest_go_until_as_many_are_left_as_are_kept() -> None:
    store, _web = history(6, limit=3)
    assert reap(store) == ["live", "t4", "t5"]


def test_other_slots_are_not_touched() -> None:
    store, web = history(1, limit=1)
    store.put(*(task_of(web, f"x{index}", slot=2, **FAILED) for index in range(3)))
    assert reap(store) == ["live", "x0", "x1", "x2"]


def test_living_tasks_count_but_stay() -> None:
    store, web = history(2, limit=1)
    store.put(task_of(web, "stopping", at=NOW - 5, desired=types.SHUTDOWN))
    assert reap(store) == ["live", "stopping"]


def test_tasks_that_will_never_run_go_too() -> None:
    store, web = history(0, limit=1)
    store.put(task_of(web, "never", at=NOW - 5, state=types.PENDING, desired=types.SHUTDOWN))
    assert reap(store) == ["live"]


def test_a_negative_limit_keeps_everything() -> None:
    store, _web = history(9, limit=-1)
    assert len(reap(store)) == 10


def test_a_limit_of_zero_leaves_the_newest() -> None:
    store, _web = history(4, limit=0)
    assert reap(store) == ["live"]
    store.edit(objects.Task, "live", lambda task: setattr(task, "desired_state", types.SHUTDOWN))
    store.observe("live", types.FAILED)
    assert reap(store) == ["live"]


def test_a_task_whose_end_was_not_dealt_with_stays() -> None:
    store, web = history(0, limit=0)
    store.put(task_of(web, "failed", at=NOW - 5, state=types.FAILED))
    assert reap(store) == ["failed", "live"]


def test_a_policy_with_attempts_keeps_one_more_than_those() -> None:
    store, _web = history(9, limit=1, attempts=4)
    assert len(reap(store)) == 5


def test_the_limit_is_the_clusters_or_the_default() -> None:
    assert kept(service_of(), cluster_with(7)) == 7
    assert kept(service_of(), None) == 10
    assert kept(service_of(), objects.Cluster()) == 10
    assert kept(service_of(attempts=2), cluster_with(-1)) == 3


def test_places_of_global_services_are_nodes() -> None:
    store, web = history(0, limit=1)
    store.edit(objects.Service, "web", lambda service: getattr(service.spec, "global").SetInParent())
    store.put(*(task_of(web, f"n{index}", slot=0, node="node", at=NOW + index, **FAILED) for index in range(3)))
    assert reap(store, 0, "node") == ["live", "n2"]


def test_a_service_that_is_gone_has_no_history_to_keep() -> None:
    store, _web = history(5, limit=1)
    store.delete(objects.Service, "web")
    assert len(reap(store)) == 6


@pytest.mark.parametrize(
    ("state", "desired", "service", "done"),
    [
        (types.PENDING, types.REMOVE, "web", True),
        (types.ASSIGNED, types.REMOVE, "web", False),
        (types.RUNNING, types.REMOVE, "web", False),
        (types.COMPLETE, types.REMOVE, "web", True),
        (types.ORPHANED, types.REMOVE, "web", True),
        (types.FAILED, types.SHUTDOWN, "web", False),
        (types.ORPHANED, types.RUNNING, "web", False),
        (types.ORPHANED, types.RUNNING, "", True),
        (types.ORPHANED, types.SHUTDOWN, "", True),
        (types.FAILED, types.SHUTDOWN, "", False),
    ],
)
def test_what_is_done(state: int, desired: int, service: str, done: bool) -> None:
    task = objects.Task(id="t", service_id=service, desired_state=desired)  # type: ignore[arg-type]
    task.status.state = state  # type: ignore[assignment]
    assert is_done(task) is done
    store = LittleStore()
    store.put(task)
    assert store.run(lambda tx: reap_task(tx, "t")) == int(done)
    assert store.run(lambda tx: reap_task(tx, "nobody")) == 0


def test_the_reaper_collects_each_place_and_task_once() -> None:
    web, reaper = service_of(), Reaper()
    for id in ("a", "b"):
        reaper.task_created(task_of(web, id))
    reaper.task_updated(task_of(web, "c", slot=2, **FAILED))
    reaper.task_updated(task_of(web, "d", slot=3, state=types.STARTING))
    for _time in range(2):
        reaper.task_updated(task_of(web, "e", slot=4, state=types.SHUTDOWN, desired=types.REMOVE))
    reaper.task_updated(task_of(web, "f", slot=4, state=types.SHUTDOWN, desired=types.REMOVE))
    reaper.task_deleted("f")
    assert len(reaper) == 3
    assert reaper.take() == ([PlaceKey("web", 1, ""), PlaceKey("web", 2, "")], ["e"])
    assert (len(reaper), reaper.take()) == (0, ([], []))


def test_everything_is_looked_at_in_the_beginning() -> None:
    store, _web = history(2)
    reaper = Reaper()
    reaper.begin(store.view)
    assert reaper.take() == ([PlaceKey("web", 1, "")], [])


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([types.PENDING, types.RUNNING, types.FAILED, types.COMPLETE]),
            st.sampled_from([types.RUNNING, types.SHUTDOWN]),
        ),
        max_size=12,
    ),
    st.integers(-1, 6),
)
def test_no_living_and_no_newest_task_is_ever_reaped_and_the_limit_holds(
    tasks: list[tuple[types.TaskState, types.TaskState]], limit: int
) -> None:
    store, web = LittleStore(), service_of()
    store.put(cluster_with(limit), web)
    for index, (state, desired) in enumerate(tasks):
        store.put(task_of(web, f"t{index:02}", at=NOW + index, state=state, desired=desired))
    before = store.tasks()
    left = set(reap(store))
    stays = {task.id for task in before if wanted(task) or task.status.state == types.RUNNING}
    stays |= {max(before, key=age_key).id} if before else set()
    assert stays <= left
    assert limit < 0 or len(left) <= max(limit, len(stays))
    assert limit >= 0 or len(left) == len(before)
