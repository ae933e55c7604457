"""docker's own command line looks at a task, runs commands beside it and attaches to it."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import socket
import subprocess
from typing import Any

import pytest

from tests.integration.daemon.program import Daemon, service
from tests.waiting import until

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command line on this machine")


class Docker:
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        spec = service(
            "w",
            1,
            "sh",
            "-c",
            "trap 'echo got; exit 0' USR1; echo up; while :; do echo tick; sleep 0.1; done",
            env={"A": "task"},
        )
        assert daemon.call("POST", "/services/create", spec)[0] == 201
        self.container = ""
        until(self._runs, "its task runs")

    def _runs(self) -> bool:
        found = self.daemon.call("GET", "/containers/json")[1]
        self.container = found[0]["Id"][:12] if found else ""
        return bool(self.container) and "up" in self.run("logs", self.container).stdout

    def command(self, *words: str) -> list[str]:
        return ["docker", "-H", f"unix://{self.daemon.socket}", *words]

    def run(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60, check=False, **more)

    def exec(self, *words: str, options: tuple[str, ...] = (), **more: Any) -> tuple[int, str, str]:
        done = self.run("exec", *options, self.container, *words, **more)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def docker(daemon: Daemon) -> Docker:
    return Docker(daemon)


def test_what_docker_says_of_a_task_it_says_of_ours(docker: Docker) -> None:
    assert docker.exec("sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
    assert docker.exec("cat", options=("-i",), input="in") == (0, "in", "")
    given = docker.exec("sh", "-c", "pwd; echo $A $B", options=("-w", "/usr", "-e", "B=own"))
    assert given == (0, "/usr\ntask own\n", "")
    code, out, _ = docker.exec("no-such-program")
    assert (code, "executable file not found in $PATH" in out) == (127, True)
    assert docker.exec("sleep", "61", options=("-d",)) == (0, "", "")
    top = docker.run("top", docker.container, "-eo", "pid,args").stdout
    assert "sleep 61" in top
    assert "echo got" in top
    (stats,) = docker.run("stats", "--no-stream", "--format", "{{.ID}} {{.PIDs}}", docker.container).stdout.splitlines()
    assert stats.split()[0] == docker.container
    assert int(stats.split()[1]) >= 2
    waiting = subprocess.Popen(docker.command("wait", docker.container), stdout=subprocess.PIPE, text=True)
    following = subprocess.Popen(
        docker.command("attach", "--no-stdin", "--sig-proxy=false", docker.container), stdout=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    assert following.stdout.readline() == "tick\n"
    assert docker.run("kill", "-s", "USR1", docker.container).stdout == f"{docker.container}\n"
    assert waiting.communicate(timeout=60)[0] == "0\n"
    assert following.communicate(timeout=60)[0].endswith("got\n")
    gone = docker.run("top", docker.container)
    assert "is not running" in gone.stderr


def test_a_terminal_reaches_from_dockers_to_the_command(docker: Docker) -> None:
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(
            "docker", docker.command("exec", "-it", docker.container, "sh", "-c", "tty; read x; echo got $x; exit 4")
        )
    seen = b""

    def said(text: bytes) -> bool:
        nonlocal seen
        try:
            seen += os.read(fd, 4096)
        except OSError:  # its end
            return text in seen
        return text in seen

    until(lambda: said(b"/dev/pts/"), "it begins")
    os.write(fd, b"word\r")
    until(lambda: said(b"got word"), "it answers")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    os.close(fd)


def test_docker_py_has_all_of_it_too(docker: Docker) -> None:
    library = pytest.importorskip("docker")
    client = library.DockerClient(base_url=f"unix://{docker.daemon.socket}")
    with contextlib.closing(client):
        container = client.containers.get(docker.container)
        code, (out, err) = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
        assert (code, out, err) == (3, b"out\n", b"err\n")
        assert container.exec_run("echo $A", tty=True, environment=["A=own"], user="").output == b"$A\r\n"
        code, stream = container.exec_run("cat", stdin=True, socket=True)
        assert code is None
        stream._sock.sendall(b"typed")
        stream._sock.shutdown(socket.SHUT_WR)
        assert stream.read() == b"\x01\0\0\0\0\0\0\x05typed"
        assert "PID" in container.top()["Titles"]
        assert container.stats(stream=False)["pids_stats"]["current"] >= 1
        assert next(container.stats(stream=True, decode=True))["name"] == f"/{container.name}"
        assert next(iter(container.attach(stream=True, logs=True))).startswith(b"up\n")
        container.kill("USR1")
        assert container.wait(condition="not-running") == {"Error": None, "StatusCode": 0}
