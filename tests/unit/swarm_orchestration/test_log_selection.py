"""Which nodes a log subscription asks, and how it ends."""

from __future__ import annotations

import pytest

from runtime.errors import Code, Refused
from runtime.store.changes import apply
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm.log_selection import INCOMPLETE, LogSelection, disconnected, not_available
from runtime.wire.pb import logs_pb2 as logs
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types


def task(id: str, node: str = "", state: int = types.RUNNING, service: str = "web") -> objects.Task:
    return objects.Task(id=id, node_id=node, service_id=service, status=types.TaskStatus(state=state))  # type: ignore[arg-type]


def store(*things: objects.Task | objects.Node) -> View:
    tx = Transaction(View(), 1, 0.0)
    for each in things:
        tx.create(each)
    return apply(View(), tx.changes, 2)


def select(view: View, follow: bool = False, **selector: list[str]) -> LogSelection:
    request = logs.SubscribeLogsRequest(selector=logs.LogSelector(**selector))
    request.options.follow = follow
    request.options.tail = -11
    selection = LogSelection("sub", request)
    selection.match(view)
    return selection


def test_a_selector_that_selects_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="log selector must be provided") as refused:
        select(View())
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_without_following_only_tasks_of_a_service_that_have_run_are_asked_for() -> None:
    view = store(
        task("a", "n1"), task("b", "n2", types.FAILED), task("c", "n3", types.PREPARING), task("d", "", types.PENDING)
    )
    selection = select(view, service_ids=["web"])
    assert list(selection.nodes) == ["n1", "n2"]
    assert not selection.complete


@pytest.mark.parametrize(
    ("executor", "state", "asked"),
    [
        ("process", types.ASSIGNED, True),
        ("process", types.STARTING, True),
        ("process", types.PENDING, False),
        ("container", types.STARTING, True),
        ("", types.STARTING, False),
    ],
)
def test_a_node_of_ours_is_asked_before_its_tasks_are_known_to_run(executor: str, state: int, asked: bool) -> None:
    node = objects.Node(id="n1")
    node.description.engine.labels["swarmlet.executor"] = executor
    assert list(select(store(node, task("a", "n1", state)), service_ids=["web"]).nodes) == (["n1"] if asked else [])


def test_so_is_a_node_of_actors() -> None:
    node = objects.Node(id="n1")
    node.description.engine.labels["swarmlet.actors"] = "counter"
    assert list(select(store(node, task("a", "n1", types.ASSIGNED)), service_ids=["web"]).nodes) == ["n1"]


def test_following_asks_the_nodes_of_all_tasks() -> None:
    view = store(task("a", "n1"), task("c", "n3", types.PREPARING), task("d", "", types.PENDING))
    assert list(select(view, follow=True, service_ids=["web"]).nodes) == ["n1", "n3"]


def test_named_tasks_are_asked_for_in_any_state_and_unknown_ones_left_out() -> None:
    view = store(task("c", "n3", types.PREPARING), task("x", "n9", service="other"))
    assert list(select(view, task_ids=["c", "gone"]).nodes) == ["n3"]


def test_a_node_is_asked_once_however_many_of_its_tasks_are_meant() -> None:
    view = store(task("a", "n1"), task("b", "n1"), task("c", "n2"))
    assert list(select(view, service_ids=["web"], task_ids=["a"], node_ids=["n2"]).nodes) == ["n2", "n1"]


def test_it_is_complete_when_every_node_is_done_and_each_counts_once() -> None:
    selection = select(store(task("a", "n1"), task("b", "n2")), service_ids=["web"])
    selection.done("n1")
    selection.done("n1")
    selection.done("stranger")
    assert selection.outcome is None
    left = [selection.complete]
    selection.done("n2")
    assert [*left, selection.complete] == [False, True]
    assert selection.outcome is None


def test_nodes_named_themselves_are_awaited() -> None:
    selection = select(View(), node_ids=["n1"])
    left = [selection.complete]
    selection.done("n1")
    assert [*left, selection.complete] == [False, True]


def test_nothing_to_ask_for_is_complete_at_once() -> None:
    assert select(View(), service_ids=["web"]).complete


def test_what_could_not_be_had_is_named_at_the_end() -> None:
    selection = select(store(task("a", "n1"), task("b", "n2"), task("p", "", types.PENDING)), task_ids=["a", "b", "p"])
    selection.done("n1", not_available("n1"))
    selection.done("n2", disconnected("n2"))
    selection.done("n2", "said too late")
    assert selection.complete
    outcome = selection.outcome
    assert outcome is not None
    assert outcome.code is Code.UNKNOWN
    assert outcome.text == INCOMPLETE + (
        "node n1 is not available, node n2 disconnected unexpectedly, task p has not been scheduled"
    )


def test_one_that_follows_never_completes_and_takes_up_nodes_as_tasks_come() -> None:
    selection = select(store(task("a", "n1")), follow=True, service_ids=["web"])
    selection.done("n1", disconnected("n1"))
    assert not selection.complete
    assert not selection.add(task("p"))
    assert selection.add(task("p", "n2"))
    assert not selection.add(task("q", "n2"))
    assert list(selection.nodes) == ["n1", "n2"]
    assert selection.outcome is None


def test_nodes_are_told_selector_options_and_the_end() -> None:
    selection = select(View(), follow=True, service_ids=["web"])
    message = selection.message()
    assert (message.id, list(message.selector.service_ids), message.options.tail) == ("sub", ["web"], -11)
    assert not message.close
    assert selection.message(close=True).close
