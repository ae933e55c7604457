"""UDP at published ports over real sockets: who answers, what a dead backend costs, how many flows there are."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from runtime.swarm.ingress_tables import Backend, PublishedPort
from runtime.wire import ingress_datagrams
from runtime.wire.loop import IoLoop
from swarmlet.host import free_port
from tests.integration.wire.published import HERE, PATIENCE, Bench
from tests.ipv6 import MISSING, needs_ipv6
from tests.waiting import until

Answer = Callable[[bytes], bytes | None]


class Udp(Bench):
    protocol = "udp"

    def client(self, host: str = HERE) -> socket.socket:
        """One that hears nobody but whom it writes to."""
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(PATIENCE)
        made.connect((host, self.port))
        return made

    def wait_flows(self, count: int) -> None:
        until(lambda: self.proxy.flows == count, f"{count} flows")


@pytest.fixture(scope="module")
def loop() -> Iterator[IoLoop]:
    with IoLoop("ingress-test") as running:
        yield running


@pytest.fixture
def bench(loop: IoLoop) -> Iterator[Udp]:
    made = Udp(loop)
    yield made
    made.close()
    assert made.proxy.flows == 0


@contextlib.contextmanager
def answering(answer: Answer, host: str = HERE, port: int = 0) -> Iterator[int]:
    """A backend; its port. The end of the block is the end of its socket."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.bind((host, port))
        over = threading.Event()

        def serve() -> None:
            while True:
                data, client = mine.recvfrom(1 << 16)
                if over.is_set():
                    return
                said = answer(data)
                if said is not None:
                    mine.sendto(said, client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(mine.getsockname()[1])
        over.set()
        with socket.socket(mine.family, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", mine.getsockname())
        thread.join(PATIENCE)
        assert not thread.is_alive()


def saying(text: bytes) -> contextlib.AbstractContextManager[int]:
    """Who says its name before what it heard."""
    return answering(lambda data: text + data)


def ask(client: socket.socket, text: bytes = b"") -> bytes:
    client.send(text)
    return client.recv(1 << 16)


def test_a_client_stays_with_its_backend_and_the_next_client_has_the_next(bench: Udp) -> None:
    with saying(b"a") as first, saying(b"b") as second, bench.client() as one, bench.client() as two:
        assert bench.apply(first, second) == {}
        assert [ask(one, b"1") for _ in range(3)] == [b"a1"] * 3
        assert [ask(two, b"2") for _ in range(3)] == [b"b2"] * 3
        assert bench.proxy.flows == 2


def test_several_answers_come_to_whoever_asked(bench: Udp) -> None:
    held: list[tuple[bytes, bytes]] = []
    with answering(lambda data: data * 2) as port, bench.client() as one, bench.client() as two:
        bench.apply(port)
        for number in range(20):
            one.send(b"1%d" % number)
            two.send(b"2%d" % number)
            held.append((one.recv(100), two.recv(100)))
    assert held == [(b"1%d" % number * 2, b"2%d" % number * 2) for number in range(20)]


def test_empty_and_large_datagrams_are_what_they_are(bench: Udp) -> None:
    with answering(lambda data: data) as port, bench.client() as client:
        bench.apply(port)
        for size in (0, 1, 1472, 60_000, 0):
            assert ask(client, bytes(size)) == bytes(size)


def test_a_dead_backend_costs_one_datagram_and_all_its_clients_move_at_once(bench: Udp) -> None:
    with saying(b"b") as living, contextlib.ExitStack() as clients:
        crowd = [clients.enter_context(bench.client()) for _ in range(8)]
        with saying(b"a") as dying:
            bench.apply(dying, living)
            found = [ask(each) for each in crowd]
        assert sorted(found) == [b"a"] * 4 + [b"b"] * 4
        orphans = [each for each, said in zip(crowd, found, strict=True) if said == b"a"]
        orphans[0].send(b"lost")
        bench.wait_flows(7)  # its flow is over, for the machine said that nobody listens there
        assert [ask(each, b"!") for each in crowd] == [b"b!"] * 8
        with bench.client() as newcomer:
            assert ask(newcomer) == b"b"


def test_a_backend_that_is_back_has_its_clients_again(bench: Udp) -> None:
    with bench.client() as client:
        with saying(b"a") as port:
            bench.apply(port)
            assert ask(client) == b"a"
        client.send(b"lost")
        bench.wait_flows(0)
        with answering(lambda data: b"again" + data, port=port):
            assert ask(client) == b"again"


def test_a_backend_that_leaves_the_routes_is_left_with_the_next_datagram(bench: Udp) -> None:
    with saying(b"a") as first, saying(b"b") as second, bench.client() as client:
        bench.apply(first)
        assert ask(client) == b"a"
        bench.apply(second)
        assert bench.proxy.flows == 1
        assert [ask(client) for _ in range(3)] == [b"b"] * 3
        assert bench.proxy.flows == 1


def test_what_a_backend_was_asked_before_it_left_is_answered(bench: Udp) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(data: bytes) -> bytes:
        asked.set()
        assert go_on.wait(PATIENCE)
        return data

    with answering(slow) as old, saying(b"new") as new, bench.client() as client:
        bench.apply(old)
        client.send(b"late")
        assert asked.wait(PATIENCE)
        bench.apply(new)
        go_on.set()
        assert client.recv(100) == b"late"
        assert ask(client) == b"new"


def test_without_backends_datagrams_are_lost_and_nothing_is_kept(bench: Udp) -> None:
    with saying(b"a") as port, bench.client() as client:
        bench.apply()
        client.send(b"lost")
        bench.apply(port)
        assert ask(client, b"heard") == b"aheard"


def test_a_flow_ends_when_it_was_silent_long_enough(loop: IoLoop) -> None:
    bench = Udp(loop, idle_s=1.0)
    with saying(b"a") as port, bench.client() as client:
        bench.apply(port)
        assert ask(client) == b"a"
        bench.wait_flows(0)
        assert ask(client) == b"a"
    bench.close()


def test_so_many_flows_and_no_more_and_the_longest_silent_gives_way(
    loop: IoLoop, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Udp(loop, flows_max=3)
    with caplog.at_level(logging.WARNING, "swarmlet.ingress"), contextlib.ExitStack() as clients:
        heard: list[str] = []

        def answer(data: bytes) -> bytes:
            heard.append(data.decode())
            return data

        port = clients.enter_context(answering(answer))
        bench.apply(port)
        crowd = [clients.enter_context(bench.client()) for _ in range(5)]
        for each in crowd[:3]:
            ask(each, b"x")
        ask(crowd[0], b"x")
        for each in crowd[3:]:
            ask(each, b"x")
        assert bench.proxy.flows == 3
        assert [ask(each, b"y") for each in (crowd[0], crowd[3], crowd[4])] == [b"y"] * 3
        assert bench.proxy.flows == 3
    bench.close()
    assert [record.message for record in caplog.records].count(
        "3 clients of published udp ports: the longest silent gives way to new ones"
    ) == 1


def test_a_dead_task_whose_port_the_system_draws_for_this_end_is_not_taken_for_an_echo(
    bench: Udp, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = free_port(HERE)
    unbound, drawn = ingress_datagrams.unbound, []

    def drawing(host: str, kind: socket.SocketKind) -> socket.socket:
        made = unbound(host, kind)
        if not drawn:  # the first that is made is to the first backend
            made.bind((HERE, dead))
            drawn.append(made)
        return made

    monkeypatch.setattr(ingress_datagrams, "unbound", drawing)
    with saying(b"a") as living, bench.client() as client:
        mine = PublishedPort(bench.port, "udp")
        bench.apply_routes({mine: (Backend(HERE, dead, "t1"), Backend(HERE, living, "t2"))})
        assert ask(client, b"echo?") == b"aecho?"
    assert len(drawn) == 1


def test_a_machine_without_file_descriptors_loses_datagrams_says_so_once_and_goes_on(
    bench: Udp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def refused(host: str, kind: socket.SocketKind) -> socket.socket:
        tried.append(host)
        raise OSError(24, "Too many open files")

    with saying(b"a") as port, bench.client() as client:
        bench.apply(port)
        with monkeypatch.context() as poor:
            poor.setattr(ingress_datagrams, "unbound", refused)
            client.send(b"1")
            client.send(b"2")
            until(lambda: len(tried) == 2, "both arrived")
        assert ask(client) == b"a"
    assert [record.message for record in caplog.records] == [
        "datagrams to published ports are lost: Too many open files"
    ]


def test_tcp_and_udp_of_one_number_are_two_ports(bench: Udp) -> None:
    with saying(b"a") as port, bench.client() as client:
        bench.apply(port)
        assert ask(client) == b"a"
        with pytest.raises(ConnectionRefusedError):
            bench.connect()
        tcp = {PublishedPort(bench.port): (Backend(HERE, port, "t"),)}
        assert bench.apply_routes(tcp) == {}
        assert bench.proxy.flows == 0
        with pytest.raises(ConnectionRefusedError):
            ask(client)


def test_a_port_that_is_somebody_elses_is_told_and_had_later(bench: Udp) -> None:
    with saying(b"a") as backend, bench.client() as client:
        with socket.socket(type=socket.SOCK_DGRAM) as taken:
            taken.bind((HERE, bench.port))
            assert bench.apply(backend) == {PublishedPort(bench.port, "udp"): "Address already in use"}
        assert bench.apply(backend) == {}
        assert ask(client) == b"a"


def test_answers_come_from_the_address_that_was_written_to(loop: IoLoop) -> None:
    bench = Udp(loop, host="")
    with saying(b"a") as port:
        assert bench.apply(port) == {}
        hosts = ("127.0.0.1", "127.0.0.2", *(() if MISSING else ("::1",)))
        for host in hosts:
            with bench.client(host) as client:
                assert ask(client, host.encode()) == b"a" + host.encode()
        assert bench.proxy.flows == len(hosts)
    bench.close()


def test_a_client_that_writes_to_two_addresses_has_a_flow_at_each(loop: IoLoop) -> None:
    bench = Udp(loop, host="")
    with saying(b"a") as port, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind(("", 0))
        client.settimeout(PATIENCE)
        bench.apply(port)
        for host in ("127.0.0.1", "127.0.0.2"):
            client.sendto(b"", (host, bench.port))
            assert client.recvfrom(10)[1] == (host, bench.port)
        assert bench.proxy.flows == 2
    bench.close()


@needs_ipv6
def test_a_backend_of_ipv6_is_reached(bench: Udp) -> None:
    with answering(lambda data: data, "::1") as port, bench.client() as client:
        bench.apply_routes({PublishedPort(bench.port, "udp"): (Backend("::1", port, "t"),)})
        assert ask(client, b"six") == b"six"


def test_closing_leaves_no_socket_behind(loop: IoLoop) -> None:
    bench = Udp(loop)
    with saying(b"a") as port, bench.client() as client:
        bench.apply(port)
        assert ask(client) == b"a"
        bench.close()
        assert bench.proxy.flows == 0
        with pytest.raises(ConnectionRefusedError):
            ask(client)


def test_a_dead_backend_beside_none_is_tried_with_each_datagram(bench: Udp) -> None:
    bench.apply(free_port(HERE))
    with bench.client() as client:
        for _ in range(3):
            client.send(b"lost")
        bench.wait_flows(0)
