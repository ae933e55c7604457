"""Elections that nobody needed: three idle managers, each in a process that computes in threads of its own.

    python bench/bench_idle.py [--minutes M] [--threads N] [--tick S] [--switch S]

Each process holds one node and N threads that never wait (4 if not said), as a host program may. The group ticks every
S seconds (0.1) and stands for election after ten to twenty ticks without a leader. Printed: elections in the time, how
long each manager went at most between two ticks, and the interpreter's switch interval (its own 5 ms if not said).
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from actors import manager_actor
from actors.raft_actor import RaftActor
from runtime.protocol.raft import RaftSetup, RaftTick
from swarmlet import Node

COUNT = 3
FORM_S = 90.0


class Ticks:
    """Longest time between two ticks of this process's consensus, as it handles them."""

    def __init__(self) -> None:
        self.last = 0.0
        self.longest = 0.0

    def watch(self) -> None:
        """Counts from now on, in passing."""
        tick = RaftActor.tick

        @functools.wraps(tick)
        def timed(actor: RaftActor, message: RaftTick) -> None:
            now = time.monotonic()
            if self.last:
                self.longest = max(self.longest, now - self.last)
            self.last = now
            tick(actor, message)

        RaftActor._handlers[RaftTick] = timed  # type: ignore[attr-defined]

    def begin(self) -> None:
        """Forgets what was before."""
        self.last = self.longest = 0.0


def compute() -> None:
    """Never waits."""
    number = 1
    while True:
        number = number * 1103515245 + 12345 & 0x7FFFFFFF


def raft_of(node: Node) -> Any:
    """The consensus actor of a manager; None while it has none."""
    cell = node.stage.at("/cluster/node/manager/raft").resolve()
    actor = cell.instance if cell is not None else None
    return actor if actor is not None and getattr(actor, "node", None) is not None else None


def standing(node: Node) -> dict[str, Any]:
    """Term, leader and pace."""
    raft = raft_of(node)
    if raft is None:
        return {}
    core = raft.node.raft
    return {"term": core.term, "leader": core.lead, "fast": raft.pace.fast, "members": len(raft.members)}


def manager(root: str, address: str, options: argparse.Namespace) -> None:
    """One process: orders come as lines, each is answered by one."""
    setup = functools.partial(RaftSetup, fast_tick=options.tick)
    manager_actor.RaftSetup = setup  # type: ignore[misc, assignment]
    ticks = Ticks()
    ticks.watch()
    if options.switch:
        sys.setswitchinterval(options.switch)
    with Node(root, listen=f"{address}:2677", advertise=address, name=address) as node:
        for line in sys.stdin:
            order, *words = line.split()
            answer: Any = None
            if order == "init":
                node.init()
                node.wait_ready()
                answer = node.join_token("manager")
            elif order == "join":
                node.join(words[0], token=words[1])
                node.wait_ready()
            elif order == "compute":
                for _ in range(options.threads):
                    threading.Thread(target=compute, daemon=True).start()
                ticks.begin()
            elif order == "end":
                break
            print(json.dumps({"answer": answer, "longest": ticks.longest, **standing(node)}), flush=True)


class Process:
    """A manager's process, as the one that measures speaks with it."""

    def __init__(self, number: int, root: str, passed: list[str]) -> None:
        self.address = f"127.0.9.{number}"
        command = [sys.executable, __file__, "--manager", f"{root}/{number}", self.address, *passed]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words: str) -> dict[str, Any]:
        """An order and its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the manager at {self.address} ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Away with it."""
        self.process.kill()
        self.process.wait()


def form(managers: list[Process]) -> None:
    """Makes them one group that ticks fast."""
    first, *others = managers
    token = first.ask("init")["answer"]
    for each in others:
        each.ask("join", f"{first.address}:2677", token)
    limit = time.monotonic() + FORM_S
    while not all(each["fast"] and each["members"] == COUNT for each in (one.ask("look") for one in managers)):
        if time.monotonic() > limit:
            raise TimeoutError("the three never ticked fast")
        time.sleep(0.5)


def measure(managers: list[Process], seconds: float) -> int:
    """Elections while they compute."""
    for each in managers:
        each.ask("compute")
    first = managers[0].ask("look")["term"]
    end = time.monotonic() + seconds
    term, elections = first, 0
    while time.monotonic() < end:
        time.sleep(1.0)
        newest = max(each.ask("look")["term"] for each in managers)
        if newest != term:
            print(f"  {newest - term} elections at {seconds - (end - time.monotonic()):.0f} s", flush=True)
            elections, term = elections + newest - term, newest
    return elections


def main() -> None:
    """Measures once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--tick", type=float, default=0.1)
    parser.add_argument("--switch", type=float, default=0.0)
    parser.add_argument("--manager", nargs=2)
    options = parser.parse_args()
    if options.manager:
        manager(*options.manager, options)
        return
    passed = [f"--{name}={getattr(options, name)}" for name in ("threads", "tick", "switch")]
    with tempfile.TemporaryDirectory() as root:
        managers = [Process(number, root, passed) for number in range(1, COUNT + 1)]
        try:
            form(managers)
            elections = measure(managers, options.minutes * 60)
            longest = [each.ask("look")["longest"] for each in managers]
        finally:
            for each in managers:
                each.end()
    print(
        f"{COUNT} managers, {options.threads} threads beside each, {options.tick * 1e3:.0f} ms ticks, switch interval "
        f"{(options.switch or sys.getswitchinterval()) * 1e3:g} ms: {elections} elections in {options.minutes:g} "
        f"minutes; longest between two ticks {', '.join(f'{each:.2f} s' for each in longest)}"
    )


if __name__ == "__main__":
    main()
