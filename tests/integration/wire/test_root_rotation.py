"""Peers of a swarm that dockerd moves to another root: its cross-signed root is called as its signer is."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from runtime.errors import Code, Refused
from runtime.wire.pb import dispatcher_pb2
from runtime.wire.port import CA_NAME, MANAGER, WORKER, Call, Credentials, Server
from runtime.wire.services import path
from tests.unit.wire.authority import Authority
from tests.unit.wire.worlds import SocketWorld

HEARTBEAT = path("Dispatcher", "Heartbeat")


def echo(call: Call) -> None:
    call.reply(dispatcher_pb2.HeartbeatResponse())


def crossed(new: Authority, old: Authority) -> bytes:
    """The new root as Go signs it with the old one: since both are called alike, it leaves the signer's key id out."""
    certificate = (
        x509.CertificateBuilder()
        .subject_name(new.certificate.subject)
        .issuer_name(old.certificate.subject)
        .public_key(new.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(new.certificate.not_valid_before_utc)
        .not_valid_after(new.certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(new.key.public_key()), critical=False)
        .sign(old.key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


OLD, NEW, OTHER = Authority(), Authority(), Authority()


def moved(node_id: str, role: str, signer: Authority = OLD) -> Credentials:
    """Who has renewed in a rotation from ``signer``'s root to the new one: the old root is still what it trusts."""
    certificate, key = NEW.issue(node_id, role)
    return Credentials(OLD.pem, certificate + crossed(NEW, signer), key)


def ask(world: SocketWorld, server: Server, own: Credentials, name: str = MANAGER) -> object:
    channel = world.transport("client").connect(server.address, own, server_name=name)
    answer = world.ask(channel, HEARTBEAT, dispatcher_pb2.HeartbeatRequest())
    channel.close()
    return answer


def serve(world: SocketWorld, own: Credentials) -> Server:
    return world.serve({HEARTBEAT: echo}, credentials=own)


@pytest.mark.parametrize("name", [MANAGER, CA_NAME])
def test_who_has_not_moved_believes_a_manager_that_has(world: SocketWorld, name: str) -> None:
    server = serve(world, moved("manager1", MANAGER))
    answer = ask(world, server, OLD.worker(), name)
    assert isinstance(answer, dispatcher_pb2.HeartbeatResponse), answer


def test_who_has_moved_believes_and_is_believed_by_others_that_have(world: SocketWorld) -> None:
    server = serve(world, moved("manager1", MANAGER))
    answer = ask(world, server, moved("worker1", WORKER))
    assert isinstance(answer, dispatcher_pb2.HeartbeatResponse), answer


def test_who_has_moved_still_believes_those_that_have_not(world: SocketWorld) -> None:
    server = serve(world, OLD.manager())
    answer = ask(world, serve(world, moved("manager2", MANAGER)), OLD.worker())
    assert isinstance(answer, dispatcher_pb2.HeartbeatResponse), answer
    assert isinstance(ask(world, server, OLD.worker()), dispatcher_pb2.HeartbeatResponse)


def refused(answer: object) -> str:
    assert isinstance(answer, Refused), answer
    assert answer.code is Code.UNAVAILABLE
    return answer.text


def test_a_root_that_a_stranger_signed_is_not_believed(world: SocketWorld) -> None:
    server = serve(world, moved("manager1", MANAGER, OTHER))
    assert "unknown authority" in refused(ask(world, server, OLD.worker()))


def test_a_moved_worker_is_no_manager(world: SocketWorld) -> None:
    server = serve(world, moved("worker1", WORKER))
    refused(ask(world, server, OLD.worker()))
