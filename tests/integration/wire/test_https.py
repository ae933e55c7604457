"""Requests over HTTPS on real sockets: whom they trust, what they show, and every way not to get an answer."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from runtime.errors import Code, Refused
from runtime.wire.https import HttpAnswer, LoopHttps
from runtime.wire.loop import IoLoop
from runtime.wire.port import MANAGER, Material
from tests.unit.wire.authority import Authority

WAIT = 60.0


class Server:
    """A web server with a certificate of its own for 127.0.0.1, which asks clients for theirs."""

    def __init__(self, loop: IoLoop, directory: Path) -> None:
        self.clients = Authority()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._certificate()
        self.seen: list[tuple[bytes, Any]] = []
        self.answer: Any = {"success": True}
        self.runner: web.AppRunner | None = None
        self.port = 0
        chain = directory / "server.pem"
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain.write_bytes(self.pem + private)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_verify_locations(cadata=self.clients.pem.decode())
        self.context.load_cert_chain(chain)
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.loop = loop
        self.run(self._start())

    def _certificate(self) -> bytes:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "external")])
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def run(self, work: Any) -> None:
        done = threading.Event()
        self.loop.submit(work, lambda _: done.set())
        assert done.wait(WAIT)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/sign", self._sign)
        app.router.add_post("/moved", self._moved)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.context)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def _sign(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        self.seen.append((await request.read(), request.transport.get_extra_info("peercert")))
        if isinstance(self.answer, web.Response):
            return self.answer
        return web.json_response(self.answer)

    async def _moved(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/sign")

    async def stop(self) -> None:
        assert self.runner is not None
        await self.runner.cleanup()

    def url(self, path: str = "/sign", host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"


@pytest.fixture
def loop() -> Iterator[IoLoop]:
    with IoLoop("https-test") as running:
        yield running


@pytest.fixture
def server(loop: IoLoop, tmp_path: Path) -> Iterator[Server]:
    made = Server(loop, tmp_path)
    yield made
    made.run(made.stop())


def material(server: Server, roots: bytes | None = None) -> Material:
    chain, key = server.clients.issue("manager1", MANAGER)
    return Material(1, server.pem if roots is None else roots, chain, key)


def post(loop: IoLoop, url: str, own: Material, *, timeout: float = 5.0, limit: int = 1 << 16) -> HttpAnswer | Refused:
    answers: list[HttpAnswer | Refused] = []
    done = threading.Event()

    def heard(answer: HttpAnswer | Refused) -> None:
        answers.append(answer)
        done.set()

    LoopHttps(loop).post(url, b'{"a":1}', material=own, timeout=timeout, limit=limit, done=heard)
    assert done.wait(WAIT)
    assert len(answers) == 1
    return answers[0]


def probe(loop: IoLoop, url: str, roots: bytes) -> bool:
    answers: list[bool] = []
    done = threading.Event()

    def heard(reached: bool) -> None:
        answers.append(reached)
        done.set()

    LoopHttps(loop).probe(url, roots=roots, timeout=2.0, done=heard)
    assert done.wait(WAIT)
    return answers[0]


def refused(answer: HttpAnswer | Refused) -> str:
    assert isinstance(answer, Refused), answer
    assert answer.code is Code.UNAVAILABLE
    return answer.text


def test_a_post_shows_the_managers_certificate_and_brings_status_and_body(loop: IoLoop, server: Server) -> None:
    answer = post(loop, server.url(), material(server))
    assert answer == HttpAnswer(200, b'{"success": true}')
    ((body, peer),) = server.seen
    assert body == b'{"a":1}'
    assert (("commonName", "manager1"),) in peer["subject"]


def test_another_status_is_an_answer_too(loop: IoLoop, server: Server) -> None:
    server.answer = web.Response(status=503, text="later")
    assert post(loop, server.url(), material(server)) == HttpAnswer(503, b"later")


def test_a_server_under_another_root_is_not_believed(loop: IoLoop, server: Server) -> None:
    assert "cannot be asked" in refused(post(loop, server.url(), material(server, Authority().pem)))
    assert server.seen == []


def test_a_server_of_another_name_is_not_believed(loop: IoLoop, server: Server) -> None:
    assert "cannot be asked" in refused(post(loop, server.url(host="localhost"), material(server)))
    assert server.seen == []


def test_an_answer_that_is_too_long_is_none(loop: IoLoop, server: Server) -> None:
    server.answer = web.Response(body=b"x" * 2000)
    assert "more than 1000 bytes" in refused(post(loop, server.url(), material(server), limit=1000))


def test_nobody_is_followed_to_another_place(loop: IoLoop, server: Server) -> None:
    answer = post(loop, server.url("/moved"), material(server))
    assert isinstance(answer, HttpAnswer)
    assert answer.status == 302
    assert server.seen == []


def test_one_who_accepts_and_says_nothing_is_given_up(loop: IoLoop, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/sign"
        assert "did not answer in time" in refused(post(loop, url, material(server), timeout=0.2))


def test_nobody_there_is_told_with_the_reason(loop: IoLoop, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "cannot be asked" in refused(post(loop, f"https://127.0.0.1:{port}/sign", material(server)))
    assert not probe(loop, f"https://127.0.0.1:{port}/sign", server.pem)


@pytest.mark.parametrize("url", ["https:///sign", "https://127.0.0.1:99999/sign", "not a url"])
def test_an_address_that_is_none_is_an_answer_all_the_same(loop: IoLoop, server: Server, url: str) -> None:
    refused(post(loop, url, material(server)))


def test_a_probe_reaches_only_who_has_a_certificate_under_the_root(loop: IoLoop, server: Server) -> None:
    assert probe(loop, server.url(), server.pem)
    assert not probe(loop, server.url(), Authority().pem)
    assert not probe(loop, server.url(host="localhost"), server.pem)
    assert server.seen == []


def test_a_loop_that_has_stopped_answers(server: Server) -> None:
    stopped = IoLoop("stopped").start()
    stopped.stop()
    assert "stopped has stopped" in refused(post(stopped, server.url(), material(server)))
