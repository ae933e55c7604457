"""Docker commands run one after another against a daemon, and their transcript without what differs by chance.

``script/commands.txt`` holds the commands, ``script/dockerd.txt`` what dockerd 20.10.24 answers, and
``script/differences.toml`` where swarmlet answers otherwise, and why. As a program, and as root, this file
records dockerd's answers anew and prints what is different: ``python -m tests.cli.transcript``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.waiting import until

SCRIPT = Path(__file__).parent / "script"
COMMANDS = SCRIPT / "commands.txt"
RECORDED = SCRIPT / "dockerd.txt"
DIFFERENCES = SCRIPT / "differences.toml"
API = "1.41"
"""What both sides can speak: command lines print less for older daemons."""
UNORDERED = ("stack deploy", "stack rm", "service ps packed")
"""The command line goes through a map, or either of two like tasks finds a place: lines come in any order."""
VERSION = "version 28.2."
WAIT = 90.0
TRIES = 5
ENDED = ("complete", "shutdown", "failed", "rejected", "orphaned")


class Daemon(Protocol):
    """Where the commands go: a unix socket, and where its node is and listens."""

    @property
    def socket(self) -> Path | str: ...
    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    def call(self, method: str, path: str) -> tuple[int, Any]: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A command with its exit code and its masked output and errors."""

    command: str
    code: int
    out: tuple[str, ...] = ()
    err: tuple[str, ...] = ()

    def text(self) -> str:
        """As it is kept in a file."""
        lines = [f"$ {self.command}", *(f"  {line}" for line in self.out), *(f"! {line}" for line in self.err)]
        return "\n".join([*lines, f"= {self.code}", ""])


@dataclass(frozen=True, slots=True)
class Difference:
    """Where swarmlet answers otherwise: the command and which of its repetitions, what it answers, and why."""

    command: str
    nth: int
    why: str
    code: int
    out: tuple[str, ...]
    err: tuple[str, ...]


MASKS = (
    (re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\\?n?", re.S), "<PEM>"),
    (re.compile(r"SWMTKN-1-[0-9a-z]+-[0-9a-z]+"), "<TOKEN>"),
    (re.compile(r'"CertIssuer(PublicKey|Subject)": ?"[^"]*"'), r"<\1>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<HEX>"),
    (re.compile(r"\b[0-9a-z]{25}\b"), "<ID>"),
    (re.compile(r"\b[0-9a-z]{12}\b"), "<ID12>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*( \+0000 utc|Z)?"), "<TIME>"),
    (re.compile(r"\b(\d+ (seconds?|minutes?)|(?i:about a minute|less than a second))( ago)?"), "<AGO>"),
    (re.compile(r'"Index": ?\d+'), '"Index":<N>'),
    (re.compile(r"(?<![\d.])\d+\.\d+\.\d+(\+dfsg1)?(?![\d.])"), "<VERSION>"),
    (re.compile(r"[ \t]+"), " "),
)


def mask(text: str, address: str, port: int) -> tuple[str, ...]:
    """Lines without ids, times, tokens, versions and addresses, each with single spaces."""
    text = text.replace(f"{address}:{port}", "<ADDRESS>").replace(address, "<HOST>")
    for pattern, instead in MASKS:
        text = pattern.sub(instead, text)
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def script() -> list[str]:
    """The lines that are run."""
    # ``{address}``, ``{listen}``, ``{begin}`` and ``{soon}`` (unix times) and ``{here}`` (this folder) are filled in.
    lines = COMMANDS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@functools.cache
def program() -> str:
    """The docker command line that was recorded, a 28.2; empty where it is not installed: each words things anew."""
    path = shutil.which("docker")
    if path is None:
        return ""
    said = subprocess.run([path, "--version"], capture_output=True, check=False).stdout.decode()
    return path if VERSION in said else ""


def run(daemon: Daemon, home: Path) -> Iterator[Entry]:
    """Runs everything; an entry for each command."""
    environment = {"HOME": str(home), "DOCKER_HOST": f"unix://{daemon.socket}", "DOCKER_API_VERSION": API}
    values = {"address": daemon.address, "listen": f"{daemon.address}:{daemon.port}"}
    values["here"] = str(SCRIPT)
    values["begin"] = str(int(time.time()) + 1)
    for line in script():
        if line.startswith("@"):
            _wait(daemon, *line[1:].split())
            continue
        fed, command = None, line
        if line.startswith("<< "):
            fed, command = _fed(line)
        values["soon"] = str(int(time.time()) + 1)
        for name, value in values.items():
            command = command.replace(f"{{{name}}}", value)
        done = _run(command, environment, (fed or "").encode())
        shown = (mask(each.decode(), daemon.address, daemon.port) for each in (done.stdout, done.stderr))
        out, err = shown
        if command.startswith(UNORDERED):
            out, err = tuple(sorted(out)), tuple(sorted(err))
        yield Entry(line, done.returncode, out, err)


def _run(command: str, environment: dict[str, str], fed: bytes) -> subprocess.CompletedProcess[bytes]:
    """A command; once more if an update of the service that is under way wrote its state between what the command has
    read and what it writes."""
    for _ in range(TRIES):
        done = subprocess.run(
            [program(), *shlex.split(command)],
            capture_output=True,
            timeout=120,
            check=False,
            env=environment,
            input=fed,
        )
        if not (command.startswith("service") and b"update out of sequence" in done.stderr):
            break
    return done


def _fed(line: str) -> tuple[str, str]:
    words = shlex.shlex(line[3:], posix=True)
    words.whitespace_split = True
    text = words.get_token() or ""
    rest = line[3:].lstrip()
    rest = rest[2:] if rest.startswith('""') else rest[len(text) :]
    return text, rest.strip()


def _wait(daemon: Daemon, what: str, name: str, argument: str = "") -> None:
    conditions: dict[str, Callable[[list[Any], Any], bool]] = {
        "running": lambda tasks, _: _running(tasks) == int(argument),
        "ended": lambda tasks, _: bool(tasks) and all(map(_over, tasks)),
        "pending": lambda tasks, _: any("no suitable node" in task["Status"].get("Err", "") for task in tasks),
        "updated": lambda _, service: service.get("UpdateStatus", {}).get("State") == argument,
    }

    tasks: list[Any] = []

    def holds() -> bool:
        nonlocal tasks
        filters = json.dumps({"service": [name]}).replace(" ", "")
        status, tasks = daemon.call("GET", f"/tasks?filters={filters}".replace('"', "%22"))
        service = daemon.call("GET", f"/services/{name}")[1]
        return status == 200 and conditions[what](tasks, service)

    until(holds, f"{name} {what} {argument}", WAIT, tell=lambda: json.dumps(tasks)[:2000])


def _over(task: Any) -> bool:
    """Whether it has ended, and whoever restarts tasks has seen it."""
    return task["Status"]["State"] in ENDED and task["DesiredState"] == "shutdown"


def _running(tasks: list[Any]) -> int:
    return sum(task["Status"]["State"] == task["DesiredState"] == "running" for task in tasks)


def read(path: Path = RECORDED) -> list[Entry]:
    """A transcript that was kept."""
    entries: list[Entry] = []
    command, out, err = "", list[str](), list[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        mark, rest = line[:2], line[2:]
        if mark == "$ ":
            command, out, err = rest, [], []
        elif mark == "  ":
            out.append(rest)
        elif mark == "! ":
            err.append(rest)
        elif mark == "= ":
            entries.append(Entry(command, int(rest), tuple(out), tuple(err)))
    return entries


def differences() -> list[Difference]:
    """What is known to differ, in the order of the script."""
    found = tomllib.loads(DIFFERENCES.read_text(encoding="utf-8"))["difference"]
    return [
        Difference(
            each["command"],
            each.get("nth", 1),
            each["why"],
            each["code"],
            tuple(each.get("out", ())),
            tuple(each.get("err", ())),
        )
        for each in found
    ]


def expected(recorded: list[Entry], known: list[Difference]) -> list[Entry]:
    """What swarmlet is to answer: what dockerd does, but for the known differences."""
    waiting = {(each.command, each.nth): each for each in known}
    wanted = []
    for entry, nth in numbered(recorded):
        ours = waiting.pop((entry.command, nth), None)
        wanted.append(entry if ours is None else Entry(ours.command, ours.code, ours.out, ours.err))
    assert not waiting, f"differences of commands that are not run: {list(waiting)}"
    return wanted


def numbered(entries: list[Entry]) -> list[tuple[Entry, int]]:
    """Each entry with how often its command was run by then."""
    counts: Counter[str] = Counter()
    found = []
    for entry in entries:
        counts[entry.command] += 1
        found.append((entry, counts[entry.command]))
    return found


def unlike(wanted: list[Entry], found: list[Entry]) -> list[str]:
    """The commands that answered otherwise, with both answers."""
    assert [each.command for each in wanted] == [each.command for each in found]
    return [f"{a.text()}--- but\n{b.text()}" for a, b in zip(wanted, found, strict=True) if a != b]


def check_alike(wanted: list[Entry], found: list[Entry], what: str = "answered otherwise") -> None:
    """Fails with all of both answers to each command that answered otherwise: pytest cuts the lines of a list off."""
    if differing := unlike(wanted, found):
        raise AssertionError("\n".join([f"{what}:", *differing]))


def main() -> None:
    """Records dockerd's answers, and prints where swarmlet's are different."""
    from tests.interop.lab import Lab
    from tests.interop.peers import Dockerd, Swarmlet

    answers: dict[str, list[Entry]] = {}
    for kind in (Dockerd, Swarmlet):
        with contextlib.ExitStack() as stack:
            lab = Lab()
            stack.callback(lab.end)
            peer = begin(kind(lab, "m1"))
            answers[kind.kind] = list(run(peer, lab.root))
    RECORDED.write_text("\n".join(entry.text() for entry in answers["dockerd"]), encoding="utf-8")
    reasons = {each.command: each.why for each in differences()} if DIFFERENCES.exists() else {}
    parts = []
    for (theirs, nth), ours in zip(numbered(answers["dockerd"]), answers["swarmlet"], strict=True):
        if theirs != ours:
            sys.stdout.write(f"{theirs.text()}--- swarmlet\n{ours.text()}\n")
            parts.append(_table(ours, nth, reasons.get(ours.command, "")))
    DIFFERENCES.write_text("\n".join(parts), encoding="utf-8")


def _table(entry: Entry, nth: int, why: str) -> str:
    """A known difference as it is kept; its reason is a person's to write."""
    values: dict[str, Any] = {
        "command": entry.command,
        "nth": nth,
        "why": why,
        "code": entry.code,
        "out": list(entry.out),
        "err": list(entry.err),
    }
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value != []]
    return "\n".join(["[[difference]]", *lines, ""])


def begin(peer: Any) -> Any:
    """Starts a peer of the lab with the image that tasks of processes have."""
    peer.port = 2377
    peer.start()
    if peer.kind == "dockerd":
        peer.docker("tag", "busybox", "host")
    return peer


if __name__ == "__main__":
    main()
