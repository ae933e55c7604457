"""A process executor over real processes, and what is left of it at the end: nothing."""

from __future__ import annotations

import os
import pathlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime.executor import procfs
from runtime.executor.port import LogLine, LogOptions, Outcome
from runtime.executor.process import ProcessExecutor
from runtime.executor.process_controller import ProcessController
from runtime.wire.loop import IoLoop
from runtime.wire.pb import objects_pb2
from tests.processes import alive
from tests.unit.executor import builders
from tests.unit.executor.builders import context
from tests.waiting import until

PATIENCE = 60.0


def own(name: str) -> str:
    """The id of a task of this test process: keepers look for the processes of their tasks on all of the machine, where
    other tests run at the same time."""
    return f"{name}.{os.getpid()}"


def task(name: str, *command: str) -> objects_pb2.Task:
    return builders.task(own(name), *command)


def processes_of(name: str) -> list[int]:
    return [pid for pid, _ in procfs.marked(frozenset([own(name)])) if alive(pid)]


class Answer:
    """A ``done`` that can be waited for, and that is called once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.outcomes: list[Outcome] = []

    def __call__(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._event.set()

    def get(self) -> Outcome:
        assert self._event.wait(PATIENCE), "no outcome"
        (outcome,) = self.outcomes
        return outcome


class Bench:
    """One node's directories and the executors of its lives."""

    def __init__(self, loop: IoLoop, root: pathlib.Path) -> None:
        self.loop = loop
        self.root = root
        self.directory = str(root / "process")
        self.run_dir = str(root / "run")
        self.executors: list[ProcessExecutor] = []
        self.executor = self.boot()

    def boot(self, **settings: Any) -> ProcessExecutor:
        """A daemon's start: a new executor over what there is."""
        settings.setdefault("linger", None)
        self.executor = ProcessExecutor(self.loop, directory=self.directory, run_dir=self.run_dir, **settings)
        self.executors.append(self.executor)
        return self.executor

    def controller(
        self, made: objects_pb2.Task | str, *command: str, payloads: dict[str, bytes] | None = None
    ) -> ProcessController:
        if isinstance(made, str):
            made = task(made, *command)
        return self.executor.controller(made, context(payloads))

    def do(self, operation: Callable[[Answer], Any]) -> Any:
        answer = Answer()
        operation(answer)
        return answer.get()

    def started(self, made: objects_pb2.Task | str, *command: str) -> ProcessController:
        controller = self.controller(made, *command)
        outcome = self.do(controller.start)
        assert outcome.container_status.pid > 0, outcome
        return controller

    def lines(self, controller: ProcessController, options: LogOptions | None = None) -> list[LogLine]:
        """A log to its end."""
        found: list[LogLine] = []
        ends: list[str | None] = []
        over = threading.Event()
        controller.logs(options or LogOptions(), found.append, lambda error: (ends.append(error), over.set()))  # type: ignore[arg-type, func-returns-value]
        assert over.wait(PATIENCE)
        assert ends == [None]
        return found

    def keeper(self) -> int:
        """The keeper's pid; 0 if there is none."""
        for pid in procfs.pids():
            try:
                command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"runtime.executor.keeper" in command and self.directory.encode() in command and alive(pid):
                return pid
        return 0

    def close(self, executor: ProcessExecutor | None = None) -> None:
        over = threading.Event()
        (executor or self.executor).close(over.set)
        assert over.wait(PATIENCE)

    def stop_all(self) -> None:
        over = threading.Event()
        self.executor.stop_all(over.set)
        assert over.wait(PATIENCE)


@pytest.fixture(scope="module")
def loop() -> Iterator[IoLoop]:
    with IoLoop("executor-test") as running:
        yield running


@pytest.fixture
def bench(loop: IoLoop) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="swl-") as root:
        made = Bench(loop, pathlib.Path(root))
        yield made
        for executor in made.executors:
            made.close(executor)
        made.boot(linger=0.0)
        if made.executor._client.kept:  # one may be starting that cannot be seen yet
            made.stop_all()
        made.close()
        until(lambda: not made.keeper(), "the keeper ends")
        log = pathlib.Path(made.directory, "keeper.log")
        assert not log.exists() or log.read_text(encoding="utf-8") == ""


@pytest.fixture
def root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
