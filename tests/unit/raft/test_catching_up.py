"""When a listener has caught up: a round of the whole log that was short."""

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


@given(rate=st.integers(1, 2000), speed=st.integers(1, 4000), behind=st.integers(0, 100_000))
def test_who_is_faster_than_the_log_catches_up_and_who_is_not_never_does(rate: int, speed: int, behind: int) -> None:
    """The log grows by ``rate`` entries a second, the member takes ``speed``."""
    last, match, now = float(behind), 0.0, 0.0
    rounds = CatchingUp(behind, now)
    done = False
    for _ in range(400):
        wait = (last - match) / speed  # until it has what is there now
        wait = min(max(wait, 0.01), 1e6)
        match, last, now = min(last + rate * wait, match + speed * wait), last + rate * wait, now + wait
        done = rounds.is_done(int(match), int(last), now)
        if done:
            break
    if speed >= 2 * rate:
        assert done
    if done and behind > 2 * speed * ROUND_MAX:
        assert speed > rate
