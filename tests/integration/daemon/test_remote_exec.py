"""docker's command line at managers, beside a task of a worker: what it says and is told, and every end on the way."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import random
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.program import Daemon, service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command line on this machine"),
]


class Swarm:
    """Managers m1 (which founds it) and m2, and a worker w1, which knows m2 alone and runs ``web.1``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.m1, self.m2, self.w1 = self.all = [
            Daemon(root / name, f"127.0.12.{number}", "--hostname", name, "--stop-tasks-on-exit")
            for number, name in enumerate(("m1", "m2", "w1"), 1)
        ]
        self.clients: list[subprocess.Popen[bytes]] = []

    def form(self) -> None:
        for daemon in self.all:
            daemon.start()
        self.m1.init()
        tokens = self.m1.get("/swarm")["JoinTokens"]
        for daemon, kind, at in ((self.m2, "Manager", self.m1), (self.w1, "Worker", self.m2)):
            own = f"{daemon.address}:{self.m1.port}"
            join = {"ListenAddr": own, "AdvertiseAddr": own, "RemoteAddrs": [f"{at.address}:{self.m1.port}"]}
            status, answer = daemon.call("POST", "/swarm/join", {**join, "JoinToken": tokens[kind]})
            assert status == 200, answer
        spec = service("web", 1, "sh", "-c", "exec sleep 10000", env={"WHO": "{{.Node.Hostname}}"})
        spec["TaskTemplate"]["Placement"] = {"Constraints": ["node.hostname==w1"]}
        status, answer = self.m1.call("POST", "/services/create", spec)
        assert status == 201, answer
        self.m1.wait_running("web", 1, 60)
        self.m2.until(lambda: self.m2.running("web"), "the other manager knows it", 60)
        self.m2.until(lambda: self.run(self.m2, "exec", "web.1", "true").returncode == 0, "its node listens", 60)

    def command(self, at: Daemon, *words: str) -> list[str]:
        return ["docker", "-H", f"unix://{at.socket}", *words]

    def run(self, at: Daemon, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(at, *words), input=given, capture_output=True, timeout=120, check=False, env=self.environment
        )

    def begin(self, at: Daemon, *words: str) -> subprocess.Popen[bytes]:
        """A command that goes on, once it has said ``ready``."""
        client = subprocess.Popen(
            self.command(at, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self.environment,
        )  # fmt: skip
        self.clients.append(client)
        assert client.stdout is not None
        assert client.stdout.readline().strip() == b"ready"
        return client

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.root), "TERM": "dumb"}

    def end(self) -> None:
        for client in self.clients:
            client.kill()
            client.communicate()
        if self.w1.process is not None and self.w1.process.poll() is not None:
            self.w1.start()  # its tasks outlive a kill: the next life ends them
        for daemon in reversed(self.all):
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.stop()


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    made = Swarm(tmp_path)
    try:
        made.form()
        yield made
    finally:
        made.end()


def test_at_any_manager_a_command_runs_beside_a_task_of_the_worker(swarm: Swarm) -> None:
    for at in (swarm.m1, swarm.m2):
        found = swarm.run(at, "exec", "web.1", "sh", "-c", "echo $WHO; echo trouble >&2; exit 3")
        assert (found.stdout, found.stderr, found.returncode) == (b"w1\n", b"trouble\n", 3)
        found = swarm.run(at, "exec", "-e", "A=b", "-w", "/", "web.1", "sh", "-c", "pwd; echo $A")
        assert found.stdout == b"/\nb\n"
        assert swarm.run(at, "exec", "web.1", "no-such-program").returncode == 127
        assert swarm.run(at, "exec", "web.1", "/").returncode == 126
        assert b"sleep 10000" in swarm.run(at, "top", "web.1").stdout
        assert swarm.run(at, "stats", "--no-stream", "--format", "{{.PIDs}}", "web.1").stdout.strip() == b"1"
        assert swarm.run(at, "inspect", "--format", "{{.State.Status}}", "web.1").stdout == b"running\n"
    ours = str(Path(sys.executable).with_name("swarmlet"))
    for name in ("web.1", swarm.m2.get("/tasks", service="web")[0]["ID"]):
        words = [ours, "exec", "-H", f"unix://{swarm.m2.socket}", "-i", name, "sh", "-c", "cat; echo e >&2; exit 5"]
        said = subprocess.run(words, input=b"given", capture_output=True, timeout=120, check=False)
        assert (said.stdout, said.stderr, said.returncode) == (b"given", b"e\n", 5)
    found = swarm.run(swarm.m1, "exec", "web.2", "true")
    assert (found.returncode, b"No such container: web.2" in found.stderr) == (1, True)
    assert b"No such container" in swarm.run(swarm.m2, "exec", swarm.m2.get("/tasks")[0]["ID"], "true").stderr


def test_much_goes_in_and_comes_out_unchanged(swarm: Swarm) -> None:
    data = random.Random(5).randbytes(6 << 20)
    found = swarm.run(swarm.m2, "exec", "-i", "web.1", "cat", given=data)
    assert hashlib.sha256(found.stdout).digest() == hashlib.sha256(data).digest()
    assert found.returncode == 0


def test_a_terminal_has_the_size_of_the_clients(swarm: Swarm) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    # Clients before 23.0 tell the size once the command runs, in a request of its own.
    script = 'read go; until test "$(stty size)" != "0 0"; do sleep 0.1; done; stty size; exit 7'
    client = subprocess.Popen(
        swarm.command(swarm.m2, "exec", "-it", "web.1", "sh", "-c", script),
        stdin=theirs, stdout=theirs, stderr=theirs, env=swarm.environment, start_new_session=True,
    )  # fmt: skip
    swarm.clients.append(client)
    os.close(theirs)
    try:
        os.write(ours, b"go\n")
        assert client.wait(60) == 7
        assert b"33 77" in os.read(ours, 65536)
    finally:
        os.close(ours)


def until_ended(swarm: Swarm, pid: int) -> None:
    swarm.m1.until(lambda: not Path(f"/proc/{pid}").exists(), "the command ends at its node", 60)


def started(swarm: Swarm, at: Daemon) -> tuple[subprocess.Popen[bytes], int]:
    """A client whose command runs for long, and the command's process."""
    file = swarm.root / f"pid-{len(swarm.clients)}"
    client = swarm.begin(at, "exec", "-i", "web.1", "sh", "-c", f"echo $$ > {file}; echo ready; exec sleep 1000")
    return client, int(file.read_text())


@pytest.mark.parametrize("who", ["client", "worker", "leader", "session's manager"])
def test_whoever_is_killed_in_between_the_command_ends_and_the_client_is_told(swarm: Swarm, who: str) -> None:
    client, pid = started(swarm, swarm.m1 if who == "session's manager" else swarm.m2)
    victim = {"worker": swarm.w1, "leader": swarm.m1, "session's manager": swarm.m2}.get(who)
    if victim is None:
        client.kill()
    else:
        victim.kill()
        out, _ = client.communicate(timeout=90)
        assert client.returncode != 0
        assert b"the command was ended: " in out
    until_ended(swarm, pid)
