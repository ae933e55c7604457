"""The edge of published ports over real sockets: turns, backends that are gone, half-open ends, limits."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime.swarm.ingress_tables import Backend
from runtime.wire.ingress_proxy import IngressProxy
from runtime.wire.loop import IoLoop

HERE = "127.0.0.1"
PATIENCE = 10.0


@pytest.fixture(scope="module")
def loop() -> Iterator[IoLoop]:
    with IoLoop("ingress-test") as running:
        yield running


def run(loop: IoLoop, coro: Any) -> Any:
    over, found = threading.Event(), []
    loop.submit(coro, lambda result: (found.append(result), over.set()))  # type: ignore[func-returns-value, arg-type]
    assert over.wait(PATIENCE)
    assert not isinstance(found[0], BaseException), found[0]
    return found[0]


class Bench:
    """A proxy at a free port."""

    def __init__(self, loop: IoLoop, **more: Any) -> None:
        self.loop = loop
        self.proxy = IngressProxy(loop, HERE, **more)
        self.port = free()

    def apply(self, *backends: int, port: int = 0) -> dict[int, str]:
        over, failed = threading.Event(), []
        routes = {port or self.port: tuple(Backend(HERE, each) for each in backends)}
        self.proxy.apply(routes, lambda result: (failed.append(result), over.set()))  # type: ignore[func-returns-value, arg-type]
        assert over.wait(PATIENCE)
        return dict(failed[0])

    def connect(self) -> socket.socket:
        return socket.create_connection((HERE, self.port), PATIENCE)

    def ask(self, text: bytes = b"") -> bytes:
        with self.connect() as client:
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            return everything(client)


@pytest.fixture
def bench(loop: IoLoop) -> Iterator[Bench]:
    made = Bench(loop)
    yield made
    run(loop, made.proxy.close())


def free() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


def everything(client: socket.socket) -> bytes:
    found = b""
    while data := client.recv(1 << 16):
        found += data
    return found


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A backend: ``answer`` has each connection on a thread of its own; its port."""
    listener = socket.create_server((HERE, 0))

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            answer(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def saying(text: bytes) -> contextlib.AbstractContextManager[int]:
    def answer(connection: socket.socket) -> None:
        everything(connection)
        connection.sendall(text)

    return serving(answer)


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
            assert failed[0] == bench.port
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
    run(loop, bench.proxy.close())


def test_closing_ends_every_connection(loop: IoLoop) -> None:
    bench = Bench(loop)

    def hello(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        everything(connection)

    with serving(hello) as port:
        bench.apply(port)
        with bench.connect() as client:
            assert client.recv(5) == b"hello"
            run(loop, bench.proxy.close())
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(5) == b""
        with pytest.raises(ConnectionRefusedError):
            bench.connect()
