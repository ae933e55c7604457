"""Managers of both kinds in one quorum: each kind leads the other, commands work at all of them, leaders may die."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.waiting import until

ELECTION_S = 60.0
"""Ticks of a second, so elections of 10 to 20 s; the first may be split."""


def swarm_of(start: Start, *kinds: type[Peer]) -> list[Peer]:
    """Managers of these kinds; the first one has founded the swarm."""
    managers = [start(kind, f"m{number}") for number, kind in enumerate(kinds)]
    first, *others = managers
    first.init()
    for other in others:
        other.join(first, "manager")
        first.wait_state(other, "ready")
    return managers


def leader_at(manager: Peer) -> str:
    """Who leads, as a manager sees it; empty if nobody."""
    status, nodes = manager.call("GET", "/nodes")
    if status != 200:
        return ""
    leading = [node["Description"]["Hostname"] for node in nodes if node.get("ManagerStatus", {}).get("Leader")]
    return leading[0] if len(leading) == 1 else ""


def agreed_leader(managers: Sequence[Peer], seconds: float = ELECTION_S) -> Peer:
    """The leader that all of these see, one of themselves."""
    named = {manager.name: manager for manager in managers}

    def agreed() -> Peer | None:
        seen = {leader_at(manager) for manager in managers}
        return named.get(seen.pop()) if len(seen) == 1 else None

    found = until(agreed, "all managers see the same leader, one of them", seconds)
    assert found is not None
    return found


def image(peer: Peer) -> str:
    return "busybox:latest" if isinstance(peer, Dockerd) else "host"


def create_at(manager: Peer, name: str, where: Peer) -> None:
    """A service of one task that runs at a peer, made at a manager."""
    manager.create(name, image(where), "--constraint", f"node.hostname=={where.name}", "--restart-delay", "1s")


def task_at(manager: Peer, service: str, where: Peer) -> str:
    """The one task of a service, at a peer."""
    manager.wait_tasks(service, 1, at=where)
    return str(manager.tasks(service, where)[0]["ID"])


def commands_work_everywhere(managers: Sequence[Peer]) -> dict[str, str]:
    """Each manager makes a service that runs at the next one; all list the same, and have everybody's logs. The
    services' tasks by the name of the peer that they run at."""
    ring = dict(zip(managers, [*managers[1:], managers[0]], strict=True))
    for manager, where in ring.items():
        create_at(manager, f"at-{where.name}", where)
    tasks = {where.name: task_at(manager, f"at-{where.name}", where) for manager, where in ring.items()}
    expected = ["", *sorted(f"at-{where.name} 1/1" for where in managers)]
    for manager in managers:
        listed = manager.docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}")
        assert sorted(listed.split("\n")) == expected
        for where in managers:
            logs = partial(manager.docker, "service", "logs", f"at-{where.name}")
            until(lambda logs=logs: "tick 2" in logs(), f"{manager.name} has the logs of at-{where.name}")
    return tasks


def is_led_after(dead: Peer, living: Sequence[Peer]) -> Peer:
    """Who leads when a leader has died. The others are READY again, and what runs there is untouched."""
    leader = agreed_leader(living)
    for peer in living:
        leader.wait_state(peer, "ready")
    leader.wait_state(dead, "down", 60)
    return leader


BOTH_WAYS = pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((Swarmlet, Dockerd, Dockerd), id="swarmlet-leads-dockerd"),
        pytest.param((Dockerd, Swarmlet, Swarmlet), id="dockerd-leads-swarmlet"),
    ],
)


@BOTH_WAYS
def test_commands_work_at_every_manager(start: Start, kinds: Sequence[type[Peer]]) -> None:
    managers = swarm_of(start, *kinds)
    assert agreed_leader(managers) is managers[0]
    commands_work_everywhere(managers)


@pytest.mark.slow
@BOTH_WAYS
def test_when_a_leader_is_killed_another_leads_and_the_tasks_run_on(start: Start, kinds: Sequence[type[Peer]]) -> None:
    managers = swarm_of(start, *kinds)
    first, *others = managers
    tasks = {}
    for peer in managers:
        create_at(first, f"at-{peer.name}", peer)
        tasks[peer.name] = task_at(first, f"at-{peer.name}", peer)

    first.kill()
    leader = is_led_after(first, others)
    for peer in others:
        assert task_at(leader, f"at-{peer.name}", peer) == tasks[peer.name], "a change of leaders replaced a task"
    for peer in others:
        create_at(peer, f"later-{peer.name}", peer)
        task_at(peer, f"later-{peer.name}", peer)

    first.start()
    assert agreed_leader(managers) is leader
    leader.wait_state(first, "ready", 60)
    names = {service["Spec"]["Name"] for service in first.get("/services")}
    assert names == {service["Spec"]["Name"] for service in leader.get("/services")}
    assert len(names) == 5
    leader.wait_tasks(f"at-{first.name}", 1, at=first)

    leader.kill()
    living = [manager for manager in managers if manager is not leader]
    last = is_led_after(leader, living)
    last.docker("service", "scale", "--detach", f"at-{first.name}=2")
    last.wait_tasks(f"at-{first.name}", 2, at=first)
