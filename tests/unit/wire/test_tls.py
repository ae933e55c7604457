"""The splice by itself, without gRPC: every byte, in order, both ways, with pushing back and flushing at the end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from runtime.wire import tls
from runtime.wire.front import Front
from runtime.wire.grpc_transport import listen
from runtime.wire.loop import IoLoop
from runtime.wire.originate import Originator
from runtime.wire.port import MANAGER, Credentials, Material
from tests.descriptors import open_files, opened_since
from tests.unit.wire.authority import CLUSTER, authority, stranger


class Backend(threading.Thread):
    """A unix server that hands each connection to a function, in one thread."""

    def __init__(self, path: str, behaviour: Callable[[socket.socket], None]) -> None:
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.behaviour = behaviour
        self.names: list[bytes] = []

    def run(self) -> None:
        while True:
            try:
                connection, name = self.listener.accept()
            except OSError:
                return
            self.names.append(name)
            with connection:
                self.behaviour(connection)


class Bench:
    """A front before a backend, and an originator towards it: bytes go through both splices."""

    def __init__(self, tmp_path: Any, behaviour: Callable[[socket.socket], None]) -> None:
        self.io = IoLoop("test-io").start()
        self.local = str(tmp_path / "out")
        self.backend = Backend(str(tmp_path / "in"), behaviour)
        self.backend.start()
        buffer = tls.read_buffer()
        listener = listen("127.0.0.1:0")
        self.port = listener.getsockname()[1]
        self.front = Front(listener, str(tmp_path / "in"), authority().manager(), buffer)
        self.originator = Originator(
            self.local,
            "127.0.0.1",
            self.port,
            authority().worker(),
            server_name=MANAGER,
            verify=True,
            clock=time.time,
            buffer=buffer,
        )
        self.run(self.start())

    async def start(self) -> None:
        self.front.start()
        await self.originator.start()

    async def end(self) -> None:
        await self.originator.close()
        await self.front.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.io.loop).result(60.0)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60.0)
        client.connect(self.local)
        return client

    def close(self) -> None:
        self.run(self.end())
        # accept() in another thread wakes up from a shutdown, not from a close
        self.backend.listener.shutdown(socket.SHUT_RDWR)
        self.backend.join(60.0)
        self.backend.listener.close()
        self.io.stop()


@pytest.fixture
def bench(tmp_path: Any) -> Iterator[Callable[[Callable[[socket.socket], None]], Bench]]:
    made: list[Bench] = []

    def make(behaviour: Callable[[socket.socket], None]) -> Bench:
        made.append(Bench(tmp_path, behaviour))
        return made[-1]

    yield make
    for one in made:
        one.close()


def echo(connection: socket.socket) -> None:
    while data := connection.recv(100_000):
        connection.sendall(data)


def read_exactly(connection: socket.socket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        data = connection.recv(min(100_000, count - len(got)))
        assert data, f"the end after {len(got)} of {count} bytes"
        got += data
    return bytes(got)


def test_every_byte_arrives_in_order_both_ways(bench: Any) -> None:
    rng = random.Random(4)
    data = rng.randbytes(3_000_000)
    with bench(echo).connect() as client:

        def write() -> None:
            at = 0
            while at < len(data):
                step = rng.choice((1, 100, 16_384, 16_385, 200_000))
                client.sendall(data[at : at + step])
                at += step

        writer = threading.Thread(target=write)
        writer.start()
        assert read_exactly(client, len(data)) == data
        writer.join(60.0)


def test_what_was_sent_before_the_end_is_flushed(bench: Any) -> None:
    data = os.urandom(1_500_000)

    def send_and_leave(connection: socket.socket) -> None:
        connection.sendall(data)

    with bench(send_and_leave).connect() as client:
        assert read_exactly(client, len(data)) == data
        assert client.recv(1) == b""


def test_a_reader_that_rests_makes_the_writer_wait(bench: Any) -> None:
    sent = [0]
    enough = 64 << 20

    def pour(connection: socket.socket) -> None:
        connection.settimeout(0.5)
        try:
            while sent[0] < enough:
                sent[0] += connection.send(b"x" * 65536)
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            return  # it rests; or the client, having seen that, was the first to leave

    made = bench(pour)
    with made.connect():
        waited = threading.Event()
        last = -1
        while sent[0] != last or not last:
            last = sent[0]
            waited.wait(0.3)
    # What the kernel holds in four sockets and the splice in two buffers, far from what was poured.
    assert 0 < sent[0] < enough / 2


def test_the_backend_sees_a_name_that_leads_to_the_peer(bench: Any) -> None:
    asked = threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.recv(1)
        asked.wait(60.0)

    made = bench(hold)
    with made.connect() as client:
        client.sendall(b"x")
        while not made.backend.names:
            asked.wait(0.01)
        (name,) = made.backend.names
        peer = made.front.peers[name[1:].decode()]
        assert name[:1] == b"\0"
        assert (peer.subject.cn, peer.subject.org) == ("worker1", CLUSTER)
        assert peer.remote_addr.startswith("127.0.0.1:")
        assert not peer.local
        asked.set()


def test_the_end_of_the_caller_reaches_the_backend(bench: Any) -> None:
    ended = threading.Event()

    def wait_for_end(connection: socket.socket) -> None:
        while connection.recv(1000):
            pass
        ended.set()

    made = bench(wait_for_end)
    client = made.connect()
    client.sendall(b"hello")
    client.close()
    assert ended.wait(60.0)


def context_of(material: Material) -> ssl.SSLContext:
    return tls.server_context(material)


def test_a_context_asks_for_a_certificate_and_does_not_insist() -> None:
    context = context_of(authority().manager().material)
    assert context.verify_mode is ssl.CERT_OPTIONAL
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.num_tickets == 0
    assert {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"} == set(
        tls.SUITES.split(":")
    )


def test_a_key_touches_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = ssl.SSLContext.load_cert_chain

    def watched(self: ssl.SSLContext, certfile: Any, *rest: Any, **named: Any) -> None:
        opened.append(os.readlink(certfile))
        real(self, certfile, *rest, **named)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
    files = open_files()
    tls.server_context(authority().manager().material)
    assert len(opened) == 1
    assert opened[0].startswith("/memfd:")
    assert opened_since(files) == []


@pytest.mark.parametrize("verify", [True, False])
def test_a_calling_context_checks_the_peer_unless_told_not_to(verify: bool) -> None:
    context = tls.client_context(Credentials(authority().pem).material, verify=verify, check_name=True)
    assert context.check_hostname is verify
    assert context.verify_mode is (ssl.CERT_REQUIRED if verify else ssl.CERT_NONE)


def test_a_key_that_is_not_the_certificates_is_refused_and_not_shown() -> None:
    certificate, _ = authority().issue("m", MANAGER)
    _, key = stranger().issue("m", MANAGER)
    with pytest.raises(ssl.SSLError) as caught:
        tls.server_context(Material(1, authority().pem, certificate, key))
    assert "PRIVATE KEY" not in str(caught.value)
