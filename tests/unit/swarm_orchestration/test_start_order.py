"""Services that start after others: what holds a first start, what lets it go, and that nothing waits in a circle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Refused
from runtime.swarm.labels import START_AFTER
from runtime.swarm.start_order import STACK, check_no_circle, hold
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import Store, changed, service, task


def after(id: str, *names: str, stack: str = "", **more: Any) -> objects.Service:
    """A service that starts after others."""
    made = service(id, **more)
    made.spec.annotations.labels[START_AFTER] = ",".join(names)
    if stack:
        made.spec.annotations.labels[STACK] = stack
    return made


def job(id: str, completions: int) -> objects.Service:
    made = service(id)
    made.spec.replicated_job.total_completions = made.spec.replicated_job.max_concurrent = completions
    made.job_status.job_iteration.index = 2
    return made


def job_task(id: str, of: str, state: types.TaskState, iteration: int = 2) -> objects.Task:
    made = task(id, of, state=state, desired=types.COMPLETE)
    made.job_iteration.index = iteration
    return made


def why(store: Store, id: str = "web") -> str:
    of = store.view.get(objects.Service, id)
    assert of is not None
    found = hold(store.view, of)
    return found.why if found is not None else ""


def text(*reasons: str) -> str:
    return f"it starts after {', '.join(reasons)}: label {START_AFTER}"


def test_without_the_label_nothing_is_waited_for() -> None:
    assert why(Store(service("web"), service("db"))) == ""


def test_a_service_is_held_until_a_task_of_the_other_runs() -> None:
    store = Store(after("web", "db"), service("db"))
    assert why(store) == text("db (no task of it runs)")
    store.put(task("d", "db", node_id="n", state=types.STARTING))
    assert why(store) == text("db (no task of it runs)")
    store.put(task("d", "db", node_id="n", state=types.RUNNING))
    assert why(store) == ""


def test_a_task_that_is_to_stop_keeps_nobody_up() -> None:
    store = Store(after("web", "db"), service("db"))
    store.put(task("d", "db", node_id="n", state=types.RUNNING, desired=types.SHUTDOWN))
    assert why(store) == text("db (no task of it runs)")


def test_all_that_is_missing_is_named_with_its_reason() -> None:
    store = Store(after("web", " db ,cache", "queue", "db"), service("db"), service("cache"))
    store.put(changed(store.view.get(objects.Service, "cache"), lambda new: _scale(new, 0)))
    assert why(store) == text(
        "db (no task of it runs)", "cache (it is scaled to 0)", "queue (there is no such service)"
    )
    found = hold(store.view, after("web", "db", "queue"))
    assert found is not None
    assert found.services == {"db"}


def _scale(new: objects.Service, replicas: int) -> None:
    new.spec.replicated.replicas = replicas


def test_a_job_is_up_when_its_present_iteration_is_complete() -> None:
    store = Store(after("web", "migrate"), job("migrate", 2))
    store.put(job_task("old", "migrate", types.COMPLETE, iteration=1), job_task("a", "migrate", types.RUNNING))
    assert why(store) == text("migrate (0 of 2 tasks of the job are complete)")
    store.put(job_task("a", "migrate", types.COMPLETE), job_task("b", "migrate", types.FAILED))
    assert why(store) == text("migrate (1 of 2 tasks of the job are complete)")
    store.put(job_task("b", "migrate", types.COMPLETE))
    assert why(store) == ""


def test_a_job_of_each_node_is_up_when_all_its_nodes_are_done() -> None:
    each = service("setup")
    each.spec.global_job.SetInParent()
    store = Store(after("web", "setup"), each)
    assert why(store) == text("setup (0 of 1 tasks of the job are complete)")
    for node in ("m", "n"):
        made = job_task(node, "setup", types.COMPLETE if node == "m" else types.RUNNING, iteration=0)
        made.node_id = node
        store.put(made)
    assert why(store) == text("setup (1 of 2 tasks of the job are complete)")


@pytest.mark.parametrize("state", [types.ASSIGNED, types.RUNNING, types.FAILED, types.SHUTDOWN])
def test_whoever_has_begun_once_never_waits_again(state: types.TaskState) -> None:
    store = Store(after("web", "db"), service("db"), task("w", state=state, node_id="n"), task("w2", slot=2))
    assert why(store) == ""


def test_names_of_a_stack_are_found_without_its_prefix_and_whole_names_come_first() -> None:
    store = Store(after("shop_web", "DB", stack="shop"), service("shop_db"))
    store.put(task("d", "shop_db", node_id="n", state=types.RUNNING))
    assert why(store, "shop_web") == ""
    store.put(service("db"))
    assert why(store, "shop_web") == text("DB (no task of it runs)")


def test_who_would_wait_for_itself_is_refused() -> None:
    with pytest.raises(Refused, match=r"label swarmlet.start-after: web would start after web, so none of them ever"):
        check_no_circle(Store().view, after("web", "Web").spec)


def test_a_circle_by_way_of_others_is_refused_and_shown() -> None:
    store = Store(after("db", "cache"), after("cache", "queue", "web"), after("queue", "db"))
    with pytest.raises(Refused) as refused:
        check_no_circle(store.view, after("web", "db").spec)
    assert "web would start after db would start after cache would start after web" in refused.value.text
    check_no_circle(store.view, after("other", "queue").spec)


def test_a_name_that_means_another_service_closes_no_circle() -> None:
    """In the stack ``shop`` the name ``db`` would mean ``shop_db``, were there no ``db``."""
    store = Store(after("web", "shop_db"), service("db"))
    check_no_circle(store.view, after("shop_db", "db", stack="shop").spec)
    with pytest.raises(Refused):
        check_no_circle(Store(after("web", "shop_db")).view, after("shop_db", "db", "web", stack="shop").spec)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3), min_size=1))
def test_no_order_of_writing_lets_a_circle_in(wishes: dict[str, list[str]]) -> None:
    """Services are written one after the other; those that are taken can be started in some order."""
    store, taken = Store(), dict[str, list[str]]()
    for name, others in wishes.items():
        made = after(name, *others)
        try:
            check_no_circle(store.view, made.spec)
        except Refused:
            continue
        store.put(made)
        taken[name] = others
    started: set[str] = set("abcdef") - taken.keys()
    while ready := {name for name in taken.keys() - started if started.issuperset(taken[name])}:
        started |= ready
    assert started.issuperset(taken)
