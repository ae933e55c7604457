"""Which statuses wait for a manager."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm.agent_reports import BATCH_BYTES_MAX, BATCH_MAX, StatusReports
from runtime.wire.pb import types_pb2 as types


def status(state: int, err: str = "") -> types.TaskStatus:
    return types.TaskStatus(state=state, err=err)  # type: ignore[arg-type]


def test_the_newest_status_of_each_task_is_sent_in_the_order_of_their_waiting() -> None:
    reports = StatusReports()
    assert reports.note("b", status(types.ACCEPTED))
    assert reports.note("a", status(types.ACCEPTED))
    assert reports.note("b", status(types.RUNNING))
    assert reports.take() == (("b", status(types.RUNNING)), ("a", status(types.ACCEPTED)))
    assert reports.take() == ()


def test_older_states_and_repetitions_are_left_out() -> None:
    reports = StatusReports()
    reports.note("a", status(types.RUNNING))
    assert not reports.note("a", status(types.RUNNING))
    assert not reports.note("a", status(types.STARTING))
    assert reports.note("a", status(types.RUNNING, "trouble"))
    assert reports.take() == (("a", status(types.RUNNING, "trouble")),)


def test_what_was_sent_may_be_sent_again_later() -> None:
    reports = StatusReports()
    reports.note("a", status(types.RUNNING))
    reports.take()
    assert reports.note("a", status(types.RUNNING))


def test_what_failed_waits_again_unless_something_newer_does() -> None:
    reports = StatusReports()
    reports.note("a", status(types.STARTING))
    reports.note("b", status(types.STARTING))
    taken = reports.take()
    reports.note("a", status(types.RUNNING))
    reports.put_back(taken)
    assert dict(reports.take()) == {"a": status(types.RUNNING), "b": status(types.STARTING)}


def test_a_forgotten_task_is_not_sent() -> None:
    reports = StatusReports()
    reports.note("a", status(types.RUNNING))
    reports.forget("a")
    reports.forget("b")
    assert len(reports) == 0


def test_a_call_holds_a_thousand_statuses() -> None:
    reports = StatusReports()
    for number in range(2 * BATCH_MAX + 1):
        reports.note(f"t{number}", status(types.RUNNING))
    assert [len(reports.take()) for _ in range(4)] == [BATCH_MAX, BATCH_MAX, 1, 0]


def test_a_call_stays_small_but_always_holds_something() -> None:
    reports = StatusReports()
    for name in ("a", "b", "c"):
        reports.note(name, status(types.FAILED, "x" * (BATCH_BYTES_MAX - 100)))
    assert [[name for name, _ in reports.take()] for _ in range(3)] == [["a"], ["b"], ["c"]]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([192, 448, 512, 704]), st.booleans()), max_size=40))
def test_a_manager_hears_the_last_state_of_every_task(events: list[tuple[str, int, bool]]) -> None:
    """Calls fail or succeed at random; at the end the line works. States of a task only grow, as tasks' do."""
    reports = StatusReports()
    reached: dict[str, int] = {}
    heard: dict[str, int] = {}
    for name, state, works in events:
        reached[name] = max(state, reached.get(name, 0))
        reports.note(name, status(reached[name]))
        taken = reports.take()
        if works:
            heard.update({task: update.state for task, update in taken})
        else:
            reports.put_back(taken)
    heard.update({task: update.state for task, update in reports.take()})
    assert heard == reached
