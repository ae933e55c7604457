"""Which tasks wait and why, and where agent and manager are of different minds: from a store and from what an agent
says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.introspection import domain
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import LittleStore, node_of_id, service_of, task_of

UNPLACED = "no suitable node (scheduling constraints not satisfied on 2 nodes; insufficient resources on 1 node)"


def store_of(*tasks: Any) -> LittleStore:
    store = LittleStore()
    node = node_of_id("n1")
    node.description.hostname = "one"
    store.put(service_of(replicas=3), node, *tasks)
    return store


def unplaced(id: str, at: int, err: str = UNPLACED) -> Any:
    task = task_of(service_of(), id, state=types.PENDING)
    task.status.err = err
    task.status.timestamp.seconds = at
    return task


def test_a_task_that_runs_or_is_history_does_not_wait() -> None:
    store = store_of(
        task_of(service_of(), "runs", state=types.RUNNING, node="n1"),
        task_of(service_of(), "old", state=types.FAILED, desired=types.SHUTDOWN, node="n1"),
        task_of(service_of(), "done", state=types.COMPLETE, desired=types.COMPLETE, node="n1"),
    )
    assert domain.waiting(store.view, 100.0) == {"count": 0, "tasks": [], "reasons": []}


def test_who_waits_longest_stands_first_with_who_acts_next_and_why() -> None:
    preparing = task_of(service_of(), "b", state=types.PREPARING, node="n1")
    preparing.status.timestamp.seconds = 60
    found = domain.waiting(store_of(unplaced("a", 90), preparing).view, 100.0)
    assert [(each["id"], each["since_s"], each["who"], each["node"]) for each in found["tasks"]] == [
        ("b", 40.0, "agent", "one"),
        ("a", 10.0, "scheduler", ""),
    ]
    assert found["tasks"][1]["why"] == UNPLACED


def test_a_long_list_is_cut_counted_and_summed_up_by_reason() -> None:
    found = domain.waiting(store_of(*(unplaced(f"t{number}", number) for number in range(9))).view, 100.0, limit=2)
    assert (found["count"], len(found["tasks"])) == (9, 2)
    assert found["reasons"] == [{"who": "scheduler", "why": UNPLACED, "count": 9}]


@pytest.mark.parametrize(
    ("why", "who", "reason"),
    [
        (UNPLACED, "scheduler", "scheduling constraints not satisfied"),
        ("no suitable node (2 nodes not available for new tasks)", "scheduler", "not available for new tasks"),
        ("no suitable node", "scheduler", "no suitable node"),
        ("no suitable node (a filter of tomorrow on 3 nodes)", "scheduler", "no suitable node"),
        ("it is placed in the next run", "scheduler", "scheduler"),
        ("it starts after db (no task of it runs): label x", "scheduler", "starts after other services"),
        ("node one is at it: preparing", "agent", "agent"),
    ],
)
def test_a_metrics_reason_names_no_node_and_no_number(why: str, who: str, reason: str) -> None:
    assert domain.reason_class(why, who) == reason


@given(st.text(max_size=40), st.sampled_from(["scheduler", "agent", "allocator"]))
def test_there_are_only_a_few_reasons_whatever_is_written_into_a_status(text: str, who: str) -> None:
    known = {*domain.REASONS, "no suitable node", "scheduler", "agent", "allocator"}
    assert domain.reason_class(f"no suitable node ({text})", who) in known


def row(id: str, state: str = "running", desired: str = "running") -> dict[str, Any]:
    return {"id": id, "name": f"web.{id}", "state": state, "desired": desired}


def test_both_sides_that_say_the_same_do_not_differ() -> None:
    assert domain.disagreements([row("1"), row("2")], [row("2"), row("1")]) == []


@pytest.mark.parametrize(
    ("agent", "manager", "means"),
    [
        ([], [row("1")], "not told of it yet"),
        ([row("1")], [], "the manager forgot it"),
        ([row("1", "failed")], [row("1")], "report is on its way"),
        ([row("1")], [row("1", desired="shutdown")], "order is on its way"),
    ],
)
def test_each_way_to_differ_has_a_meaning(agent: Any, manager: Any, means: str) -> None:
    (found,) = domain.disagreements(agent, manager)
    assert means in found["means"]
    assert bool(found["agent"]) == bool(agent)
    assert bool(found["manager"]) == bool(manager)


def test_the_past_is_the_managers_alone() -> None:
    assert domain.disagreements([], [row("1", "shutdown", "shutdown"), row("2", "failed", "shutdown")]) == []


def test_a_side_that_was_not_asked_is_not_compared() -> None:
    assert domain.beliefs("n1", [row("1")], None) == {
        "node": "n1", "agent": [row("1")], "manager": None, "differ": None,
    }  # fmt: skip


def test_the_managers_side_is_its_stores() -> None:
    store = store_of(
        task_of(service_of(), "a", state=types.RUNNING, node="n1"),
        task_of(service_of(), "b", state=types.RUNNING, node="n2"),
    )
    (found,) = domain.node_tasks(store.view, "n1")
    assert (found["id"], found["state"], found["desired"]) == ("a", "running", "running")


def many(count: int) -> LittleStore:
    made = LittleStore()
    node = node_of_id("n1")
    node.description.hostname = "one"
    services = [service_of(name, replicas=count) for name in ("web", "db")]
    tasks = []
    for service in services:
        for number in range(count):
            task = task_of(service, f"{service.id}-{number:03}", slot=number + 1, node="n1")
            task.service_annotations.name = service.id
            tasks.append(task)
    old = task_of(services[0], "web-old", slot=1, state=types.FAILED, desired=types.SHUTDOWN)
    old.service_annotations.name = "web"
    orphan = task_of(service_of("gone"), "lost", node="n1")
    made.put(node, *services, *tasks, old, orphan)
    return made


def names(found: dict[str, Any]) -> list[str]:
    return [each["name"] for each in found["tasks"]]


def test_tasks_come_by_service_and_slot_with_the_past_behind_and_those_without_a_service_last() -> None:
    found = domain.tasks(many(2).view)
    assert names(found) == ["db.1", "db.2", "web.1", "web.2", "web.1", ".1"]
    assert [each["desired"] for each in found["tasks"]][4] == "shutdown"
    assert (found["count"], found["found"]) == (6, 6)


def test_of_many_tasks_the_first_are_told_and_how_many_there_are() -> None:
    found = domain.tasks(many(50).view, limit=3)
    assert names(found) == ["db.1", "db.2", "db.3"]
    assert (found["count"], found["found"]) == (102, 102)


def test_a_text_is_looked_for_in_all_of_them() -> None:
    found = domain.tasks(many(50).view, limit=3, text="WEB.4")
    assert names(found) == ["web.4", "web.40", "web.41"]
    assert (found["count"], found["found"]) == (102, 11)
    assert domain.tasks(many(2).view, text="nothing like it")["tasks"] == []
