"""A real daemon in a directory of its own, and a client of its API."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from swarmlet.host import free_port
from tests.engine_client import EngineClient
from tests.waiting import until


class Daemon(EngineClient):
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
        self.until(self._answers, "the API answers", 60)

    def restart(self) -> None:
        """Starts it on what it left, and waits until it manages its swarm again."""
        self.start()
        self.until(lambda: self.call("GET", "/info")[1]["Swarm"]["ControlAvailable"], "it manages its swarm")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.root / "log").read_text(encoding="utf-8")[-3000:]
        try:
            return self.call("GET", "/_ping")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def stop(self) -> float:
        """SIGTERM; the seconds that it took."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return time.monotonic() - begun

    def init(self) -> None:
        """A swarm of one, at a free port."""
        self.port = free_port(self.address)
        address = f"{self.address}:{self.port}"
        status, answer = self.call("POST", "/swarm/init", {"ListenAddr": address, "AdvertiseAddr": address})
        assert status == 200, answer

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
        """Waits for something to hold."""
        return until(condition, what, seconds, tell=self.tail)

    def tail(self) -> str:
        """The end of what it said."""
        return (self.root / "log").read_text(encoding="utf-8")[-3000:]

    def running(self, service: str) -> dict[int, int]:
        """The pids of a service's running tasks by slot; fails if a slot has two."""
        found: dict[int, int] = {}
        for task in self.get("/tasks", service=service):
            if task["Status"]["State"] == "running" and task["DesiredState"] == "running":
                assert task["Slot"] not in found, f"two tasks run in slot {task['Slot']}"
                found[task["Slot"]] = task["Status"]["ContainerStatus"]["PID"]
        return found

    def wait_running(self, service: str, count: int, seconds: float = 60.0) -> dict[int, int]:
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
