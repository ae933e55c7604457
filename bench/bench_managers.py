"""Three managers as their clients see them, beside three dockerd on the same machine in turn.

    python bench/bench_managers.py [swarmlet] [dockerd] [--rounds N] [--seconds S] [--only failover|writes]

swarmlet's daemons listen on loopback addresses. dockerd needs root, and each a network namespace of its own, all behind
one bridge in another namespace; it is left out where it is not installed. Objects are secrets of 300 bytes. Figures:
for a leader that is killed, hung (SIGSTOP) and ended (SIGTERM), the seconds until a write at another manager succeeds;
for 1, 8 and 64 clients of the leader, writes a second, how long one takes, and the CPU that each costs the leader and
both others.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_daemon import Client, dockerd, swarmlet, usage

DATA = base64.b64encode(bytes(300)).decode()
API = "/v1.41"
CLIENTS = (1, 8, 64)
PORT = 2577
NAMESPACE = "raftbench"
SIGNALS = {"kill -9": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP, "SIGTERM": signal.SIGTERM}


class Member:
    """A daemon at an address of its own."""

    def __init__(self, kind: str, number: int, root: Path) -> None:
        self.kind = kind
        self.number = number
        self.address = f"127.0.7.{number}" if kind == "swarmlet" else f"10.77.0.{number}"
        self.root = root / str(number)
        self.root.mkdir()
        self.socket = str(self.root / "x.sock")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Spawns it; what it says goes to a file."""
        if self.kind == "swarmlet":
            command = swarmlet(self.root)
        else:
            entered = ["nsenter", f"--net=/run/netns/{NAMESPACE}{self.number}", "unshare", "--uts"]
            named = ["sh", "-c", 'hostname "$0" && exec "$@"', f"d{self.number}", *dockerd(self.root)]
            command = [*entered, *named]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    async def call(self, method: str, target: str, body: Any = None, within: float = 60.0) -> tuple[int, Any]:
        """One request on a connection of its own; status 0 if none came back."""
        client = Client(self.socket)
        try:
            return await asyncio.wait_for(client.call(method, API + target, body), within)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            return 0, repr(error)
        finally:
            client.close()

    async def until(self, method: str, target: str, body: Any = None, good: int = 200) -> Any:
        """Repeats a request until it is answered well."""
        limit = time.monotonic() + 90
        answer: Any = None
        while time.monotonic() < limit:
            status, answer = await self.call(method, target, body)
            if status == good:
                return answer
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{self.kind} {self.number} answered {method} {target} with {answer}")

    def end(self) -> None:
        """Away with it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Swarm:
    """Three managers, or as many as are asked for."""

    def __init__(self, kind: str, managers: int = 3) -> None:
        self.kind = kind
        self.root = Path(tempfile.mkdtemp(prefix="bm"))
        self.members = [Member(kind, number, self.root) for number in range(1, managers + 1)]
        self.names = (f"s{number:07}" for number in itertools.count())

    async def form(self, managers: int = 0) -> None:
        """Starts them, or the first few, and makes them one swarm."""
        managers = managers or len(self.members)
        first, *others = self.members[:managers]
        for member in (first, *others):
            member.start()
            await member.until("GET", "/info")
        address = f"{first.address}:{PORT}"
        await first.until("POST", "/swarm/init", {"ListenAddr": address, "AdvertiseAddr": address})
        token = (await first.until("GET", "/swarm"))["JoinTokens"]["Manager"]
        for member in others:
            await self.join(member, first, token)
        await self.whole(managers)

    async def join(self, member: Member, first: Member, token: str) -> None:
        """Makes one a manager of the swarm of another."""
        own, there = f"{member.address}:{PORT}", f"{first.address}:{PORT}"
        join = {"ListenAddr": own, "AdvertiseAddr": own, "RemoteAddrs": [there], "JoinToken": token}
        await member.until("POST", "/swarm/join", join)

    async def whole(self, managers: int = 0) -> None:
        """Waits until every manager, or the first few, sees all of them, and one of them leads."""
        present = self.members[: managers or None]
        limit = time.monotonic() + 120
        while time.monotonic() < limit:
            seen = [await self._seen(member) for member in present]
            if all(each == seen[0] and each[1] == len(present) and each[0] for each in seen):
                return
            await asyncio.sleep(0.2)
        raise TimeoutError(f"they never saw each other: {seen}")

    async def _seen(self, member: Member) -> tuple[str, int]:
        status, nodes = await member.call("GET", "/nodes")
        managers = [node["ManagerStatus"] for node in nodes if "ManagerStatus" in node] if status == 200 else []
        leader = next((each["Addr"] for each in managers if each.get("Leader")), "")
        return leader, sum(each["Reachability"] == "reachable" for each in managers)

    async def leader(self) -> Member:
        """Who leads."""
        address = (await self._seen(self.members[0]))[0]
        return next(member for member in self.members if address.startswith(f"{member.address}:"))

    def secret(self) -> dict[str, Any]:
        """What creates the next object."""
        return {"Name": next(self.names), "Data": DATA, "Labels": {}}

    async def failover(self, number: signal.Signals) -> float:
        """Seconds from the signal to the leader until a write at another manager is acknowledged."""
        leader = await self.leader()
        others = itertools.cycle([member for member in self.members if member is not leader])
        assert leader.process is not None
        begun = time.perf_counter()
        leader.process.send_signal(number)
        while True:
            status, _ = await next(others).call("POST", "/secrets/create", self.secret(), 5.0)
            if status in (200, 201):
                break
            await asyncio.sleep(0.02)
        took = time.perf_counter() - begun
        if number is signal.SIGSTOP:
            leader.process.send_signal(signal.SIGCONT)
        else:
            leader.process.wait(60)
            leader.start()
        await self.whole()
        await asyncio.sleep(1)
        return took

    async def writes(self, clients: int, seconds: float) -> tuple[list[float], float, float, float]:
        """How long each write took, how long all did, and the CPU seconds of the leader and of all others meanwhile."""
        leader = await self.leader()
        assert leader.process is not None
        took: list[float] = []
        end = time.perf_counter() + seconds

        async def client() -> None:
            connection = Client(leader.socket)
            while (begun := time.perf_counter()) < end:
                status, answer = await connection.call("POST", f"{API}/secrets/create", self.secret())
                assert status in (200, 201), answer
                took.append(time.perf_counter() - begun)
            connection.close()

        before, all_before, begun = usage(leader.process.pid)[0], self._cpu(), time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        lasted, of_leader = time.perf_counter() - begun, usage(leader.process.pid)[0] - before
        return took, lasted, of_leader, self._cpu() - all_before - of_leader

    def _cpu(self) -> float:
        """CPU seconds of all three so far."""
        return sum(usage(member.process.pid)[0] for member in self.members if member.process is not None)

    def end(self) -> None:
        """Away with all of it."""
        for member in self.members:
            member.end()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for left in sorted((mount for mount in mounts if mount.startswith(f"{self.root}/")), reverse=True):
            subprocess.run(["umount", "-l", left], check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def ip(*words: str) -> None:
    """``ip``, which must succeed."""
    subprocess.run(["ip", *words], check=True)


def namespaces(count: int = 3) -> Iterator[None]:
    """A namespace with a bridge, and one for each dockerd; gone afterwards."""
    numbers = range(1, count + 1)
    names = [NAMESPACE, *(f"{NAMESPACE}{number}" for number in numbers)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", NAMESPACE, "link", "add", "br0", "type", "bridge")
        ip("-n", NAMESPACE, "link", "set", "br0", "up")
        for number in numbers:
            there = f"{NAMESPACE}{number}"
            ip("-n", there, "link", "add", "e0", "type", "veth", "peer", "name", f"v{number}", "netns", NAMESPACE)
            ip("-n", NAMESPACE, "link", "set", f"v{number}", "master", "br0", "up")
            ip("-n", there, "addr", "add", f"10.77.0.{number}/24", "dev", "e0")
            ip("-n", there, "link", "set", "e0", "up")
            ip("-n", there, "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


async def measure(kind: str, rounds: int, seconds: float, only: str) -> None:
    """Every figure of one program."""
    swarm = Swarm(kind)
    try:
        await swarm.form()
        await asyncio.sleep(3)
        for clients in CLIENTS if only != "failover" else ():
            took, lasted, cpu, others = await swarm.writes(clients, seconds)
            took.sort()
            rate, middle, late = len(took) / lasted, took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3
            cpu, others = cpu / len(took) * 1e3, others / len(took) * 1e3
            print(
                f"{kind}: {clients} clients: {rate:,.0f} writes/s, p50 {middle:.1f} ms, p99 {late:.1f} ms, "
                f"{cpu:.2f} ms of the leader's CPU each, {others:.2f} ms of the others'",
                flush=True,
            )
        for name, number in SIGNALS.items() if only != "writes" else ():
            times = [await swarm.failover(number) for _ in range(rounds)]
            shown = " ".join(f"{each:.2f}" for each in times)
            print(f"{kind}: {name}: p50 {statistics.median(times):.2f} s until the next write ({shown})", flush=True)
    finally:
        swarm.end()


def main() -> None:
    """Measures one program after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", nargs="*", default=["swarmlet", "dockerd"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", choices=("failover", "writes", ""), default="")
    options = parser.parse_args()
    for kind in options.programs:
        if kind == "dockerd" and (shutil.which("dockerd") is None or os.getuid() != 0):
            print("dockerd: left out, it is not installed or this is not root")
            continue
        for _ in namespaces() if kind == "dockerd" else iter([None]):
            asyncio.run(measure(kind, options.rounds, options.seconds, options.only))


if __name__ == "__main__":
    main()
