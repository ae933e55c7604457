"""What only real sockets show: hostile bytes, bounds of the front, files, descriptors and threads."""

from __future__ import annotations

import os
import random
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from runtime.errors import Code, Refused
from runtime.wire import front, grpc_server, tls
from runtime.wire.grpc_transport import GrpcServer, GrpcTransport, listen, split_address
from runtime.wire.loop import IoLoop
from runtime.wire.pb import ca_pb2, control_pb2, dispatcher_pb2, logs_pb2
from runtime.wire.port import CA_NAME, MANAGER, Access, Call, Credentials, Server, StreamLimits
from runtime.wire.services import path, routes
from tests.descriptors import open_files, opened_since
from tests.ipv6 import needs_ipv6
from tests.unit.wire.authority import CLUSTER, Authority, authority, stranger
from tests.unit.wire.worlds import Outcome, Recorder, SocketWorld
from tests.waiting import until

HEARTBEAT = path("Dispatcher", "Heartbeat")
SESSION = path("Dispatcher", "Session")
PUBLISH = path("LogBroker", "PublishLogs")
ROOT = path("CA", "GetRootCACertificate")
GET_NODE = path("Control", "GetNode")
Beat = dispatcher_pb2.HeartbeatRequest


def echo(call: Call) -> None:
    call.reply(dispatcher_pb2.HeartbeatResponse())


def root(call: Call) -> None:
    call.reply(ca_pb2.GetRootCACertificateResponse(certificate=b"pem"))


def open_socket(server: Server) -> socket.socket:
    host, port = split_address(server.address)
    return socket.create_connection((host, port), timeout=60.0)


def shake_hands(server: Server, **settings: Any) -> ssl.SSLSocket:
    """A TLS connection without a certificate and without gRPC."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority().pem.decode())
    for name, value in settings.items():
        if name == "alpn":
            context.set_alpn_protocols(value)
        else:
            setattr(context, name, value)
    return context.wrap_socket(open_socket(server), server_hostname=CA_NAME)


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the other side closes or resets."""
    got = b""
    try:
        while data := connection.recv(65536):
            got += data
    except ConnectionResetError:
        pass
    return got


def works(world: SocketWorld, server: Server) -> bool:
    channel = world.connect(server, authority().worker())
    answer = world.ask(channel, HEARTBEAT, Beat())
    channel.close()
    return isinstance(answer, dispatcher_pb2.HeartbeatResponse)


def test_random_bytes_to_the_port_end_only_their_connection(world: SocketWorld) -> None:
    server = world.serve({HEARTBEAT: echo})
    rng = random.Random(1)
    for length in (1, 5, 100, 5000, 100_000):
        with open_socket(server) as connection:
            try:
                connection.sendall(rng.randbytes(length))
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # the server was faster
            read_to_end(connection)
    assert works(world, server)


def test_random_bytes_after_the_handshake_end_only_their_connection(world: SocketWorld) -> None:
    server = world.serve({HEARTBEAT: echo})
    rng = random.Random(2)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for data in (
        rng.randbytes(3000),
        preface + rng.randbytes(3000),
        preface + b"\0\0\0\4\0\0\0\0\0" + rng.randbytes(99),
    ):
        with shake_hands(server) as connection:
            connection.sendall(data)
            connection.settimeout(60.0)
            try:
                connection.recv(65536)
            except OSError:
                continue  # reset at once
    assert works(world, server)


def test_a_handshake_cut_short_at_any_byte_does_no_harm(world: SocketWorld) -> None:
    server = world.serve({HEARTBEAT: echo})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=MANAGER)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    for length in range(0, len(hello), 37):
        with open_socket(server) as connection:
            connection.sendall(hello[:length])
    assert works(world, server)


def test_a_silent_client_is_dropped_when_the_handshake_takes_too_long(
    world: SocketWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_TIMEOUT", 0.05)
    server = world.serve({HEARTBEAT: echo})
    with open_socket(server) as connection:
        assert read_to_end(connection) == b""
    monkeypatch.undo()
    assert works(world, server)


def front_of(server: Server) -> front.Front:
    assert isinstance(server, GrpcServer)
    assert server._front is not None
    return server._front


def test_connections_without_a_certificate_are_bounded(world: SocketWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "ANONYMOUS_MAX", 2)
    server = world.serve({HEARTBEAT: echo})
    held = [shake_hands(server) for _ in range(2)]
    world.wait(lambda: len(front_of(server).peers) == 2)
    with shake_hands(server) as third:
        assert read_to_end(third) == b""
    assert front_of(server).refused == 1
    assert works(world, server)
    for connection in held:
        connection.close()
    world.wait(lambda: not front_of(server).peers)
    with shake_hands(server):
        world.wait(lambda: len(front_of(server).peers) == 1)


def test_connections_are_bounded_in_total(world: SocketWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "CONNECTIONS_MAX", 1)
    server = world.serve({HEARTBEAT: echo})
    with shake_hands(server):
        with open_socket(server) as second:
            assert read_to_end(second) == b""
        assert front_of(server).refused == 1


def test_a_connection_without_a_certificate_has_its_time(world: SocketWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "ANONYMOUS_SECONDS", 0.05)
    server = world.serve({HEARTBEAT: echo})
    with shake_hands(server) as connection:
        read_to_end(connection)
    world.wait(lambda: front_of(server).connections == 0)


def test_a_connection_that_is_cut_ends_its_calls_on_both_sides(world: SocketWorld) -> None:
    recorder, outcome, asked = Recorder(), Outcome(), Outcome()
    server = world.serve({HEARTBEAT: recorder, SESSION: recorder})
    channel = world.connect(server, authority().worker())
    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    channel.unary(HEARTBEAT, Beat(), timeout=30.0, done=asked.done)
    world.wait(lambda: len(recorder.calls) == 2)
    world.io.call_soon(lambda: [end.transport.abort() for end in front_of(server)._standing] and None)  # type: ignore[union-attr]
    world.wait(lambda: outcome.over and asked.over and len(recorder.cancelled) == 2)
    assert outcome.result.code is asked.result.code is Code.UNAVAILABLE


def test_a_peer_that_accepts_and_says_nothing_is_given_up(world: SocketWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_TIMEOUT", 0.05)
    listener = listen("127.0.0.1:0")
    host, port = listener.getsockname()
    channel = world.transport("client").connect(f"{host}:{port}", authority().worker())
    answer = world.ask(channel, HEARTBEAT, Beat())
    listener.close()
    assert answer.code is Code.UNAVAILABLE
    assert "timed out" in answer.text


def test_a_peer_that_speaks_no_tls_is_named_so(world: SocketWorld) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()

    def greet() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            read_to_end(connection)

    greeter = threading.Thread(target=greet)
    greeter.start()
    channel = world.transport("client").connect(f"{host}:{port}", authority().worker())
    answer = world.ask(channel, HEARTBEAT, Beat())
    greeter.join(60.0)
    listener.close()
    assert answer.code is Code.UNAVAILABLE
    assert "wrong version number" in answer.text


def test_the_address_of_a_server_that_was_told_to_close_is_free_for_the_next_one(
    world: SocketWorld, tmp_path: Path
) -> None:
    transport, table = world.transport("server"), routes({HEARTBEAT: echo})
    first = world.serve({HEARTBEAT: echo})
    held = [world.connect(first, authority().worker(), name=f"client-{number}") for number in range(3)]
    assert all(not isinstance(world.ask(channel, HEARTBEAT, Beat()), Refused) for channel in held)
    address, server = first.address, first
    for _ in range(8):
        server.close(1.0)
        server = transport.serve(address, table, access=lambda: Access(CLUSTER), credentials=authority().manager())
    assert works(world, server)
    for _ in range(8):
        local = transport.serve(f"unix:{tmp_path}/control", table, access=lambda: Access(CLUSTER))
        local.close(1.0)


def test_an_address_that_cannot_be_reached_is_told_in_the_systems_words_and_once(
    world: SocketWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = world.transport("client").connect("255.255.255.255:1", authority().worker())
    assert world.ask(nowhere, HEARTBEAT, Beat()).text == "connecting to 255.255.255.255:1: network is unreachable"

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    named = world.transport("client").connect("nosuch.invalid:1", authority().worker())
    assert world.ask(named, HEARTBEAT, Beat()).text == "connecting to nosuch.invalid:1: name or service not known"


def test_the_reason_of_a_failure_is_forgotten_after_a_success(world: SocketWorld) -> None:
    mine = Credentials(stranger().pem)
    server = world.serve({ROOT: root})
    channel = world.connect(server, mine)
    request = ca_pb2.GetRootCACertificateRequest()
    assert "unknown authority" in world.ask(channel, ROOT, request).text
    mine.replace(roots=authority().pem)
    world.wait(lambda: not isinstance(world.ask(channel, ROOT, request), Refused))
    channel_failure = channel._originator.failure  # type: ignore[attr-defined]
    assert channel_failure is None


def test_the_front_forgets_who_has_gone(world: SocketWorld) -> None:
    server = world.serve({HEARTBEAT: echo})
    for _ in range(3):
        assert works(world, server)
    world.wait(lambda: not front_of(server).peers and front_of(server).connections == 0)


def test_h2_is_negotiated_always_and_with_new_credentials_too(world: SocketWorld) -> None:
    credentials = authority().manager()
    server = world.serve({HEARTBEAT: echo}, credentials=credentials)
    for _ in range(2):
        with shake_hands(server, alpn=["h2"]) as connection:
            assert connection.selected_alpn_protocol() == "h2"
        with shake_hands(server) as connection:
            assert connection.selected_alpn_protocol() is None
        certificate, key = authority().issue("manager1", MANAGER)
        credentials.replace(roots=authority().pem, certificate=certificate, key=key)


def test_old_versions_and_weak_suites_are_refused(world: SocketWorld) -> None:
    server = world.serve({HEARTBEAT: echo})
    with shake_hands(server, maximum_version=ssl.TLSVersion.TLSv1_2) as connection:
        assert connection.version() == "TLSv1.2"
        assert connection.cipher()[0] in tls.SUITES.split(":")  # type: ignore[index]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority().pem.decode())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    with open_socket(server) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
        context.wrap_socket(plain, server_hostname=CA_NAME)


def test_sessions_are_never_resumed(world: SocketWorld) -> None:
    server = world.serve({HEARTBEAT: echo})
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with shake_hands(server, maximum_version=version) as connection:
            session = connection.session
            assert session is None or not session.has_ticket


def test_credentials_that_cannot_be_used_are_refused_at_once_and_later_leave_the_old_ones(world: SocketWorld) -> None:
    certificate, _ = authority().issue("m", MANAGER)
    _, other_key = authority().issue("m", MANAGER)
    with pytest.raises(ssl.SSLError):
        world.serve({HEARTBEAT: echo}, credentials=Credentials(authority().pem, certificate, other_key))
    good = authority().manager()
    server = world.serve({HEARTBEAT: echo}, credentials=good)
    assert works(world, server)
    good.replace(roots=authority().pem, certificate=certificate, key=other_key)
    assert works(world, server)


def test_while_the_root_rotates_both_roots_are_trusted(world: SocketWorld) -> None:
    certificate, key = authority().issue("manager1", MANAGER)
    both = authority().pem + stranger().pem
    server = world.serve({HEARTBEAT: echo}, credentials=Credentials(both, certificate, key))
    for root_of in (authority(), stranger()):
        chain, secret = root_of.issue("worker1", "swarm-worker")
        channel = world.connect(server, Credentials(both, chain, secret))
        assert isinstance(world.ask(channel, HEARTBEAT, Beat()), dispatcher_pb2.HeartbeatResponse)


@pytest.fixture
def control(world: SocketWorld, tmp_path: Path) -> Iterator[grpc.Channel]:
    """A plain gRPC client at a control socket that serves a unary method and an upload."""

    def publish(call: Call) -> None:
        call.receive(lambda _: None, lambda refused: call.reply(logs_pb2.PublishLogsResponse()) and None)

    address = f"unix:{tmp_path}/control.sock"
    handlers = {GET_NODE: lambda call: call.reply(control_pb2.GetNodeResponse()) and None, PUBLISH: publish}
    world.transport("server").serve(address, routes(handlers), access=lambda: Access(CLUSTER))
    with grpc.insecure_channel(address) as channel:
        yield channel


def code_of(call: Any) -> Any:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined]
    return grpc.StatusCode.OK


def test_a_malformed_request_is_answered_and_harms_nobody(control: grpc.Channel) -> None:
    ask = control.unary_unary(GET_NODE)
    assert code_of(lambda: ask(b"\x0a\xff", timeout=60.0)) is grpc.StatusCode.INTERNAL
    push = control.stream_unary(PUBLISH)
    assert code_of(lambda: push(iter([b"", b"\xff\xff"]), timeout=60.0)) is grpc.StatusCode.INTERNAL
    assert code_of(lambda: ask(b"", timeout=60.0)) is grpc.StatusCode.OK


def test_truncated_and_random_messages_always_get_an_answer(control: grpc.Channel) -> None:
    ask = control.unary_unary(GET_NODE)
    rng = random.Random(3)
    whole = control_pb2.GetNodeRequest(node_id="n" * 40).SerializeToString()
    cut = [whole[:length] for length in range(len(whole))]
    wild = [rng.randbytes(rng.randrange(1, 60)) for _ in range(150)]
    codes = {code_of(lambda data=data: ask(data, timeout=60.0)) for data in cut + wild}
    assert codes == {grpc.StatusCode.OK, grpc.StatusCode.INTERNAL}


def test_requests_are_bounded_at_4_mib_and_answers_are_not(world: SocketWorld) -> None:
    def handler(call: Call) -> None:
        call.reply(ca_pb2.GetRootCACertificateResponse(certificate=b"x" * (9 << 20)))

    server = world.serve({ROOT: handler, HEARTBEAT: echo})
    channel = world.connect(server, authority().worker())
    answer = world.ask(channel, ROOT, ca_pb2.GetRootCACertificateRequest(), timeout=60.0)
    assert len(answer.certificate) == 9 << 20
    assert not isinstance(world.ask(channel, HEARTBEAT, Beat(session_id="x" * ((4 << 20) - 100))), Refused)
    large = world.ask(channel, HEARTBEAT, Beat(session_id="x" * (4 << 20)))
    assert large.code is Code.RESOURCE_EXHAUSTED


def test_a_long_text_of_a_refusal_still_arrives(world: SocketWorld) -> None:
    def handler(call: Call) -> None:
        raise Refused(Code.FAILED_PRECONDITION, "é" * 100_000)

    answer = world.ask(world.connect(world.serve({HEARTBEAT: handler}), authority().worker()), HEARTBEAT, Beat())
    assert answer.code is Code.FAILED_PRECONDITION
    assert answer.text.startswith("éé")


def test_a_broken_upload_is_never_taken_for_a_finished_one(world: SocketWorld) -> None:
    ends: list[Refused | None] = []
    got: list[Any] = []
    server = world.serve({PUBLISH: lambda call: call.receive(got.append, ends.append)})
    channel = world.connect(server, authority().worker())
    for number in range(60):
        outcome = Outcome()
        upload = channel.upload(PUBLISH, done=outcome.done)
        upload.send(logs_pb2.PublishLogsMessage())
        world.wait(lambda number=number: len(got) == number + 1)  # type: ignore[misc]
        upload.cancel()
    world.wait(lambda: len(ends) == 60)
    assert [end for end in ends if end is None] == []


def test_the_open_calls_of_a_connection_are_bounded_by_who_it_is(
    world: SocketWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "OPEN_CALLS_ANONYMOUS", 2)
    recorder = Recorder()
    server = world.serve({ROOT: recorder})
    channel = world.connect(server, Credentials(authority().pem))
    outcomes = [Outcome() for _ in range(3)]
    for outcome in outcomes:
        channel.unary(ROOT, ca_pb2.GetRootCACertificateRequest(), timeout=60.0, done=outcome.done)
    world.wait(lambda: any(outcome.over for outcome in outcomes) and len(recorder.calls) == 2)
    assert [outcome.result.code for outcome in outcomes if outcome.over] == [Code.RESOURCE_EXHAUSTED]
    manager = world.connect(server, authority().manager("m2"))
    for _ in range(5):
        manager.unary(ROOT, ca_pb2.GetRootCACertificateRequest(), timeout=60.0, done=Outcome().done)
    world.wait(lambda: len(recorder.calls) == 7)


def test_a_reader_that_stops_reading_holds_no_memory_in_the_server(world: SocketWorld) -> None:
    recorder = Recorder()
    limits = StreamLimits(items_max=50, bytes_max=8 << 20)
    server = world.serve({SESSION: recorder}, limits=limits)
    stalled = threading.Event()
    outcome = Outcome()
    other = SocketWorld()  # a loop of its own, to be stalled
    channel = other.connect(server, authority().worker())
    channel.stream(
        SESSION,
        dispatcher_pb2.SessionRequest(),
        on_item=lambda _: stalled.wait(90.0) and None,
        on_end=outcome.done,
    )
    world.wait(lambda: bool(recorder.calls))
    item = dispatcher_pb2.SessionMessage(RootCA=b"x" * (256 << 10))
    sent = 0
    while recorder.calls[0].send(item):
        sent += 1
        world.settle()
        assert sent < 1000
    stalled.set()
    assert len(recorder.cancelled) == 1
    other.close()


def test_the_control_socket_is_private_and_leaves_no_file(world: SocketWorld, tmp_path: Path) -> None:
    file = tmp_path / "control.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(file))
    stale.close()
    server = world.transport("server").serve(f"unix:{file}", {}, access=lambda: Access(CLUSTER))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["control.sock"]
    closed = threading.Event()
    server.close(0.0, closed.set)
    assert closed.wait(60.0)
    assert list(tmp_path.iterdir()) == []


def test_a_control_socket_that_was_replaced_is_left_alone(world: SocketWorld, tmp_path: Path) -> None:
    file = tmp_path / "control.sock"
    server = world.transport("server").serve(f"unix:{file}", {}, access=lambda: Access(CLUSTER))
    file.unlink()
    file.write_text("another's")
    closed = threading.Event()
    server.close(0.0, closed.set)
    assert closed.wait(60.0)
    assert file.read_text(encoding="utf-8") == "another's"


class EndsUploads(grpc.GenericRpcHandler):
    """Ends every upload well after its first item, and says nothing: what SwarmKit does with PublishLogs."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def end(items: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            next(items)
            return iter(())

        return grpc.stream_stream_rpc_method_handler(end)


def test_an_upload_that_ends_well_without_an_answer_has_an_empty_one(world: SocketWorld, tmp_path: Path) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[EndsUploads()])
    server.add_insecure_port(f"unix:{tmp_path}/peer")
    server.start()
    channel = world.transport("client").connect(f"unix:{tmp_path}/peer", None)
    outcome = Outcome()
    upload = channel.upload(PUBLISH, done=outcome.done)
    upload.send(logs_pb2.PublishLogsMessage(subscription_id="s", close=True))
    world.wait(lambda: outcome.over)
    assert outcome.result == logs_pb2.PublishLogsResponse()
    server.stop(0).wait(60.0)


def test_proxies_of_the_environment_are_not_used(world: SocketWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert works(world, world.serve({HEARTBEAT: echo}))


def test_serving_from_the_loops_own_thread_is_refused(world: SocketWorld) -> None:
    seen: list[str] = []
    done = threading.Event()
    transport = world.transport("server")

    def inside() -> None:
        try:
            transport.serve("unix:/nowhere", {}, access=lambda: Access(CLUSTER))
        except RuntimeError as error:
            seen.append(str(error))
        done.set()

    world.io.call_soon(inside)
    assert done.wait(60.0)
    assert "on its thread" in seen[0]


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:port", "1.2.3.4:70000", ""])
def test_an_address_that_is_none_is_refused(world: SocketWorld, address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        world.transport("x").connect(address, authority().worker())


def test_addresses_are_split_into_host_and_port() -> None:
    assert split_address("[::1]:2377") == ("::1", 2377)
    assert split_address(":2377") == ("", 2377)


@needs_ipv6
def test_ipv6_addresses_are_spoken() -> None:
    listener = listen("[::1]:0")
    assert listener.family is socket.AF_INET6
    listener.close()


def cycle() -> None:
    """Everything once: server, control socket, unary, stream, upload, failed connect, then the end of all."""
    world = SocketWorld()
    recorder, outcome = Recorder(), Outcome()
    server = world.serve({HEARTBEAT: echo, SESSION: recorder, PUBLISH: recorder})
    channel = world.connect(server, authority().worker())
    assert not isinstance(world.ask(channel, HEARTBEAT, Beat()), Refused)
    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)
    upload = channel.upload(PUBLISH, done=Outcome().done)
    upload.send(logs_pb2.PublishLogsMessage())
    world.wait(lambda: len(recorder.calls) == 2)
    assert world.ask(world.connect(server, stranger().worker()), HEARTBEAT, Beat()).code is Code.UNAVAILABLE
    with open_socket(server):
        world.settle()
        world.close()
    assert outcome.result.code in (Code.CANCELLED, Code.UNAVAILABLE)


def test_a_clean_end_leaves_no_thread_no_descriptor_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cycle()  # gRPC keeps what it makes once per process
    threads, files = len(os.listdir("/proc/self/task")), open_files()
    for _ in range(3):
        cycle()
    assert [thread.name for thread in threading.enumerate() if thread.name == "test-io"] == []
    # What its own threads close, gRPC closes a moment later.
    until(lambda: not opened_since(files), "no descriptor is left", tell=lambda: "\n".join(opened_since(files)))
    until(lambda: len(os.listdir("/proc/self/task")) <= threads + 1, "no thread is left")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_transport_takes_nothing_new() -> None:
    with IoLoop() as io:
        transport = GrpcTransport(io)
        transport.close()
        transport.close()
        with pytest.raises(Refused, match="closed"):
            transport.connect("127.0.0.1:1", authority().worker())


def test_a_certificate_under_an_intermediate_is_accepted_on_both_sides(world: SocketWorld) -> None:
    middle = Authority(authority(), "intermediate")

    def under_the_middle(node_id: str, role: str) -> Credentials:
        certificate, key = middle.issue(node_id, role)
        return Credentials(authority().pem, certificate + middle.pem, key)

    recorder = Recorder()
    server = world.serve({HEARTBEAT: recorder}, credentials=under_the_middle("m", MANAGER))
    outcome = Outcome()
    channel = world.connect(server, under_the_middle("w", "swarm-worker"))
    channel.unary(HEARTBEAT, Beat(), timeout=60.0, done=outcome.done)
    world.wait(lambda: bool(recorder.calls) or outcome.over)
    assert recorder.calls[0].identity.node_id == "w"
