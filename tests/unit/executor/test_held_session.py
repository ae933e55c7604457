"""A command whose output goes far away: bounds, order, and its end whatever comes first."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from runtime.executor.held_session import HOLD_BYTES, HeldSession


class Command:
    pid = 7

    def __init__(self) -> None:
        self.held: list[bool] = []
        self.closed = 0

    def write(self, data: bytes, done: Callable[[], None]) -> None:
        done()

    def end_input(self) -> None:
        pass

    def resize(self, rows: int, columns: int) -> None:
        pass

    def hold(self, held: bool) -> None:
        self.held.append(held)

    def close(self) -> None:
        self.closed += 1


def made() -> tuple[HeldSession, Command, list[None]]:
    woken: list[None] = []
    return HeldSession(woken.append), Command(), woken


def everything(data: bytes) -> bytes:
    return data


def test_what_it_says_is_taken_in_order_and_its_end_comes_last() -> None:
    held, command, _ = made()
    held.begun(command)
    held.output(1, b"a")
    held.output(2, b"b")
    held.exit(3)
    assert held.ended is None
    assert [held.take(everything), held.take(everything), held.take(everything)] == [(1, b"a"), (2, b"b"), None]
    assert held.ended == (3,)


@given(st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(min_size=1, max_size=50)), max_size=20), st.integers(1, 9))
def test_pieces_of_any_size_are_all_of_it_in_order(said: list[tuple[int, bytes]], most: int) -> None:
    held, command, _ = made()
    held.begun(command)
    for stream, data in said:
        held.output(stream, data)
    taken = []
    while (piece := held.take(lambda data: data[:most])) is not None:
        taken.append(piece)
    assert [(stream, byte) for stream, data in taken for byte in data] == [
        (stream, byte) for stream, data in said for byte in data
    ]


def test_there_is_one_call_for_all_that_came_until_somebody_looks() -> None:
    held, _, woken = made()
    held.output(1, b"a")
    held.output(1, b"b")
    assert len(woken) == 1
    held.look()
    held.exit(0)
    assert len(woken) == 2


def test_a_command_that_nobody_reads_is_held_at_once_and_goes_on_when_half_was_taken() -> None:
    held, command, _ = made()
    held.begun(command)
    piece = bytes(HOLD_BYTES // 4)
    for _ in range(5):
        held.output(1, piece)
    assert command.held == [True]
    held.take(everything)
    held.take(everything)
    held.take(everything)
    assert command.held == [True]
    held.take(everything)
    assert command.held == [True, False]


def test_one_that_said_too_much_before_it_is_known_is_held_as_it_becomes_known() -> None:
    held, command, _ = made()
    held.output(1, bytes(HOLD_BYTES + 1))
    held.begun(command)
    assert command.held == [True]


def test_what_may_not_go_now_stays() -> None:
    held, _, _ = made()
    held.output(1, b"abc")
    assert held.take(lambda data: b"") is None
    assert held.take(everything) == (1, b"abc")


def test_closing_ends_it_also_if_it_begins_only_then() -> None:
    first, second = made(), made()
    first[0].begun(first[1])
    first[0].close()
    second[0].close()
    second[0].begun(second[1])
    assert (first[1].closed, second[1].closed) == (1, 1)
    first[0].output(1, b"late")
    assert first[0].take(everything) is None
