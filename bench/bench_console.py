"""The console on a swarm of many nodes and tasks: how long a refresh takes, and what it costs the daemon.

    python bench/bench_console.py [--nodes N] [--replicas N] [--refreshes N]

Simulated agents speak the real protocol to a daemon of its own. For each page: seconds from the question to the drawn
page (the smallest and the median of many, and the worst), and CPU seconds of the daemon for one refresh. The agents
share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_daemon import Client, Daemon, swarmlet, usage
from bench_scale import spec
from sim_agents import Fleet

from swarmlet.console.app import Console
from swarmlet.console.pages import PAGES
from swarmlet.console.source import Source

AIM_S = 0.5
SHOWN = ("tree", "messages", "raft", "nodes", "services", "tasks", "waiting", "beliefs")
SETTLE_S = 3.0


async def refreshes(app: Console, pilot: object, pid: int, name: str, count: int) -> None:
    """Opens a page and has it refreshed again and again; prints what that took."""
    app.open(PAGES[name]())
    await until_drawn(app)
    took, cpu = [], usage(pid)[0]
    for _ in range(count):
        app._fetched = None
        begun = time.perf_counter()
        app.refresh_page()
        await until_drawn(app)
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(0.05)
    spent = (usage(pid)[0] - cpu) / count
    shown = str(app.closing.render()).strip()
    late = "" if max(took) < AIM_S else f"  more than {AIM_S} s"
    print(
        f"  {name:<10} {min(took) * 1e3:7.0f} ms, median {statistics.median(took) * 1e3:5.0f}, at most "
        f"{max(took) * 1e3:5.0f}; daemon {spent * 1e3:5.0f} ms CPU  {shown}{late}",
        flush=True,
    )


async def until_drawn(app: Console) -> None:
    """Returns once an answer came and is on the screen."""
    while app._fetched is None or app._asking:
        if app.trouble:
            raise RuntimeError(app.trouble)
        await asyncio.sleep(0.002)
    done = asyncio.Event()
    app.call_after_refresh(done.set)
    await done.wait()


async def measure(daemon: Daemon, options: argparse.Namespace) -> None:
    """A swarm, then its pages."""
    daemon.start()
    assert daemon.process is not None
    address = f"127.0.0.1:{daemon.port}"
    await daemon.until("POST", "/v1.41/swarm/init", {"ListenAddr": address, "AdvertiseAddr": address}, {200})
    _, swarm = await daemon.until("GET", "/v1.41/swarm", None, {200})
    root = swarm["TLSInfo"]["TrustRoot"].encode()
    client = Client(daemon.socket)
    with Fleet(address, swarm["JoinTokens"]["Worker"], root, options.nodes) as fleet:
        status, answer = await client.call("POST", "/v1.41/services/create", spec(options.replicas, "one:1"))
        assert status == 201, answer
        while fleet.running() < options.replicas:
            if fleet.lost:
                raise RuntimeError(f"{len(fleet.lost)} agents lost their session: {fleet.lost[:3]}")
            await asyncio.sleep(0.5)
        await asyncio.sleep(SETTLE_S)
        pid, cpu, begun = daemon.process.pid, usage(daemon.process.pid)[0], time.perf_counter()
        await asyncio.sleep(5)
        idle = (usage(pid)[0] - cpu) / (time.perf_counter() - begun)
        print(f"{options.nodes} nodes, {options.replicas} tasks; the daemon alone: {idle * 100:.1f} % of a processor")
        app = Console(Source(f"{daemon.root}/run/introspection.sock", daemon.socket))
        async with app.run_test(size=(120, 40)) as pilot:
            for name in SHOWN:
                await refreshes(app, pilot, pid, name, options.refreshes)
        print(await scraped(daemon, pid, options.refreshes), flush=True)
    client.close()
    daemon.stop()


async def scraped(daemon: Daemon, pid: int, count: int) -> str:
    """Metrics as Prometheus asks for them."""
    took, cpu, size = [], usage(pid)[0], 0
    for _ in range(count):
        begun = time.perf_counter()
        reader, writer = await asyncio.open_unix_connection(daemon.socket)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        size = len(await reader.read(-1))
        writer.close()
        took.append(time.perf_counter() - begun)
    spent = (usage(pid)[0] - cpu) / count
    return (
        f"  /metrics   {min(took) * 1e3:7.0f} ms, median {statistics.median(took) * 1e3:5.0f}, at most "
        f"{max(took) * 1e3:5.0f}; daemon {spent * 1e3:5.0f} ms CPU  {size} bytes"
    )


def main() -> None:
    """One swarm."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=100, metavar="N")
    parser.add_argument("--replicas", type=int, default=10_000, metavar="N")
    parser.add_argument("--refreshes", type=int, default=20, metavar="N")
    options = parser.parse_args()
    daemon = Daemon("swarmlet", swarmlet, 2599)
    try:
        asyncio.run(measure(daemon, options))
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.stop()


if __name__ == "__main__":
    main()
