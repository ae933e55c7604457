"""Peers that are broken or mean harm: whatever a method is called with, under whatever certificate, there is an answer
with a code and nobody fails."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message

from actors.certificate_actor import CertificateActor
from runtime.errors import Code, Refused
from runtime.pki.node_identity import NodeIdentity
from runtime.wire.pb import dispatcher_pb2
from runtime.wire.port import Credentials
from runtime.wire.services import METHODS, Method, path
from tests.hostile import Forger, raw
from tests.simulation.cluster import Host, Swarm, replicated, worker_token
from tests.unit.wire.authority import stranger

WHO = ("nobody", "foreign", "worker", "manager")
ANSWER_WITHIN = 8.0


def own_identity(host: Host) -> NodeIdentity:
    """What somebody has who broke into a node."""
    assert host.stage is not None
    keeper = host.stage.cells["/cluster/node/certificate"].instance
    assert isinstance(keeper, CertificateActor)
    assert keeper.identity is not None
    return keeper.identity


def own_credentials(host: Host) -> Credentials:
    """Its certificate, to be used from elsewhere."""
    identity = own_identity(host)
    return Credentials(identity.root.bundle, identity.certificate, identity.private_key)


class Attack:
    """A manager and a worker with a service, and somebody else on the network."""

    def __init__(self, seed: int) -> None:
        self.swarm = Swarm(seed, hosts=2)
        self.manager, self.worker = self.swarm.boot()
        self.manager.init()
        self.worker.join(self.manager, worker_token(self.manager))
        self.service = self.manager.control("CreateService", spec=replicated("web", 2)).service.id
        tasks = self.swarm.wait_running(self.manager, self.service, 2)
        nodes = [node.id for node in self.manager.control("ListNodes").nodes]
        (cluster,) = self.manager.control("ListClusters").clusters
        known = [self.service, "web", cluster.id, *nodes, *(task.id for task in tasks), "10.0.0.1:2377", "10.0.0.66:1"]
        self.forger = Forger(seed, known)
        self.attacker = self.swarm.network.transport("10.0.0.66")
        root = own_identity(self.manager).root.bundle
        alien = stranger()
        self.credentials: dict[str, Credentials | None] = {
            "nobody": Credentials(root),
            "foreign": Credentials(root, *alien.issue(nodes[0], "swarm-manager", cluster.id)),
            "worker": own_credentials(self.worker),
            "manager": own_credentials(self.manager),
        }

    def failures(self) -> dict[str, str | None]:
        """Who failed, and over what."""
        return {
            f"{host.name}{path}": cell.last_error
            for host in self.swarm.hosts
            if host.stage is not None
            for path, cell in host.stage.cells.items()
            if cell.failures.total
        }

    def open_session(self, who: str) -> None:
        """Registers as a node, so that what is forged next may come from a live session."""
        channel = self.attacker.connect("10.0.0.1:2377", self.credentials[who])
        told: list[Any] = []
        request = dispatcher_pb2.SessionRequest()
        channel.stream(path("Dispatcher", "Session"), request, on_item=told.append, on_end=told.append)
        self.swarm.simulator.run_until(lambda: bool(told))
        if not isinstance(told[0], Refused):
            session = told[0].session_id
            self.forger.known = (session, session, *self.forger.known[-12:])

    def call(self, method: Method, payload: bytes, who: str) -> list[Any]:
        """Begins a call; its outcome comes into the list. A stream is broken off once it has answered for a while."""
        channel = self.attacker.connect("10.0.0.1:2377", self.credentials[who])
        outcome: list[Any] = []
        if method.client_streaming:
            upload = channel.upload(method.path, done=outcome.append, timeout=ANSWER_WITHIN)
            for _ in range(3):
                upload.send(raw(payload))
            upload.finish()
        elif method.server_streaming:
            cancel = channel.stream(method.path, raw(payload), on_item=lambda item: None, on_end=outcome.append)
            self.swarm.schedule(2.0, cancel)
        else:
            channel.unary(method.path, raw(payload), timeout=ANSWER_WITHIN, done=outcome.append)
        return outcome


def check_answer(outcome: list[Any], what: str) -> None:
    assert len(outcome) == 1, f"{what}: {len(outcome)} answers"
    (answer,) = outcome
    assert answer is None or isinstance(answer, (Message, Refused)), what
    if isinstance(answer, Refused):
        assert answer.code is not Code.OK, what
        # INTERNAL is for what is no message; a handler that failed over one says so, and is a bug.
        assert "failed with" not in answer.text, f"{what}: {answer}"


@pytest.mark.parametrize("seed", [2, 7])
@pytest.mark.parametrize("who", WHO)
def test_every_method_answers_whatever_it_is_called_with_and_nobody_fails(who: str, seed: int) -> None:
    attack = Attack(seed)
    for method in METHODS.values():
        if method.service == "Dispatcher" and who in ("worker", "manager"):
            attack.open_session(who)
        outcomes = [attack.call(method, payload, who) for payload in attack.forger.payloads(method, 6)]
        attack.swarm.simulator.run_for(ANSWER_WITHIN + 0.5)
        for outcome in outcomes:
            check_answer(outcome, f"{method.path} by {who}")
        assert attack.failures() == {}, method.path
    # Whoever has a manager's certificate may do everything; others change nothing.
    if who != "manager":
        attack.swarm.wait_running(attack.manager, attack.service, 2)
        assert attack.manager.control("ListClusters").clusters
