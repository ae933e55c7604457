"""Many who join one manager, many who then do nothing, and a manager that joins others with much state.

    python bench/bench_joins.py [storm] [idle] [state] [alone] [--workers N] [--agents N] [--megabytes N] [--seconds S]

``storm``: workers that all join at once by the real protocol over real sockets; for each the seconds from its first
call to its session, and the seconds until the API shows all of them ready. ``idle``: agents that only beat; the
manager's CPU, and what memory, threads and open files each of them costs. ``state``: secrets of 500 kB until the
stores of two managers hold so many megabytes, then a third one joins; the seconds until it has all, and the longest
time that a small write at the first one took meanwhile. ``alone``: the same where the second manager joins the first
one, without which nothing can be committed once it has a vote. Agents share the machine with the manager.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_daemon import Client, Daemon, swarmlet, usage
from sim_agents import Agent, Fleet

PARTS = ("storm", "idle", "state", "alone")
ORDINALS = {2: "second", 3: "third"}
PORT = 2608
SECRET = 500_000
SMALL = base64.b64encode(bytes(300)).decode()


async def founded(daemon: Daemon, host: str = "127.0.0.1") -> tuple[str, Any]:
    """Starts a swarm; where its manager listens, and what the API says of it."""
    daemon.start()
    address = f"{host}:{daemon.port}"
    await daemon.until("POST", "/v1.41/swarm/init", {"ListenAddr": address, "AdvertiseAddr": address}, {200})
    return address, (await daemon.until("GET", "/v1.41/swarm", None, {200}))[1]


def held(pid: int) -> tuple[int, int]:
    """Threads and open files of a process."""
    return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))


def percentile(times: list[float], part: float) -> float:
    """Of sorted times."""
    return times[min(len(times) - 1, int(len(times) * part))]


def timed_join(agent: Agent) -> float:
    """Seconds from the first call to the session."""
    begun = time.perf_counter()
    agent.join()
    return time.perf_counter() - begun


async def all_ready(client: Client, count: int) -> None:
    """Asks until so many nodes are."""
    while True:
        _, nodes = await client.call("GET", "/v1.41/nodes")
        if sum(node["Status"]["State"] == "ready" for node in nodes) >= count:
            return
        await asyncio.sleep(0.02)


async def storm(daemon: Daemon, options: argparse.Namespace) -> None:
    """All at once."""
    count = options.workers
    address, swarm = await founded(daemon)
    assert daemon.process is not None
    fleet = Fleet(address, swarm["JoinTokens"]["Worker"], swarm["TLSInfo"]["TrustRoot"].encode(), count)
    client = Client(daemon.socket)
    cpu, begun = usage(daemon.process.pid)[0], time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        loop = asyncio.get_running_loop()
        joins = [loop.run_in_executor(pool, timed_join, agent) for agent in fleet.agents]
        times = sorted(await asyncio.gather(*joins))
    await all_ready(client, count + 1)
    took, spent = time.perf_counter() - begun, usage(daemon.process.pid)[0] - cpu
    fleet.__exit__()
    print(
        f"storm: {count} workers at once: join to session p50 {percentile(times, 0.5):.2f} s, "
        f"p99 {percentile(times, 0.99):.2f} s; all ready after {took:.2f} s; "
        f"manager {spent / count * 1e3:.1f} ms of CPU each",
        flush=True,
    )


async def idle(daemon: Daemon, options: argparse.Namespace) -> None:
    """Only heartbeats."""
    count = options.agents
    address, swarm = await founded(daemon)
    assert daemon.process is not None
    pid = daemon.process.pid
    await asyncio.sleep(3)
    memory, (threads, files) = usage(pid)[1], held(pid)
    fleet = Fleet(address, swarm["JoinTokens"]["Worker"], swarm["TLSInfo"]["TrustRoot"].encode(), count)
    await asyncio.to_thread(fleet.__enter__)
    await asyncio.sleep(options.seconds / 2)
    cpu, begun = usage(pid)[0], time.perf_counter()
    await asyncio.sleep(options.seconds)
    (after, resident), lasted, (more, open_files) = usage(pid), time.perf_counter() - begun, held(pid)
    lost = len(fleet.lost)
    fleet.__exit__()
    print(
        f"idle: {count} agents: {(after - cpu) / lasted:.1%} of one CPU, {resident / 1024:.0f} MiB "
        f"({(resident - memory) / count:.0f} KiB each), {more} threads ({threads} before), "
        f"{(open_files - files) / count:.1f} open files each, {lost} sessions lost",
        flush=True,
    )


async def state(daemon: Daemon, options: argparse.Namespace) -> None:
    """A manager far behind joins two that can go on without it."""
    await far_behind(daemon, options.megabytes, 2)


async def alone(daemon: Daemon, options: argparse.Namespace) -> None:
    """A manager far behind joins one that needs it from then on."""
    await far_behind(daemon, options.megabytes, 1)


async def far_behind(daemon: Daemon, megabytes: int, managers: int) -> None:
    """One more joins so many managers whose stores hold so much."""
    others: list[Daemon] = []
    try:
        address, swarm = await founded(daemon)
        order = {"RemoteAddrs": [address], "JoinToken": swarm["JoinTokens"]["Manager"]}
        for number in range(2, managers + 1):
            await join(await started(others, daemon.port), order, number)
        first, count = Client(daemon.socket), megabytes * 1_000_000 // SECRET
        for number in range(count):
            secret = {"Name": f"big-{number:05}", "Data": base64.b64encode(os.urandom(SECRET)).decode(), "Labels": {}}
            status, answer = await first.call("POST", "/v1.41/secrets/create", secret)
            assert status == 201, answer
        before = await writes(first, "before", 2.0)
        newcomer = await started(others, daemon.port)
        begun = time.perf_counter()
        joined = asyncio.create_task(join(newcomer, order, managers + 1))
        slowest = await writes(Client(daemon.socket), "while", 0.0, joined)
        await joined
        _, secrets = await newcomer.until("GET", "/v1.41/secrets", None, {200})
        took = time.perf_counter() - begun
        assert len(secrets) >= count, f"the new manager has {len(secrets)} secrets"
        processes = [each.process for each in (daemon, newcomer) if each.process is not None]
        memories = " and ".join(f"{usage(process.pid)[1] / 1024:.0f}" for process in processes)
        cpus = " and ".join(f"{usage(process.pid)[0]:.1f}" for process in processes)
        print(
            f"state: {megabytes} MB: a {ORDINALS[managers + 1]} manager has all after {took:.2f} s; the slowest "
            f"small write {slowest * 1e3:.0f} ms (before: {before * 1e3:.0f} ms); {memories} MiB at the first and the "
            f"new one, which have used {cpus} s of CPU since they began",
            flush=True,
        )
    finally:
        for other in others:
            end(other)


async def started(others: list[Daemon], port: int) -> Daemon:
    """One more daemon that answers."""
    other = Daemon("swarmlet", swarmlet, port)
    others.append(other)
    other.start()
    await other.until("GET", "/v1.41/info", None, {200})
    return other


async def join(daemon: Daemon, order: dict[str, Any], number: int) -> None:
    """Makes it a manager at an address of its own."""
    own = f"127.0.0.{number}:{daemon.port}"
    order = {**order, "ListenAddr": own, "AdvertiseAddr": own}
    await daemon.until("POST", "/v1.41/swarm/join", order, {200})


async def writes(client: Client, name: str, seconds: float, until: asyncio.Task[Any] | None = None) -> float:
    """Small writes one after the other; how long the slowest took."""
    limit, times = time.perf_counter() + seconds, list[float]()
    while time.perf_counter() < limit or (until is not None and not until.done()):
        secret = {"Name": f"{name}-{len(times):06}", "Data": SMALL, "Labels": {}}
        begun = time.perf_counter()
        status, answer = await client.call("POST", "/v1.41/secrets/create", secret)
        assert status == 201, answer
        times.append(time.perf_counter() - begun)
        await asyncio.sleep(0.01)
    return max(times, default=0.0)


def end(daemon: Daemon) -> None:
    """Away with it, whatever state it is in."""
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.wait(10)
    shutil.rmtree(daemon.root, ignore_errors=True)


def main() -> None:
    """One part after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--agents", type=int, default=500)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if len(options.parts) > 1:  # gRPC serves one event loop in the life of a process
        rest = [each for each in sys.argv[1:] if each not in PARTS]
        for part in options.parts:
            subprocess.run([sys.executable, __file__, part, *rest], check=True)
        return
    daemon = Daemon("swarmlet", swarmlet, PORT)
    try:
        asyncio.run({"storm": storm, "idle": idle, "state": state, "alone": alone}[options.parts[0]](daemon, options))
    finally:
        end(daemon)


if __name__ == "__main__":
    main()
