"""Callers of a manager's remote port under certificates of every kind, run inside a machine of a lab.

``python -m tests.interop.callers`` reads one JSON object on stdin and prints one on stdout.
``{"do": "issue", "address", "tokens": {name: token}}`` gives ``{"root": pem, "nodes": {name: [node id, certificate,
key]}}``: certificates as joining nodes get them, though no such nodes exist.
``{"do": "call", "address", "root", "callers": {name: [certificate, key]}, "methods": [path, ...]}`` gives
``{"answers": {caller: {method: [code, text]}}}`` of an empty message to each.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.pki.keys import dump_key
from runtime.pki.node_identity import new_request
from runtime.wire.grpc_transport import GrpcTransport
from runtime.wire.loop import IoLoop
from runtime.wire.pb import ca_pb2
from runtime.wire.port import CA_NAME, Channel, Credentials
from runtime.wire.services import METHODS, path

CALL_S = 30.0
STREAM_S = 5.0
"""A stream that says nothing for so long was let in."""

SESSION = path("Dispatcher", "Session")


class Waited:
    """The outcome of one call, waited for by this program's only thread."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self.outcome: Any = None

    def done(self, outcome: Any) -> None:
        """From the transport's thread; the first outcome counts."""
        if not self._over.is_set():
            self.outcome = outcome
            self._over.set()

    def wait(self, seconds: float) -> bool:
        """Whether there is an outcome in time."""
        return self._over.wait(seconds)


def ask(channel: Channel, method: str, request: Message) -> Any:
    """A unary call that must be answered."""
    waited = Waited()
    channel.unary(method, request, timeout=CALL_S, done=waited.done)
    assert waited.wait(CALL_S + 5.0), f"{method} has no end"
    if isinstance(waited.outcome, Refused):
        raise waited.outcome
    return waited.outcome


def begun(channel: Channel, name: str) -> tuple[Waited, Callable[[], None]]:
    """A call with an empty message, and what breaks it off."""
    method, waited = METHODS[name], Waited()
    if method.server_streaming:
        return waited, channel.stream(name, method.request(), on_item=waited.done, on_end=waited.done)
    return waited, channel.unary(name, method.request(), timeout=CALL_S, done=waited.done)


def told(outcome: Any) -> list[Any]:
    """Code and text of an answer; nothing yet is none that was refused."""
    return [Code(outcome.code).title, outcome.text] if isinstance(outcome, Refused) else [Code.OK.title, ""]


def call(channel: Channel, names: list[str]) -> dict[str, list[Any]]:
    """Code and text of the answers to an empty message to each method. Streams are waited for all together, but for the
    session: whether there is one decides what others answer."""
    streams = {name: begun(channel, name) for name in names if name == SESSION}
    if SESSION in streams:
        assert streams[SESSION][0].wait(CALL_S), "a session is neither begun nor refused"
    streams |= {name: begun(channel, name) for name in names if METHODS[name].server_streaming and name != SESSION}
    silent_at = time.monotonic() + STREAM_S
    answers = {}
    for name in names:
        if name not in streams:
            waited, _ = begun(channel, name)
            assert waited.wait(CALL_S + 5.0), f"{name} has no end"
            answers[name] = told(waited.outcome)
    for name, (waited, cancel) in streams.items():
        waited.wait(silent_at - time.monotonic())
        answers[name] = told(waited.outcome)  # before our own cancellation becomes one
        cancel()
    return answers


def issue(transport: GrpcTransport, address: str, tokens: dict[str, str]) -> dict[str, Any]:
    """Certificates as joining nodes get them."""
    downloader = transport.connect(address, None, server_name=None, verify=False)
    root = ask(downloader, path("CA", "GetRootCACertificate"), ca_pb2.GetRootCACertificateRequest()).certificate
    channel = transport.connect(address, Credentials(root), server_name=CA_NAME)
    nodes = {}
    for name, token in tokens.items():
        request = new_request(os.urandom)
        asked = ca_pb2.IssueNodeCertificateRequest(csr=request.csr, token=token)
        node_id = ask(channel, path("NodeCA", "IssueNodeCertificate"), asked).node_id
        status = ca_pb2.NodeCertificateStatusRequest(node_id=node_id)
        issued = ask(channel, path("NodeCA", "NodeCertificateStatus"), status)
        nodes[name] = [node_id, issued.certificate.certificate.decode(), dump_key(request.key).decode()]
    return {"root": root.decode(), "nodes": nodes}


def call_all(
    transport: GrpcTransport, address: str, root: str, callers: dict[str, list[str]], methods: list[str]
) -> dict[str, Any]:
    """Every method by every caller, each over a connection of its own."""
    answers = {}
    for name, (certificate, key) in callers.items():
        credentials = Credentials(root.encode(), certificate.encode(), key.encode())
        channel = transport.connect(address, credentials)
        answers[name] = call(channel, methods)
        channel.close()
    return {"answers": answers}


def main() -> None:
    """One order, one answer."""
    order = json.load(sys.stdin)
    kinds: dict[str, Callable[..., dict[str, Any]]] = {"issue": issue, "call": call_all}
    loop = IoLoop("callers").start()
    transport = GrpcTransport(loop)
    try:
        result = kinds[order.pop("do")](transport, **order)
    finally:
        transport.close()
        loop.stop()
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
