"""Whose turn it is at a published port."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given as for_all
from hypothesis import strategies as st

from runtime.swarm.ingress_tables import Backend
from runtime.swarm.ingress_turns import AVOIDED_S, Turns

A, B, C = (Backend("10.0.0.1", 9000 + number, f"t{number}") for number in range(3))


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.turns: Turns[str] = Turns(lambda: self.now)

    def firsts(self, times: int, *backends: Backend, port: str = "web") -> list[Backend]:
        """Who is asked first."""
        return [next(self.turns.order(port, backends)) for _ in range(times)]


def test_backends_have_their_turns_at_each_port() -> None:
    bench = Bench()
    assert bench.firsts(4, A, B, C) == [A, B, C, A]
    assert bench.firsts(1, A, B, C, port="other") == [A]
    assert list(bench.turns.order("web", (A, B, C))) == [B, C, A]


def test_without_backends_nobody_is_asked() -> None:
    assert list(Bench().turns.order("web", ())) == []


def test_whoever_refused_is_the_last_to_be_asked_for_a_while() -> None:
    bench = Bench()
    assert bench.turns.refused(B)
    assert not bench.turns.refused(B)
    assert bench.firsts(4, A, B, C) == [A, C, A, C]
    assert list(bench.turns.order("web", (A, B, C)))[-1] == B
    bench.now += AVOIDED_S
    assert bench.turns.refused(B)
    bench.now += AVOIDED_S
    assert B in bench.firsts(3, A, B, C)


def test_where_all_refused_all_are_asked_in_turn() -> None:
    bench = Bench()
    for each in (A, B):
        bench.turns.refused(each)
    assert bench.firsts(4, A, B) == [A, B, A, B]
    assert set(bench.turns.order("web", (A, B))) == {A, B}


def test_whoever_served_again_has_its_turns_again() -> None:
    bench = Bench()
    bench.turns.refused(A)
    bench.turns.served(A)
    assert bench.firsts(2, A, B) == [A, B]


def test_a_new_task_at_a_dead_ones_port_is_not_avoided() -> None:
    bench = Bench()
    bench.turns.refused(A)
    assert not bench.turns.avoids(Backend(A.host, A.port, "new"))


def test_what_is_not_published_any_more_is_forgotten() -> None:
    bench = Bench()
    bench.firsts(1, A, B)
    bench.turns.refused(A)
    bench.turns.keep_to({"web"}, [A, B])
    assert bench.turns.avoids(A)
    bench.turns.keep_to({"other"}, [B])
    assert not bench.turns.avoids(A)
    assert bench.firsts(1, A, B) == [A]


@for_all(st.lists(st.tuples(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)), st.floats(0, 6)), max_size=30))
def test_everybody_is_asked_once_whoever_comes_goes_and_refuses(
    steps: Sequence[tuple[set[int], set[int], float]],
) -> None:
    bench = Bench()
    for present, refusing, passed in steps:
        bench.now += passed
        backends = [Backend("h", number, f"t{number}") for number in sorted(present)]
        asked = []
        for each in bench.turns.order("web", backends):
            asked.append(each)
            if each.port in refusing:
                bench.turns.refused(each)
            else:
                bench.turns.served(each)
        assert sorted(asked) == backends
