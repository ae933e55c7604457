"""An executor whose operations end when the test says so, and which remembers what runs although its node was lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from runtime.executor.port import (
    CONTROLLER_CLOSED,
    Already,
    Done,
    Failed,
    LogLine,
    LogOptions,
    OnDone,
    OnEnd,
    OnLine,
    Orphan,
    Outcome,
    Rejected,
    TaskContext,
)
from runtime.wire.pb import objects_pb2, types_pb2

QUICK = ("update", "prepare", "start", "shutdown", "remove", "terminate")


class FakeOperation:
    """One operation under way; the first outcome counts."""

    def __init__(self, controller: FakeController, name: str, done: OnDone) -> None:
        self.controller = controller
        self.name = name
        self.done: OnDone | None = done
        self.cancelled = False

    def finish(self, outcome: Outcome) -> None:
        done, self.done = self.done, None
        if done is not None:
            self.controller.open.remove(self)
            done(outcome)

    def cancel(self) -> None:
        self.cancelled = True
        self.finish(Failed("cancelled", cancelled=True))


class FakeReading:
    """A reading of logs that the test feeds."""

    def __init__(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> None:
        self.options = options
        self.on_line = on_line
        self.on_end: OnEnd | None = on_end
        self.cancelled = False

    def lines(self, *lines: LogLine) -> None:
        for line in lines:
            if self.on_end is not None:
                self.on_line(line)

    def end(self, error: str | None = None) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(error)

    def cancel(self) -> None:
        self.cancelled = True
        self.end()


class FakeController:
    """One task's controller. What ``executor.quick`` names is done at once; the rest waits in ``open``."""

    def __init__(self, executor: FakeExecutor, task: objects_pb2.Task, context: TaskContext) -> None:
        self.executor = executor
        self.task = task
        self.context = context
        self.open: list[FakeOperation] = []
        self.readings: list[FakeReading] = []
        self.closed = False

    def _begin(self, name: str, done: OnDone) -> FakeOperation:
        self.executor.calls.append((self.task.id, name))
        assert not self.open, f"{name} of {self.task.id} while {self.open[0].name} is under way"
        operation = FakeOperation(self, name, done)
        self.open.append(operation)
        if self.closed:
            operation.finish(Failed(CONTROLLER_CLOSED))
        elif name in self.executor.outcomes:
            operation.finish(self.executor.outcomes[name](self.task.id))
        elif name in self.executor.quick:
            operation.finish(self._effect(name))
        return operation

    def _effect(self, name: str) -> Outcome:
        running = self.executor.running
        if name == "start":
            if self.task.id in running:
                return Already(container_status=self.executor.container(self.task.id))
            running.append(self.task.id)
            self.executor.starts += 1
            return Done(container_status=self.executor.container(self.task.id))
        if name in ("remove", "shutdown") and self.task.id in running:
            running.remove(self.task.id)
        return Done()

    def update(self, task: objects_pb2.Task, done: OnDone) -> FakeOperation:
        self.task = task
        return self._begin("update", done)

    def prepare(self, done: OnDone) -> FakeOperation:
        return self._begin("prepare", done)

    def start(self, done: OnDone) -> FakeOperation:
        return self._begin("start", done)

    def wait(self, done: OnDone) -> FakeOperation:
        return self._begin("wait", done)

    def shutdown(self, done: OnDone) -> FakeOperation:
        return self._begin("shutdown", done)

    def terminate(self, done: OnDone) -> FakeOperation:
        return self._begin("terminate", done)

    def remove(self, done: OnDone) -> FakeOperation:
        return self._begin("remove", done)

    def close(self, done: OnDone) -> FakeOperation:
        self.closed = True
        for operation in list(self.open):
            operation.finish(Failed(CONTROLLER_CLOSED))
        for reading in self.readings:
            reading.end(CONTROLLER_CLOSED)
        operation = FakeOperation(self, "close", done)
        self.open.append(operation)
        operation.finish(Done())
        return operation

    def logs(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> FakeReading:
        reading = FakeReading(options, on_line, on_end)
        self.readings.append(reading)
        return reading


class FakeExecutor:
    """``running`` outlasts controllers; ``outcomes`` scripts what an operation says at once."""

    def __init__(self) -> None:
        self.quick: tuple[str, ...] = QUICK
        self.outcomes: dict[str, Callable[[str], Outcome]] = {}
        self.rejects: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.running: list[str] = []
        self.starts = 0
        self.controllers: dict[str, FakeController] = {}
        self.description = types_pb2.NodeDescription(platform=types_pb2.Platform(architecture="x86_64", os="linux"))
        self.lost: list[Orphan] = []
        self.heard: list[frozenset[str]] = []

    def known(self, task_ids: Collection[str]) -> None:
        """What runs may only be ended if it is none of the node's tasks."""
        self.heard.append(frozenset(task_ids))
        assert set(self.running) <= set(task_ids), "what runs was let go of"

    def container(self, task_id: str) -> types_pb2.ContainerStatus:
        return types_pb2.ContainerStatus(container_id=f"container-{task_id}", pid=4711)

    def describe(self) -> types_pb2.NodeDescription:
        return self.description

    def controller(self, task: objects_pb2.Task, context: TaskContext) -> FakeController:
        if task.id in self.rejects:
            raise Rejected(self.rejects[task.id])
        self.controllers[task.id] = FakeController(self, task, context)
        return self.controllers[task.id]

    def orphans(self) -> Sequence[Orphan]:
        lost, self.lost = self.lost, []
        return lost

    def stop_all(self, done: Callable[[], None]) -> None:
        self.running.clear()
        done()

    def close(self, done: Callable[[], None]) -> None:
        done()

    # For tests

    def names(self, task_id: str) -> list[str]:
        """The operations begun for a task, in order."""
        return [name for task, name in self.calls if task == task_id]

    def finish(self, task_id: str, name: str, outcome: Outcome | None = None) -> None:
        """Ends the operation that is under way for a task."""
        controller = self.controllers[task_id]
        (operation,) = controller.open
        assert operation.name == name, f"{operation.name} is under way, not {name}"
        operation.finish(outcome if outcome is not None else controller._effect(name))

    def under_way(self, task_id: str) -> str:
        """The operation under way for a task, or nothing."""
        open_ = self.controllers[task_id].open
        return open_[0].name if open_ else ""
