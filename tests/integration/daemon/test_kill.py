"""``kill -9`` of a daemon with running tasks: they go on, nothing runs twice, nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.wire.private_directory import PREFIX
from tests.integration.daemon.program import Daemon, service
from tests.processes import alive, marked

ROUNDS = int(os.environ.get("SWARMLET_KILLS", "3"))
SEED = int(os.environ.get("SWARMLET_SEED", "7"))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "d", "127.0.0.1", "--stop-tasks-on-exit")
    daemon.start()
    yield daemon
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.stop()


def scale(daemon: Daemon, name: str, replicas: int) -> int:
    """As ``docker service scale``: the replicas that were acknowledged; 0 when there was no answer."""
    try:
        _, found = daemon.call("GET", f"/services/{name}", timeout=5)
        spec: dict[str, Any] = found["Spec"]
        spec["Mode"]["Replicated"]["Replicas"] = replicas
        version = found["Version"]["Index"]
        status, _ = daemon.call("POST", f"/services/{name}/update?version={version}", spec, timeout=5)
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    return replicas if status == 200 else 0


def private(daemon: Daemon) -> list[Path]:
    """The directories of sockets that nobody else may reach."""
    return list((daemon.root / "run").glob(f"{PREFIX}*"))


def test_five_tasks_outlive_the_daemon_and_are_found_again(daemon: Daemon) -> None:
    daemon.init()
    mark = f"MARK={daemon.root}"
    made = service("web", 5, "sleep", "100000", env={"MARK": str(daemon.root)})
    assert daemon.call("POST", "/services/create", made)[0] == 201
    before = daemon.wait_running("web", 5)
    (sockets,) = private(daemon)
    daemon.kill()
    assert all(alive(pid) for pid in before.values())
    daemon.restart()
    assert daemon.wait_running("web", 5) == before
    daemon.until(lambda: daemon.get("/nodes")[0]["Status"]["State"] == "ready", "the node is ready")
    assert sorted(before.values()) == marked(mark)
    (now,) = private(daemon)  # what the killed one left is gone
    assert now != sockets


def killed_while_scaling(daemon: Daemon, replicas: int, after: float) -> int:
    """Kills the daemon ``after`` seconds in which it was asked for ``replicas``; what it had acknowledged by then."""
    acknowledged: list[int] = []
    scaling = threading.Thread(target=lambda: acknowledged.append(scale(daemon, "web", replicas)))
    scaling.start()
    time.sleep(after)
    daemon.kill()
    scaling.join()
    return acknowledged[0]


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_kills_at_random_moments_of_scaling_lose_nothing_and_double_nothing(daemon: Daemon) -> None:
    daemon.init()
    mark = f"MARK={daemon.root}"
    rng = random.Random(SEED)
    made = service("web", 5, "sleep", "100000", env={"MARK": str(daemon.root)})
    assert daemon.call("POST", "/services/create", made)[0] == 201
    wanted = 5
    daemon.wait_running("web", 5)
    for round_number in range(ROUNDS):
        before = daemon.running("web")
        asked = rng.choice([count for count in (3, 4, 5, 6, 7, 8) if count != wanted])
        acknowledged = killed_while_scaling(daemon, asked, rng.random() * 0.15)
        daemon.restart()
        found = daemon.get("/services/web")
        now = found["Spec"]["Mode"]["Replicated"]["Replicas"]
        assert now in ((asked,) if acknowledged else (asked, wanted)), f"round {round_number}"
        wanted = now
        after = daemon.wait_running("web", wanted)
        kept = {slot: pid for slot, pid in before.items() if slot in after}
        assert {slot: after[slot] for slot in kept} == kept, f"round {round_number}: a task was replaced"
        daemon.until(lambda after=after: marked(mark) == sorted(after.values()), "only the service's tasks run")
        daemon.until(lambda: daemon.get("/nodes")[0]["Status"]["State"] == "ready", "the node is ready")
