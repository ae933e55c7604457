"""How long writes wait while a manager joins a swarm that holds much, beside dockerd in the same case.

    python bench/bench_state.py [swarmlet] [dockerd] [--megabytes N ...] [--managers N] [--interval N]

Two managers (``--managers``) hold so many megabytes: a third of it in services of 10 kB without replicas, a third in
secrets of 100 kB, a third in configs of 400 kB. The swarm takes a snapshot every ``--interval`` entries, so that its
log does not reach back to its beginning, as that of any swarm that is a few days old; 0 for the engine's default, with
which all of it is still in the log. Then one more manager joins, while a client at the leader makes small secrets, one
every 10 ms. Figures for each size: how long writes took while the state was made, then the small ones before the join,
and from its beginning to four seconds after the new manager showed all (dockerd's asks the leader for what it shows,
and may not have it itself by then); what the managers needed of memory at most, beside what they held before. All share
the machine, and its disk.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_daemon import Client, usage
from bench_managers import API, Member, Swarm, namespaces

SERVICE, SECRET, CONFIG = 10_000, 100_000, 400_000
WRITERS = 8
PAUSE = 0.01
REST = 2.0


def text(size: int) -> str:
    """So much that no compression makes less of."""
    return base64.b64encode(os.urandom(size * 3 // 4)).decode()


def objects(size: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What to ask for until so many bytes are there."""
    third = size // 3
    for number in range(third // CONFIG):
        data = base64.b64encode(os.urandom(CONFIG)).decode()
        yield "/configs/create", {"Name": f"config-{number:06}", "Data": data, "Labels": {}}
    for number in range(third // SECRET):
        data = base64.b64encode(os.urandom(SECRET)).decode()
        yield "/secrets/create", {"Name": f"secret-{number:06}", "Data": data, "Labels": {}}
    for number in range(third // SERVICE):
        container = {"Image": "host", "Env": [f"A={text(SERVICE // 2)}", f"B={text(SERVICE // 2)}"]}
        mode = {"Replicated": {"Replicas": 0}}
        yield (
            "/services/create",
            {"Name": f"service-{number:06}", "TaskTemplate": {"ContainerSpec": container}, "Mode": mode},
        )


class Times:
    """How long writes took."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = sorted(seconds)

    def __str__(self) -> str:
        part = [self.seconds[len(self.seconds) * percent // 100] * 1e3 for percent in (50, 99)]
        longest = self.seconds[-1] * 1e3
        return f"p50 {part[0]:.0f}, p99 {part[1]:.0f}, longest {longest:.0f} ms of {len(self.seconds)}"


async def fill(member: Member, size: int) -> Times:
    """Makes the objects, several at once."""
    wanted, took = objects(size), list[float]()

    async def client() -> None:
        connection = Client(member.socket)
        for target, body in wanted:
            begun = time.perf_counter()
            status, answer = await connection.call("POST", API + target, body)
            assert status in (200, 201), answer
            took.append(time.perf_counter() - begun)
        connection.close()

    await asyncio.gather(*(client() for _ in range(WRITERS)))
    return Times(took)


async def small_writes(swarm: Swarm, member: Member, until: asyncio.Future[Any]) -> Times:
    """One after the other until that is done, and the last one to its end."""
    connection, took = Client(member.socket), list[float]()
    while not until.done():
        begun = time.perf_counter()
        status, answer = await connection.call("POST", f"{API}/secrets/create", swarm.secret())
        assert status in (200, 201), answer
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(PAUSE)
    connection.close()
    return Times(took)


def process_of(member: Member) -> int:
    """Its process id."""
    assert member.process is not None
    return member.process.pid


def forget_peak(member: Member) -> None:
    """What it needs at most is counted from now on."""
    Path(f"/proc/{process_of(member)}/clear_refs").write_text("5")


def peak(member: Member) -> float:
    """The most MiB that it had since that was forgotten."""
    lines = Path(f"/proc/{process_of(member)}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


async def every(member: Member, interval: int) -> None:
    """Has snapshots taken so often."""
    swarm = await member.until("GET", "/swarm")
    spec = swarm["Spec"]
    spec.setdefault("Raft", {})["SnapshotInterval"] = interval
    await member.until("POST", f"/swarm/update?version={swarm['Version']['Index']}", spec)


async def join(swarm: Swarm, leader: Member, newcomer: Member, least: int) -> float:
    """Has it join; seconds until it shows so many secrets."""
    token = (await leader.until("GET", "/swarm"))["JoinTokens"]["Manager"]
    begun = time.perf_counter()
    await swarm.join(newcomer, leader, token)
    while True:
        if len(await newcomer.until("GET", "/secrets")) >= least:
            return time.perf_counter() - begun
        await asyncio.sleep(0.05)


async def rested(joining: asyncio.Future[float]) -> None:
    """Some time after it joined."""
    await joining
    await asyncio.sleep(2 * REST)


async def measure(kind: str, managers: int, megabytes: int, interval: int) -> None:
    """One size."""
    swarm = Swarm(kind, managers + 1)
    newcomer = swarm.members[-1]
    try:
        await swarm.form(managers)
        leader = await swarm.leader()
        newcomer.start()
        await newcomer.until("GET", "/info")
        if interval:
            await every(leader, interval)
        filled = await fill(leader, megabytes * 1_000_000)
        print(f"{kind}: {megabytes} MB: filling: {filled}", flush=True)
        await asyncio.sleep(REST)
        before = await small_writes(swarm, leader, asyncio.ensure_future(asyncio.sleep(REST)))
        cpu, held = usage(process_of(leader))[0], [usage(process_of(each))[1] / 1024 for each in swarm.members]
        for member in swarm.members:
            forget_peak(member)
        joining = asyncio.ensure_future(join(swarm, leader, newcomer, megabytes * 1_000_000 // 3 // SECRET))
        while_joining = await small_writes(swarm, leader, asyncio.ensure_future(rested(joining)))
        took, spent = await joining, usage(process_of(leader))[0] - cpu
        memory = " ".join(f"{was:.0f}->{peak(each):.0f}" for was, each in zip(held, swarm.members, strict=True))
        print(
            f"{kind}: {megabytes} MB: before: {before}\n"
            f"{kind}: {megabytes} MB: while one joined (all shown after {took:.2f} s): {while_joining}\n"
            f"{kind}: {megabytes} MB: MiB at most: {memory}; {spent:.2f} s of the leader's CPU",
            flush=True,
        )
    finally:
        swarm.end()


def main() -> None:
    """Measures one program and size after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", nargs="*", default=["swarmlet", "dockerd"])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--managers", type=int, default=2)
    parser.add_argument("--interval", type=int, default=1000)
    options = parser.parse_args()
    print("load before:", *(f"{load:.2f}" for load in os.getloadavg()), flush=True)
    for kind in options.programs:
        if kind == "dockerd" and (shutil.which("dockerd") is None or os.getuid() != 0):
            print("dockerd: left out, it is not installed or this is not root")
            continue
        for megabytes in options.megabytes:
            for _ in namespaces(options.managers + 1) if kind == "dockerd" else iter([None]):
                asyncio.run(measure(kind, options.managers, megabytes, options.interval))


if __name__ == "__main__":
    main()
