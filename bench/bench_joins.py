"""Many who join one manager, and many who then do nothing.

    python bench/bench_joins.py [storm] [idle] [--workers N] [--agents N] [--seconds S]

``storm``: workers that all join at once by the real protocol over real sockets; for each the seconds from its first
call to its session, and the seconds until the API shows all of them ready. ``idle``: agents that only beat; the
manager's CPU, and what memory, threads and open files each of them costs. Agents share the machine with the manager.
"""

from __future__ import annotations

import argparse
import asyncio
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

PARTS = ("storm", "idle")
PORT = 2608


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
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if len(options.parts) > 1:  # gRPC serves one event loop in the life of a process
        rest = [each for each in sys.argv[1:] if each not in PARTS]
        for part in options.parts:
            subprocess.run([sys.executable, __file__, part, *rest], check=True)
        return
    daemon = Daemon("swarmlet", swarmlet, PORT)
    try:
        asyncio.run({"storm": storm, "idle": idle}[options.parts[0]](daemon, options))
    finally:
        end(daemon)


if __name__ == "__main__":
    main()
