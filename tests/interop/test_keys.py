"""A worker of each kind follows a manager of the other to another root, twice; leaders of each kind are demoted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.interop.test_managers import agreed_leader
from tests.waiting import until

BOTH_WAYS = pytest.mark.parametrize(
    ("leads", "joins"), [(Swarmlet, Dockerd), (Dockerd, Swarmlet)], ids=["swarmlet leads", "dockerd leads"]
)
WORKERS_TEXT = "Worker nodes can't be used to view or modify cluster state"


def two(start: Start, leads: type[Peer], joins: type[Peer]) -> tuple[Peer, Peer]:
    """A manager and a worker."""
    manager, worker = start(leads, "lead"), start(joins, "other")
    manager.init()
    worker.join(manager)
    manager.wait_state(worker, "ready")
    return manager, worker


def certificates(peer: Peer) -> Path:
    below = "swarm/certificates" if isinstance(peer, Dockerd) else "certificates"
    return peer.root / "data" / below


def role_in_certificate(peer: Peer) -> str:
    leaf = x509.load_pem_x509_certificate((certificates(peer) / "swarm-node.crt").read_bytes())
    (unit,) = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(unit.value)


def change_role(manager: Peer, verb: str, node: Peer) -> None:
    """``docker node promote`` or ``demote``. The client reads the node and writes it back: it is told to do so again
    if the node's role manager or its certificate authority wrote in between."""

    def accepted() -> bool:
        code, _, refused = manager.try_docker("node", verb, node.name)
        assert code == 0 or "update out of sequence" in refused, refused
        return code == 0

    until(accepted, f"{node.name} may {verb}")


def promote(manager: Peer, node: Peer) -> None:
    change_role(manager, "promote", node)
    until(lambda: node.try_docker("node", "ls")[0] == 0, f"{node.name} is a manager")
    until(
        lambda: manager.node(node).get("ManagerStatus", {}).get("Reachability") == "reachable",
        f"{node.name} is reachable",
    )


def demote(manager: Peer, node: Peer, seen_by: Peer) -> None:
    change_role(manager, "demote", node)
    until(lambda: WORKERS_TEXT in node.try_docker("node", "ls")[2], f"{node.name} is a worker", 60)
    # One who was removed from the consensus stops before it has its worker's certificate. Promoted right then it waits
    # twice for the role that does not come any more, 16 s each, before it starts as a manager again.
    until(lambda: role_in_certificate(node) == "swarm-worker", f"{node.name} has a worker's certificate", 60)
    until(lambda: "ManagerStatus" not in seen_by.node(node), f"{node.name} is out of the consensus", 60)


def rotate_root(manager: Peer) -> str:
    """``docker swarm ca --rotate``, which returns when every node has moved; the new root."""
    manager.docker("swarm", "ca", "--rotate", timeout=90)
    return manager.docker("swarm", "ca")


@BOTH_WAYS
def test_every_kind_of_node_moves_to_another_root(start: Start, leads: type[Peer], joins: type[Peer]) -> None:
    manager, worker = two(start, leads, joins)
    old_token = manager.docker("swarm", "join-token", "-q", "worker")
    first = manager.docker("swarm", "ca")
    roots = [rotate_root(manager), rotate_root(manager)]
    assert len({first, *roots}) == 3
    assert manager.docker("swarm", "join-token", "-q", "worker") != old_token
    trusted = certificates(worker) / "swarm-root-ca.crt"
    until(lambda: trusted.read_text(encoding="utf-8").strip() == roots[-1].strip(), "the worker trusts the new root")
    manager.wait_state(worker, "ready")
    issued_by = subprocess.run(
        ["openssl", "verify", "-CAfile", trusted, "-partial_chain", certificates(worker) / "swarm-node.crt"],
        capture_output=True,
        check=False,
    )
    assert issued_by.returncode == 0, issued_by.stderr.decode()


@BOTH_WAYS
def test_the_leader_is_demoted_and_the_other_kind_leads_and_back(
    start: Start, leads: type[Peer], joins: type[Peer]
) -> None:
    manager, other = two(start, leads, joins)
    promote(manager, other)
    assert rotate_root(other) == manager.docker("swarm", "ca")
    text = manager.refused("node", "rm", "--force", other.name)
    assert "is a cluster manager and is a member of the raft cluster" in text
    demote(manager, other, manager)
    promote(manager, other)
    demote(manager, manager, other)
    assert agreed_leader([other]) is other
    other.wait_state(manager, "ready")
    promote(other, manager)
    demote(manager, other, manager)
    assert "attempting to demote the last manager" in manager.refused("node", "demote", manager.name)
    other.stop()
    manager.wait_state(other, "down", 60)
    manager.docker("node", "rm", other.name)
    assert manager.node(other) == {}
