"""Two sides of a forwarded connection, by transports that take note."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest

from runtime.wire.ingress_pipes import PIECE, TCP_CLOSED, Side, join


class Socket:
    def __init__(self) -> None:
        self.options: dict[tuple[int, int], Any] = {}
        self.state = 1

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self.options[level, option] = value

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return bytes([self.state])[:size]


class Transport:
    """``said`` is what it was asked to do."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.said: list[Any] = []
        self.high = -1

    def get_extra_info(self, name: str) -> Socket:
        assert name == "socket"
        return self.socket

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def write(self, data: bytes) -> None:
        self.said.append(data)

    def __getattr__(self, name: str) -> Any:
        return lambda: self.said.append(name)

    def take(self) -> list[Any]:
        said, self.said = self.said, []
        return said


class Bench:
    """A client's and a task's side."""

    def __init__(self) -> None:
        self.made: list[Side] = []
        self.over: list[Side] = []
        self.piece = memoryview(bytearray(PIECE))
        self.sides = [Side(self.piece, self.made.append, self.over.append) for _ in range(2)]
        self.transports = [Transport(), Transport()]
        for side, transport in zip(self.sides, self.transports, strict=True):
            side.connection_made(cast("asyncio.Transport", transport))
            assert transport.take() == ["pause_reading"]

    def joined(self) -> Bench:
        join(*self.sides)
        assert [each.take() for each in self.transports] == [["resume_reading"]] * 2
        return self

    def say(self, number: int, data: bytes) -> None:
        """A side's peer says something."""
        side = self.sides[number]
        side.get_buffer(-1)[: len(data)] = data
        side.buffer_updated(len(data))

    def take(self) -> tuple[list[Any], list[Any]]:
        """What client's and task's transports were asked to do."""
        return self.transports[0].take(), self.transports[1].take()


@pytest.fixture
def bench() -> Bench:
    return Bench().joined()


@pytest.fixture(params=[0, 1])
def number(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_a_side_is_told_of_is_probed_when_silent_and_holds_nothing_back() -> None:
    bench = Bench()
    assert bench.made == bench.sides
    for each in bench.transports:
        assert each.socket.options[socket.SOL_SOCKET, socket.SO_KEEPALIVE] == 1
        assert each.socket.options[socket.IPPROTO_TCP, socket.TCP_KEEPIDLE] == 60
        assert each.high == 0


def test_what_one_says_the_other_hears_although_the_piece_is_used_again(bench: Bench) -> None:
    bench.say(0, b"question")
    bench.say(1, b"answer")
    assert bench.take() == ([b"answer"], [b"question"])


def test_for_a_slow_side_nothing_is_read(bench: Bench, number: int) -> None:
    other = bench.transports[1 - number]
    bench.sides[number].pause_writing()
    assert other.take() == ["pause_reading"]
    bench.sides[number].resume_writing()
    assert other.take() == ["resume_reading"]


def test_a_side_that_ended_is_not_read_again_when_the_other_has_caught_up(bench: Bench) -> None:
    bench.sides[0].eof_received()
    bench.take()
    bench.sides[1].pause_writing()
    bench.sides[1].resume_writing()
    assert bench.take() == ([], [])


def test_a_side_that_has_said_all_is_passed_on_as_such_and_the_other_goes_on(bench: Bench, number: int) -> None:
    assert bench.sides[number].eof_received()
    assert bench.transports[1 - number].take() == ["write_eof"]
    bench.say(1 - number, b"more")
    assert bench.transports[number].take() == [b"more"]


def test_when_both_have_said_all_both_close(bench: Bench) -> None:
    assert bench.sides[0].eof_received()
    bench.take()
    assert not bench.sides[1].eof_received()  # so its transport closes
    assert bench.take() == (["close"], [])


def test_one_that_closes_closes_the_other(bench: Bench, number: int) -> None:
    bench.sides[number].connection_lost(None)
    assert bench.transports[1 - number].take() == ["close"]
    assert bench.over == [bench.sides[number]]
    bench.sides[1 - number].connection_lost(None)
    assert bench.transports[number].take() == []
    assert set(bench.over) == set(bench.sides)


def test_one_that_breaks_resets_the_other(bench: Bench, number: int) -> None:
    bench.sides[number].connection_lost(ConnectionResetError())
    other = bench.transports[1 - number]
    assert other.take() == ["abort"]
    assert (socket.SOL_SOCKET, socket.SO_LINGER) in other.socket.options


def test_aborting_one_resets_both_and_once(bench: Bench) -> None:
    bench.sides[0].abort()
    assert bench.take() == (["abort"], ["abort"])
    for side in bench.sides:
        side.connection_lost(None)
        side.abort()
    assert bench.take() == ([], [])


@pytest.mark.parametrize("lost", [0, 1])
def test_a_side_that_was_lost_before_it_was_joined_takes_the_other_with_it(lost: int) -> None:
    bench = Bench()
    bench.sides[lost].connection_lost(None)
    join(*bench.sides)
    assert bench.transports[1 - lost].take() == ["abort"]
    assert bench.transports[lost].take() == []


def test_a_side_alone_ends_with_its_peer() -> None:
    bench = Bench()
    assert not bench.sides[0].eof_received()
    bench.sides[0].pause_writing()
    bench.sides[0].resume_writing()
    assert bench.take() == ([], [])


def test_a_peer_that_vanished_after_it_had_said_all_is_seen(bench: Bench) -> None:
    client, transport = bench.sides[0], bench.transports[0]
    transport.socket.state = TCP_CLOSED
    assert not client.gone  # it is read from: the loop will tell
    client.eof_received()
    assert client.gone
    transport.socket.state = 8  # CLOSE_WAIT: it may still listen
    assert not client.gone
    client.connection_lost(None)
    assert client.gone


def test_a_side_that_was_never_connected_can_be_aborted() -> None:
    Side(memoryview(bytearray(1)), lambda side: None, lambda side: None).abort()
