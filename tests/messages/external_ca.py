"""An external CA that speaks CFSSL's protocol, as a world's ``https``: late, wrong or silent if told so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cryptography import x509

from runtime.errors import Code, Refused
from runtime.pki.certificates import Holder, cross_sign
from runtime.pki.pem import dump_certificates
from runtime.pki.root import RootCA
from runtime.stage.simulator import EPOCH, Simulator
from runtime.wire.https import HttpAnswer
from runtime.wire.port import Material
from tests.seeded import entropy

URL = "https://ca.example/sign"


class ExternalCa:
    """Signs for ``root`` at each of its URLs, 10 ms after it was asked."""

    def __init__(self, simulator: Simulator, root: RootCA, *urls: str) -> None:
        self.simulator = simulator
        self.root = root
        self.urls = urls or (URL,)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.shown: list[Material] = []
        self.answers: dict[str, HttpAnswer | Refused] = {}
        self.down: set[str] = set()
        self.silent = False
        self.trusts: bytes | None = None
        self.most = 0
        self._under_way = 0

    def post(
        self,
        url: str,
        body: bytes,
        *,
        material: Material,
        timeout: float,
        limit: int,
        done: Callable[[HttpAnswer | Refused], None],
    ) -> None:
        self.asked.append((url, json.loads(body)))
        self.shown.append(material)
        if self.silent:
            return
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        trusted = self.trusts is None or material.roots == self.trusts
        self.simulator.set(0.01, lambda: self._answer(url if trusted else "", body, done))

    def _answer(self, url: str, body: bytes, done: Callable[[HttpAnswer | Refused], None]) -> None:
        self._under_way -= 1
        if url not in self.urls or url in self.down:
            done(Refused(Code.UNAVAILABLE, f"{url} cannot be asked: connection refused"))
        else:
            done(self.answers.get(url) or self._signed(json.loads(body)))

    def _signed(self, asked: dict[str, Any]) -> HttpAnswer:
        now = EPOCH + self.simulator.time
        if asked.get("profile") == "CA":
            request = x509.load_pem_x509_csr(asked["certificate_request"].encode())
            signer = self.root.signer
            assert signer is not None
            new = next(each for each in self.known_roots if each.public_key() == request.public_key())
            pem = dump_certificates(cross_sign(new, signer.certificate, signer.key, entropy(3)))
        else:
            (names,) = asked["subject"]["names"]
            holder = Holder(asked["subject"]["CN"], names["OU"], names["O"])
            pem = self.root.sign_csr(asked["certificate_request"].encode(), holder, 0, now, entropy(4))
        return HttpAnswer(200, json.dumps({"success": True, "result": {"certificate": pem.decode()}}).encode())

    known_roots: tuple[x509.Certificate, ...] = ()

    def probe(self, url: str, *, roots: bytes, timeout: float, done: Callable[[bool], None]) -> None:
        reached = url in self.urls and url not in self.down and roots == self.root.bundle
        self.simulator.set(0.01, lambda: done(reached))
