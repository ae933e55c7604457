"""A real daemon in a directory of its own, and a client of its API."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """``swarmlet daemon`` as a process; its tasks live on in the keeper when it is killed."""

    def __init__(self, root: Path, address: str = "127.0.0.1", *options: str) -> None:
        self.root = root
        self.address = address
        self.options = options
        self.socket = str(root / "api.sock")
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        """Starts it and waits until its API answers."""
        self.root.mkdir(exist_ok=True)
        command = [str(Path(sys.executable).with_name("swarmlet")), "daemon", "-H", f"unix://{self.socket}"]
        roots = ["--data-root", str(self.root / "data"), "--exec-root", str(self.root / "run")]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *roots, *self.options], stdout=log, stderr=log)
        self.until(self._answers, "the API answers", 30)

    def restart(self) -> None:
        """Starts it on what it left, and waits until it manages its swarm again."""
        self.start()
        self.until(lambda: self.call("GET", "/info")[1]["Swarm"]["ControlAvailable"], "it manages its swarm")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.root / "log").read_text()[-3000:]
        try:
            return self.call("GET", "/_ping")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> float:
        """SIGTERM; the seconds that it took."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return time.monotonic() - begun

    def call(self, method: str, path: str, body: Any = None, timeout: float = 30.0) -> tuple[int, Any]:
        """One request; status and decoded body."""
        connection = UnixConnection(self.socket, timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/v1.45{path}", data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            if "json" not in (response.getheader("Content-Type") or ""):
                return response.status, content
            return response.status, json.loads(content) if content.strip() else None
        finally:
            connection.close()

    def get(self, path: str, **filters: str) -> Any:
        """A GET that must succeed."""
        query = ""
        if filters:
            wanted = {name: {value: True} for name, value in filters.items()}
            query = "?filters=" + urllib.parse.quote(json.dumps(wanted))
        status, answer = self.call("GET", path + query)
        assert status == 200, answer
        return answer

    def init(self) -> None:
        """A swarm of one, at a free port."""
        with socket.socket() as probe:
            probe.bind((self.address, 0))
            self.port = probe.getsockname()[1]
        address = f"{self.address}:{self.port}"
        status, answer = self.call("POST", "/swarm/init", {"ListenAddr": address, "AdvertiseAddr": address})
        assert status == 200, answer

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        """Waits for something to hold."""
        limit = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < limit, f"not within {seconds:g} s: {what}\n{self.tail()}"
            time.sleep(0.02)

    def tail(self) -> str:
        """The end of what it said."""
        return (self.root / "log").read_text()[-3000:]

    def running(self, service: str) -> dict[int, int]:
        """The pids of a service's running tasks by slot; fails if a slot has two."""
        found: dict[int, int] = {}
        for task in self.get("/tasks", service=service):
            if task["Status"]["State"] == "running" and task["DesiredState"] == "running":
                assert task["Slot"] not in found, f"two tasks run in slot {task['Slot']}"
                found[task["Slot"]] = task["Status"]["ContainerStatus"]["PID"]
        return found

    def wait_running(self, service: str, count: int, seconds: float = 30.0) -> dict[int, int]:
        """Waits until so many tasks run."""
        found: dict[int, int] = self.until(
            lambda: (pids := self.running(service)) and len(pids) == count and pids,
            f"{count} of {service} run",
            seconds,
        )
        return found


def service(name: str, replicas: int, *command: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What ``service create`` sends."""
    container: dict[str, Any] = {"Image": "host", "Command": list(command), "StopGracePeriod": 1_000_000_000}
    if env:
        container["Env"] = [f"{key}={value}" for key, value in env.items()]
    template = {"ContainerSpec": container, "RestartPolicy": {"Condition": "any", "Delay": 200_000_000}}
    return {"Name": name, "TaskTemplate": template, "Mode": {"Replicated": {"Replicas": replicas}}}


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def marked(mark: str) -> list[int]:
    """Every live process with a mark in its environment."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in environ and alive(int(entry)):
                found.append(int(entry))
    return sorted(found)
