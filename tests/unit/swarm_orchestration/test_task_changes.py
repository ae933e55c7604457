"""New tasks, what is read off tasks, and changes that are carried out only while they still apply."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm.service_spec import to_timestamp
from runtime.swarm.task_changes import Change, Create, Delete, Desire, Observe, PutService, Start, apply
from runtime.swarm.task_model import (
    age_key,
    by_place,
    ended,
    is_invalid,
    is_per_node,
    new_task,
    place_of,
    slot_tasks,
    the_cluster,
    wanted,
)
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import Store, changed, node, port, service, task

STATES = [
    types.NEW, types.PENDING, types.ASSIGNED, types.ACCEPTED, types.PREPARING, types.READY, types.STARTING,
    types.RUNNING, types.COMPLETE, types.SHUTDOWN, types.FAILED, types.REJECTED, types.REMOVE, types.ORPHANED,
]  # fmt: skip


def carry_out(store: Store, *changes: Change) -> int:
    return store.run(lambda tx: apply(tx, changes))


# New tasks


def cluster(driver: str) -> objects.Cluster:
    made = objects.Cluster(id="c")
    made.spec.task_defaults.log_driver.name = driver
    return made


def test_a_new_task_is_made_of_its_service() -> None:
    web = service(ports=[port(80)], version=7)
    web.spec.task.container.image = "nginx"
    made = new_task("t", web, None, 12.5, slot=3)
    assert (made.id, made.service_id, made.slot, made.node_id) == ("t", "web", 3, "")
    assert made.service_annotations == web.spec.annotations
    assert made.spec == web.spec.task
    assert made.spec_version.index == 7
    assert made.endpoint.spec == web.spec.endpoint
    assert not made.endpoint.ports
    assert (made.status.state, made.status.message, made.desired_state) == (types.NEW, "created", types.RUNNING)
    assert made.status.timestamp == to_timestamp(12.5)


def test_a_new_task_shares_nothing_with_its_service() -> None:
    web = service()
    made = new_task("t", web, None, 0.0)
    made.spec.container.image = "other"
    assert web.spec.task.container.image == ""


def test_the_log_driver_is_the_specs_else_the_clusters() -> None:
    web = service()
    assert not new_task("t", web, None, 0.0).HasField("log_driver")
    assert new_task("t", web, cluster("syslog"), 0.0).log_driver.name == "syslog"
    web.spec.task.log_driver.name = "local"
    assert new_task("t", web, cluster("syslog"), 0.0).log_driver.name == "local"


def test_a_service_without_version_or_endpoint_makes_tasks_without() -> None:
    made = new_task("t", service(version=None, endpoint=False), None, 0.0, node_id="n", desired=types.READY)
    assert not made.HasField("spec_version")
    assert not made.HasField("endpoint")
    assert (made.node_id, made.desired_state) == ("n", types.READY)


# What is read off tasks


@pytest.mark.parametrize("state", STATES)
def test_wanted_and_ended_divide_at_running(state: types.TaskState) -> None:
    assert wanted(task("t", desired=state)) is (state <= types.RUNNING)
    assert ended(task("t", state=state)) is (state > types.RUNNING)


def test_age_is_when_a_status_was_applied_else_its_own_time_and_none_is_oldest() -> None:
    without, own, applied = task("c"), task("b"), task("a")
    own.status.timestamp.CopyFrom(to_timestamp(50))
    applied.status.timestamp.CopyFrom(to_timestamp(1))
    applied.status.applied_at.CopyFrom(to_timestamp(60))
    twin = changed(own, lambda new: setattr(new, "id", "bb"))
    assert sorted([applied, twin, own, without], key=age_key) == [without, own, twin, applied]


def test_places_are_slots_or_nodes() -> None:
    web, everywhere = service(), service("all")
    everywhere.spec.ClearField("replicated")
    getattr(everywhere.spec, "global").SetInParent()
    assert not is_per_node(web)
    assert is_per_node(everywhere)
    one, two = task("a", slot=1, node_id="n"), task("b", slot=2, node_id="n")
    assert [place_of(one, web), place_of(one, everywhere)] == [1, "n"]
    assert by_place([two, one], web) == {2: [two], 1: [one]}
    assert by_place([two, one], everywhere) == {"n": [two, one]}


def test_tasks_of_a_place_are_found_by_index() -> None:
    store = Store(task("a", slot=1, node_id="n"), task("b", slot=2, node_id="n"), task("c", "db", slot=1, node_id="n"))
    assert [each.id for each in slot_tasks(store.view, "web", 1)] == ["a"]
    assert [each.id for each in slot_tasks(store.view, "web", "n")] == ["a", "b"]
    assert slot_tasks(store.view, "web", 9) == []


def test_nodes_that_cannot_keep_tasks() -> None:
    assert is_invalid(None)
    assert is_invalid(node("n", state=types.NodeStatus.DOWN))
    assert is_invalid(node("n", availability=specs.NodeSpec.DRAIN))
    for state in (types.NodeStatus.UNKNOWN, types.NodeStatus.DISCONNECTED, types.NodeStatus.READY):
        assert not is_invalid(node("n", state=state, availability=specs.NodeSpec.PAUSE))


def test_there_is_one_cluster_or_none_yet() -> None:
    assert the_cluster(Store().view) is None
    found = the_cluster(Store(cluster("x")).view)
    assert found is not None
    assert found.id == "c"


# Changes


def test_a_task_is_created_while_its_service_is_there() -> None:
    store = Store(service())
    assert carry_out(store, Create(task("a")), Create(task("b", "gone")), Create(task("c", ""))) == 2
    assert [each.id for each in store.view.all(objects.Task)] == ["a", "c"]


@pytest.mark.parametrize("change", [Desire("t", types.REMOVE), Start("t"), Observe("t", types.FAILED), Delete("t")])
def test_changes_of_what_is_gone_are_left_out(change: Change) -> None:
    assert carry_out(Store(), change) == 0


@given(st.sampled_from(STATES), st.lists(st.sampled_from(STATES), max_size=6))
def test_a_desired_state_never_moves_back(first: types.TaskState, wishes: list[types.TaskState]) -> None:
    store = Store(task("t", desired=first))
    for wish in wishes:
        before = store.task("t").desired_state
        assert carry_out(store, Desire("t", wish)) == (wish > before)
        assert store.task("t").desired_state == max(before, wish)


@given(st.sampled_from(STATES), st.lists(st.sampled_from(STATES), max_size=6))
def test_an_observed_state_only_grows(first: types.TaskState, seen: list[types.TaskState]) -> None:
    store = Store(task("t", state=first))
    for state in seen:
        before = store.task("t").status.state
        assert carry_out(store, Observe("t", state)) == (state > before)
        assert store.task("t").status.state == max(before, state)


def test_what_is_observed_has_a_time_and_keeps_texts_that_are_not_given() -> None:
    store = Store(task("t"))
    carry_out(store, Observe("t", types.SHUTDOWN, err="gone"))
    status = store.task("t").status
    assert (status.message, status.err) == ("pending task scheduling", "gone")
    assert status.timestamp == to_timestamp(store.now)
    carry_out(store, Observe("t", types.ORPHANED, message="lost"))
    assert (store.task("t").status.message, store.task("t").status.err) == ("lost", "gone")


def test_a_task_that_may_start_is_to_run_or_to_complete_if_it_is_a_jobs() -> None:
    job = task("j", desired=types.READY)
    job.job_iteration.index = 0
    store = Store(task("t", desired=types.READY), job, task("s", desired=types.SHUTDOWN))
    assert carry_out(store, Start("t"), Start("j"), Start("s")) == 2
    desired = [store.task(id).desired_state for id in "tjs"]
    assert desired == [types.RUNNING, types.COMPLETE, types.SHUTDOWN]


def test_a_deleted_task_is_gone_for_the_changes_after_it() -> None:
    store = Store(task("t"))
    assert carry_out(store, Delete("t"), Desire("t", types.REMOVE), Delete("t")) == 1
    assert store.view.count(objects.Task) == 0


def test_a_service_is_put_only_over_the_version_that_was_changed() -> None:
    store = Store(service())

    def named(text: str) -> Any:
        return changed(store.service(), lambda new: setattr(new.update_status, "message", text))

    first, second = named("first"), named("second")
    assert carry_out(store, PutService(first)) == 1
    assert carry_out(store, PutService(second)) == 0
    assert carry_out(store, PutService(service("gone"))) == 0
    assert store.service().update_status.message == "first"
