"""Explanations and plans, from views and from what actors say."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.introspection import render_waits
from runtime.swarm.explaining import concerns, explain, find
from runtime.swarm.labels import NOWHERE, REBALANCE, STOPPED
from runtime.swarm.planning import plan
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import NOW, LittleStore, node_of_id, service_of, task_of

DOWN = types.NodeStatus.DOWN


def store_of(*things: Any, **restart: Any) -> LittleStore:
    store = LittleStore()
    service = service_of(replicas=3, **restart)
    nodes = [node_of_id(f"n{number}") for number in range(3)]
    for node in nodes:
        node.description.hostname = f"host-{node.id}"
    store.put(service, *nodes, *things)
    return store


def why(store: LittleStore, subject: str, *told: Wait) -> dict[str, Any]:
    return explain(store.view, find(store.view, "", subject), told)


def waits(store: LittleStore, subject: str, *told: Wait) -> list[tuple[str, str]]:
    return [(each["who"], each["why"]) for each in why(store, subject, *told)["waits"]]


TURNS = [
    ({"state": types.NEW}, "allocator", "no ports and networks yet"),
    ({"state": types.PENDING}, "scheduler", "placed in the next run"),
    ({"state": types.ASSIGNED, "node": "n1"}, "agent", "node host-n1 is at it: assigned"),
    ({"state": types.PREPARING, "node": "n1"}, "agent", "node host-n1 is at it: preparing"),
    ({"state": types.READY, "desired": types.READY, "node": "n1"}, "orchestrator", "held until"),
    ({"state": types.STARTING, "node": "gone"}, "orchestrator", "its node is lost or drained"),
    ({"state": types.FAILED, "node": "n1"}, "orchestrator", "about to be replaced"),
    ({"state": types.RUNNING, "desired": types.SHUTDOWN, "node": "n1"}, "agent", "host-n1 is to stop it"),
    ({"state": types.RUNNING, "desired": types.REMOVE, "node": "gone"}, "dispatcher", "given up a day after"),
    ({"state": types.PENDING, "desired": types.REMOVE}, "task_reaper", "about to be forgotten"),
]


@pytest.mark.parametrize(("task", "who", "text"), TURNS)
def test_whose_turn_it_is_follows_from_the_states_of_a_task(task: dict[str, Any], who: str, text: str) -> None:
    store = store_of(task_of(service_of(), "t", **task))
    ((actor, reason),) = waits(store, "t")
    assert actor == who
    assert text in reason


@pytest.mark.parametrize(
    "done", [{"state": types.RUNNING, "node": "n1"}, {"state": types.SHUTDOWN, "desired": types.SHUTDOWN}]
)
def test_what_is_as_it_should_be_waits_for_nothing(done: dict[str, Any]) -> None:
    store = store_of(task_of(service_of(), "t", **done))
    assert waits(store, "t") == []


def test_what_an_actor_says_about_a_task_goes_before_what_its_states_say() -> None:
    store = store_of(task_of(service_of(), "t", state=types.PENDING))
    told = Wait("t", "scheduler", "no suitable node", 1.5)
    value = why(store, "t", told)
    assert [(each["why"], each["seconds"]) for each in value["waits"]] == [("no suitable node", 1.5)]
    assert waits(store, "web", told) == [("scheduler", "no suitable node")]


def test_equal_waits_are_told_once_with_the_first_few_and_their_number() -> None:
    store = store_of(*(task_of(service_of(), f"t{n}", slot=n, state=types.PENDING) for n in range(1, 9)))
    (group,) = why(store, "web")["waits"]
    assert group["count"] == 8
    assert group["subjects"][:2] == ["task .1 (t1)", "task .2 (t2)"]
    assert len(group["subjects"]) == 5
    assert "and 3 more" in render_waits.explanation(why(store, "web"))


def test_a_service_that_was_stopped_waits_for_its_operator_until_somebody_started_it() -> None:
    store = store_of()
    text = ("operator", "it is stopped: swarmlet start web")
    store.edit(objects.Service, "web", lambda it: it.spec.annotations.labels.update({STOPPED: "3"}))
    store.edit(objects.Service, "web", lambda it: setattr(it.spec.annotations, "name", "web"))
    assert text not in waits(store, "web")
    store.edit(objects.Service, "web", lambda it: setattr(it.spec.replicated, "replicas", 0))
    assert text in waits(store, "web")
    store.edit(objects.Service, "web", lambda it: getattr(it.spec, "global").SetInParent())
    assert text not in waits(store, "web")
    store.edit(objects.Service, "web", lambda it: it.spec.task.placement.constraints.append(NOWHERE))
    assert text in waits(store, "web")


def test_a_service_with_a_move_that_was_begun_says_who_ends_it() -> None:
    store = store_of()
    store.edit(objects.Service, "web", lambda it: it.spec.annotations.labels.update({REBALANCE: "replicas 3"}))
    (why,) = [text for who, text in waits(store, "web") if who == "operator"]
    assert why.endswith("if nobody is at it, swarmlet rebalance --apply takes that back")


def test_a_paused_update_waits_for_an_operator() -> None:
    store = store_of()
    store.edit(objects.Service, "web", lambda it: setattr(it.update_status, "state", types.UpdateStatus.PAUSED))
    store.edit(objects.Service, "web", lambda it: setattr(it.update_status, "message", "update paused due to t"))
    assert waits(store, "web") == [
        ("operator", "update paused due to t; it goes on with the next docker service update, or --rollback")
    ]


def test_a_global_service_says_which_nodes_it_leaves_out_and_why() -> None:
    store = store_of()
    store.edit(objects.Service, "web", lambda it: getattr(it.spec, "global").SetInParent())
    store.edit(objects.Service, "web", lambda it: it.spec.task.placement.constraints.append("node.id != n0"))
    store.edit(objects.Node, "n1", lambda node: setattr(node.spec, "availability", specs.NodeSpec.DRAIN))
    store.edit(objects.Node, "n2", lambda node: setattr(node.status, "state", DOWN))
    reasons = dict(zip("012", (text for _, text in waits(store, "web")), strict=True))
    assert "constraints do not hold" in reasons["0"]
    assert "is drained" in reasons["1"]
    assert "is down" in reasons["2"]


@pytest.mark.parametrize("mode", ["global", "global_job"])
def test_a_paused_node_is_left_out_unless_it_has_its_task(mode: str) -> None:
    store = store_of()
    store.edit(objects.Service, "web", lambda it: getattr(it.spec, mode).SetInParent())
    store.edit(objects.Service, "web", lambda it: it.job_status.SetInParent())
    for id in ("n0", "n1"):
        store.edit(objects.Node, id, lambda node: setattr(node.spec, "availability", specs.NodeSpec.PAUSE))
    task = task_of(store.service(), "t", slot=0, node="n0", state=types.RUNNING)
    task.job_iteration.SetInParent()
    store.put(task)
    text = "it is paused; docker node update --availability active brings it back"
    assert [(each["why"], each["subjects"]) for each in why(store, "web")["waits"]] == [(text, ["node host-n1 (n1)"])]


@pytest.mark.parametrize(("alive", "told"), [(2, ["3 more completions wait for one of the 2 that may"]), (1, [])])
def test_a_job_says_what_its_concurrency_holds_back(alive: int, told: list[str]) -> None:
    store = store_of()
    job = store.service()
    store.edit(objects.Service, "web", lambda it: setattr(it.spec.replicated_job, "total_completions", 6))
    store.edit(objects.Service, "web", lambda it: setattr(it.spec.replicated_job, "max_concurrent", 2))
    for slot in range(alive + 1):
        state = types.RUNNING if slot else types.COMPLETE
        task = task_of(job, f"t{slot}", slot=slot, state=state, desired=types.COMPLETE, node="n1")
        task.job_iteration.SetInParent()
        store.put(task)
    assert [text[: len(told[0])] if told else text for _, text in waits(store, "web")] == told


def test_a_job_names_the_tasks_that_were_given_up() -> None:
    store = store_of()
    job = store.service()
    store.edit(objects.Service, "web", lambda it: setattr(it.spec.replicated_job, "total_completions", 2))
    store.edit(objects.Service, "web", lambda it: setattr(it.spec.replicated_job, "max_concurrent", 1))
    for id, slot, state in (("a", 0, types.FAILED), ("b", 1, types.COMPLETE), ("c", 2, types.FAILED)):
        task = task_of(job, id, slot=slot, state=state, desired=types.SHUTDOWN)
        task.job_iteration.SetInParent()
        store.put(task)
    again = task_of(job, "d", slot=2, state=types.RUNNING, desired=types.COMPLETE, node="n1")
    again.job_iteration.SetInParent()
    store.put(again)
    value = why(store, "web")
    assert value["state"] == "1 of 2 tasks of iteration 0 are complete, 1 run"
    (group,) = value["waits"]
    assert (group["who"], group["count"]) == ("operator", 1)
    assert "(a)" in group["subjects"][0]


def test_a_node_says_how_it_is_and_what_waits_on_it() -> None:
    store = store_of(task_of(service_of(), "t", state=types.PREPARING, node="n1"))
    store.edit(objects.Node, "n1", lambda node: setattr(node.spec, "availability", specs.NodeSpec.PAUSE))
    value = explain(store.view, find(store.view, "node", "host-n1"), [Wait("n1", "agent", "no session")], ["/x"])
    assert value["state"] == "ready, pause, 0 tasks run"
    assert [each["who"] for each in value["waits"]] == ["agent", "operator", "agent"]
    assert "/x did not answer" in render_waits.explanation(value)


def test_subjects_are_found_by_name_id_and_beginning_and_refused_when_ambiguous_or_unknown() -> None:
    store = store_of(task_of(service_of(), "task-one", node="n2"))
    assert find(store.view, "", "web").id == "web"
    assert find(store.view, "", "HOST-N1").id == "n1"
    task = find(store.view, "", "task-o")
    assert concerns(task) == ("web", "n2")
    for text, code in (("n", Code.INVALID_ARGUMENT), ("nothing", Code.NOT_FOUND), ("", Code.NOT_FOUND)):
        with pytest.raises(Refused) as refused:
            find(store.view, "node", text)
        assert refused.value.code is code


@pytest.mark.parametrize("beginner", ["host-n1-of-a-task", "webbing", "n1x"])
def test_a_whole_name_or_id_of_any_kind_goes_before_the_beginning_of_an_id(beginner: str) -> None:
    store = store_of(task_of(service_of(), beginner, node="n2"), node_of_id("host-n1-and-more"))
    assert find(store.view, "", "host-n1").id == "n1"
    assert find(store.view, "", "n1").id == "n1"
    assert find(store.view, "", "web").id == "web"


def test_a_task_is_found_by_its_place_as_lists_show_it() -> None:
    store = store_of(
        dead("old", types.FAILED, slot=2, at=NOW - 9),
        task_of(service_of(), "new", slot=2, node="n1"),
        dead("first", types.FAILED, slot=3, at=NOW - 9),
        dead("last", types.FAILED, slot=3, at=NOW - 5),
        task_of(service_of("each"), "on-n2", slot=0, node="n2"),
    )
    store.put(service_of("each"))
    for text, id in (("web.2", "new"), ("WEB.3", "last"), ("each.n2", "on-n2")):
        assert find(store.view, "", text).id == find(store.view, "task", text).id == id
    for text in ("web.2.", "web.4", "web.", "x.2", "web.²"):
        with pytest.raises(Refused):
            find(store.view, "", text)


# What came before


def dead(id: str, state: types.TaskState, err: str = "", **more: Any) -> objects.Task:
    task = task_of(service_of(), id, state=state, desired=more.pop("desired", types.SHUTDOWN), **more)
    task.status.err = err
    return task


POLICIES = [
    (types.RestartPolicy.NONE, 0, types.COMPLETE, "", "complete; its restart policy (condition none) runs none after"),
    (types.RestartPolicy.ON_FAILURE, 0, types.COMPLETE, "", "complete; its restart policy (condition on-failure)"),
    (types.RestartPolicy.ANY, 2, types.FAILED, "exit 1", "failed: exit 1; its restart policy (condition any, at"),
]


@pytest.mark.parametrize(("condition", "attempts", "state", "err", "text"), POLICIES)
def test_a_place_that_its_restart_policy_gives_up_waits_for_an_operator(
    condition: Any, attempts: int, state: types.TaskState, err: str, text: str
) -> None:
    over = dead("t", state, err, node="n1")
    over.spec.restart.condition, over.spec.restart.max_attempts = condition, attempts
    store = store_of(over)
    ((who, reason),) = waits(store, "web")
    assert who == "operator"
    assert reason.startswith(text)
    assert "docker service update --force" in reason


def test_places_that_are_filled_not_wanted_or_ended_by_order_are_not_given_up() -> None:
    store = store_of(
        dead("a", types.FAILED, slot=1),
        task_of(service_of(), "b", slot=1, state=types.RUNNING, node="n1"),
        dead("c", types.SHUTDOWN, slot=2),
        dead("d", types.FAILED, slot=3, desired=types.REMOVE),
    )
    assert waits(store, "web") == []
    store.put(dead("e", types.FAILED, slot=4), dead("f", types.FAILED, slot=5), dead("g", types.FAILED, slot=6))
    (group,) = why(store, "web")["waits"]
    assert group["subjects"] == ["task .4 (e)", "task .5 (f)"]


def test_a_global_service_gives_up_places_on_nodes_that_are_to_run_it() -> None:
    store = store_of(dead("a", types.FAILED, slot=0, node="n0"), dead("b", types.FAILED, slot=0, node="n1"))
    store.edit(objects.Service, "web", lambda it: getattr(it.spec, "global").SetInParent())
    store.edit(objects.Node, "n1", lambda node: setattr(node.status, "state", DOWN))
    reasons = [(each["why"][:12], each["subjects"]) for each in why(store, "web")["waits"]]
    assert reasons == [("it is down; ", ["node host-n1 (n1)"]), ("failed; its ", ["task .n0 (a)"])]


def test_who_comes_after_a_failure_waits_with_that_failure() -> None:
    rejected = dead("a", types.REJECTED, "no such file", at=NOW - 9)
    held = task_of(service_of(), "b", state=types.READY, desired=types.READY, node="n1")
    store = store_of(rejected, held)
    told = Wait("b", "orchestrator", "it is held", 4.0)
    for subject in ("web", "b"):
        assert waits(store, subject, told) == [
            ("orchestrator", "it is held; the one before it: rejected: no such file")
        ]
    store.edit(objects.Task, "a", lambda it: setattr(it.status, "state", types.COMPLETE))
    assert waits(store, "b", told) == [("orchestrator", "it is held")]


def test_a_task_that_is_about_to_be_replaced_says_how_it_ended_and_says_it_once() -> None:
    store = store_of(dead("a", types.FAILED, "task: non-zero exit (1)", desired=types.RUNNING))
    ((_, reason),) = waits(store, "a")
    assert reason == "it ended and is about to be replaced; failed: task: non-zero exit (1)"
    assert waits(store, "a", Wait("a", "x", reason)) == [("x", reason)]


# Plans


def planned(store: LittleStore, action: Any = "drain", node: str = "n0") -> dict[str, Any]:
    found = store.view.get(objects.Node, node)
    assert found is not None
    return plan(store.view, found, action, NOW)


def running(slot: int, node: str = "n0", **more: Any) -> objects.Task:
    task = task_of(service_of(), f"t{slot}", slot=slot, node=node, **more)
    task.service_annotations.name = "web"
    return task


def test_a_plan_says_where_each_task_would_go_and_changes_nothing() -> None:
    store = store_of(running(1), running(2), running(3, "n1"))
    before = store.view
    made = planned(store)
    assert [(each["task"], each["to"]) for each in made["moves"]] == [
        ("web.1.t1", "host-n2"),
        ("web.2.t2", "host-n1"),
    ]
    assert made["ends"] == made["warnings"] == []
    assert store.view is before


def test_what_would_find_no_place_says_why() -> None:
    store = store_of(running(1))
    store.edit(objects.Service, "web", lambda it: it.spec.task.placement.constraints.append("node.id == n0"))
    (move,) = planned(store)["moves"]
    assert move["to"] == ""
    assert "scheduling constraints not satisfied on 2 nodes" in move["waits"]


def test_tasks_that_nothing_replaces_end_with_the_reason() -> None:
    store = store_of(running(1), condition=types.RestartPolicy.NONE)
    store.edit(objects.Task, "t1", lambda it: setattr(it.spec.restart, "condition", types.RestartPolicy.NONE))
    assert planned(store)["ends"] == [{"task": "web.1.t1", "why": "its restart policy replaces nothing"}]
    store.edit(objects.Service, "web", lambda it: getattr(it.spec, "global").SetInParent())
    assert planned(store)["ends"] == [{"task": "web.1.t1", "why": "its service runs once on each node"}]


def test_tasks_that_have_ended_or_are_on_other_nodes_are_not_spoken_of() -> None:
    store = store_of(running(1, state=types.FAILED), running(2, "n1"), running(3, desired=types.SHUTDOWN))
    made = planned(store)
    assert made["moves"] == made["ends"] == []


def test_removing_a_node_that_is_up_or_a_manager_is_warned_about() -> None:
    store = store_of()
    store.edit(objects.Node, "n0", lambda node: setattr(node.spec, "desired_role", types.MANAGER))
    up, manager = planned(store, "rm")["warnings"]
    assert "refuses without --force" in up
    assert "demoted first" in manager
    for node in ("n1", "n2"):
        store.edit(objects.Node, node, lambda it: setattr(it.status, "state", DOWN))
    assert planned(store)["warnings"] == ["no other node takes tasks"]
    store.put(running(1))
    text = render_waits.plan(planned(store, "rm"))
    assert text.splitlines()[0] == "if node host-n0 were removed: 1 task would move, 0 would end"
    store.delete(objects.Task, "t1")
    text = render_waits.plan(planned(store, "rm"))
    assert text.splitlines()[0] == "if node host-n0 were removed: 0 tasks would move, 0 would end"
