"""A container executor over a fake engine."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.executor.container import ContainerExecutor
from runtime.executor.container_controller import ContainerController
from runtime.executor.port import LogLine, LogOptions
from runtime.wire.loop import IoLoop
from runtime.wire.pb import objects_pb2
from tests.integration.executor.conftest import PATIENCE, Answer
from tests.integration.executor.fake_engine import FakeEngine
from tests.unit.executor.builders import context, task
from tests.waiting import until


def container_task(identity: str, *command: str, image: str = "busybox") -> objects_pb2.Task:
    """A task that is a container."""
    made = task(identity, *command, image=image)
    made.service_annotations.name = "web"
    return made


class Reader:
    """A log that is being read."""

    def __init__(self, controller: ContainerController, options: LogOptions) -> None:
        self.lines: list[LogLine] = []
        self.ends: list[str | None] = []
        self._over = threading.Event()
        self.operation = controller.logs(options, self.lines.append, self._end)

    def _end(self, text: str | None) -> None:
        self.ends.append(text)
        self._over.set()

    def end(self) -> str | None:
        """How it ended."""
        assert self._over.wait(PATIENCE), f"the log goes on after {self.texts}"
        (text,) = self.ends
        return text

    @property
    def texts(self) -> list[str]:
        """What was read."""
        return [line.data.decode() for line in self.lines]


class ContainerBench:
    """An engine, and the executors of a node's lives."""

    def __init__(self, loop: IoLoop, root: Path) -> None:
        self.loop = loop
        self.root = root
        self.engine = FakeEngine(root / "engine.sock")
        self.executors: list[ContainerExecutor] = []
        self.executor = self.boot()

    def boot(self, **settings: Any) -> ContainerExecutor:
        """A daemon's start: a new executor over what there is."""
        settings.setdefault("directory", str(self.root / "container"))
        self.executor = ContainerExecutor(
            self.loop, socket=str(self.engine.path), run_dir=str(self.root / "run"), **settings
        )
        self.executors.append(self.executor)
        return self.executor

    def followed(self) -> None:
        """Returns once the executor hears of what happens."""
        until(lambda: self.engine.followers, "the engine is followed", tell=lambda: str(self.engine.requests))

    def controller(
        self, made: objects_pb2.Task | str, *command: str, payloads: dict[str, bytes] | None = None
    ) -> ContainerController:
        """The one who runs a task."""
        if isinstance(made, str):
            made = container_task(made, *command)
        return self.executor.controller(made, context(payloads))

    def do(self, operation: Callable[[Answer], Any]) -> Any:
        """The outcome of an operation."""
        answer = Answer()
        operation(answer)
        return answer.get()

    def begin(self, operation: Callable[[Answer], Any]) -> tuple[Answer, Any]:
        """An operation that is under way."""
        answer = Answer()
        return answer, operation(answer)

    def started(self, made: objects_pb2.Task | str, *command: str) -> ContainerController:
        """A task that runs."""
        controller = self.controller(made, *command)
        self.do(controller.prepare)
        outcome = self.do(controller.start)
        assert outcome.container_status.pid == 4711, outcome
        return controller

    def read(self, controller: ContainerController, **options: Any) -> Reader:
        """A log that is being read."""
        return Reader(controller, LogOptions(**options))

    def close(self, executor: ContainerExecutor | None = None) -> None:
        """A daemon's end that leaves its tasks be."""
        over = threading.Event()
        (executor or self.executor).close(over.set)
        assert over.wait(PATIENCE)

    def stop_all(self) -> None:
        """All tasks end."""
        over = threading.Event()
        self.executor.stop_all(over.set)
        assert over.wait(PATIENCE)

    def end(self) -> None:
        """Nothing stays."""
        for executor in self.executors:
            self.close(executor)
            shutil.rmtree(executor.files, ignore_errors=True)  # in memory, and so not below the test's directory
        self.engine.close()
