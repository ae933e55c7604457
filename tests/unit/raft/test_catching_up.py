"""When a listener has caught up: a round of the whole log that was short, or the second one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.raft.catching_up import ROUND_MAX, CatchingUp


def test_a_first_round_that_was_short_is_enough() -> None:
    rounds = CatchingUp(10, 100.0)
    assert not rounds.is_done(9, 12, 100.2)
    assert rounds.is_done(10, 12, 100.2)


def test_a_round_that_was_long_is_followed_by_one_up_to_where_the_log_is_then() -> None:
    rounds = CatchingUp(10, 100.0)
    assert not rounds.is_done(10, 50, 100.0 + ROUND_MAX + 0.1)
    assert not rounds.is_done(49, 60, 101.2)
    assert rounds.is_done(50, 60, 101.3)


def test_exactly_the_limit_is_short_enough() -> None:
    assert CatchingUp(1, 0.0).is_done(1, 1, ROUND_MAX)
    assert not CatchingUp(1, 0.0).is_done(1, 1, ROUND_MAX + 0.001)


def test_a_second_round_is_the_last_however_long_it_was() -> None:
    rounds = CatchingUp(10, 0.0)
    assert not rounds.is_done(10, 500, 60.0)
    assert not rounds.is_done(499, 900, 120.0)
    assert rounds.is_done(500, 900, 121.0)


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
    assert last - match <= max(rate * ROUND_MAX, behind / 4) + 1
