"""The daemon as its clients see it, beside dockerd on the same machine in turn.

    python bench/bench_daemon.py [swarmlet] [dockerd] [--starts N] [--services N] [--idle S]

Each program gets a data root of its own in a temporary directory. dockerd needs root and is left out where it is not
installed. Figures: spawn to ``swarm init`` answered, restart to the first write (after SIGTERM; ours after SIGKILL too,
which dockerd's containerd survives and then is in the way of), services of 0 replicas created a second by 64 clients,
100 tasks of ``sleep`` running (swarmlet alone: dockerd would need an image), idle CPU and memory. Starts are measured
``--starts`` times: the middle one counts. Our modules are compiled first, as those of an installed package are.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLIENTS = 64


class Client:
    """One keep-alive connection to an Engine API socket."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """One request; its status and decoded body."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_unix_connection(self.path)
        assert self._reader is not None
        data = b"" if body is None else json.dumps(body).encode()
        lines = (
            f"{method} {target} HTTP/1.1",
            "Host: x",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
        )
        self._writer.write("\r\n".join((*lines, "", "")).encode() + data)
        header = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status = int(header.split(" ", 2)[1])
        fields = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in header.split("\r\n")[1:])
        }
        if fields.get("transfer-encoding") == "chunked":
            content = await self._chunks()
        else:
            content = await self._reader.readexactly(int(fields.get("content-length", "0")))
        return status, json.loads(content) if content.strip() else None

    async def _chunks(self) -> bytes:
        assert self._reader is not None
        pieces = []
        while True:
            size = int((await self._reader.readline()).strip(), 16)
            pieces.append(await self._reader.readexactly(size))
            await self._reader.readline()
            if size == 0:
                return b"".join(pieces)

    def close(self) -> None:
        """Closes the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Daemon:
    """A program under test."""

    def __init__(self, name: str, command: Callable[[Path], list[str]], port: int) -> None:
        self.name = name
        self.command = command
        self.port = port
        self.root = Path(tempfile.mkdtemp(prefix="bench"))
        self.socket = str(self.root / "x.sock")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Spawns it; what it says goes to a file."""
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(self.root), stdout=log, stderr=log)

    def stop(self) -> float:
        """SIGTERM; the seconds that it took."""
        assert self.process is not None
        begun = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return time.perf_counter() - begun

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def until(self, method: str, target: str, body: Any, good: set[int]) -> tuple[int, Any]:
        """Repeats a request until its status is good; gives up after a minute."""
        answer: Any = None
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            client = Client(self.socket)
            try:
                status, answer = await client.call(method, target, body)
                if status in good:
                    return status, answer
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                client.close()
            assert self.process is not None
            assert self.process.poll() is None, (self.root / "log").read_text()[-2000:]
            await asyncio.sleep(0.005)
        raise TimeoutError(f"{self.name} answered {method} {target} with {answer}")


def service(name: str, replicas: int) -> dict[str, Any]:
    """What ``service create`` sends."""
    container = {"Image": "host", "Command": ["sleep", "1000000"]}
    return {"Name": name, "TaskTemplate": {"ContainerSpec": container}, "Mode": {"Replicated": {"Replicas": replicas}}}


async def creates(daemon: Daemon, count: int) -> float:
    """Services a second with 64 clients."""
    names = iter(range(count))

    async def client() -> None:
        connection = Client(daemon.socket)
        for number in names:
            status, answer = await connection.call("POST", "/v1.41/services/create", service(f"b{number:06}", 0))
            assert status == 201, answer
        connection.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return count / (time.perf_counter() - begun)


async def running(daemon: Daemon, count: int) -> float:
    """Seconds from the request to all tasks of a service running."""
    connection = Client(daemon.socket)
    begun = time.perf_counter()
    status, answer = await connection.call("POST", "/v1.41/services/create", service("many", count))
    assert status == 201, answer
    filters = "%7B%22service%22%3A%7B%22many%22%3Atrue%7D%7D"
    while True:
        _, tasks = await connection.call("GET", f"/v1.41/tasks?filters={filters}")
        if sum(1 for task in tasks if task["Status"]["State"] == "running") == count:
            took = time.perf_counter() - begun
            break
        await asyncio.sleep(0.02)
    await connection.call("DELETE", "/v1.41/services/many")
    connection.close()
    return took


def usage(pid: int) -> tuple[float, int]:
    """CPU seconds and resident KiB of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    resident = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return ticks / os.sysconf("SC_CLK_TCK"), int(resident.split()[1])


async def found(daemon: Daemon) -> float:
    """Seconds from the spawn to a swarm."""
    init = {"ListenAddr": f"127.0.0.1:{daemon.port}", "AdvertiseAddr": f"127.0.0.1:{daemon.port}"}
    begun = time.perf_counter()
    daemon.start()
    await daemon.until("POST", "/v1.41/swarm/init", init, {200})
    took = time.perf_counter() - begun
    await asyncio.sleep(1)
    return took


async def again(daemon: Daemon, name: str) -> float:
    """Seconds from the spawn of one that had been in a swarm to its first write."""
    begun = time.perf_counter()
    daemon.start()
    await daemon.until("POST", "/v1.41/services/create", service(name, 0), {201})
    took = time.perf_counter() - begun
    await asyncio.sleep(0.5)
    return took


def spread(figures: list[float]) -> str:
    """The middle one of several figures, and between which they lie."""
    return f"{statistics.median(figures):.3f} s ({min(figures):.3f} to {max(figures):.3f}, {len(figures)} times)"


async def measure_starts(daemon: Daemon, starts: int) -> None:
    """The figures of starts; the daemon runs afterwards."""
    founded = [await found(daemon)]
    for _ in range(starts - 1):
        daemon.stop()
        shutil.rmtree(daemon.root / "data")
        founded.append(await found(daemon))
    print(f"{daemon.name}: spawn to swarm init answered {spread(founded)}", flush=True)
    stopped, restarted = [], []
    for number in range(starts):
        stopped.append(daemon.stop())
        restarted.append(await again(daemon, f"stopped{number}"))
    print(f"{daemon.name}: SIGTERM to end {spread(stopped)}, restart to first write {spread(restarted)}", flush=True)
    if daemon.name == "swarmlet":
        killed = []
        for number in range(starts):
            daemon.kill()
            killed.append(await again(daemon, f"killed{number}"))
        print(f"{daemon.name}: after SIGKILL, restart to first write {spread(killed)}", flush=True)


async def measure(daemon: Daemon, starts: int, services: int, idle: float) -> None:
    """Every figure of one program."""
    await measure_starts(daemon, starts)
    assert daemon.process is not None
    await asyncio.sleep(2)
    cpu, _ = usage(daemon.process.pid)
    await asyncio.sleep(idle)
    after, memory = usage(daemon.process.pid)
    print(f"{daemon.name}: idle {(after - cpu) / idle:.2%} CPU, {memory / 1024:.0f} MiB", flush=True)
    print(
        f"{daemon.name}: {await creates(daemon, services):,.0f} services created a second by {CLIENTS} clients",
        flush=True,
    )
    if daemon.name == "swarmlet":
        print(f"{daemon.name}: 100 tasks of sleep running after {await running(daemon, 100):.2f} s", flush=True)
    daemon.stop()
    shutil.rmtree(daemon.root)


def swarmlet(root: Path) -> list[str]:
    """How swarmlet is started."""
    program = str(Path(sys.executable).with_name("swarmlet"))
    roots = ["--data-root", f"{root}/data", "--exec-root", f"{root}/run"]
    return [program, "daemon", "-H", f"unix://{root}/x.sock", *roots, "--stop-tasks-on-exit"]


def dockerd(root: Path) -> list[str]:
    """How dockerd is started."""
    roots = ["--data-root", f"{root}/data", "--exec-root", f"{root}/run", "--pidfile", f"{root}/pid"]
    return ["dockerd", "-H", f"unix://{root}/x.sock", *roots, "--bridge=none", "--iptables=false"]


def main() -> None:
    """Measures one program after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", nargs="*", default=["swarmlet", "dockerd"])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--services", type=int, default=4000)
    parser.add_argument("--idle", type=float, default=10.0)
    options = parser.parse_args()
    for room in ("actors", "runtime", "swarmlet"):
        compileall.compile_dir(Path(__file__).parents[1] / room, quiet=2)
    print("load before:", *(f"{load:.2f}" for load in os.getloadavg()), flush=True)
    for name in options.programs:
        if name == "dockerd" and (shutil.which("dockerd") is None or os.getuid() != 0):
            print("dockerd: left out, it is not installed or this is not root")
            continue
        daemon = Daemon("dockerd", dockerd, 2577) if name == "dockerd" else Daemon("swarmlet", swarmlet, 2578)
        asyncio.run(measure(daemon, options.starts, options.services, options.idle))


if __name__ == "__main__":
    main()
