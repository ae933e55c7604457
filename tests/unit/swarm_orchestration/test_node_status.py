"""Registrations, deadlines, and what the dispatcher writes about nodes and tasks."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.store.changes import apply
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm import node_status as rules
from runtime.swarm.node_status import Deadlines, Lost, NodeRegistry, NodeUpdate
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

READY, DOWN, UNKNOWN = types.NodeStatus.READY, types.NodeStatus.DOWN, types.NodeStatus.UNKNOWN


def registry(period: float = 5.0) -> NodeRegistry:
    return NodeRegistry(random.Random(4), period)


def run(view: View, step: Any, now: float = 1000.5) -> tuple[View, Any]:
    tx = Transaction(view, view.version + 1, now)
    value = step(tx)
    return apply(view, tx.changes, view.version + 2), value


def store(*stored: Any) -> View:
    return run(View(), lambda tx: [tx.create(each) for each in stored])[0]


def task(id: str = "t", node: str = "n", state: int = types.ASSIGNED) -> objects.Task:
    return objects.Task(id=id, node_id=node, status=types.TaskStatus(state=state))  # type: ignore[arg-type]


def node(id: str = "n", state: int = READY) -> objects.Node:
    return objects.Node(id=id, status=types.NodeStatus(state=state, addr="10.0.0.9"))  # type: ignore[arg-type]


# Periods


@given(st.integers(0, 2**32), st.floats(0.01, 3600))
def test_a_period_is_at_most_half_a_second_off_and_never_negative(seed: int, period: float) -> None:
    drawn = rules.draw_period(period, random.Random(seed))
    assert drawn >= 0
    assert abs(drawn - period) <= 0.5 + 1e-9


def test_the_jitter_of_the_default_period_uses_its_whole_range() -> None:
    rng = random.Random(1)
    drawn = [rules.draw_period(5.0, rng) for _ in range(2000)]
    assert min(drawn) < 4.55 < 5.45 < max(drawn)


def test_the_clusters_period_counts_when_it_is_positive() -> None:
    cluster = objects.Cluster(id="c")
    assert rules.heartbeat_period(None) == rules.heartbeat_period(cluster) == 5.0
    cluster.spec.dispatcher.heartbeat_period.FromMilliseconds(1500)
    assert rules.heartbeat_period(cluster) == 1.5


# Deadlines


@given(
    st.lists(
        st.tuples(st.sampled_from("sdtx"), st.sampled_from("abc"), st.integers(0, 40)),
        max_size=60,
    )
)
def test_deadlines_come_due_as_in_a_plain_dictionary(actions: list[tuple[str, str, int]]) -> None:
    deadlines, model, now = Deadlines(), dict[str, float](), 0.0
    for what, key, number in actions:
        if what == "s":
            deadlines.set(key, now + number)
            model[key] = now + number
        elif what == "x":
            deadlines.extend(key, now + number)
            model[key] = max(now + number, model.get(key, 0.0))
        elif what == "d":
            deadlines.drop(key)
            model.pop(key, None)
        else:
            now += number
            due = deadlines.take_due(now)
            assert set(due) == {each for each, at in model.items() if at <= now}
            assert len(due) == len(set(due))
            model = {each: at for each, at in model.items() if at > now}
        assert len(deadlines) == len(model)
        if model:
            assert deadlines.next is not None
            assert deadlines.next <= min(model.values())


def test_putting_a_deadline_off_again_and_again_keeps_one_heap_entry() -> None:
    deadlines, rng = Deadlines(), random.Random(3)
    for number in range(5000):
        deadlines.set("n", number * 0.001 + 13.5 + 3 * rng.random())
    assert len(deadlines._heap) < 30  # only a new earliest time is pushed


# Registrations


def test_a_session_is_checked_by_node_and_id() -> None:
    known = registry()
    with pytest.raises(Refused, match="node not registered") as refused:
        known.check("n", "s")
    assert refused.value.code is Code.NOT_FOUND
    known.known("n", 0.0)
    known.register("m", "s", 0.0)
    for node_id, session in (("n", ""), ("n", "s"), ("m", ""), ("m", "other")):
        with pytest.raises(Refused, match="session invalid") as refused:
            known.heartbeat(node_id, session, 1.0)
        assert refused.value.code is Code.INVALID_ARGUMENT
    assert 4.5 <= known.heartbeat("m", "s", 1.0) < 5.5


def test_three_registrations_of_a_known_node_are_let_through_until_it_was_quiet_for_8_seconds() -> None:
    known = registry()
    known.attempt("n", 0.0)  # a new node is not counted
    known.register("n", "s", 0.0)
    for second in (1.0, 2.0, 3.0):
        known.attempt("n", second)
        known.register("n", f"s{second}", second)
    for second in (4.0, 10.9, 11.0):
        with pytest.raises(Refused) as refused:
            known.attempt("n", second)
        assert refused.value.code is Code.UNAVAILABLE
        assert refused.value.text == "node n exceeded rate limit count of registrations"
    known.attempt("n", 11.01)  # more than 8 s after the last that was let through


def test_the_limit_holds_for_each_node_alone() -> None:
    known = registry()
    for node_id in ("a", "b"):
        known.known(node_id, 0.0)
        for _ in range(3):
            known.attempt(node_id, 100.0)
    known.known("c", 0.0)
    known.attempt("c", 100.0)


def test_a_registered_node_is_lost_after_three_periods_and_an_unknown_one_after_six() -> None:
    known = registry()
    known.register("r", "s", 0.0)
    known.known("u", 0.0)
    assert known.take_lost(13.49) == []
    assert known.take_lost(16.51) == [Lost("r", "heartbeat failure")]
    assert known.take_lost(26.99) == []
    assert known.take_lost(33.01) == [Lost("u", 'heartbeat failure for node in "unknown" state')]
    assert known.is_down("r")
    assert not known.nodes


def test_a_node_that_may_be_out_of_touch_is_down_only_after_that() -> None:
    known = registry()
    known.register("n", "s", 0.0)
    assert known.keeps_until("n") is None
    assert known.take_lost(20.0, {"n": 60.0}.__getitem__) == [Lost("n", "heartbeat failure", 60.0)]
    assert known.keeps_until("n") == 80.0
    assert not known.is_down("n")
    assert known.nodes["n"].session_id == ""
    with pytest.raises(Refused, match="node not registered"):
        known.heartbeat("n", "s", 30.0)
    assert known.take_lost(79.9, {"n": 60.0}.__getitem__) == []
    assert known.take_lost(80.0, {"n": 60.0}.__getitem__) == [Lost("n", "heartbeat failure")]
    assert known.is_down("n")
    assert known.keeps_until("n") is None


def test_a_node_that_is_in_touch_again_is_lost_anew_as_the_first_time() -> None:
    known = registry()
    known.known("n", 0.0)
    (lost,) = known.take_lost(40.0, lambda node_id: 60.0)
    assert lost.message == 'heartbeat failure for node in "unknown" state'
    known.attempt("n", 50.0)
    known.register("n", "s", 50.0)
    assert known.keeps_until("n") is None
    known.heartbeat("n", "s", 55.0)
    assert known.take_lost(100.0, lambda node_id: 60.0) == [Lost("n", "heartbeat failure", 60.0)]


def test_a_heartbeat_puts_the_loss_off() -> None:
    known = registry()
    known.register("n", "s", 0.0)
    for second in range(5, 100, 5):
        assert known.take_lost(float(second)) == []
        known.heartbeat("n", "s", float(second))
    assert known.take_lost(95 + 13.49) == []
    assert known.take_lost(95 + 16.51) != []


def test_whoever_asks_to_register_is_not_lost_meanwhile() -> None:
    known = registry()
    known.known("n", 0.0)
    known.attempt("n", 26.0)
    assert known.take_lost(39.0) == []
    assert known.take_lost(42.6) != []


def test_the_tasks_of_a_lost_node_are_given_up_after_a_day_unless_it_came_back() -> None:
    known = registry()
    known.down("a", 0.0)
    known.down("b", 10.0)
    known.register("b", "s", 100.0)
    assert not known.is_down("b")
    assert known.take_given_up(24 * 3600 - 1) == []
    assert known.take_given_up(24 * 3600 + 11) == ["a"]
    known.give_up_at("a", 90_000.0)
    known.give_up_at("b", 90_000.0)  # it is alive
    assert known.take_given_up(90_000.0) == ["a"]


def test_a_removed_node_is_neither_lost_nor_given_up() -> None:
    known = registry()
    known.known("a", 0.0)
    known.down("b", 0.0)
    for node_id in ("a", "b"):
        known.remove(node_id)
    assert known.take_lost(1e6) == []
    assert known.take_given_up(1e6) == []


def test_the_next_look_is_never_later_than_the_first_deadline() -> None:
    known = registry()
    looks = [known.next_due]
    known.down("d", 0.0)
    assert [*looks, known.next_due] == [None, 24 * 3600]
    known.register("n", "s", 0.0)
    assert 13.5 <= (known.next_due or 0.0) < 16.5


# Nodes in the store


def test_a_nodes_status_keeps_the_address_that_a_message_does_not_name() -> None:
    view, stored = run(store(node()), lambda tx: rules.write_node(tx, "n", NodeUpdate(DOWN, "heartbeat failure")))
    assert stored
    written = view.get(objects.Node, "n")
    assert written is not None
    assert (written.status.state, written.status.message, written.status.addr) == (
        DOWN,
        "heartbeat failure",
        "10.0.0.9",
    )


def test_the_same_status_again_is_not_written_and_a_node_that_is_gone_is_told() -> None:
    view = store(node())
    after, stored = run(view, lambda tx: rules.write_node(tx, "n", NodeUpdate(READY)))
    assert stored
    assert after.get(objects.Node, "n") is view.get(objects.Node, "n")
    assert run(view, lambda tx: rules.write_node(tx, "gone", NodeUpdate(READY)))[1] is False


def test_a_new_leader_leaves_down_nodes_down() -> None:
    view, stored = run(store(node(state=DOWN)), lambda tx: rules.write_unknown(tx, "n"))
    assert not stored
    view, stored = run(store(node()), lambda tx: rules.write_unknown(tx, "n"))
    written = view.get(objects.Node, "n")
    assert stored
    assert written is not None
    assert written.status.state == UNKNOWN
    assert written.status.message == 'Node moved to "unknown" state due to leadership change in cluster'


def test_a_status_that_overtakes_another_keeps_its_description_and_address() -> None:
    ready = NodeUpdate(READY, "", "10.1.1.1", types.NodeDescription(hostname="h"))
    both = NodeUpdate(DOWN, "heartbeat failure").after(ready)
    assert (both.state, both.addr) == (DOWN, "10.1.1.1")
    assert both.description is not None
    assert both.description.hostname == "h"
    assert NodeUpdate(DOWN).after(None) == NodeUpdate(DOWN)


# Tasks in the store


def say(view: View, state: int, message: str = "m", node_id: str = "n") -> tuple[View, bool]:
    status = types.TaskStatus(state=state, message=message)  # type: ignore[arg-type]
    return run(view, lambda tx: rules.write_task_status(tx, "t", node_id, status, "manager"))


def test_a_status_is_stored_with_who_applied_it_and_when() -> None:
    view, stored = say(store(task()), types.RUNNING)
    assert stored
    written = view.get(objects.Task, "t")
    assert written is not None
    assert (written.status.state, written.status.applied_by) == (types.RUNNING, "manager")
    assert written.status.applied_at.ToMilliseconds() == 1_000_500


STATES = st.sampled_from([192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832])


@given(st.lists(STATES, max_size=12))
def test_an_observed_state_never_goes_back(states: list[int]) -> None:
    view, highest = store(task()), int(types.ASSIGNED)
    for state in states:
        view, stored = say(view, state)
        assert stored or state < highest or state == view.get(objects.Task, "t").status.state  # type: ignore[union-attr]
        highest = max(highest, state)
        written = view.get(objects.Task, "t")
        assert written is not None
        assert written.status.state == highest


def test_what_is_stored_already_is_not_written_again() -> None:
    view, _ = say(store(task()), types.RUNNING)
    again, stored = say(view, types.RUNNING)
    assert not stored
    assert again.get(objects.Task, "t") is view.get(objects.Task, "t")
    _, stored = say(view, types.RUNNING, "another message")
    assert stored


def test_a_status_for_a_task_that_is_gone_or_another_nodes_is_left_out() -> None:
    assert not say(View(), types.RUNNING)[1]
    assert not say(store(task()), types.RUNNING, node_id="another")[1]


@pytest.mark.parametrize(
    ("state", "orphan"),
    [
        (types.PENDING, False),
        (types.ASSIGNED, True),
        (types.PREPARING, True),
        (types.RUNNING, True),
        (types.COMPLETE, False),
        (types.FAILED, False),
        (types.ORPHANED, False),
    ],
)
def test_tasks_from_assigned_to_running_become_orphans(state: int, orphan: bool) -> None:
    lost = task(state=state)
    assert rules.orphans([lost]) == (["t"] if orphan else [])
    view, stored = run(store(lost, node(state=DOWN)), lambda tx: rules.write_orphaned(tx, "t"))
    written = view.get(objects.Task, "t")
    assert stored is orphan
    assert written is not None
    assert written.status.state == (types.ORPHANED if orphan else state)


def test_tasks_of_a_node_that_came_back_are_no_orphans() -> None:
    assert run(store(task(), node(state=READY)), lambda tx: rules.write_orphaned(tx, "t"))[1] is False
    assert run(store(task()), lambda tx: rules.write_orphaned(tx, "t"))[1] is True
    assert run(View(), lambda tx: rules.write_orphaned(tx, "t"))[1] is False


def test_a_volume_that_a_node_uses_no_more_waits_for_its_controller() -> None:
    volume = objects.Volume(id="v")
    volume.spec.annotations.name = "v"
    kinds = types.VolumePublishStatus
    for node_id in ("n", "m"):
        volume.publish_status.add(node_id=node_id, state=kinds.PENDING_NODE_UNPUBLISH)
    view, stored = run(store(volume), lambda tx: rules.write_unpublished(tx, "v", "n"))
    written = view.get(objects.Volume, "v")
    assert stored
    assert written is not None
    assert [each.state for each in written.publish_status] == [kinds.PENDING_UNPUBLISH, kinds.PENDING_NODE_UNPUBLISH]
    assert run(view, lambda tx: rules.write_unpublished(tx, "v", "n"))[1] is False
    assert run(view, lambda tx: rules.write_unpublished(tx, "gone", "n"))[1] is False


# What others wait for


@pytest.mark.parametrize(
    ("desired", "said", "awaited"),
    [
        (types.RUNNING, types.PREPARING, False),
        (types.RUNNING, types.STARTING, False),
        (types.RUNNING, types.RUNNING, True),
        (types.READY, types.PREPARING, False),
        (types.READY, types.READY, True),
        (types.COMPLETE, types.RUNNING, False),
        (types.COMPLETE, types.COMPLETE, True),
        (types.SHUTDOWN, types.RUNNING, False),
        (types.SHUTDOWN, types.COMPLETE, True),
        (types.RUNNING, types.FAILED, True),
        (types.REMOVE, types.SHUTDOWN, True),
    ],
)
def test_awaited_is_what_ends_a_task_or_takes_it_as_far_as_it_was_to_go(desired: int, said: int, awaited: bool) -> None:
    told = task()
    told.desired_state = desired  # type: ignore[assignment]
    status = types.TaskStatus(state=said)  # type: ignore[arg-type]
    assert rules.is_awaited(told, status) is awaited
