"""Jobs that run by the clock: how schedules are read, when a run is due, and what keeps it back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.swarm import schedules
from runtime.swarm.labels import SCHEDULE
from runtime.swarm.schedules import Due, Schedules, check_schedule, due_at, next_after
from runtime.swarm.service_spec import to_timestamp
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import Store, service, task

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


def job(text: str = "*/5 * * * *", last: float = NOON, iteration: int = 0, completions: int = 1) -> objects.Service:
    made = service("job")
    made.spec.replicated_job.total_completions = made.spec.replicated_job.max_concurrent = completions
    made.spec.annotations.labels[SCHEDULE] = text
    made.job_status.job_iteration.index = iteration
    made.job_status.last_execution.CopyFrom(to_timestamp(last))
    return made


def run_of(
    id: str, state: types.TaskState, iteration: int = 1, slot: int = 0, desired: int = types.COMPLETE
) -> objects.Task:
    made = task(id, "job", slot=slot, state=state, desired=desired)  # type: ignore[arg-type]
    made.job_iteration.index = iteration
    return made


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("*/5 * * * *", "2026-03-01 12:05:00"),
        ("0 12 * * *", "2026-03-02 12:00:00"),
        ("30 3 * * MON-FRI", "2026-03-02 03:30:00"),
        ("0 0 29 2 *", "2028-02-29 00:00:00"),
        ("@hourly", "2026-03-01 13:00:00"),
        ("@daily", "2026-03-02 00:00:00"),
        ("@weekly", "2026-03-08 00:00:00"),
        ("@monthly", "2026-04-01 00:00:00"),
        ("@yearly", "2027-01-01 00:00:00"),
        ("@every 90s", "2026-03-01 12:01:30"),
        (" @every  1h30m ", "2026-03-01 13:30:00"),
    ],
)
def test_the_next_time_of_a_schedule(text: str, when: str) -> None:
    assert f"{datetime.fromtimestamp(next_after(text, NOON), UTC):%Y-%m-%d %H:%M:%S}" == when


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "'' is no schedule, such as '30 3 \\* \\* \\*', @daily or @every 90s"),
        ("* * * * * *", "is no schedule"),
        ("@sometimes", "is no schedule"),
        ("61 * * * *", "'61 \\* \\* \\* \\*': bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("@every soon", "'soon' is no duration"),
        ("@every 2s", "is more often than every 10 s"),
    ],
)
def test_what_is_no_schedule_is_refused_and_counts_as_none(text: str, what: str) -> None:
    with pytest.raises(Refused, match=f"label swarmlet.schedule: .*{what}") as refused:
        check_schedule(job(text).spec)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert due_at(job(text), NOON) is None


def test_only_jobs_have_schedules() -> None:
    spec = specs.ServiceSpec(replicated=specs.ReplicatedService(replicas=1))
    check_schedule(spec)
    assert not spec.annotations.labels
    spec.annotations.labels[SCHEDULE] = "@daily"
    with pytest.raises(Refused, match="only jobs run by the clock"):
        check_schedule(spec)
    check_schedule(job("@daily").spec)
    plain = service()
    plain.spec.annotations.labels[SCHEDULE] = "@daily"
    assert due_at(plain, NOON) is None


def test_the_next_run_is_reckoned_from_the_last_whoever_leads() -> None:
    assert due_at(job(last=NOON), NOON + 10) == NOON + 300
    assert due_at(job(last=NOON), NOON + 86_400) == NOON + 300  # missed, and made up for
    assert due_at(job(last=NOON + 1e8), NOON) == NOON + 300  # the clock was wrong then


def test_a_job_that_never_ran_says_when_it_first_does() -> None:
    held = schedules.hold(job(), NOON + 1)
    assert held is not None
    assert held.why == "it first runs at 2026-03-01 12:05:00 UTC: label swarmlet.schedule"
    assert schedules.hold(job(iteration=1), NOON + 1) is None
    assert schedules.hold(job("never"), NOON) is None
    assert schedules.hold(service(), NOON) is None


def run(store: Store, iteration: int = 1) -> bool | None:
    return store.run(lambda tx: schedules.run(tx, Due("job", iteration)))


def stored(store: Store) -> objects.Service:
    found = store.view.get(objects.Service, "job")
    assert found is not None
    return found


def test_a_run_is_the_next_iteration() -> None:
    store = Store(job(), run_of("held", types.PENDING, iteration=0), now=NOON + 300)
    assert run(store, 0) is True
    status = stored(store).job_status
    assert (status.job_iteration.index, status.last_execution.seconds) == (1, NOON + 300)


@pytest.mark.parametrize(
    ("tasks", "going"),
    [
        ([], True),  # they are still to be made
        ([run_of("a", types.COMPLETE)], True),
        ([run_of("a", types.COMPLETE), run_of("b", types.RUNNING, slot=1)], True),
        ([run_of("a", types.COMPLETE), run_of("b", types.FAILED, slot=1)], True),  # to be decided about
        ([run_of("a", types.COMPLETE), run_of("b", types.FAILED, slot=1, desired=types.SHUTDOWN)], False),
        ([run_of("a", types.COMPLETE), run_of("b", types.COMPLETE, slot=1)], False),
        ([run_of("a", types.COMPLETE), run_of("b", types.COMPLETE, slot=1), run_of("o", types.RUNNING, 0)], False),
    ],
)
def test_a_run_waits_for_the_end_of_the_last(tasks: list[objects.Task], going: bool) -> None:
    store = Store(job(iteration=1, completions=2), *tasks, now=NOON + 300)
    assert run(store) is (not going)
    assert stored(store).job_status.job_iteration.index == (1 if going else 2)


def test_a_job_that_ran_meanwhile_or_has_no_schedule_any_more_is_not_run() -> None:
    store = Store(job(iteration=2), run_of("a", types.COMPLETE, 2), now=NOON + 300)
    assert run(store, 1) is None
    store.put(job("", iteration=2))
    assert run(store, 2) is None
    store.delete(stored(store))
    assert run(store, 2) is None


def test_a_job_is_due_once_until_it_is_put_again() -> None:
    books = Schedules()
    books.put(job(), NOON)
    assert (books.at("job"), books.next_at, len(books)) == (NOON + 300, NOON + 300, 1)
    assert books.take_due(NOON + 299) == []
    assert books.take_due(NOON + 300) == [Due("job", 0)]
    assert books.take_due(NOON + 900) == []
    books.put(job(iteration=1, last=NOON + 300), NOON + 301)
    assert books.take_due(NOON + 600) == [Due("job", 1)]
    books.put_off("job", NOON + 605)
    assert books.take_due(NOON + 605) == [Due("job", 1)]


def test_a_time_that_is_passed_over_is_not_made_up_for() -> None:
    books = Schedules()
    books.put(job(iteration=1), NOON)
    books.take_due(NOON + 300)
    books.pass_over(job(iteration=1), NOON + 300)
    assert books.at("job") == NOON + 600
    books.put(job(iteration=1), NOON + 400)  # it changed in something else
    assert books.at("job") == NOON + 600
    books.put(job("@every 1m", iteration=1), NOON + 400)
    assert books.at("job") == NOON + 360


def test_a_job_without_a_schedule_any_more_is_forgotten() -> None:
    books = Schedules()
    books.put(job(), NOON)
    books.put(job(""), NOON)
    assert (len(books), books.at("job")) == (0, None)
    books.put(job(), NOON)
    books.remove("job")
    books.put_off("job", NOON)
    assert books.take_due(NOON + 1e6) == []


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=30), st.sampled_from(["*/5 * * * *", "@hourly", "@every 7m"])
)
def test_each_time_is_run_at_most_once_and_none_is_missed_by_who_looks_often_enough(
    steps: list[int], text: str
) -> None:
    """Runs that are over at once: after each look the last run is no older than the schedule asks for."""
    now, last, runs = NOON, NOON, 0
    for step in steps:
        now += step
        at = due_at(job(text, last, runs), now)
        assert at is not None
        if at <= now:
            last, runs = now, runs + 1
        after = due_at(job(text, last, runs), now)
        assert after is not None
        assert after > now
