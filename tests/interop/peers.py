"""Daemons on the machines of a lab, and what a user does with them: docker commands and requests of the API."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.engine_client import LATE, EngineClient
from tests.interop.lab import Lab, end_processes
from tests.waiting import until

APPLETS = ("sh", "sleep", "echo", "cat", "date", "true", "false", "env", "hostname", "httpd", "wget")
NOISE = ("module=grpc", "error reading the kernel parameter", "memberlist node")
API = "v1.41"
TICK = "trap 'exit 0' TERM; n=0; while true; do n=$((n+1)); echo tick $n; sleep 0.5; done"


class Peer(EngineClient):
    """A daemon on a machine of its own. Its directory holds what it keeps, so it can be started again."""

    api = API
    kind = ""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.namespace, self.address = lab.machine(name)
        self.root = lab.root / name
        self.root.mkdir()
        self.socket = self.root / "s"
        self.log = self.root / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What is run on the machine."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it and waits until its API answers."""
        named = ["sh", "-c", 'hostname "$0" && exec "$@"', self.name, *self.command()]
        entered = ["nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--uts", *named]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(entered, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until(self._answers, f"{self.name} answers", 60)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended:\n{self.tail()}"
        try:
            return self.call("GET", "/_ping")[0] == 200
        except OSError:
            return False

    def signal(self, number: int) -> None:
        """Sends a signal to the daemon alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """``kill -9`` of the daemon alone: its tasks run on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def stop(self, seconds: float = 60.0) -> None:
        """SIGTERM, and the wait for its end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(seconds)

    def tail(self, lines: int = 60) -> str:
        """The end of what it said."""
        if not self.log.exists():
            return ""
        said = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in said if not any(noise in line for noise in NOISE)][-lines:])

    # What a user does

    def docker(self, *arguments: str, timeout: float = 60.0) -> str:
        """A docker command that must succeed; what it printed."""
        code, out, err = self.try_docker(*arguments, timeout=timeout)
        assert code == 0, f"docker {' '.join(arguments)} at {self.name}: {err}"
        return out

    def refused(self, *arguments: str, timeout: float = 60.0) -> str:
        """A docker command that must fail; what it said on stderr."""
        code, out, err = self.try_docker(*arguments, timeout=timeout)
        assert code != 0, f"docker {' '.join(arguments)} at {self.name} succeeded: {out}"
        return err.strip()

    def try_docker(self, *arguments: str, timeout: float = 60.0) -> tuple[int, str, str]:
        """Exit code, output, errors of a docker command."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "DOCKER_HOST": f"unix://{self.socket}"}
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, timeout=timeout, check=False, env=environment
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def call_as(self, order: dict[str, Any], timeout: float = 120.0) -> Any:
        """What `callers` answers from this machine."""
        entered = ["nsenter", f"--net=/run/netns/{self.namespace}", sys.executable, "-m", "tests.interop.callers"]
        done = subprocess.run(
            entered, input=json.dumps(order).encode(), capture_output=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"callers at {self.name}: {done.stderr.decode()[-2000:]}"
        return json.loads(done.stdout)

    # Swarms

    def init(self, *options: str) -> None:
        """A swarm of this machine."""
        self.docker("swarm", "init", "--advertise-addr", self.address, *options)

    def join(self, manager: Peer, role: str = "worker", *options: str) -> None:
        """Joins the swarm of a manager."""
        token = manager.docker("swarm", "join-token", "-q", role).strip()
        code, _, err = self.try_docker("swarm", "join", "--token", token, *options, f"{manager.address}:2377")
        assert code == 0 or LATE in err, f"{self.name} does not join: {err}"
        until(lambda: self.get("/info")["Swarm"]["LocalNodeState"] == "active", f"{self.name} has joined")

    @property
    def node_id(self) -> str:
        """Who it is in its swarm."""
        return str(self.get("/info")["Swarm"]["NodeID"])

    def node(self, of: Peer) -> dict[str, Any]:
        """A peer's node as this manager sees it; empty if it sees none."""
        return next((node for node in self.get("/nodes") if node["Description"].get("Hostname") == of.name), {})

    def wait_state(self, of: Peer, state: str, seconds: float = 60.0) -> None:
        """Until this manager sees a peer in a state (ready, down)."""
        until(lambda: self.node(of).get("Status", {}).get("State") == state, f"{of.name} is {state}", seconds)

    def tasks(self, service: str, at: Peer | None = None) -> list[dict[str, Any]]:
        """A service's tasks that run and are meant to; all of them, or those at a peer."""
        found: list[dict[str, Any]] = [
            task
            for task in self.get("/tasks", service=service)
            if task["Status"]["State"] == "running" and task["DesiredState"] == "running"
        ]
        if at is None:
            return found
        node_id = self.node(at)["ID"]
        return [task for task in found if task["NodeID"] == node_id]

    def wait_tasks(self, service: str, count: int, at: Peer | None = None, seconds: float = 60.0) -> None:
        """Until so many of its tasks run."""
        where = f" at {at.name}" if at is not None else ""
        try:
            until(lambda: len(self.tasks(service, at)) == count, f"{count} of {service} run{where}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.docker('service', 'ps', '--no-trunc', service)}") from None

    def create(self, name: str, image: str, *options: str, command: Sequence[str] = ("sh", "-c", TICK)) -> None:
        """A service. Its tasks end soon when told to."""
        flags = ["--detach", "--no-resolve-image", "--name", name, "--stop-grace-period", "1s", *options]
        self.docker("service", "create", *flags, image, *command)


class Dockerd(Peer):
    """dockerd with an image ``busybox``, which it cannot pull from anywhere."""

    kind = "dockerd"

    def command(self) -> list[str]:
        roots = ["--data-root", str(self.root / "data"), "--exec-root", str(self.root / "x")]
        rest = ["--pidfile", str(self.root / "pid"), "--bridge=none", "--iptables=false"]
        return ["dockerd", "-H", f"unix://{self.socket}", *roots, *rest]

    def start(self) -> None:
        """Also after it was killed: its containerd runs on then, and the next dockerd would wait for it in vain. The
        containers belong to processes of their own, which the next containerd finds."""
        left = self.root / "x" / "containerd" / "containerd.pid"
        if left.exists():
            end_processes({int(left.read_text(encoding="utf-8"))})
            left.unlink()
        super().start()
        if not self.docker("image", "ls", "-q", "busybox").strip():
            self.docker("import", str(busybox_image(self.lab)), "busybox:latest")


class Swarmlet(Peer):
    """``swarmlet daemon`` with the process executor."""

    kind = "swarmlet"

    def command(self) -> list[str]:
        program = str(Path(sys.executable).with_name("swarmlet"))
        roots = ["--data-root", str(self.root / "data"), "--exec-root", str(self.root / "x")]
        return [program, "daemon", "-H", f"unix://{self.socket}", *roots, "--stop-tasks-on-exit"]


def busybox_image(lab: Lab) -> Path:
    """A root file system of busybox alone, as a tar file."""
    path = lab.root / "busybox.tar"
    if path.exists():
        return path
    program = Path(shutil.which("busybox") or "").resolve()
    with tarfile.open(path, "w") as archive:
        for name in ("bin", "tmp", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(folder)
        content = program.read_bytes()
        binary = tarfile.TarInfo("bin/busybox")
        binary.size, binary.mode = len(content), 0o755
        archive.addfile(binary, io.BytesIO(content))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return path
