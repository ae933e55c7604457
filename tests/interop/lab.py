"""Machines made of network namespaces, joined by a bridge that has a namespace of its own.

Everything that a lab makes bears its name, and goes with it: namespaces, the processes inside them with whatever those
started, mounts below its directory, and the directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TypeVar

from tests.waiting import until

T = TypeVar("T")

SUBNET = "10.91.0"


def missing() -> str:
    """Why real peers cannot be had here; empty if they can."""
    if os.geteuid() != 0:
        return "real peers need root"
    for program in ("dockerd", "docker", "nsenter", "unshare", "ip", "busybox"):
        if shutil.which(program) is None:
            return f"real peers need {program}"
    if b"statically linked" not in _kind_of("busybox"):
        return "real peers need a busybox that is statically linked"
    probe = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, check=False)
    return f"no namespaces here: {probe.stderr.decode().strip()}" if probe.returncode else ""


def _kind_of(program: str) -> bytes:
    """A static program names no interpreter; told as file(1) would, which need not be installed."""
    data = Path(shutil.which(program) or "").resolve().read_bytes()[:4096]
    return b"dynamically linked" if b"ld-linux" in data or b"ld-musl" in data else b"statically linked"


def run(*command: str | Path, timeout: float = 60.0) -> str:
    """A command that must succeed; what it printed."""
    done = subprocess.run([*map(str, command)], capture_output=True, timeout=timeout, check=False)
    shown = " ".join(map(str, command))
    assert done.returncode == 0, f"{shown}: exit code {done.returncode}: {done.stderr.decode().strip()}"
    return done.stdout.decode()


class Lab:
    """A bridge and machines on it; ``root`` is a short path, so that sockets below it have one too."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="interop-"))
        self.name = self.root.name  # pids are no names for a whole machine: there may be other namespaces of them
        self.machines: list[str] = []
        self._bridge = self._add_namespace("bridge")
        run("ip", "-n", self._bridge, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self._bridge, "link", "set", "br0", "up")

    def _add_namespace(self, name: str) -> str:
        namespace = f"{self.name}-{name}"
        run("ip", "netns", "add", namespace)
        self.machines.append(namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def machine(self, name: str) -> tuple[str, str]:
        """Another machine: its namespace and its address."""
        namespace = self._add_namespace(name)
        number = len(self.machines) - 1
        port, address = f"v{number}", f"{SUBNET}.{number}"
        run("ip", "-n", self._bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        run("ip", "-n", self._bridge, "link", "set", port, "master", "br0", "up")
        run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")
        return namespace, address

    def end(self) -> None:
        """Nothing stays."""
        end_processes(self.processes())
        for namespace in self.machines:
            run("ip", "netns", "del", namespace)
        until(self._cleared, f"{self.root} is gone")

    def _cleared(self) -> bool:
        """The kernel hands the list of mounts out in pieces: one may be passed over while others mount and unmount."""
        for point in reversed(mounts_below(self.root)):
            subprocess.run(["umount", "-l", point], capture_output=True, check=False)
        shutil.rmtree(self.root, ignore_errors=True)
        return not self.root.exists()

    def processes(self) -> set[int]:
        """The processes in the machines, and their descendants wherever those are."""
        inodes = {os.stat(f"/run/netns/{namespace}").st_ino for namespace in self.machines}
        found, children = set(), dict[int, list[int]]()
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if os.stat(f"/proc/{pid}/ns/net").st_ino in inodes:
                    found.add(pid)
                parent = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(pid)
        waiting = list(found)
        while waiting:
            more = [pid for pid in children.get(waiting.pop(), []) if pid not in found]
            found.update(more)
            waiting += more
        return found - {os.getpid()}


def end_processes(pids: set[int]) -> None:
    """Kills them and waits until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(runs(pid) for pid in pids), "the machines' processes are gone")


def runs(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def mounts_below(root: Path) -> list[str]:
    """Mount points below a directory, in the order in which they were mounted."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    unescaped = [re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point) for point in points]
    return [point for point in unescaped if point.startswith(f"{root}/")]
