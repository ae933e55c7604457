"""The server over real sockets: headers, bodies, connections, start and stop."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pathlib
import socket
import ssl
import stat
from typing import Any

import aiohttp
import pytest

from runtime.engine_api import jsonio, sockets
from runtime.engine_api.server import EngineServer
from runtime.wire.pb import logs_pb2
from runtime.wire.port import MANAGER
from tests.unit.engine_api import recorded
from tests.unit.engine_api.fake import FakeBackend
from tests.unit.engine_api.support import over_http, serving
from tests.unit.wire.authority import Authority

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/_ping", "/v1.41/_ping"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_ping_carries_what_clients_negotiate_by(tmp_path: pathlib.Path, method: str, path: str) -> None:
    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.request(method, path) as answer:
            assert answer.status == 200
            headers = answer.headers
            assert headers["Api-Version"] == "1.45"
            assert headers["Docker-Experimental"] == "false"
            assert headers["Ostype"] == "linux"
            assert headers["Server"] == "Docker/1.2.3 (linux)"
            assert headers["Swarm"] == "active/manager"
            assert headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
            assert headers["Pragma"] == "no-cache"
            assert headers["Content-Type"] == "text/plain; charset=utf-8"
            assert headers["Content-Length"] == ("0" if method == "HEAD" else "2")
            assert await answer.read() == (b"" if method == "HEAD" else b"OK")

    over_http(tmp_path, FakeBackend(), talk)


def test_every_answer_has_the_daemons_headers_refusals_and_empty_ones_too(tmp_path: pathlib.Path) -> None:
    async def talk(client: aiohttp.ClientSession) -> None:
        cases = (("GET", "/info", 200), ("GET", "/nosuch", 404), ("POST", "/swarm/leave", 200), ("GET", "/v9.9/x", 400))
        for method, path, status in cases:
            async with client.request(method, path) as answer:
                assert answer.status == status
                for name in ("Api-Version", "Ostype", "Server", "Date", "Docker-Experimental"):
                    assert name in answer.headers, (path, name)

    over_http(tmp_path, FakeBackend(), talk)


def test_a_refusal_is_json_with_a_message_and_a_newline(tmp_path: pathlib.Path) -> None:
    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.get("/services/<nosuch>") as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (404, "application/json")
            assert await answer.read() == b'{"message":"service <nosuch> not found"}\n'

    over_http(tmp_path, FakeBackend(), talk)


def test_a_client_that_is_too_old_is_told_in_plain_text(tmp_path: pathlib.Path) -> None:
    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.get("/v1.5/nodes") as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
            assert (await answer.text()).startswith("client version 1.5 is too old. Minimum supported API version")
        async with client.get("/v1.99/nodes") as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (400, "application/json")

    over_http(tmp_path, FakeBackend(), talk)


def test_an_answer_without_a_body_has_no_content_type(tmp_path: pathlib.Path) -> None:
    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.post("/swarm/leave") as answer:
            assert (answer.status, await answer.read(), answer.headers["Content-Length"]) == (200, b"", "0")
            assert "Content-Type" not in answer.headers

    over_http(tmp_path, FakeBackend(), talk)


def test_a_service_goes_in_and_comes_out(tmp_path: pathlib.Path) -> None:
    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.post("/v1.41/services/create", json=recorded.CLI_CREATE) as answer:
            assert answer.status == 201
            service_id = json.loads(await answer.read())["ID"]
        async with client.get(f"/v1.41/services/{service_id}?insertDefaults=false") as answer:
            assert json.loads(await answer.read())["Spec"] == recorded.CLI_SHOWN

    over_http(tmp_path, FakeBackend(), talk)


def test_many_requests_share_one_connection(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        path = str(tmp_path / "api.sock")
        server = EngineServer(FakeBackend(), unix_paths=[path])
        await server.start()
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in range(3):
            writer.write(b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"onnection: close" not in head
        writer.close()
        await server.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (b"{bad", JSON, "invalid JSON: Expecting property name enclosed in double quotes at character 1"),
        (b"[]", JSON, "invalid JSON: the body must be an object, got an array"),
        (b"{} x", JSON, "unexpected content after JSON"),
        (b'{"Name"', JSON, "invalid JSON: got EOF while reading request body"),
        (b"{}", {"Content-Type": "text/plain"},
         "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (b"\x1f\x8b\x08", {**JSON, "Content-Encoding": "gzip"}, "invalid JSON: not UTF-8 at byte 1"),
        (b" " * (jsonio.MAX_BODY + 1), JSON, "request body too large: more than 10485760 bytes"),
    ],
)  # fmt: skip
def test_a_bad_body_is_400_and_nothing_is_asked(
    tmp_path: pathlib.Path, body: bytes, headers: dict[str, str], text: str
) -> None:
    backend = FakeBackend()

    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.post("/services/create", data=io.BytesIO(body), headers=headers) as answer:
            assert (answer.status, json.loads(await answer.read())["message"]) == (400, text)

    over_http(tmp_path, backend, talk)
    assert backend.asked == []


def test_a_chunked_body_over_the_limit_is_refused(tmp_path: pathlib.Path) -> None:
    backend = FakeBackend()

    async def endless() -> Any:
        for _ in range(12):
            yield b" " * (1 << 20)

    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.post("/services/create", data=endless(), headers=JSON) as answer:
            assert answer.status == 400
            assert "request body too large" in await answer.text()

    over_http(tmp_path, backend, talk)
    assert backend.asked == []


def test_a_body_just_below_the_limit_is_read(tmp_path: pathlib.Path) -> None:
    body = json.dumps(recorded.CLI_CREATE).encode().rjust(jsonio.MAX_BODY)

    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.post("/services/create", data=io.BytesIO(body), headers=JSON) as answer:
            assert answer.status == 201

    over_http(tmp_path, FakeBackend(), talk)


def test_a_body_that_breaks_off_changes_nothing(tmp_path: pathlib.Path) -> None:
    backend = FakeBackend()

    async def run() -> None:
        async with serving(backend, tmp_path):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
            writer.write(
                b"POST /services/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b'Content-Length: 500\r\n\r\n{"Name":"half"'
            )
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            assert await reader.read() == b""

    asyncio.run(run())
    assert backend.asked == []


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(tmp_path: pathlib.Path) -> None:
    backend = FakeBackend()
    body = json.dumps(recorded.CLI_CREATE).encode()

    async def run() -> None:
        async with serving(backend, tmp_path):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
            writer.write(
                b"POST /services/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert backend.asked == []
            writer.write(body)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 201 Created\r\n")
            writer.close()

    asyncio.run(run())


def test_long_headers_and_long_filters_are_taken(tmp_path: pathlib.Path) -> None:
    backend = FakeBackend()
    auth = "e" * 30_000

    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.post("/services/create", json=recorded.CLI_CREATE, headers={"X-Registry-Auth": auth}) as one:
            assert one.status == 201
        async with client.get("/services", params={"filters": json.dumps({"name": ["x" * 20_000]})}) as two:
            assert two.status == 200

    over_http(tmp_path, backend, talk)
    assert backend.requests("CreateService")[0].spec.task.container.pull_options.registry_auth == auth


def test_a_failure_is_500_logged_with_its_traceback_and_hides_its_text(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FakeBackend()
    backend.refusals["ListNodes"] = RuntimeError("the key is 123")

    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.get("/nodes?filters=%7B%7D") as answer:
            assert answer.status == 500
            assert "123" not in await answer.text()
        async with client.get("/_ping") as answer:
            assert answer.status == 200

    over_http(tmp_path, backend, talk)
    (record,) = [record for record in caplog.records if record.name == "runtime.engine_api.server"]
    assert record.getMessage() == "GET /nodes failed"
    assert record.exc_info is not None


def a_batch(data: bytes) -> logs_pb2.SubscribeLogsMessage:
    return logs_pb2.SubscribeLogsMessage(messages=[logs_pb2.LogMessage(data=data, stream=1)])  # type: ignore[arg-type]


def test_log_headers_leave_before_any_log_and_a_hangup_frees_the_subscription(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        backend = FakeBackend()
        backend.add_service("web")
        backend.log_follows = True
        async with serving(backend, tmp_path) as client:
            async with client.get("/services/web/logs?stdout=1&follow=1") as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
                assert answer.headers["Transfer-Encoding"] == "chunked"
                assert answer.headers["Api-Version"] == "1.45"
                assert not backend.logs_closed.is_set()
                answer.close()
            await asyncio.wait_for(backend.logs_closed.wait(), 5)

    asyncio.run(run())


def test_a_finished_log_stream_is_whole_and_leaves_the_connection_usable(tmp_path: pathlib.Path) -> None:
    backend = FakeBackend()
    backend.add_service("web")
    backend.log_batches = [a_batch(b"one\n"), a_batch(b"two\n")]

    async def talk(client: aiohttp.ClientSession) -> None:
        for _ in range(2):
            async with client.get("/services/web/logs?stdout=1") as answer:
                frames = b"\x01\0\0\0\0\0\0\x04one\n\x01\0\0\0\0\0\0\x04two\n"
                assert await answer.read() == frames

    over_http(tmp_path, backend, talk)


def test_stopping_ends_a_follower_at_once(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        backend = FakeBackend()
        backend.add_service("web")
        backend.log_follows = True
        path = str(tmp_path / "api.sock")
        server = EngineServer(backend, unix_paths=[path], grace_s=600)
        await server.start()
        async with aiohttp.ClientSession(base_url="http://x", connector=aiohttp.UnixConnector(path)) as client:
            answer = await client.get("/services/web/logs?stdout=1&follow=1")
            await asyncio.wait_for(server.stop(), 60)
            assert backend.logs_closed.is_set()
            answer.close()

    asyncio.run(run())


def test_stopping_lets_a_running_request_finish_and_closes_idle_connections(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        backend = FakeBackend()
        backend.gate = asyncio.Event()
        path = str(tmp_path / "api.sock")
        server = EngineServer(backend, unix_paths=[path], grace_s=600)
        await server.start()
        idle, idle_writer = await asyncio.open_unix_connection(path)
        idle_writer.write(b"HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        await idle.readuntil(b"\r\n\r\n")
        async with aiohttp.ClientSession(base_url="http://x", connector=aiohttp.UnixConnector(path)) as client:
            create = asyncio.create_task(client.post("/services/create", json=recorded.CLI_CREATE))
            await asyncio.wait_for(backend.entered.wait(), 60)
            stop = asyncio.create_task(server.stop())
            assert await asyncio.wait_for(idle.read(), 60) == b""
            assert not stop.done()
            backend.gate.set()
            assert (await asyncio.wait_for(create, 60)).status == 201
            await asyncio.wait_for(stop, 60)
        idle_writer.close()
        with pytest.raises(FileNotFoundError):
            await asyncio.open_unix_connection(path)

    asyncio.run(run())


def test_a_request_that_outlasts_the_grace_time_is_given_up(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        backend = FakeBackend()
        backend.gate = asyncio.Event()
        path = str(tmp_path / "api.sock")
        server = EngineServer(backend, unix_paths=[path], grace_s=0.01)
        await server.start()
        async with aiohttp.ClientSession(base_url="http://x", connector=aiohttp.UnixConnector(path)) as client:
            create = asyncio.create_task(client.post("/services/create", json=recorded.CLI_CREATE))
            await asyncio.wait_for(backend.entered.wait(), 60)
            await asyncio.wait_for(server.stop(), 60)
            with pytest.raises(aiohttp.ClientError):
                await create
        assert backend.services == {}

    asyncio.run(run())


def test_a_client_that_does_not_read_its_answer_holds_no_stop_up(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        backend = FakeBackend()
        backend.add_service("web").spec.annotations.labels["long"] = "x" * (8 << 20)
        path = str(tmp_path / "api.sock")
        server = EngineServer(backend, unix_paths=[path], grace_s=0.01)
        await server.start()
        reader, writer = await asyncio.open_unix_connection(path, limit=1024)
        writer.write(b"GET /services HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(server.stop(), 60)
        writer.close()

    asyncio.run(run())


def test_a_request_ends_when_its_client_hangs_up(tmp_path: pathlib.Path) -> None:
    ended: list[str] = []

    class Slow(FakeBackend):
        async def control(self, method: str, request: Any, timeout_s: float = 20.0) -> Any:
            self.entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append(method)
                raise

    async def run() -> None:
        backend = Slow()
        async with serving(backend, tmp_path, grace_s=60):
            _, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
            writer.write(b"GET /nodes HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(backend.entered.wait(), 60)
            writer.close()
            await writer.wait_closed()
            async with (
                aiohttp.ClientSession(
                    base_url="http://x", connector=aiohttp.UnixConnector(str(tmp_path / "api.sock"))
                ) as other,
                other.get("/_ping") as answer,
            ):
                assert answer.status == 200
            assert ended == ["ListNodes"]

    asyncio.run(run())


# Sockets


def test_a_unix_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "api.sock"

    async def talk(_: aiohttp.ClientSession) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    old = os.umask(0)
    try:
        over_http(tmp_path, FakeBackend(), talk)
    finally:
        os.umask(old)
    assert not path.exists()


def test_the_file_is_private_from_its_first_moment(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real = os.chmod

    def watching(path: Any, mode: int) -> None:
        modes.append(stat.S_IMODE(os.stat(path).st_mode))
        real(path, mode)

    monkeypatch.setattr(os, "chmod", watching)
    listener = sockets.listen_unix(str(tmp_path / "s"))
    listener.sock.close()
    assert modes == [0o600]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file to a group")
def test_a_group_may_use_the_socket_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    listener = sockets.listen_unix(str(path), group="daemon")
    listener.sock.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_an_unknown_group_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    with pytest.raises(sockets.ListenError, match="nosuchgroup"):
        sockets.listen_unix(str(tmp_path / "s"), group="nosuchgroup")


def test_a_path_that_is_too_long_is_refused_with_both_lengths(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / ("x" * 120))
    with pytest.raises(sockets.ListenError, match=rf"too long: {len(path)} bytes, at most 107"):
        sockets.listen_unix(path)


def test_a_directory_that_is_not_there_is_refused_with_the_path(tmp_path: pathlib.Path) -> None:
    with pytest.raises(sockets.ListenError, match=r"cannot listen on .*/no/s"):
        sockets.listen_unix(str(tmp_path / "no" / "s"))


def test_a_stale_socket_file_is_replaced(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    listener = sockets.listen_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listener.sock.close()
    listener.remove()
    assert not os.path.exists(path)


def test_a_live_socket_is_left_alone(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    first = sockets.listen_unix(path)
    with pytest.raises(sockets.ListenError, match="another process listens on it"):
        sockets.listen_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    first.sock.close()


@pytest.mark.parametrize("make", [pathlib.Path.mkdir, pathlib.Path.touch])
def test_what_is_no_socket_is_never_removed(tmp_path: pathlib.Path, make: Any) -> None:
    path = tmp_path / "s"
    make(path)
    with pytest.raises(sockets.ListenError, match="something that is no socket is there"):
        sockets.listen_unix(str(path))
    assert path.exists()


def test_a_file_that_is_no_longer_ours_stays(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    listener = sockets.listen_unix(str(path))
    # The old file stays alive under another name, so that its number is not given to the new one.
    path.rename(tmp_path / "old")
    path.touch()
    listener.sock.close()
    listener.remove()
    assert path.exists()


def test_a_server_that_cannot_listen_on_all_listens_on_none(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        good, bad = str(tmp_path / "good"), str(tmp_path / "no" / "bad")
        server = EngineServer(FakeBackend(), unix_paths=[good, bad])
        with pytest.raises(sockets.ListenError):
            await server.start()
        assert server.addresses == []

    asyncio.run(run())
    assert not (tmp_path / "good").exists()


def test_a_socket_handed_over_by_number_is_served(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        host, port = listening.getsockname()
        server = EngineServer(FakeBackend(), fds=[listening.detach()])
        await server.start()
        assert server.addresses == [(host, port)]
        async with aiohttp.ClientSession() as client, client.get(f"http://{host}:{port}/_ping") as answer:
            assert answer.status == 200
        await server.stop()

    asyncio.run(run())


def tls_contexts(tmp_path: pathlib.Path) -> tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
    """A server that demands certificates of one authority, a client that has one, and a client that has none."""
    issuer = Authority()
    chain, key = issuer.issue("n1", MANAGER)
    file = tmp_path / "pair.pem"
    file.write_bytes(chain + key)
    roots = issuer.pem.decode()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    known, unknown = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2))
    for each in (server, known, unknown):
        each.load_verify_locations(cadata=roots)
    server.load_cert_chain(file)
    server.verify_mode = ssl.CERT_REQUIRED
    known.load_cert_chain(file)
    for client in (known, unknown):
        client.check_hostname = False
    return server, known, unknown


def test_a_tls_address_is_served_to_those_with_a_certificate(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        served, known, unknown = tls_contexts(tmp_path)
        backend = FakeBackend()
        server = EngineServer(backend, tls=[sockets.TlsListener("127.0.0.1", 0, served)])
        await server.start()
        ((host, port),) = server.addresses
        async with aiohttp.ClientSession() as client:
            async with client.get(f"https://{host}:{port}/services", ssl=known) as answer:
                assert (answer.status, await answer.text()) == (200, "[]\n")
            with pytest.raises(aiohttp.ClientError):
                await client.get(f"https://{host}:{port}/nodes", ssl=unknown)
        assert [method for method, _ in backend.asked] == ["ListServices"]
        await asyncio.wait_for(server.stop(), 60)

    asyncio.run(run())


def test_an_address_that_is_taken_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            host, port = taken.getsockname()
            server = EngineServer(FakeBackend(), tls=[sockets.TlsListener(host, port, tls_contexts(tmp_path)[0])])
            with pytest.raises(sockets.ListenError, match=f"cannot listen on {host}:{port}"):
                await server.start()

    asyncio.run(run())


def test_a_number_that_is_no_listening_socket_is_refused(tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "file", "wb") as file, pytest.raises(sockets.ListenError, match="is no socket"):
        sockets.adopt(file.fileno())
    with socket.socket() as unbound:
        with pytest.raises(sockets.ListenError, match="nobody listens on"):
            sockets.adopt(unbound.fileno())
        assert unbound.fileno() >= 0
        unbound.getsockname()
