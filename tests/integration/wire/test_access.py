"""Who may call what, over real sockets: every method under every kind of caller.

What is expected is what dockerd 20.10.24 answers (recorded, and compared with it in ``tests/interop``), and of the
services of our own what their shape asks for: a method is for anyone, for all members, or for managers; whoever is not
let in is told PERMISSION_DENIED, and a certificate of another authority is refused in the handshake already.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.errors import Code, Refused
from runtime.wire.port import MANAGER, WORKER, Access, Call, Channel, Credentials, Server
from runtime.wire.services import METHODS, OWN_PACKAGE
from tests.unit.wire.authority import CLUSTER, authority, stranger
from tests.unit.wire.worlds import Outcome, SocketWorld

ANYONE = {
    "CA/GetRootCACertificate", "NodeCA/IssueNodeCertificate", "NodeCA/NodeCertificateStatus",
}  # fmt: skip
MEMBERS = {
    "Dispatcher/Session", "Dispatcher/Heartbeat", "Dispatcher/UpdateTaskStatus", "Dispatcher/UpdateVolumeStatus",
    "Dispatcher/Tasks", "Dispatcher/Assignments", "LogBroker/ListenSubscriptions", "LogBroker/PublishLogs",
    "ResourceAllocator/AttachNetwork", "ResourceAllocator/DetachNetwork",
    "TaskAccessBroker/Listen", "TaskAccessBroker/Answer",
}  # fmt: skip
CALLERS = ("nobody", "worker", "manager", "foreign manager", "removed worker", "removed manager")
LET_IN = Refused(Code.DATA_LOSS, "a handler was reached")
"""No layer below a handler answers so."""


def short(path: str) -> str:
    """``Dispatcher/Session`` of ``/docker.swarmkit.v1.Dispatcher/Session``."""
    return path.removeprefix("/docker.swarmkit.v1.").removeprefix(f"/{OWN_PACKAGE}.")


def credentials(caller: str) -> Credentials:
    node_id = "gone" if "removed" in caller else "present"
    role = MANAGER if caller.endswith(MANAGER.removeprefix("swarm-")) else WORKER
    if caller == "nobody":
        return Credentials(authority().pem)
    if caller.startswith("foreign"):
        certificate, key = stranger().issue(node_id, role)
        return Credentials(authority().pem, certificate, key)
    return authority().credentials(node_id, role)


def expected(caller: str, method: str) -> Code:
    if caller == "foreign manager":
        return Code.UNAVAILABLE
    if method in ANYONE or caller == "manager" or (caller == "worker" and method in MEMBERS):
        return LET_IN.code
    return Code.PERMISSION_DENIED


def refuse(call: Call) -> None:
    call.fail(LET_IN)


@pytest.fixture(scope="module")
def world() -> Iterator[SocketWorld]:
    made = SocketWorld()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(world: SocketWorld) -> Server:
    access = Access(CLUSTER, blacklist=frozenset({"gone"}))
    return world.serve(dict.fromkeys(METHODS, refuse), access=lambda: access)


def answer(world: SocketWorld, channel: Channel, path: str) -> Refused:
    """How an empty message is refused."""
    method, outcome = METHODS[path], Outcome()
    if method.server_streaming:
        channel.stream(path, method.request(), on_item=outcome.item, on_end=outcome.done)
    else:
        channel.unary(path, method.request(), timeout=60.0, done=outcome.done)
    world.wait(lambda: outcome.over, 70.0)
    refused = outcome.result
    assert isinstance(refused, Refused)
    return refused


@pytest.mark.parametrize("caller", CALLERS)
def test_every_method_lets_in_whom_dockerd_lets_in(world: SocketWorld, server: Server, caller: str) -> None:
    channel = world.connect(server, credentials(caller))
    codes = {short(path): answer(world, channel, path).code for path in METHODS}
    channel.close()
    assert codes == {method: expected(caller, method) for method in codes}


def test_the_table_names_only_methods_that_there_are() -> None:
    known = {short(path) for path in METHODS}
    assert known >= ANYONE | MEMBERS
    assert len(known) == 65 + 4  # ours
