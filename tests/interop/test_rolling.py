"""A rolling update that one kind of manager begins, the other goes on with, and the first one ends."""

from __future__ import annotations

import re
import signal
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.interop.test_managers import agreed_leader, swarm_of
from tests.interop.test_roles import reachable
from tests.waiting import until

SLOTS, AT_A_TIME, DELAY = 10, 2, 6
PLACES = {
    "processes": ("host", "engine.labels.swarmlet.executor==process"),
    "containers": ("busybox:latest", "engine.labels.swarmlet.executor!=process"),
}
"""Services by the kind of nodes that their tasks run on: their image, and what tells those nodes apart."""


def when(stamp: str) -> float:
    """Seconds; the engine says nanoseconds, which Python does not read."""
    whole, fraction = re.fullmatch(r"([^.Z]+)(\.\d+)?Z", stamp).groups()  # type: ignore[union-attr]
    return datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(fraction or 0)


def is_new(task: dict[str, Any]) -> bool:
    return "VERSION=2" in task["Spec"]["ContainerSpec"].get("Env", [])


def replaced(manager: Peer, service: str) -> int:
    """How many of a service's tasks of the new version run."""
    return sum(is_new(task) for task in manager.tasks(service))


def progress(manager: Peer, count: int) -> None:
    """Until each update has come so far."""
    for service in PLACES:
        until(lambda service=service: replaced(manager, service) >= count, f"{count} of {service} are new", 90)
        assert replaced(manager, service) < SLOTS, f"the update of {service} was over before its leader was gone"


def at_a_time(tasks: list[dict[str, Any]]) -> int:
    """How many places were empty at once: from the time when a replacement was made until it ran."""
    changes = [(when(task["CreatedAt"]), 1) for task in tasks] + [
        (when(task["Status"]["Timestamp"]), -1) for task in tasks
    ]
    empty = most = 0
    for _, change in sorted(changes):
        empty += change
        most = max(most, empty)
    return most


@pytest.fixture
def swarm(start: Start) -> list[Peer]:
    """A dockerd that leads, two managers of ours, and a worker of each kind, where everything runs."""
    managers = swarm_of(start, Dockerd, Swarmlet, Swarmlet)
    workers = [start(Swarmlet, "w1"), start(Dockerd, "w2")]
    for worker in workers:
        worker.join(managers[0])
        managers[0].wait_state(worker, "ready")
    for service, (image, place) in PLACES.items():
        managers[0].create(
            service, image, "--replicas", str(SLOTS), "--constraint", place, "--constraint", "node.role==worker",
            "--update-parallelism", str(AT_A_TIME), "--update-delay", f"{DELAY}s", "--update-monitor", "2s",
            "--env", "VERSION=1",
        )  # fmt: skip
    for service in PLACES:
        managers[0].wait_tasks(service, SLOTS)
    return managers


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_an_update_goes_on_under_the_other_kind_of_leader_and_back_and_replaces_each_task_once(
    swarm: list[Peer],
) -> None:
    dockerd, *ours = swarm
    assert agreed_leader(swarm) is dockerd
    for service in PLACES:
        dockerd.docker("service", "update", "--detach", "--env-add", "VERSION=2", service)
    progress(dockerd, 1)

    dockerd.kill()
    second = agreed_leader(ours)
    progress(second, AT_A_TIME + 1)
    dockerd.start()
    assert agreed_leader(swarm) is second
    second.wait_state(dockerd, "ready", 60)

    (third,) = (each for each in ours if each is not second)
    third.signal(signal.SIGSTOP)
    until(lambda: not reachable(second, third), "there is but one whom the leadership can be handed to")
    begun = {task["ID"] for service in PLACES for task in second.get("/tasks", service=service)}
    second.stop()
    third.signal(signal.SIGCONT)
    assert agreed_leader([dockerd, third]) is dockerd
    for service in PLACES:
        assert replaced(dockerd, service) < SLOTS, f"the update of {service} was over before its leader was gone"
    second.start()
    assert agreed_leader(swarm) is dockerd

    for service in PLACES:
        until(
            lambda service=service: all(
                manager.get(f"/services/{service}").get("UpdateStatus", {}).get("State") == "completed"
                for manager in swarm
            ),
            f"the update of {service} is completed",
            120,
        )
        tasks = dockerd.get("/tasks", service=service)
        running = [task for task in tasks if task["Status"]["State"] == "running"]
        shown = dockerd.docker("service", "ps", "--no-trunc", service)
        assert all(is_new(task) for task in running), shown
        assert sorted(task["Slot"] for task in running) == list(range(1, SLOTS + 1)), shown
        made = Counter((task["Slot"], is_new(task)) for task in tasks)
        assert made == {(slot, new): 1 for slot in range(1, SLOTS + 1) for new in (False, True)}, shown
        assert at_a_time([task for task in running if task["ID"] in begun]) <= AT_A_TIME, shown
        # SwarmKit's leaders do not wait for what an earlier one has begun.
        assert at_a_time(running) <= 2 * AT_A_TIME, shown
