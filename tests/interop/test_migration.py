"""A swarm of three dockerd managers moves to swarmlet, manager by manager, and back; a service runs all the while."""

from __future__ import annotations

import pytest

from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.interop.test_managers import agreed_leader, create_at, swarm_of, task_at
from tests.interop.test_roles import becomes_manager, becomes_worker
from tests.waiting import until


def replaced(managers: list[Peer], old: Peer, new: Peer) -> list[Peer]:
    """The managers after a new one has come and an old one has gone."""
    new.join(old, "manager")
    remaining = [manager for manager in managers if manager is not old] + [new]
    becomes_manager(agreed_leader([*remaining, old]), new)
    remaining[0].docker("node", "demote", old.name)
    leader = agreed_leader(remaining)
    becomes_worker(leader, old)
    until(lambda: old.try_docker("swarm", "leave")[0] == 0, f"{old.name} may leave, its manager has ended")
    leader.docker("node", "rm", "--force", old.name)
    return remaining


def ticks(manager: Peer) -> int:
    """How far the service's only task has counted; 0 while nobody can say: dockerd refuses to as long as the worker has
    not found the log broker of a new leader."""
    code, said, _ = manager.try_docker("service", "logs", "--tail", "1", "web")
    lines = said.split()
    return int(lines[-1]) if code == 0 and lines else 0


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_swarm_moves_from_dockerd_to_swarmlet_and_back(start: Start) -> None:
    managers = swarm_of(start, Dockerd, Dockerd, Dockerd)
    old, new = list(managers), [start(Swarmlet, f"s{number}") for number in range(3)]
    worker = start(Dockerd, "worker")
    worker.join(managers[0])
    create_at(managers[0], "web", worker)
    task = task_at(managers[0], "web", worker)
    for there, here in ((old, new), (new, old)):
        for leaving, coming in zip(there, here, strict=True):
            before = until(lambda: ticks(managers[0]), "its count is heard")  # noqa: B023 - asked at once
            managers = replaced(managers, leaving, coming)
            leader = agreed_leader(managers)
            leader.wait_state(worker, "ready", 60)
            assert task_at(leader, "web", worker) == task, f"{leaving.name} to {coming.name} replaced the task"
            until(lambda before=before, leader=leader: ticks(leader) > before, "the service goes on and is heard")
        assert set(managers) == set(here)
        assert len(managers[0].get("/nodes")) == 4
        managers[0].docker("service", "update", "--detach", "--label-add", f"moved={here[0].kind}", "web")
    labels = managers[0].get("/services/web")["Spec"]["Labels"]
    assert labels == {"moved": "dockerd"}
