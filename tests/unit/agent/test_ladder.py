"""The task ladder: every state against every wish, messages, errors, timestamps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm.agent_ladder import PLAIN, WORKING, TaskRun, Verdict, Work, next_step
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

STATES = sorted(types.TaskState.values())
states = st.sampled_from(STATES)
texts = st.sampled_from(["", "no", "again"])


def run(state: int, desired: int = types.RUNNING) -> TaskRun:
    task = objects.Task(id="t1", desired_state=desired)  # type: ignore[arg-type]
    return TaskRun(task, types.TaskStatus(state=state, message="before"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "work", "after", "message"),
    [
        (types.NEW, None, types.ACCEPTED, "accepted"),
        (types.PENDING, None, types.ACCEPTED, "accepted"),
        (types.ASSIGNED, None, types.ACCEPTED, "accepted"),
        (types.ACCEPTED, None, types.PREPARING, "preparing"),
        (types.PREPARING, Work.PREPARE, types.READY, "prepared"),
        (types.READY, None, types.STARTING, "starting"),
        (types.STARTING, Work.START, types.RUNNING, "started"),
        (types.RUNNING, Work.WAIT, types.COMPLETE, "finished"),
    ],
)
def test_each_rung_of_the_ladder(state: int, work: Work | None, after: int, message: str) -> None:
    for desired in (types.RUNNING, types.COMPLETE):
        step = next_step(state, desired)
        assert step is not None
        assert (step.work, step.state, step.message) == (work, after, message)


@given(states, states)
def test_a_step_never_leads_back(state: int, desired: int) -> None:
    step = next_step(state, desired)
    assert step is None or step.state > state


@given(states, states)
def test_what_is_to_be_shut_down_is_unless_it_has_ended(state: int, desired: int) -> None:
    step = next_step(state, desired)
    if desired >= types.SHUTDOWN:
        assert (step is None) == (state >= types.COMPLETE)
        assert step is None or (step.work, step.state, step.message) == (Work.SHUTDOWN, types.SHUTDOWN, "shutdown")


@given(states, st.sampled_from([types.READY, types.RUNNING, types.COMPLETE]))
def test_nothing_goes_beyond_what_is_desired_but_what_is_under_way(state: int, desired: int) -> None:
    step = next_step(state, desired)
    if step is not None:
        assert state <= desired
        assert step.state <= desired or step.work is not None


@given(states)
def test_what_has_ended_stays(state: int) -> None:
    if state >= types.COMPLETE:
        assert next_step(state, types.RUNNING) is None


def test_a_preparation_is_finished_although_no_more_is_desired() -> None:
    step = next_step(types.PREPARING, types.PREPARING)
    assert step is not None
    assert step.work is Work.PREPARE
    assert next_step(types.ACCEPTED, types.ACCEPTED) is None
    assert next_step(types.READY, types.READY) is None


def test_the_tables_have_no_state_in_common() -> None:
    assert not PLAIN.keys() & WORKING.keys()


def test_resolving_accepts_the_task_once() -> None:
    fresh = run(types.ASSIGNED)
    assert fresh.resolved(1.5)
    assert (fresh.status.state, fresh.status.message) == (types.ACCEPTED, "accepted")
    assert (fresh.status.timestamp.seconds, fresh.status.timestamp.nanos) == (1, 500_000_000)
    assert not fresh.resolved(2.0)
    running = run(types.RUNNING)
    assert not running.resolved(2.0)


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (types.ASSIGNED, types.REJECTED),
        (types.READY, types.REJECTED),
        (types.STARTING, types.FAILED),
        (types.RUNNING, types.FAILED),
        (types.COMPLETE, types.COMPLETE),
        (types.SHUTDOWN, types.SHUTDOWN),
    ],
)
def test_a_task_without_a_controller_by_its_state(state: int, after: int) -> None:
    task = run(state)
    task.unresolved("no such runtime", 1.0)
    status = task.status
    assert (status.state, status.message, status.err) == (after, "resolving controller failed", "no such runtime")
    assert not status.HasField("container")


@given(st.sampled_from([s for s in STATES if s <= types.RUNNING]), st.integers(0, 255))
def test_a_fatal_error_rejects_before_starting_and_fails_from_then_on(state: int, code: int) -> None:
    task = run(state)
    verdict, changed = task.failed(3.0, "broken", exit_code=code)
    assert (verdict, changed) == (Verdict.FATAL, True)
    assert task.status.state == (types.REJECTED if state < types.STARTING else types.FAILED)
    assert (task.status.message, task.status.err) == ("before", "broken")
    assert task.status.container.exit_code == code


@given(st.sampled_from([s for s in STATES if s <= types.RUNNING]))
def test_a_temporary_error_keeps_the_state_and_is_told_once(state: int) -> None:
    task = run(state)
    assert task.failed(3.0, "busy", temporary=True) == (Verdict.RETRY, True)
    told = task.status
    assert (told.state, told.message, told.err) == (state, "before", "busy")
    if state >= types.STARTING:
        assert told.HasField("container")
    assert task.failed(9.0, "busy", temporary=True) == (Verdict.RETRY, False)
    assert task.status is told


def test_an_operation_that_was_broken_off_says_nothing() -> None:
    task = run(types.PREPARING)
    before = task.status
    assert task.failed(3.0, "cancelled", cancelled=True, temporary=True) == (Verdict.RETRY, False)
    assert task.status is before


def test_a_transition_clears_the_error() -> None:
    task = run(types.PREPARING)
    task.failed(1.0, "busy", temporary=True)
    step = task.next
    assert step is not None
    task.advance(step, 2.0)
    assert (task.status.state, task.status.message, task.status.err) == (types.READY, "prepared", "")


def test_the_container_shows_from_starting_on_and_is_kept() -> None:
    task = run(types.PREPARING)
    container = types.ContainerStatus(container_id="c1", pid=7)
    prepared, ports = task.next, types.PortStatus(ports=[types.PortConfig(published_port=80)])
    assert prepared is not None
    task.advance(prepared, 1.0, container, ports)
    assert not task.status.HasField("container")
    starting = task.next
    assert starting is not None
    task.advance(starting, 2.0)
    assert task.status.container == container
    assert task.status.port_status == ports
    task.failed(3.0, "task: non-zero exit (2)", exit_code=2)
    assert (task.status.container.container_id, task.status.container.exit_code) == ("c1", 2)
    assert container.exit_code == 0, "what was handed in is not changed"


def test_an_exit_code_of_zero_leaves_the_containers_own() -> None:
    task = run(types.RUNNING)
    task.failed(1.0, "died", exit_code=0, container=types.ContainerStatus(exit_code=137))
    assert task.status.container.exit_code == 137


def test_what_an_earlier_life_knew_of_the_container_is_kept() -> None:
    status = types.TaskStatus(state=types.RUNNING, container=types.ContainerStatus(container_id="c1"))
    task = TaskRun(objects.Task(desired_state=types.SHUTDOWN), status)
    step = task.next
    assert step is not None
    task.advance(step, 1.0)
    assert (task.status.state, task.status.container.container_id) == (types.SHUTDOWN, "c1")


def test_going_back_is_a_broken_invariant() -> None:
    task = run(types.RUNNING)
    step = next_step(types.NEW, types.RUNNING)
    assert step is not None
    with pytest.raises(RuntimeError, match="cannot go back"):
        task.advance(step, 1.0)


@given(states, states, st.lists(st.tuples(st.booleans(), st.booleans(), texts), max_size=12))
def test_whatever_happens_states_grow_and_handed_out_statuses_stay(
    state: int, desired: int, outcomes: list[tuple[bool, bool, str]]
) -> None:
    task = run(state, desired)
    history = [(task.status, task.status.SerializeToString(deterministic=True))]
    for now, (good, temporary, text) in enumerate(outcomes):
        step = task.next
        if step is None:
            break
        if good or step.work is None:
            task.advance(step, float(now))
        else:
            task.failed(float(now), text, temporary=temporary)
        history.append((task.status, task.status.SerializeToString(deterministic=True)))
    assert [status.state for status, _ in history] == sorted(status.state for status, _ in history)
    assert all(status.SerializeToString(deterministic=True) == then for status, then in history)
