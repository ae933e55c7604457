"""A cluster of many nodes on one leader, with agents that speak the real protocol over real sockets.

    python bench/bench_scale.py [swarmlet|dockerd] [--replicas N ...] [--nodes N] [--no-drain] [--no-update]

For each number of replicas a daemon of its own: seconds to all running, drain of ten nodes until all run elsewhere, a
rolling update with parallelism 100 until all tasks are new; of the leader CPU seconds and resident memory in each
phase, and the CPU seconds of the agents, which live in this process and share the machine with the leader; the load is
the machine's mean of a minute. dockerd needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_daemon import Client, Daemon, dockerd, swarmlet, usage
from sim_agents import Fleet

DRAINED = 10
SETTLE_S = 3.0
LIMIT_S = 600.0


def spec(replicas: int, image: str) -> dict[str, Any]:
    """A service for simulated nodes alone."""
    return {
        "Name": "many",
        "TaskTemplate": {
            "ContainerSpec": {"Image": image},
            "Placement": {"Constraints": ["node.role == worker"]},
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
        "UpdateConfig": {"Parallelism": 100, "Monitor": 1_000_000_000, "Order": "stop-first"},
    }


class Phase:
    """One measured stretch: wall time to a condition, leader's CPU until it has settled."""

    def __init__(self, daemon: Daemon, title: str, count: int) -> None:
        assert daemon.process is not None
        self.pid = daemon.process.pid
        self.title = title
        self.count = count
        self.begun = time.perf_counter()
        self.cpu = usage(self.pid)[0]
        self.agents_cpu = time.process_time()

    async def until(self, condition: Callable[[], bool], fleet: Fleet) -> None:
        """Waits, then prints."""
        while not condition():
            if fleet.lost:
                raise RuntimeError(f"{len(fleet.lost)} agents lost their session: {fleet.lost[:3]}")
            if time.perf_counter() - self.begun > LIMIT_S:
                raise TimeoutError(f"{self.title}: not done after {LIMIT_S:.0f} s")
            await asyncio.sleep(0.1)
        took = time.perf_counter() - self.begun
        await asyncio.sleep(SETTLE_S)
        cpu, memory = usage(self.pid)
        spent, agents = cpu - self.cpu, time.process_time() - self.agents_cpu
        print(
            f"  {self.title:<26} {took:7.2f} s; leader {spent:6.2f} s CPU, {spent / self.count * 1e3:.2f} ms a task,"
            f" {memory / 1024:.0f} MiB; agents {agents:.1f} s CPU; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


async def measure(daemon: Daemon, nodes: int, replicas: int, options: argparse.Namespace) -> None:
    """All phases of one size."""
    daemon.start()
    address = f"127.0.0.1:{daemon.port}"
    await daemon.until("POST", "/v1.41/swarm/init", {"ListenAddr": address, "AdvertiseAddr": address}, {200})
    _, swarm = await daemon.until("GET", "/v1.41/swarm", None, {200})
    root = swarm["TLSInfo"]["TrustRoot"].encode()
    client = Client(daemon.socket)
    begun = time.perf_counter()
    with Fleet(address, swarm["JoinTokens"]["Worker"], root, nodes) as fleet:
        print(f"{daemon.name}: {replicas} replicas, {nodes} nodes (joined in {time.perf_counter() - begun:.1f} s)")
        phase = Phase(daemon, "all running", replicas)
        status, answer = await client.call("POST", "/v1.41/services/create", spec(replicas, "one:1"))
        assert status == 201, answer
        await phase.until(lambda: fleet.running() == replicas, fleet)
        if options.drain:
            await drain(daemon, client, fleet, replicas)
        if options.update:
            await update(daemon, client, fleet, replicas)
    client.close()
    daemon.stop()
    shutil.rmtree(daemon.root)


async def drain(daemon: Daemon, client: Client, fleet: Fleet, replicas: int) -> None:
    """Ten nodes give up their tasks."""
    gone = frozenset(agent.node_id for agent in fleet.agents[:DRAINED])
    moved = replicas - fleet.running(leave_out=gone)
    phase = Phase(daemon, f"{moved} tasks drained", max(1, moved))
    for node_id in sorted(gone):
        _, node = await client.call("GET", f"/v1.41/nodes/{node_id}")
        body = {**node["Spec"], "Availability": "drain"}
        target = f"/v1.41/nodes/{node_id}/update?version={node['Version']['Index']}"
        status, answer = await client.call("POST", target, body)
        assert status == 200, answer
    await phase.until(lambda: fleet.running(leave_out=gone) == replicas, fleet)


async def update(daemon: Daemon, client: Client, fleet: Fleet, replicas: int) -> None:
    """Every task is replaced, 100 at once."""
    phase = Phase(daemon, "rolling update", replicas)
    _, service = await client.call("GET", "/v1.41/services/many")
    target = f"/v1.41/services/many/update?version={service['Version']['Index']}"
    status, answer = await client.call("POST", target, spec(replicas, "two:1"))
    assert status == 200, answer
    await phase.until(lambda: fleet.running("two:1") == replicas, fleet)


def main() -> None:
    """One size after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="?", default="swarmlet", choices=["swarmlet", "dockerd"])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1000, 5000, 10_000])
    parser.add_argument("--nodes", type=int, default=100, metavar="N")
    parser.add_argument("--no-drain", dest="drain", action="store_false")
    parser.add_argument("--no-update", dest="update", action="store_false")
    options = parser.parse_args()
    if options.program == "dockerd" and (shutil.which("dockerd") is None or os.getuid() != 0):
        sys.exit("dockerd is not installed, or this is not root")
    if len(options.replicas) > 1:  # gRPC serves one event loop in the life of a process
        for replicas in options.replicas:
            left = [each for each in sys.argv[1:] if each not in ("--replicas", *map(str, options.replicas))]
            subprocess.run([sys.executable, __file__, *left, "--replicas", str(replicas)], check=True)
        return
    command, port = (dockerd, 2597) if options.program == "dockerd" else (swarmlet, 2598)
    daemon = Daemon(options.program, command, port)
    try:
        asyncio.run(measure(daemon, options.nodes, options.replicas[0], options))
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop()


if __name__ == "__main__":
    main()
