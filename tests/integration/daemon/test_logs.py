"""Logs of a service on three real nodes, one of which hangs: nobody waits for it for ever, and nobody takes the rest
for the whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_client import LATE
from tests.integration.daemon.program import Daemon, service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command line on this machine"),
]

TICK = 'echo "$NODE begins"; while true; do sleep 0.5; echo "$NODE ticks"; done'
GAP = "logs are interrupted here"
INCOMPLETE = "incomplete log stream"


class Swarm:
    """A manager and two workers, each with a task of the service ``tick``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.all = [
            Daemon(root / name, f"127.0.9.{number}", "--hostname", name, "--stop-tasks-on-exit")
            for number, name in enumerate(("m1", "w1", "w2"), 1)
        ]
        self.manager, *self.workers = self.all
        self.readers: list[Reader] = []

    def form(self) -> None:
        for daemon in self.all:
            daemon.start()
        self.manager.init()
        token = self.manager.get("/swarm")["JoinTokens"]["Worker"]
        remote = f"{self.manager.address}:{self.manager.port}"
        for worker in self.workers:
            own = f"{worker.address}:{self.manager.port}"
            join = {"ListenAddr": own, "AdvertiseAddr": own, "RemoteAddrs": [remote], "JoinToken": token}
            status, answer = worker.call("POST", "/swarm/join", join)
            assert status == 200 or (status == 503 and LATE in answer["message"]), answer
        spec = service("tick", 1, "sh", "-c", TICK, env={"NODE": "{{.Node.Hostname}}"})
        spec["Mode"] = {"Global": {}}
        status, answer = self.manager.call("POST", "/services/create", spec)
        assert status == 201, answer
        self.manager.until(lambda: self.running() == 3, "a task runs on each node", 120)

    def running(self) -> int:
        tasks = self.manager.get("/tasks", service="tick")
        return sum(task["Status"]["State"] == task["DesiredState"] == "running" for task in tasks)

    def node_id(self, daemon: Daemon) -> str:
        return str(daemon.call("GET", "/info")[1]["Swarm"]["NodeID"])

    def logs(self, *options: str) -> Reader:
        reader = Reader(self, *options)
        self.readers.append(reader)
        return reader

    def end(self) -> None:
        for reader in self.readers:
            reader.process.kill()
            reader.process.wait(60)
        for daemon in reversed(self.all):
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGCONT)
                daemon.stop()


class Reader:
    """``docker service logs``, and what it has said so far."""

    def __init__(self, swarm: Swarm, *options: str) -> None:
        self.swarm = swarm
        self.path = swarm.root / f"logs{len(swarm.readers)}"
        environment = {**os.environ, "HOME": str(swarm.root), "DOCKER_HOST": f"unix://{swarm.manager.socket}"}
        with self.path.open("wb") as out:
            self.process = subprocess.Popen(
                ["docker", "service", "logs", "--no-trunc", *options, "tick"],
                stdout=out, stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.path.read_text(errors="replace")

    def count(self, what: str) -> int:
        return self.text.count(what)

    def more(self, *whats: str, seconds: float = 60.0) -> None:
        """Waits until each of these was said once more than now."""
        before = {what: self.count(what) for what in whats}
        self.swarm.manager.until(
            lambda: all(self.count(what) > count for what, count in before.items()), f"more of {whats}", seconds
        )


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path)
    try:
        made.form()
        yield made
    finally:
        made.end()


def test_who_follows_is_told_of_the_gap_of_a_node_that_hangs_and_hears_it_again(swarm: Swarm) -> None:
    _, hung = swarm.workers
    reader = swarm.logs("--follow")
    reader.more("m1 ticks", "w1 ticks", "w2 ticks")
    assert hung.process is not None
    hung.process.send_signal(signal.SIGSTOP)
    swarm.manager.until(lambda: reader.count(GAP) > 0, "the gap is told", 60)
    reader.more("m1 ticks", "w1 ticks")
    (told,) = [line for line in reader.text.splitlines() if GAP in line]
    assert swarm.node_id(swarm.manager) not in told
    hung.process.send_signal(signal.SIGCONT)
    assert swarm.node_id(hung) in told
    reader.more("w2 ticks", "m1 ticks", seconds=60)
    assert reader.count(GAP) == 1
    assert reader.process.poll() is None


def test_a_read_ends_without_a_node_that_hangs_and_names_it(swarm: Swarm) -> None:
    worker = swarm.workers[0]
    (container,) = worker.get("/containers/json")
    status, told = worker.call("GET", f"/containers/{container['Id']}/logs?stdout=1&tail=all")
    assert (status, b"w1 begins" in told, b"m1" in told) == (200, True, False)  # a worker reads its own, asking nobody
    _, hung = swarm.workers
    node_id = swarm.node_id(hung)
    assert hung.process is not None
    hung.process.send_signal(signal.SIGSTOP)
    reader = swarm.logs()
    swarm.manager.until(lambda: reader.process.poll() is not None, "the read ends", 60)
    assert "m1 begins" in reader.text
    assert "w1 begins" in reader.text
    assert "w2 begins" not in reader.text
    (told,) = [line for line in reader.text.splitlines() if INCOMPLETE in line]
    assert node_id in told
    assert reader.process.returncode != 0
