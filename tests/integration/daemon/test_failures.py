"""An exception in each actor of a real node in turn: over the API's socket, with tasks that are real processes.

The same is held for a manager and a worker under virtual time (``tests/simulation/test_faults.py``); here it is the
real clock, the real disk and the tree as ``swarmlet tree`` shows it.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from runtime.introspection import client
from runtime.stage.cell import Cell
from swarmlet import Node, ProcessExecutor
from tests.integration.daemon.program import Daemon, service
from tests.processes import alive
from tests.waiting import until

DEADLINE_S = 60.0
REPLICAS = 3


class Running:
    """A node in this process with a service of sleeping processes, asked over its socket."""

    def __init__(self, node: Node, root: Path) -> None:
        self.node = node
        self.api = Daemon(root)
        self.api.socket = node.api_socket
        (root / "log").touch()

    def pids(self) -> list[int]:
        """Of the service's tasks, by slot."""
        return [pid for _, pid in sorted(self.api.wait_running("web", REPLICAS).items())]

    def row(self, path: str) -> dict[str, Any] | None:
        """What the tree shows of an actor."""
        rows = client.ask(self.node.introspection_socket, "tree")["actors"]
        return next((row for row in rows if row["path"] == path), None)

    def cells(self) -> list[Cell]:
        """Every actor that is there now."""
        assert self.node.stage is not None
        return self.node.stage.walk()

    def fail(self, cell: Cell) -> None:
        """An exception in the actor's next turn."""
        cell.control(lambda: cell.failed(RuntimeError(f"injected into {cell.path}"), None))

    def answer(self) -> int:
        """What the API says at once; it says something within its deadline."""
        began = time.monotonic()
        status, _ = self.api.call("GET", "/nodes", timeout=DEADLINE_S)
        assert time.monotonic() - began < DEADLINE_S
        return status

    def whole(self) -> bool:
        """The manager answers and its node is ready."""
        status, nodes = self.api.call("GET", "/nodes", timeout=DEADLINE_S)
        return status == 200 and [node["Status"]["State"] for node in nodes] == ["ready"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_exception_in_each_actor_in_turn_is_survived_answered_and_shown(short_path: Path) -> None:
    with Node(short_path / "state", run_dir=short_path / "run", executor=ProcessExecutor()) as node:
        node.init()
        running = Running(node, short_path)
        made = service("web", REPLICAS, "sleep", "100000")
        assert running.api.call("POST", "/services/create", made)[0] == 201
        before = running.pids()
        names = [cell.path for cell in running.cells()]
        assert len(names) > 20
        for name in names:
            check(running, name)
        assert running.pids() == before, "a task was replaced"
        assert all(alive(pid) for pid in before)
        assert running.api.call("POST", "/services/create", service("after", 1, "sleep", "100000"))[0] == 201
        running.api.wait_running("after", 1)


def check(running: Running, name: str) -> None:
    cell = next(cell for cell in running.cells() if cell.path == name)
    failures = cell.failures.total
    running.fail(cell)
    until(lambda: cell.failures.total > failures, f"{name} fails")
    assert running.answer() in (200, 503)
    until(lambda: back(running, cell), f"{name} is back")
    until(running.whole, f"the swarm is whole after {name}")


def back(running: Running, cell: Cell) -> bool:
    """The tree shows the actor running again, with its restart or (below a restarted parent) in a new place."""
    row = running.row(cell.path)
    if row is None or row["state"] != "running":
        return False
    if cell.gone:
        return any(
            "injected into" in (above["last_error"] or "")
            for parent in parents(cell.path)
            if (above := running.row(parent)) is not None
        )
    return row["restarts"] >= 1 and bool(re.match("RuntimeError: injected into", row["last_error"]))


def parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(2, len(parts))]
