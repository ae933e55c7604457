"""When a listener has caught up: a round of the whole log that was short or left little to do, or the second one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.raft.catching_up import LAG_MAX, ROUND_MAX, CatchingUp

LONG = ROUND_MAX + 0.001
MUCH = LAG_MAX + 1


def test_a_round_ends_with_the_last_entry_there_was_at_its_beginning() -> None:
    rounds = CatchingUp(10, 100.0)
    assert not rounds.is_done(9, 12, 100.2)
    assert rounds.is_done(10, 12, 100.2)


@pytest.mark.parametrize(
    ("took", "lag", "done"),
    [(ROUND_MAX, MUCH, True), (LONG, MUCH, False), (LONG, LAG_MAX, True), (60.0, 0, True)],
)
def test_a_first_round_is_enough_if_it_was_short_or_left_little_to_do(took: float, lag: int, done: bool) -> None:
    assert CatchingUp(10, 0.0).is_done(10, 10 + lag, took) is done


def test_a_second_round_is_up_to_where_the_log_was_at_its_beginning_and_is_the_last() -> None:
    rounds = CatchingUp(10, 0.0)
    assert not rounds.is_done(10, 10 + MUCH, 60.0)
    assert not rounds.is_done(9 + MUCH, 10_000, 120.0)
    assert rounds.is_done(10 + MUCH, 10_000, 121.0)


def test_who_never_has_what_there_was_at_first_never_has_caught_up() -> None:
    rounds = CatchingUp(10, 0.0)
    assert not any(rounds.is_done(9, 10 + second, float(second)) for second in range(1000))


@given(rate=st.integers(0, 2000), speed=st.integers(1, 4000), behind=st.integers(0, 100_000))
def test_who_has_taken_all_of_a_log_that_does_not_outrun_it_lacks_little_when_it_is_done(
    rate: int, speed: int, behind: int
) -> None:
    """The log grows by ``rate`` entries a second, the member takes up to ``speed``, at least twice as many."""
    speed = max(speed, 2 * rate)
    match, now, last = 0.0, 0.0, float(behind)
    rounds = CatchingUp(behind, now)
    for _ in range(10):
        now += max((last - match) / speed, 0.001)
        match, last = last, behind + rate * now
        if rounds.is_done(int(match), int(last), now):
            break
    assert last - match <= max(rate * ROUND_MAX, LAG_MAX, behind / 4) + 1
