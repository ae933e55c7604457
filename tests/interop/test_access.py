"""Both kinds of manager are asked every method by every kind of caller, and answer the same.

Not asked are the two calls that end a dockerd 20.10.24 (``AttachNetwork`` without a config, ``StreamRaftMessage``
without a message), each with a caller that is let in.
"""

from __future__ import annotations

from typing import Any

from runtime.pki.key_file import decode_key_file
from runtime.pki.keys import dump_key
from runtime.wire.services import METHODS
from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.unit.wire.authority import Authority

Answers = dict[str, dict[str, tuple[str, str]]]

ENDS_DOCKERD = {"ResourceAllocator/AttachNetwork": ("worker", "manager"), "Raft/StreamRaftMessage": ("manager",)}
UNKNOWN_TO_DOCKERD = {
    "Control/CreateVolume", "Control/GetVolume", "Control/ListVolumes", "Control/RemoveVolume", "Control/UpdateVolume",
    "Dispatcher/UpdateVolumeStatus",
}  # fmt: skip
"""Of a newer SwarmKit: UNIMPLEMENTED whoever calls."""
OTHERWISE = {
    ("manager", "Control/CreateNetwork"): "Unimplemented",
    ("manager", "LogBroker/ListenSubscriptions"): "Aborted",
}
"""What swarmlet answers otherwise: networks are not offered yet; the manager's own agent listens for subscriptions
too, and of two listeners of one node the newest counts."""
NOT_OFFERED = ("ResourceAllocator", "Raft", "RaftMembership", "Watch")


def own_certificate(manager: Peer) -> list[str]:
    """Certificate and key of a manager, from its files."""
    files = next((manager.root / "data").rglob("swarm-node.crt")).parent
    key = decode_key_file((files / "swarm-node.key").read_bytes(), b"").key
    return [(files / "swarm-node.crt").read_text(), dump_key(key).decode()]


def callers_of(manager: Peer, address: str) -> tuple[str, dict[str, list[str]]]:
    """The root, and a caller of each kind."""
    cluster = manager.get("/swarm")
    token = cluster["JoinTokens"]["Worker"]
    issued = manager.call_as({"do": "issue", "address": address, "tokens": {"worker": token, "removed": token}})
    nodes = issued["nodes"]
    manager.docker("node", "rm", "--force", nodes["removed"][0])
    certificate, key = Authority().issue("anybody", "swarm-manager", organization=cluster["ID"])
    return issued["root"], {
        "nobody": ["", ""],
        "worker": nodes["worker"][1:],
        "removed worker": nodes["removed"][1:],
        "foreign manager": [certificate.decode(), key.decode()],
        "manager": own_certificate(manager),
    }


def answers_of(manager: Peer) -> Answers:
    """What this manager answers to whom."""
    manager.init()
    address = f"{manager.address}:2377"
    root, callers = callers_of(manager, address)
    found: Answers = {}
    for caller, pair in callers.items():
        methods = [path for path in METHODS if caller not in ENDS_DOCKERD.get(short(path), ())]
        order = {"do": "call", "address": address, "root": root, "callers": {caller: pair}, "methods": methods}
        answers: dict[str, Any] = manager.call_as(order)["answers"][caller]
        found[caller] = {short(path): (code, text) for path, (code, text) in answers.items()}
    return found


def short(path: str) -> str:
    return path.removeprefix("/docker.swarmkit.v1.")


def masked(text: str) -> str:
    """A refusal without the id of the node that was refused."""
    head, found, tail = text.partition("desc = Permission denied: node ")
    return head + found + tail.partition(" ")[2] if found else text


def test_every_method_answers_every_caller_as_dockerd_does(start: Start) -> None:
    theirs, ours = answers_of(start(Dockerd, "alpha")), answers_of(start(Swarmlet, "beta"))
    assert theirs.keys() == ours.keys()
    for caller, answers in theirs.items():
        for method, (code, text) in answers.items():
            our_code, our_text = ours[caller][method]
            where = f"{method} by {caller}: dockerd says {code} {text!r}, swarmlet {our_code} {our_text!r}"
            if method in UNKNOWN_TO_DOCKERD and code == "Unimplemented":
                continue
            let_in = code != "PermissionDenied"
            if let_in and our_code == "Unimplemented" and method.partition("/")[0] in NOT_OFFERED:
                continue
            assert our_code == OTHERWISE.get((caller, method), code), where
            if code == "PermissionDenied":
                assert masked(our_text) == masked(text), where
