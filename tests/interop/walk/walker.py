"""One walk: commands at machines, and what was answered, without what differs by chance."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.transcript import API, MASKS, TRIES, Entry
from tests.interop.lab import Lab
from tests.interop.peers import Dockerd, Peer
from tests.waiting import until

RECORDED = Path(__file__).parent / "recorded"
DIFFERENCES = Path(__file__).parent / "differences.toml"
MORE_MASKS = (
    (re.compile(r"SWMKEY-1-[0-9A-Za-z+/]+"), "<KEY>"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<RAFT-ID>"),
    (re.compile(r"Issuer (Subject|Public Key):\s+\S+"), r"Issuer \1: <BYTES>"),
    (re.compile(r"(CPUs|Memory):\s+[\d.]+[KMGT]?(iB)?"), r"\1: <N>"),
    (re.compile(r"(?<=lookup nosuch\.invalid).*|(?<=nosuch\.invalid:2377: ).*"), "<WHY>"),
    (re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d UTC"), "<TIME>"),
    (re.compile(r"127\.0\.0\.1:\d+|(?<=on )[\d.]+:53|(?<=udp )[\d.]+:53"), "<LOCAL>"),
)
PATIENCE = 90.0
"""Seconds after which a command is ended, and that is its answer."""
NOT_ENDED = 124


@dataclass(frozen=True, slots=True)
class Said:
    """A command's answer as it was, and how many seconds it took."""

    code: int
    out: str
    err: str
    seconds: float


class Walk:
    """A kind of daemon on machines of a lab; ``values`` fill what stands in braces in a command."""

    def __init__(self, kind: type[Peer], lab: Lab) -> None:
        self.kind = kind
        self.lab = lab
        self.peers: dict[str, Peer] = {}
        self.values: dict[str, str] = {}
        self.entries: list[Entry] = []
        self.took: list[float] = []
        self.aliases: dict[str, str] = {}

    def start(self, *names: str) -> None:
        """A machine with a daemon for each name."""
        for name in names:
            peer = self.kind(self.lab, name)
            self.peers[name] = peer
            self.values[name] = peer.address
            peer.start()
            if isinstance(peer, Dockerd):
                peer.docker("tag", "busybox", "host")

    def __call__(self, at: str, command: str, fed: str = "") -> Said:
        """Runs ``docker`` with this command at a machine, and records it. ``fed`` is its standard input."""
        said = self.quietly(at, command, fed)
        for _ in range(
            TRIES
        ):  # an update under way wrote its state between what the command has read and what it writes
            if not (command.startswith("service update") and "update out of sequence" in said.err):
                break
            said = self.quietly(at, command, fed)
        out, err = self.masked(said.out), self.masked(said.err)
        if command == "info":
            out = swarm_part(out)
        elif command.startswith("swarm ca --rotate"):
            out = progress(out)
        if self.aliases:
            out, err = tuple(sorted(out)), tuple(sorted(err))
        self._record(self._alias(f"{at}: {command}"), said.code, out, err, said.seconds)
        return said

    def quietly(self, at: str, command: str, fed: str = "") -> Said:
        """The same, not recorded."""
        words = [word.format(**self.values) if "{{" not in word else word for word in shlex.split(command)]
        peer = self.peers[at]
        environment = {"PATH": os.environ["PATH"], "HOME": str(peer.root), "DOCKER_HOST": f"unix://{peer.socket}"}
        begun = time.monotonic()
        try:
            done = subprocess.run(
                ["docker", *words], capture_output=True, timeout=PATIENCE, check=False, input=fed.encode(),
                env={**environment, "DOCKER_API_VERSION": API},
            )  # fmt: skip
        except subprocess.TimeoutExpired as expired:
            said = [(each or b"").decode() for each in (expired.stdout, expired.stderr)]
            return Said(NOT_ENDED, *said, time.monotonic() - begun)
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode(), time.monotonic() - begun)

    def at_each(self, command: str, *names: str) -> None:
        """Runs and records a command at each of these machines, or at all."""
        for name in names or self.peers:
            self(name, command)

    def does(self, what: str, act: Callable[[], object]) -> None:
        """Something that is no docker command; its result is recorded if it is text."""
        begun = time.monotonic()
        result = act()
        out = self.masked(result) if isinstance(result, str) else ()
        self._record(f"# {what}", 0, out, (), time.monotonic() - begun)

    def nodes(self, at: str) -> None:
        """Records the nodes that a manager shows, in no order: some may have the same name."""
        shown = "node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}'"
        self.does(f"nodes seen by {at}", lambda: "\n".join(sorted(self.quietly(at, shown).out.splitlines())))

    def _record(self, command: str, code: int, out: tuple[str, ...], err: tuple[str, ...], seconds: float) -> None:
        self.entries.append(Entry(command, code, out, err))
        self.took.append(seconds)

    def _alias(self, text: str) -> str:
        for name, alias in self.aliases.items():
            text = re.sub(rf"\b{name}\b", alias, text)
        return text

    def masked(self, text: str) -> tuple[str, ...]:
        """Lines without ids, times, keys and addresses, each with single spaces."""
        for name, peer in self.peers.items():
            text = re.sub(rf"{re.escape(peer.address)}(?!\d)", f"<{name}>", text)
        text = text.replace(str(self.lab.root), "<LAB>")
        for pattern, instead in (*MORE_MASKS, *MASKS):
            text = pattern.sub(instead, text)
        return tuple(self._alias(line.strip()) for line in text.splitlines() if line.strip())

    # What the walk waits for, unrecorded

    def pause(self, seconds: float) -> None:
        """For what nothing tells of: a node that is removed may not say that it knows."""
        time.sleep(seconds)

    def tokens_of(self, manager: str) -> None:
        """Keeps the swarm's tokens, as they are at a manager, as ``{worker}`` and ``{manager}``."""
        for role in ("worker", "manager"):
            self.values[role] = self.peers[manager].docker("swarm", "join-token", "-q", role).strip()

    def swarm(self, managers: int = 3, workers: int = 2, *options: str) -> None:
        """Founds one at m1, with m2, ... and w1, ... in it."""
        names = [f"m{number}" for number in range(1, managers + 1)]
        others = [f"w{number}" for number in range(1, workers + 1)]
        self.start(*names, *others)
        self.peers["m1"].init(*options)
        for name in names[1:]:
            self.peers[name].join(self.peers["m1"], "manager")
        for name in others:
            self.peers[name].join(self.peers["m1"])
        self.settle(*names)
        self.tokens_of("m1")

    def settle(self, *managers: str, without: tuple[str, ...] = ()) -> str:
        """Until all of these managers see the same: all nodes ready but for some, one leader, whose name is given."""

        def seen_by(name: str) -> tuple[str, ...] | None:
            status, nodes = self.peers[name].call("GET", "/nodes")
            if status != 200:
                return None
            seen = []
            for node in nodes:
                hostname, manages = node["Description"].get("Hostname", ""), node.get("ManagerStatus")
                if not hostname or hostname in without:  # a machine that never came has no name
                    continue
                if node["Status"]["State"] != "ready" or (manages and manages["Reachability"] != "reachable"):
                    return None
                if (node["Spec"]["Role"] == "manager") != bool(manages):
                    return None
                seen.append(f"{hostname} {'leads' if manages and manages.get('Leader') else ''}".strip())
            return tuple(sorted(seen))

        def agreed() -> str:
            views = {seen_by(name) for name in managers}
            view = views.pop()
            leading = [each.split()[0] for each in view or () if each.endswith(" leads")]
            return leading[0] if not views and len(leading) == 1 else ""

        return until(agreed, f"{', '.join(managers)} agree", 60)

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Until a condition holds."""
        return until(condition, what, seconds)

    def state(self, at: str) -> str:
        """``LocalNodeState`` there."""
        return str(self.peers[at].get("/info")["Swarm"]["LocalNodeState"])

    def manages(self, at: str) -> bool:
        """Whether commands are taken there."""
        return bool(self.peers[at].get("/info")["Swarm"]["ControlAvailable"])

    def seen(self, manager: str, node: str, state: str) -> None:
        """Until a manager sees a node in a state."""
        self.peers[manager].wait_state(self.peers[node], state, 60)

    # What befalls a daemon

    def kill(self, name: str) -> None:
        """``kill -9``."""
        self.does(f"kill -9 {self._alias(name)}", self.peers[name].kill)

    def end(self, name: str) -> None:
        """SIGTERM, and the wait for its end."""
        self.does(f"kill -TERM {self._alias(name)}", self.peers[name].stop)

    def hang(self, name: str) -> None:
        """SIGSTOP."""
        self.does(f"kill -STOP {self._alias(name)}", lambda: self.peers[name].signal(signal.SIGSTOP))

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        self.does(f"kill -CONT {self._alias(name)}", lambda: self.peers[name].signal(signal.SIGCONT))

    def again(self, name: str) -> None:
        """Starts a daemon that ended."""
        self.does(f"start {self._alias(name)}", self.peers[name].start)

    def restart(self, name: str) -> None:
        """SIGTERM, and a new start."""
        self.end(name)
        self.again(name)


def progress(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Of a rotation's progress, which goes by as fast as it can, each line once and without its numbers."""
    without = [re.sub(r"\[[=> ]*\] *(\d+)/(\d+) nodes", r"<BAR> of \2 nodes", line) for line in lines]
    return tuple(dict.fromkeys(without))


def swarm_part(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Of ``docker info`` what it says of the swarm."""
    begin = next((place for place, line in enumerate(lines) if line.startswith("Swarm:")), len(lines))
    after = ("Runtimes:", "Init Binary:")
    end = next((place for place, line in enumerate(lines) if line.startswith(after)), len(lines))
    return lines[begin:end]
