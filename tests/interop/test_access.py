"""Both kinds of manager are asked every method by every kind of caller, and answer the same.

Not asked are the two calls that end a dockerd 20.10.24 (``AttachNetwork`` without a config, ``StreamRaftMessage``
without a message), each with a caller that is let in.
"""

from __future__ import annotations

from typing import Any

from runtime.wire.services import METHODS, OWN_PACKAGE
from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.unit.wire.authority import Authority

Answers = dict[str, dict[str, tuple[str, str]]]

ENDS_DOCKERD = {"ResourceAllocator/AttachNetwork": ("worker", "manager"), "Raft/StreamRaftMessage": ("manager",)}
UNKNOWN_TO_DOCKERD = {
    "Control/CreateVolume", "Control/GetVolume", "Control/ListVolumes", "Control/RemoveVolume", "Control/UpdateVolume",
    "Dispatcher/UpdateVolumeStatus", "TaskAccess/Ask", "TaskAccess/Say", "TaskAccessBroker/Listen",
    "TaskAccessBroker/Answer",
}  # fmt: skip
"""Of a newer SwarmKit, or of our own: UNIMPLEMENTED whoever calls."""


def callers_of(manager: Peer, address: str) -> tuple[str, dict[str, list[str]]]:
    """The root, and a caller of each kind."""
    cluster = manager.get("/swarm")
    worker, other = cluster["JoinTokens"]["Worker"], cluster["JoinTokens"]["Manager"]
    tokens = {"worker": worker, "removed worker": worker, "manager": other, "removed manager": other}
    issued = manager.call_as({"do": "issue", "address": address, "tokens": tokens})
    nodes = issued["nodes"]
    for removed in ("removed worker", "removed manager"):
        manager.docker("node", "rm", "--force", nodes[removed][0])
    certificate, key = Authority().issue("anybody", "swarm-manager", organization=cluster["ID"])
    return issued["root"], {
        "nobody": ["", ""],
        "foreign manager": [certificate.decode(), key.decode()],
        **{name: pair for name, (_, *pair) in nodes.items()},
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
    return path.removeprefix("/docker.swarmkit.v1.").removeprefix(f"/{OWN_PACKAGE}.")


def masked(text: str) -> str:
    """A refusal without the id of the node that was refused."""
    head, found, tail = text.partition("desc = Permission denied: node ")
    return head + found + tail.partition(" ")[2] if found else text


def test_every_method_answers_every_caller_as_dockerd_does(start: Start) -> None:
    theirs, ours = answers_of(start(Dockerd, "alpha")), answers_of(start(Swarmlet, "beta"))
    assert theirs.keys() == ours.keys()
    wrong = []
    for caller, answers in theirs.items():
        for method, (code, text) in answers.items():
            our_code, our_text = ours[caller][method]
            where = f"{method} by {caller}: dockerd says {code} {text!r}, swarmlet {our_code} {our_text!r}"
            if method in UNKNOWN_TO_DOCKERD and code == "Unimplemented":
                continue
            if our_code != code or (code == "PermissionDenied" and masked(our_text) != masked(text)):
                wrong.append(where)
    assert not wrong, "\n".join(wrong)
