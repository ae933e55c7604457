"""The checker of histories: what is linearizable, what is not, and what it does not decide."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.linearizable import Operation, Undecided, linearizable


def write(call: float, end: float, value: object) -> Operation:
    return Operation(call, end, True, value)


def read(call: float, end: float, value: object) -> Operation:
    return Operation(call, end, False, value)


def test_one_after_the_other() -> None:
    assert linearizable([read(0, 1, None), write(2, 3, 1), read(4, 5, 1)])
    assert not linearizable([write(2, 3, 1), read(4, 5, None)])
    assert not linearizable([write(0, 1, 1), write(2, 3, 2), read(4, 5, 1)])


def test_what_overlaps_may_take_effect_in_either_order() -> None:
    for value in (1, 2):
        assert linearizable([write(0, 10, 1), write(0, 10, 2), read(11, 12, value)])
    assert not linearizable([write(0, 10, 1), write(0, 10, 2), read(11, 12, 1), read(13, 14, 2)])


def test_a_read_may_see_a_write_that_has_not_returned_but_not_one_before_it_was_called() -> None:
    assert linearizable([write(0, 10, 1), read(1, 2, 1), read(3, 4, 1)])
    assert not linearizable([write(5, 10, 1), read(1, 2, 1)])
    assert not linearizable([write(0, 10, 1), read(1, 2, 1), read(3, 4, None)])


def test_a_write_without_an_outcome_may_take_effect_at_any_later_time() -> None:
    lost = write(0, math.inf, 1)
    assert not lost.known
    assert linearizable([lost, read(5, 6, None), read(100, 101, 1)])


def test_a_search_that_takes_too_long_is_a_failure() -> None:
    history = [write(0, 100, value) for value in range(12)] + [read(101, 102, "never written")]
    with pytest.raises(Undecided, match="13 operations"):
        linearizable(history, limit=100)


def test_a_write_that_replaces_one_value_takes_effect_on_that_one_alone() -> None:
    def swap(call: float, end: float, expected: object, value: object) -> Operation:
        return Operation(call, end, True, value, expected=expected)

    assert linearizable([swap(0, 10, 1, 2), swap(0, 10, None, 1), read(11, 12, 2)])
    assert not linearizable([swap(0, 10, None, 2), swap(0, 10, None, 1)])
    assert not linearizable([swap(0, 1, None, 1), swap(2, 3, None, 2)])


def test_an_empty_history_is_linearizable() -> None:
    assert linearizable([])


def by_force(history: list[Operation]) -> bool:
    """Every order that respects real time."""
    for order in itertools.permutations(history):
        if any(later.end < earlier.call for n, earlier in enumerate(order) for later in order[n + 1 :]):
            continue
        value: object = None
        for each in order:
            if each.write:
                value = each.value
            elif each.value != value:
                break
        else:
            return True
    return False


operations = st.builds(
    lambda call, length, kind, value: Operation(call, call + length, kind, value),
    st.integers(0, 12), st.integers(0, 6), st.booleans(), st.sampled_from([1, 2, 3]),
)  # fmt: skip


@given(st.lists(operations, max_size=6))
def test_the_search_agrees_with_trying_all_orders(history: list[Operation]) -> None:
    assert linearizable(history) == by_force(history)


@pytest.mark.parametrize("seed", range(10))
def test_histories_made_of_a_real_register_pass_and_a_stale_read_in_them_fails(seed: int) -> None:
    rng, value, history = random.Random(seed), None, []
    for number in range(300):
        effect = float(number)
        call, end = effect - rng.random() * 4, effect + rng.random() * 4
        if rng.random() < 0.5:
            value = number
            history.append(write(call, end, number))
        else:
            history.append(read(call, end, value))
    assert linearizable(history)
    assert not linearizable([*history, read(1000, 1001, None)])
