"""Nodes as a host program has them, over sockets and a disk, with tasks that are entries in a table."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.executor.memory import MemoryExecutor
from runtime.wire.pb import control_pb2, specs_pb2
from swarmlet import ExecutorPlace, GivenExecutor, Node
from tests.descriptors import open_files, opened_since


class Machine:
    """What tasks run on; it outlives nodes, as the processes of a machine do."""

    def __init__(self) -> None:
        self.executor: MemoryExecutor | None = None

    @property
    def factory(self) -> GivenExecutor:
        return GivenExecutor(self._build, name="memory")

    def _build(self, place: ExecutorPlace) -> MemoryExecutor:
        def schedule(delay: float, call: Callable[[], None]) -> None:
            place.loop.call_soon(lambda: _later(place, delay, call))

        self.executor = MemoryExecutor(schedule, now=place.clock.now)
        return self.executor


def _later(place: ExecutorPlace, delay: float, call: Callable[[], None]) -> None:
    place.loop.loop.call_later(delay, call)


def node(tmp_path: Path, name: str = "n1", machine: Machine | None = None, **settings: Any) -> Node:
    (tmp_path / name).mkdir(exist_ok=True, mode=0o700)
    return Node(
        tmp_path / name / "state",
        run_dir=tmp_path / name / "run",
        executor=(machine or Machine()).factory,
        name=name,
        hostname=name,
        **settings,
    )


def service(name: str, replicas: int, *command: str) -> control_pb2.CreateServiceRequest:
    spec = specs_pb2.ServiceSpec()
    spec.annotations.name = name
    spec.task.container.image = "host"
    spec.task.container.args.extend(command or ("run",))
    spec.task.restart.condition = 2
    spec.task.restart.delay.nanos = 100_000_000
    spec.replicated.replicas = replicas
    return control_pb2.CreateServiceRequest(spec=spec)


class Traces:
    """What a process has that a node could leave behind."""

    def __init__(self) -> None:
        self.threads = {thread for thread in threading.enumerate() if thread.is_alive()}
        self.files = open_files()
        self.children = self._children()

    def left(self, seconds: float = 30.0) -> dict[str, Any]:
        """What is there now and was not before. gRPC's own thread ends with its last object, but it closes its files a
        moment after that; so there is some time for them to go."""
        deadline = time.monotonic() + seconds
        while (found := self._left()) != NOTHING and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _left(self) -> dict[str, Any]:
        return {
            "threads": [thread.name for thread in threading.enumerate() if thread not in self.threads],
            "files": opened_since(self.files),
            "children": sorted(self._children() - self.children),
        }

    @staticmethod
    def _children() -> set[int]:
        tasks = Path("/proc/self/task").glob("*/children")
        return {int(pid) for each in tasks for pid in each.read_text(encoding="ascii").split()}


NOTHING: dict[str, Any] = {"threads": [], "files": [], "children": []}
