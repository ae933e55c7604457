"""Roles, tokens, the root and the lock, with both kinds in one swarm."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.interop.test_managers import BOTH_WAYS, agreed_leader, create_at, swarm_of, task_at
from tests.waiting import until


def manages(peer: Peer) -> bool:
    return bool(peer.get("/info")["Swarm"]["ControlAvailable"])


def reachable(manager: Peer, of: Peer) -> bool:
    return bool(manager.node(of).get("ManagerStatus", {}).get("Reachability") == "reachable")


def becomes_manager(leader: Peer, peer: Peer) -> None:
    """Until a promoted node answers for the swarm itself."""
    until(lambda: manages(peer), f"{peer.name} manages", 60)
    until(lambda: reachable(leader, peer), f"{peer.name} is reachable")
    assert len(peer.get("/nodes")) == len(leader.get("/nodes"))


def becomes_worker(leader: Peer, peer: Peer) -> None:
    """Until a demoted node no longer answers for the swarm."""
    until(lambda: not manages(peer), f"{peer.name} does not manage any more", 60)
    until(lambda: "ManagerStatus" not in leader.node(peer), f"{peer.name} is no member")
    leader.wait_state(peer, "ready")


def joined_as_workers(start: Start, kinds: Sequence[type[Peer]]) -> list[Peer]:
    """The first manages, the others work."""
    peers = [start(kind, f"m{number}") for number, kind in enumerate(kinds)]
    first, *others = peers
    first.init()
    for other in others:
        other.join(first)
        first.wait_state(other, "ready")
    return peers


@BOTH_WAYS
def test_workers_are_promoted_and_demoted_and_removed(start: Start, kinds: Sequence[type[Peer]]) -> None:
    first, second, third = joined_as_workers(start, kinds)
    create_at(first, "web", second)
    task = task_at(first, "web", second)
    first.docker("node", "promote", second.name, third.name)
    for peer in (second, third):
        becomes_manager(first, peer)
    assert task_at(second, "web", second) == task, "a promotion replaced a task"
    refusal = second.refused("node", "rm", "--force", third.name)
    assert "is a cluster manager and is a member of the raft cluster" in refusal
    third.docker("node", "demote", second.name)  # asked at a manager that does not lead
    becomes_worker(first, second)
    assert task_at(first, "web", second) == task, "a demotion replaced a task"
    assert "is not down and can't be removed" in first.refused("node", "rm", second.name)
    first.docker("node", "rm", "--force", second.name)
    assert first.node(second) == {}
    until(lambda: not first.tasks("web"), "what ran at the removed node is forgotten")
    third.docker("node", "demote", third.name)
    becomes_worker(first, third)
    last = "attempting to demote the last manager of the swarm"  # told once the third is seen to be a worker
    until(lambda: last in first.refused("node", "demote", first.name), "the last manager stays one")


@BOTH_WAYS
def test_tokens_and_the_root_are_rotated(start: Start, kinds: Sequence[type[Peer]]) -> None:
    managers = swarm_of(start, *kinds)
    first, second, third = managers

    def token(at: Peer) -> str:
        return at.docker("swarm", "join-token", "-q", "worker").strip()

    before = token(first)
    second.docker("swarm", "join-token", "--rotate", "-q", "worker")
    until(lambda: token(third) != before, "the new token is known everywhere")
    assert len({token(manager) for manager in managers}) == 1
    assert token(first).rpartition("-")[0] == before.rpartition("-")[0]

    root = first.docker("swarm", "ca")
    third.docker("swarm", "ca", "--rotate", timeout=120)
    new = first.docker("swarm", "ca")
    assert new != root
    for manager in managers:
        until(lambda manager=manager: manager.docker("swarm", "ca") == new, f"{manager.name} knows the new root")
        assert manager.get("/swarm")["RootRotationInProgress"] is False
        roots = {node["Description"]["TLSInfo"]["TrustRoot"] for node in manager.get("/nodes")}
        assert roots == {new.rstrip("\n") + "\n"}
    assert token(first).split("-")[2] != before.split("-")[2]
    assert agreed_leader(managers) is first
    for manager in managers:
        create_at(manager, f"after-{manager.name}", manager)
        task_at(manager, f"after-{manager.name}", manager)
    late = start(Swarmlet if isinstance(first, Dockerd) else Dockerd, "late")
    late.join(second)
    first.wait_state(late, "ready")


@pytest.mark.slow
@BOTH_WAYS
def test_a_swarm_is_locked_and_unlocked(start: Start, kinds: Sequence[type[Peer]]) -> None:
    managers = swarm_of(start, *kinds)
    first, second, third = managers
    second.docker("swarm", "update", "--autolock=true")
    keys = [manager.docker("swarm", "unlock-key", "-q").strip() for manager in managers]
    assert len(set(keys)) == 1
    assert keys[0].startswith("SWMKEY-1-")
    for peer in (third, first):
        peer.stop()
        peer.start()
        assert peer.get("/info")["Swarm"]["LocalNodeState"] == "locked"
        assert "Swarm is encrypted and needs to be unlocked" in peer.refused("node", "ls")
        assert peer.call("POST", "/swarm/unlock", {"UnlockKey": keys[0]})[0] == 200
        until(lambda peer=peer: manages(peer), f"{peer.name} manages again", 60)
    agreed_leader(managers)
    first.docker("swarm", "unlock-key", "--rotate", "-q")
    rotated = {manager.docker("swarm", "unlock-key", "-q").strip() for manager in managers}
    assert len(rotated) == 1
    assert rotated != set(keys)
    first.docker("swarm", "update", "--autolock=false")
    second.stop()
    second.start()
    until(lambda: manages(second), "without a lock a manager starts by itself", 60)


@BOTH_WAYS
def test_a_manager_that_was_demoted_while_it_was_away_comes_back_as_a_worker(
    start: Start, kinds: Sequence[type[Peer]]
) -> None:
    first, second, third = swarm_of(start, *kinds)
    create_at(first, "web", third)
    task_at(first, "web", third)
    third.kill()
    until(lambda: not reachable(first, third), f"{third.name} is missed", 60)
    second.docker("node", "demote", third.name)
    until(lambda: "ManagerStatus" not in first.node(third), f"{third.name} is no member", 60)
    third.start()
    becomes_worker(first, third)
    assert "This node is not a swarm manager" in third.refused("node", "ls")
    task_at(first, "web", third)
    # The command line reads and then writes, and a node that has just come changes in between.
    until(lambda: first.try_docker("node", "promote", third.name)[0] == 0, f"{third.name} is promoted")
    becomes_manager(first, third)
