"""The same over sockets, against a whole node: every method, called by anybody with anything, is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.certificate_actor import CertificateActor
from runtime.wire.grpc_transport import GrpcTransport
from runtime.wire.loop import IoLoop
from runtime.wire.pb import control_pb2
from runtime.wire.port import Channel, Credentials
from runtime.wire.services import METHODS, Method
from swarmlet import Node
from tests.hostile import Forger, raw
from tests.integration.face.worlds import node
from tests.simulation.test_hostile import check_answer
from tests.unit.wire.authority import stranger
from tests.waiting import until

WITHIN = 8.0


class Attacker:
    def __init__(self, victim: Node, loop: IoLoop) -> None:
        stage = victim._assembly.stage
        assert stage is not None
        self.stage = stage
        keeper = stage.cells["/cluster/node/certificate"].instance
        assert isinstance(keeper, CertificateActor)
        assert keeper.identity is not None
        identity = keeper.identity
        wire = stage.cells["/cluster/node/manager/wire"].instance
        assert wire is not None
        self.address = wire.snapshot()["listening"][0]
        info = identity.info
        roots = identity.root.bundle
        self.known = (info.node_id, info.organization, self.address)
        self.credentials = {
            "nobody": Credentials(roots),
            "foreign": Credentials(roots, *stranger().issue(info.node_id, "swarm-manager", info.organization)),
            "manager": Credentials(roots, identity.certificate, identity.private_key),
        }
        self.transport = GrpcTransport(loop)
        self.loop = loop

    def begin(self, channel: Channel, method: Method, payload: bytes) -> list[Any]:
        outcome: list[Any] = []
        if method.client_streaming:
            upload = channel.upload(method.path, done=outcome.append, timeout=WITHIN)
            upload.send(raw(payload))
            upload.finish()
        elif method.server_streaming:
            cancel = channel.stream(method.path, raw(payload), on_item=lambda item: None, on_end=outcome.append)
            self.loop.call_soon(lambda: self.loop.loop.call_later(0.5, cancel))
        else:
            channel.unary(method.path, raw(payload), timeout=WITHIN, done=outcome.append)
        return outcome


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Node]:
    with node(tmp_path) as made:
        made.init()
        made.wait_ready(60)
        yield made


def test_every_method_over_sockets_answers_anybody_and_nobody_fails(victim: Node) -> None:
    loop = IoLoop("attacker").start()
    attacker = Attacker(victim, loop)
    try:
        for who, credentials in attacker.credentials.items():
            forger = Forger(f"{who}/sockets", attacker.known)
            channel = attacker.transport.connect(attacker.address, credentials)
            outcomes: list[tuple[str, list[Any]]] = []
            for method in METHODS.values():
                for payload in forger.payloads(method, 2):
                    outcomes.append((f"{method.path} by {who}", attacker.begin(channel, method, payload)))
            until(lambda: all(each for _, each in outcomes), tell=lambda: str([w for w, each in outcomes if not each]))  # noqa: B023
            for what, outcome in outcomes:
                check_answer(outcome, what)
            channel.close()
        failed = {path: cell.last_error for path, cell in attacker.stage.cells.items() if cell.failures.total}
        assert failed == {}
        answer = victim.control("ListClusters", control_pb2.ListClustersRequest(), control_pb2.ListClustersResponse)
        assert len(answer.clusters) == 1
    finally:
        attacker.transport.close()
        loop.stop()
