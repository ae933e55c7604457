"""The edge of published ports over real sockets: turns, backends that are gone, half-open ends, limits."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from runtime.swarm.ingress_tables import PublishedPort
from runtime.wire.loop import IoLoop
from tests.integration.wire.published import HERE, PATIENCE, Bench, everything, free, saying, serving


@pytest.fixture(scope="module")
def loop() -> Iterator[IoLoop]:
    with IoLoop("ingress-test") as running:
        yield running


@pytest.fixture
def bench(loop: IoLoop) -> Iterator[Bench]:
    made = Bench(loop)
    yield made
    made.close()


def test_connections_go_to_the_backends_in_turn(bench: Bench) -> None:
    with saying(b"a") as first, saying(b"b") as second:
        assert bench.apply(first, second) == {}
        assert [bench.ask() for _ in range(4)] == [b"a", b"b", b"a", b"b"]


def test_a_backend_that_does_not_answer_is_passed_over(bench: Bench) -> None:
    with saying(b"a") as first:
        bench.apply(free(), first, free())
        assert [bench.ask() for _ in range(4)] == [b"a"] * 4


def test_without_any_backend_a_connection_is_closed(bench: Bench) -> None:
    bench.apply()
    assert bench.ask() == b""
    bench.apply(free())
    assert bench.ask() == b""


def test_much_goes_both_ways_and_ends_are_passed_on(bench: Bench) -> None:
    sent = bytes(range(256)) * 8192

    def echo(connection: socket.socket) -> None:
        connection.sendall(everything(connection))  # answers only once the other side has said all

    with serving(echo) as port:
        bench.apply(port)
        with bench.connect() as client:
            writer = threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)))
            writer.start()
            assert everything(client) == sent
            writer.join()


def test_new_routes_count_for_new_connections_alone(bench: Bench) -> None:
    def echo(connection: socket.socket) -> None:
        while data := connection.recv(100):
            connection.sendall(data.upper())

    with serving(echo) as old, saying(b"new") as new:
        bench.apply(old)
        with bench.connect() as client:
            client.sendall(b"x")
            assert client.recv(1) == b"X"
            bench.apply(new)
            assert bench.ask() == b"new"
            client.sendall(b"y")
            assert client.recv(1) == b"Y"


def test_a_port_that_is_not_published_any_more_is_not_listened_on(bench: Bench) -> None:
    with saying(b"a") as backend:
        bench.apply(backend)
        assert bench.ask() == b"a"
        other = free()
        bench.apply(backend, port=other)
        with pytest.raises(ConnectionRefusedError):
            bench.connect()
        bench.port = other
        assert bench.ask() == b"a"


def test_a_port_that_is_somebody_elses_is_told_and_had_later(bench: Bench) -> None:
    with saying(b"a") as backend:
        with socket.create_server((HERE, bench.port)):
            (failed,) = bench.apply(backend).items()
            assert failed[0] == PublishedPort(bench.port)
            assert "address already in use" in failed[1].lower()
        assert bench.apply(backend) == {}
        assert bench.ask() == b"a"


def test_a_reset_of_one_side_ends_the_other(bench: Bench) -> None:
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        with contextlib.suppress(OSError):
            everything(connection)
        ended.set()

    with serving(answer) as port:
        bench.apply(port)
        client = bench.connect()
        assert client.recv(5) == b"hello"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert ended.wait(PATIENCE)


def test_so_many_connections_and_no_more(loop: IoLoop) -> None:
    bench = Bench(loop, connections_max=2)

    def hello(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        everything(connection)

    with serving(hello) as port, contextlib.ExitStack() as open_ones:
        bench.apply(port)
        for _ in range(2):
            client = open_ones.enter_context(bench.connect())
            assert client.recv(5) == b"hello"
        with bench.connect() as third, contextlib.suppress(ConnectionResetError):
            assert third.recv(5) == b""
        open_ones.close()
    bench.close()


def test_closing_ends_every_connection(loop: IoLoop) -> None:
    bench = Bench(loop)

    def hello(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        everything(connection)

    with serving(hello) as port:
        bench.apply(port)
        with bench.connect() as client:
            assert client.recv(5) == b"hello"
            bench.close()
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(5) == b""
        with pytest.raises(ConnectionRefusedError):
            bench.connect()
