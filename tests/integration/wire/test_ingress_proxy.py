"""The edge of published ports over real sockets: turns, backends that are gone, half-open ends, limits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from runtime.swarm.ingress_tables import Backend, PublishedPort
from runtime.wire import ingress_proxy
from runtime.wire.ingress_pipes import PIECE, Side
from runtime.wire.ingress_proxy import IngressProxy
from runtime.wire.loop import IoLoop
from swarmlet.host import free_port
from tests.integration.wire.published import HERE, PATIENCE, Bench, everything, reset, run, saying, serving
from tests.ipv6 import needs_ipv6
from tests.waiting import until


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
        bench.apply(free_port(HERE), first, free_port(HERE))
        assert [bench.ask() for _ in range(4)] == [b"a"] * 4


@pytest.mark.parametrize("dead", [0, 1, 3])
def test_where_nobody_takes_it_a_connection_is_reset_and_not_ended_as_if_all_were_said(bench: Bench, dead: int) -> None:
    bench.apply(*(free_port(HERE) for _ in range(dead)))
    with pytest.raises(ConnectionResetError):
        bench.ask()
    until(lambda: bench.proxy.connections == 0, "it is forgotten")


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
        other = free_port(HERE)
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
        reset(client)
        assert ended.wait(PATIENCE)


def test_a_reset_of_the_task_is_a_reset_to_the_client(bench: Bench) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        connection.recv(1)
        reset(connection)

    with serving(answer) as port:
        bench.apply(port)
        with bench.connect() as client:
            assert client.recv(5) == b"hello"
            client.sendall(b"!")
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_task_that_has_said_all_is_still_told_more(bench: Bench) -> None:
    heard: list[bytes] = []
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        heard.append(everything(connection))
        over.set()

    with serving(answer) as port:
        bench.apply(port)
        with bench.connect() as client:
            assert client.recv(1) == b""
            client.sendall(b"more")
            client.shutdown(socket.SHUT_WR)
            assert over.wait(PATIENCE)
    assert heard == [b"more"]
    until(lambda: bench.proxy.connections == 0, "the connection is over")


def test_a_client_that_vanished_after_it_had_said_all_is_noticed_although_the_task_is_silent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingress_proxy, "SWEEP_S", 0.05)
    asked, ended = threading.Event(), threading.Event()

    def answer(connection: socket.socket) -> None:
        everything(connection)
        asked.set()
        connection.setblocking(True)
        poll = select.poll()
        poll.register(connection, 0)  # hears of errors alone
        poll.poll(PATIENCE * 1000)
        ended.set()

    with serving(answer) as port:
        bench.apply(port)
        client = bench.connect()
        client.shutdown(socket.SHUT_WR)
        assert asked.wait(PATIENCE)
        reset(client)
        until(lambda: bench.proxy.connections == 0, "the client is given up")
        assert ended.wait(PATIENCE)


def test_of_what_a_slow_client_does_not_take_one_piece_is_held(bench: Bench) -> None:
    total = 64 << 20
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        while sent < total:
            connection.sendall(bytes(PIECE))
            sent += PIECE

    def held() -> int:
        found = sum(side.transport.get_write_buffer_size() for side in bench.proxy._sides if side.transport is not None)
        assert found <= PIECE
        return found

    with serving(answer) as port:
        bench.apply(port)
        with bench.connect() as client:
            until(held, "the client's buffers are full", 60)
            assert sent < total
            assert len(everything(client)) == total


def test_a_hundred_slow_clients_do_not_hold_up_another(bench: Bench) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(bytes(8 << 20) if connection.recv(1) == b"m" else b"little")

    with serving(answer) as port, contextlib.ExitStack() as slow:
        bench.apply(port)
        for _ in range(100):
            slow.enter_context(bench.connect()).sendall(b"much")
        assert bench.ask(b"l") == b"little"
        assert bench.proxy.connections >= 100


def test_a_thousand_connections_at_a_time(loop: IoLoop) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 1000
    wanted = count * 4 + 1000
    if hard < wanted:
        pytest.skip(f"this machine allows {hard} open files, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    bench = Bench(loop, connections_max=count)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async def serve() -> asyncio.Server:
        return await asyncio.start_server(echo, HERE, 0, backlog=count)

    server = run(loop, serve())
    try:
        bench.apply(server.sockets[0].getsockname()[1])
        with contextlib.ExitStack() as clients:
            crowd = [clients.enter_context(bench.connect()) for _ in range(count)]
            for number, client in enumerate(crowd):
                client.sendall(b"%04d" % number)
            assert [client.recv(4) for client in crowd] == [b"%04d" % number for number in range(count)]
            assert bench.proxy.connections == count
        until(lambda: bench.proxy.connections == 0, "all are over")
    finally:
        bench.close()
        server.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_task_that_does_not_take_connections_is_asked_once_and_then_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    connect = IngressProxy._connect

    async def noted(self: IngressProxy, backend: Backend) -> Side:
        asked.append(backend.port)
        return await connect(self, backend)

    monkeypatch.setattr(IngressProxy, "_connect", noted)
    monkeypatch.setattr(ingress_proxy, "CONNECT_S", 0.2)
    with saying(b"a") as living, socket.socket() as deaf, contextlib.ExitStack() as crowd:
        deaf.bind((HERE, 0))
        deaf.listen(0)
        dead = int(deaf.getsockname()[1])
        for _ in range(2):  # its queue is full from now on
            waiting = crowd.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((HERE, dead))
        bench.apply(dead, living)
        assert [bench.ask() for _ in range(5)] == [b"a"] * 5
    assert asked.count(dead) == 1


def test_a_task_that_took_a_connection_is_not_blamed_for_a_loop_that_hears_of_it_late(
    bench: Bench, loop: IoLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = loop.loop.sock_connect

    async def late(made: socket.socket, address: tuple[str, int]) -> None:
        await connect(made, address)
        await asyncio.sleep(3600)

    monkeypatch.setattr(loop.loop, "sock_connect", late)
    monkeypatch.setattr(ingress_proxy, "CONNECT_S", 0.05)
    with saying(b"a") as only:
        bench.apply(only)
        assert [bench.ask() for _ in range(3)] == [b"a"] * 3


def test_a_dead_task_whose_port_the_system_draws_for_this_end_is_not_taken_for_an_echo(
    bench: Bench, loop: IoLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = free_port(HERE)
    connect = loop.loop.sock_connect

    async def drawn(made: socket.socket, address: tuple[str, int]) -> None:
        if address[1] == dead:
            made.bind((HERE, dead))
        await connect(made, address)

    monkeypatch.setattr(loop.loop, "sock_connect", drawn)
    bench.apply(dead)
    with pytest.raises(ConnectionResetError):
        bench.ask(b"echo?")
    with saying(b"a") as living:
        bench.apply(dead, living)
        assert [bench.ask(b"echo?") for _ in range(3)] == [b"a"] * 3


def test_a_machine_without_file_descriptors_refuses_connections_and_blames_no_task(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def poor(self: IngressProxy, backend: Backend) -> Side:
        raise OSError(errno.EMFILE, "Too many open files")

    with saying(b"a") as port:
        bench.apply(port)
        with monkeypatch.context() as patch:
            patch.setattr(IngressProxy, "_connect", poor)
            for _ in range(3):
                with pytest.raises(ConnectionResetError):
                    bench.ask()
        assert bench.ask() == b"a"
    assert [record.message for record in caplog.records] == [
        "connections to published ports are refused: Too many open files"
    ]


@needs_ipv6
def test_it_is_reached_by_ipv4_and_ipv6_and_reaches_tasks_by_both(loop: IoLoop) -> None:
    bench = Bench(loop, host="")
    with saying(b"four") as four, socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        port = PublishedPort(bench.port)
        assert bench.apply_routes({port: (Backend(HERE, four), Backend("::1", six.getsockname()[1]))}) == {}
        for host in (HERE, "::1"):
            with bench.connect(host) as client:
                client.shutdown(socket.SHUT_WR)
                if host == HERE:
                    assert everything(client) == b"four"
                    continue
                accepted, _ = six.accept()
                with accepted:
                    accepted.sendall(b"six")
                assert everything(client) == b"six"
    bench.close()


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
        with pytest.raises(ConnectionResetError), bench.connect() as third:  # connecting may hear of it already
            third.recv(5)
        until(lambda: bench.proxy.connections == 2, "it is forgotten")
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
            with pytest.raises(ConnectionResetError):
                client.recv(5)
        with pytest.raises(ConnectionRefusedError):
            bench.connect()
