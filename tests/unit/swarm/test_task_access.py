"""Reaching a task from a manager: windows, what may be said when, and why a node cannot be reached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.store.view import View
from runtime.swarm import task_access as rules
from runtime.wire.pb import access_pb2 as pb
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types


def command() -> rules.Agreement:
    return rules.Agreement(pb.AccessQuestion(task_id="t", run=pb.RunCommand(argv=["sh"])))


def output(size: int, stream: int = 1) -> pb.FromTask:
    return pb.FromTask(output=pb.Output(stream=stream, data=bytes(size)))


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, rules.WINDOW * 2))))
def test_a_window_never_holds_more_than_its_size_nor_less_than_nothing(steps: list[tuple[bool, int]]) -> None:
    window = rules.Window()
    for spends, price in steps:
        before = window.under_way
        done = window.spend(price) if spends and price >= 0 else window.give(price)
        assert 0 <= window.under_way <= rules.WINDOW
        assert done or window.under_way == before


@given(st.binary(max_size=3 * rules.PIECE_MAX))
def test_pieces_are_all_of_it_and_each_fits(data: bytes) -> None:
    parts = list(rules.pieces(data))
    assert b"".join(parts) == data
    assert all(0 < len(part) <= rules.PIECE_MAX for part in parts)
    assert all(rules.Window().has_room(rules.cost(part)) for part in parts)


def test_many_small_pieces_are_bounded_too_so_that_no_queue_of_a_stream_overflows() -> None:
    window, count = rules.Window(), 0
    while window.spend(rules.cost(b"x")):
        count += 1
    assert count < 4096  # items that may wait in a stream or an upload


@pytest.mark.parametrize("what", ["output", "exit", "taken"])
def test_nothing_comes_from_a_command_before_it_has_begun(what: str) -> None:
    message = {"output": output(1), "exit": pb.FromTask(exit=pb.Exit()), "taken": pb.FromTask(taken=1)}[what]
    assert not command().from_task(message)


def test_an_answer_comes_once_and_nothing_after_an_end() -> None:
    agreement = command()
    assert agreement.from_task(pb.FromTask(begun=7))
    assert not agreement.over
    assert not agreement.from_task(pb.FromTask(begun=7))
    assert agreement.from_task(pb.FromTask(exit=pb.Exit(code=3, known=True)))
    assert agreement.over
    assert not agreement.from_task(output(1))


@pytest.mark.parametrize("message", [pb.FromTask(begun=7), pb.FromTask(not_begun=pb.NotBegun(code=127))])
def test_what_is_no_command_does_not_begin(message: pb.FromTask) -> None:
    assert not rules.Agreement(pb.AccessQuestion(task_id="t", top="-ef")).from_task(message)


def test_a_message_that_says_nothing_breaks_the_agreement() -> None:
    assert not command().from_task(pb.FromTask())
    assert not command().to_task(pb.ToTask())


def test_only_the_broker_may_ask_and_close() -> None:
    for message in (pb.ToTask(close=True), pb.ToTask(question=pb.AccessQuestion(task_id="t", top="x"))):
        assert not command().to_task(message)
    assert command().to_task(pb.ToTask(size=pb.TerminalSize(rows=2)))
    assert command().to_task(pb.ToTask(input_end=True))


def test_output_beyond_the_window_breaks_the_agreement_until_some_was_taken() -> None:
    agreement = command()
    agreement.from_task(pb.FromTask(begun=7))
    while agreement.from_task(output(rules.PIECE_MAX)):
        pass
    assert not agreement.from_task(output(rules.PIECE_MAX))
    assert agreement.to_task(pb.ToTask(taken=rules.cost(bytes(rules.PIECE_MAX))))
    assert agreement.from_task(output(rules.PIECE_MAX))


def test_nobody_can_take_more_than_was_sent() -> None:
    agreement = command()
    agreement.from_task(pb.FromTask(begun=7))
    assert not agreement.to_task(pb.ToTask(taken=1))
    assert not agreement.from_task(pb.FromTask(taken=1))
    assert agreement.to_task(pb.ToTask(input=b"x"))
    assert agreement.from_task(pb.FromTask(taken=rules.cost(b"x")))
    assert not agreement.from_task(pb.FromTask(taken=1))


def test_there_are_two_streams_of_output() -> None:
    for stream, good in ((0, False), (1, True), (2, True), (3, False)):
        agreement = command()
        agreement.from_task(pb.FromTask(begun=7))
        assert agreement.from_task(output(1, stream)) is good


def node(id: str = "w1", down: bool = False, ours: bool = True) -> objects.Node:
    made = objects.Node(id=id)
    made.description.hostname = f"host-{id}"
    if ours:
        made.description.engine.labels["swarmlet.raft"] = "1"
    made.status.state = types.NodeStatus.DOWN if down else types.NodeStatus.READY
    return made


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (node(down=True), "host-w1, is down"),
        (node(ours=False), "host-w1, is a dockerd"),
        (node(), "host-w1, does not listen at the manager that leads"),
        (objects.Node(id="w2", status=types.NodeStatus(state=types.NodeStatus.DOWN)), "w2, is down"),
    ],
)
def test_a_node_that_cannot_be_reached_is_named_with_the_reason(there: objects.Node, says: str) -> None:
    assert says in rules.why_unreached(there)


def test_what_a_task_is_on_is_found_or_said_in_a_sentence() -> None:
    on, waiting = objects.Task(id="t1", node_id="w1"), objects.Task(id="t2")
    lost = objects.Task(id="t3", node_id="gone")

    class Store:
        def get(self, kind: type, id: str) -> object:
            known = {each.id: each for each in (node(), on, waiting, lost)}
            return known.get(id)

    view: View = Store()  # type: ignore[assignment]
    assert rules.find_task(view, "t1") == (on, node())
    for task_id, text in (("nope", "not found"), ("t2", "on no node"), ("t3", "on no node")):
        with pytest.raises(LookupError, match=text):
            rules.find_task(view, task_id)


def test_a_name_of_somebody_elses_fills_no_log_and_breaks_no_line() -> None:
    assert rules.shown("a\nb\x1b[2J") == r"'a\nb\x1b[2J'"
    assert len(rules.shown("x" * 100_000)) < 100
