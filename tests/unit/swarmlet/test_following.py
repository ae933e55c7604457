"""What came of what, found out of all that several nodes tell, in whatever order they are heard."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmlet.testing.trace import Delivery, Following


@dataclass(frozen=True)
class Handled:
    number: int
    trace: int
    at: int
    took: int
    fits: bool


@dataclass(frozen=True)
class Went:
    cause: int
    effect: int
    at: int


TIMES = st.integers(0, 12)
TRACES = st.integers(0, 5)
HANDLED = st.builds(Handled, st.just(0), TRACES, TIMES, st.integers(0, 3), st.sampled_from([True, False, False, False]))
WENT = st.builds(Went, TRACES, TRACES, TIMES)


def heard(told: list[Handled | Went]) -> list[int]:
    """The numbers of the deliveries that are found, sorted."""
    following, found = Following(), list[Delivery]()
    for each in told:
        if isinstance(each, Went):
            found += following.link(each.cause, each.effect, each.at)
        else:
            delivery = Delivery(each.at, str(each.number), "", "/a", "Said", None, each.trace)
            found += following.delivered(delivery, each.at + each.took, each.fits)
    return sorted(int(each.node) for each in found)


def due(told: list[Handled | Went]) -> list[int]:
    """The same by what it means: from when on each trace is followed, until nothing changes any more."""
    since: dict[int, float] = {}
    handled = [each for each in told if isinstance(each, Handled)]
    for each in handled:
        if each.fits:
            since[each.trace] = min(each.at, since.get(each.trace, 99))
    links = [each for each in told if isinstance(each, Went)]
    for _ in links:
        for each in links:
            if each.at >= since.get(each.cause, 99):
                since[each.effect] = min(each.at, since.get(each.effect, 99))
    return sorted(each.number for each in handled if each.at + each.took >= since.get(each.trace, 99))


@given(st.lists(HANDLED | WENT, max_size=14), st.randoms(use_true_random=False))
def test_what_is_found_does_not_depend_on_the_order_in_which_nodes_are_heard(drawn: list, random) -> None:
    told = [Handled(n, e.trace, e.at, e.took, e.fits) if isinstance(e, Handled) else e for n, e in enumerate(drawn)]
    expected = due(told)
    for _ in range(3):
        assert heard(told) == expected
        random.shuffle(told)


def test_what_waits_is_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Following, "KEPT", 3)
    told: list[Handled | Went] = [Handled(n, n % 2, n, 0, False) for n in range(10)]
    assert heard([*told, Handled(10, 0, 0, 0, True), Handled(11, 1, 0, 0, True)]) == [7, 8, 9, 10, 11]
    following = Following()
    for number in range(50):
        following.link(number, number + 1, 1.0)
    assert (len(following._links), len(following._order)) == (3, 3)
