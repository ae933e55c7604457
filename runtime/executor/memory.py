"""The executor of the deterministic simulator: tasks that are entries in a table and run in virtual time.

It outlives the daemon above it as the process executor's keeper does: controllers come and go, what runs goes on, and
``start`` of what runs answers ``Already``. Only ``power_off`` ends everything, as a machine that loses its power.

What a task does follows from its command (``program_of``) or from a function that is handed in. No threads, no clock,
no randomness: time passes by ``schedule`` alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

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
    Stream,
    TaskContext,
)
from runtime.wire.pb import objects_pb2, types_pb2

Schedule = Callable[[float, Callable[[], None]], object]
SIGKILL, SIGTERM = 9, 15


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """What a task does once started: writes ``lines`` (seconds after the start, text), and ends with ``exit_code``
    after ``after`` seconds; without an exit code it runs until it is stopped. ``start_error`` keeps it from starting
    (exit code 127). ``stop_after``: seconds from the stop signal to its end; beyond the grace period it is killed."""

    exit_code: int | None = None
    after: float = 0.0
    lines: tuple[tuple[float, bytes], ...] = ()
    start_error: str = ""
    stop_after: float = 0.01


def program_of(task: objects_pb2.Task) -> Program:
    """The program named by the command: ``exit CODE [after SECONDS]``, ``sleep SECONDS``, ``echo TEXT...`` (a line,
    then exit 0), ``log TEXT...`` (a line each second for a minute), ``missing`` (no such command); else it runs on."""
    match [*task.spec.container.command, *task.spec.container.args]:
        case ["exit", code]:
            return Program(int(code))
        case ["exit", code, "after", seconds]:
            return Program(int(code), float(seconds))
        case ["sleep", seconds]:
            return Program(0, float(seconds))
        case ["echo", *words]:
            return Program(0, lines=((0.0, " ".join(words).encode() + b"\n"),))
        case ["log", *words]:
            return Program(lines=tuple((float(second), " ".join(words).encode() + b"\n") for second in range(60)))
        case ["missing", *_]:
            return Program(start_error='starting container failed: exec: "missing": executable file not found in $PATH')
    return Program()


class _Running:
    """One started task; outlives its controllers."""

    def __init__(self, task: objects_pb2.Task, program: Program, pid: int) -> None:
        self.task = task
        self.program = program
        self.pid = pid
        self.exit_code: int | None = None
        self.lost = False
        self.lines: list[LogLine] = []
        self.waiting: list[Callable[[], None]] = []
        self.readers: list[_Reading] = []

    @property
    def ended(self) -> bool:
        return self.lost or self.exit_code is not None

    @property
    def status(self) -> types_pb2.ContainerStatus:
        identity = hashlib.sha256(self.task.id.encode()).hexdigest()
        return types_pb2.ContainerStatus(
            container_id=identity, pid=0 if self.ended else self.pid, exit_code=self.exit_code or 0
        )

    @property
    def ports(self) -> types_pb2.PortStatus:
        host = types_pb2.PortConfig.PublishMode.Value("HOST")
        return types_pb2.PortStatus(ports=[each for each in self.task.endpoint.ports if each.publish_mode == host])


class _Operation:
    """Tells its outcome once."""

    def __init__(self, done: OnDone) -> None:
        self._done: OnDone | None = done

    def finish(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(outcome)

    def cancel(self) -> None:
        self.finish(Failed("cancelled", cancelled=True))


class _Reading:
    """One reader of a task's lines."""

    def __init__(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> None:
        self.options = options
        self.on_line = on_line
        self.on_end: OnEnd | None = on_end

    def past(self, lines: Sequence[LogLine]) -> None:
        """What was written before: filtered, then cut to the tail."""
        tail = self.options.tail
        chosen = [line for line in lines if line.stream in self.options.streams]
        chosen = chosen[tail:] if tail >= 0 else chosen[len(chosen) - min(len(chosen), -tail - 1) :]
        for line in chosen:
            self.line(line)

    def line(self, line: LogLine) -> None:
        if self.on_end is None or line.stream not in self.options.streams or line.timestamp_ns < self.options.since_ns:
            return
        self.on_line(line)

    def end(self, error: str | None = None) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(error)

    def cancel(self) -> None:
        self.end()


class MemoryController:
    """The port's Controller over the executor's table."""

    def __init__(self, executor: MemoryExecutor, task: objects_pb2.Task) -> None:
        self._executor = executor
        self._task = task
        self._stops = 0
        self._open: list[_Operation] = []
        self._readings: list[_Reading] = []
        self._closed = False

    def _begin(self, done: OnDone, work: Callable[[_Operation], None]) -> _Operation:
        operation = _Operation(done)
        if self._closed:
            operation.finish(Failed(CONTROLLER_CLOSED))
            return operation
        self._open = [each for each in self._open if each._done is not None]
        self._open.append(operation)
        work(operation)
        return operation

    def update(self, task: objects_pb2.Task, done: OnDone) -> _Operation:
        """As the port's."""
        self._task = task
        return self._begin(done, lambda operation: operation.finish(Done()))

    def prepare(self, done: OnDone) -> _Operation:
        """As the port's; takes the executor's ``delay``."""
        prepared = self._task.id in self._executor.prepared
        self._executor.prepared.setdefault(self._task.id)
        outcome = Already() if prepared else Done()
        return self._begin(done, lambda operation: self._executor.later(lambda: operation.finish(outcome)))

    def start(self, done: OnDone) -> _Operation:
        """As the port's; the task runs after the executor's ``delay``, unless it was to be stopped by then."""
        stops = self._stops

        def launch(operation: _Operation) -> None:
            if self._stops == stops:
                operation.finish(self._executor.launch(self._task))

        return self._begin(done, lambda operation: self._executor.later(lambda: launch(operation)))

    def wait(self, done: OnDone) -> _Operation:
        """As the port's."""
        return self._begin(done, lambda operation: self._when_ended(lambda: operation.finish(self._exit())))

    def shutdown(self, done: OnDone) -> _Operation:
        """As the port's: the stop signal, the grace period, SIGKILL."""
        self._stops += 1
        return self._begin(done, lambda operation: self._end(operation, kill=False))

    def terminate(self, done: OnDone) -> _Operation:
        """As the port's."""
        self._stops += 1
        return self._begin(done, lambda operation: self._end(operation, kill=True))

    def remove(self, done: OnDone) -> _Operation:
        """As the port's."""

        self._stops += 1

        def forget(operation: _Operation) -> None:
            self._executor.forget(self._task.id)
            operation.finish(Done())

        return self._begin(done, lambda operation: self._stopped(False, lambda: forget(operation)))

    def close(self, done: OnDone) -> _Operation:
        """As the port's."""
        self._closed = True
        for operation in self._open:
            operation.finish(Failed(CONTROLLER_CLOSED))
        for reading in self._readings:
            reading.end(CONTROLLER_CLOSED)
        operation = _Operation(done)
        operation.finish(Done())
        return operation

    def logs(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> _Reading:
        """As the port's; what was written is given at once."""
        reading = _Reading(options, on_line, on_end)
        running = self._executor.tasks.get(self._task.id)
        if self._closed:
            reading.end(CONTROLLER_CLOSED)
            return reading
        self._readings = [each for each in self._readings if each.on_end is not None]
        self._readings.append(reading)
        if running is not None:
            reading.past(running.lines)
        if running is not None and options.follow and not running.ended:
            running.readers.append(reading)
        else:
            reading.end()
        return reading

    def _when_ended(self, then: Callable[[], None]) -> None:
        running = self._executor.tasks.get(self._task.id)
        if running is None or running.ended:
            then()
        else:
            running.waiting.append(then)

    def _exit(self) -> Outcome:
        running = self._executor.tasks.get(self._task.id)
        if running is None:
            return Failed("task is gone: exit code unknown")
        if running.lost:
            return Failed("exit code unknown: the machine was restarted", container_status=running.status)
        code = running.exit_code or 0
        return (
            Failed(f"task: non-zero exit ({code})", code, container_status=running.status)
            if code
            else Done(running.status)
        )

    def _end(self, operation: _Operation, *, kill: bool) -> None:
        def ended() -> None:
            running = self._executor.tasks.get(self._task.id)
            operation.finish(Done(running.status) if running is not None else Done())

        self._stopped(kill, ended)

    def _stopped(self, kill: bool, then: Callable[[], None]) -> None:
        self._executor.stop(self._task, kill=kill)
        self._when_ended(then)


class MemoryExecutor:
    """The port's Executor in virtual time.

    ``schedule(delay, call)`` has ``call`` made after so many virtual seconds. ``delay``: what preparing and starting
    take. ``now``: unix seconds for the lines' time stamps. ``rejects``: the text of a refusal, or nothing.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        program: Callable[[objects_pb2.Task], Program] = program_of,
        rejects: Callable[[objects_pb2.Task], str] = lambda task: "",
        delay: float = 0.01,
        now: Callable[[], float] = lambda: 0.0,
        nano_cpus: int = 4_000_000_000,
        memory_bytes: int = 8 << 30,
    ) -> None:
        self._schedule = schedule
        self._program = program
        self._rejects = rejects
        self._delay = delay
        self._now = now
        self._lives = 0
        self._pids = 1000
        self._orphans: list[Orphan] = []
        self.prepared: dict[str, None] = {}
        self.tasks: dict[str, _Running] = {}
        self.starts: dict[str, int] = {}
        self.description = types_pb2.NodeDescription(
            platform=types_pb2.Platform(architecture="x86_64", os="linux"),
            resources=types_pb2.Resources(nano_cpus=nano_cpus, memory_bytes=memory_bytes),
            engine=types_pb2.EngineDescription(
                engine_version="0.0.0",
                labels={"swarmlet.executor": "process"},
                plugins=[types_pb2.PluginDescription(type="Network", name=name) for name in ("host", "overlay")],
            ),
        )

    @property
    def running(self) -> list[str]:
        """The ids of the tasks that run, sorted."""
        return sorted(task_id for task_id, running in self.tasks.items() if not running.ended)

    def describe(self) -> types_pb2.NodeDescription:
        """As the port's; ``description`` may be changed."""
        return self.description

    def controller(self, task: objects_pb2.Task, context: TaskContext) -> MemoryController:
        """As the port's; ``rejects`` decides."""
        text = self._rejects(task)
        if text:
            raise Rejected(text)
        return MemoryController(self, task)

    def orphans(self) -> Sequence[Orphan]:
        """As the port's: always none, for the runner can't be lost without the machine."""
        orphans, self._orphans = self._orphans, []
        return orphans

    def stop_all(self, done: Callable[[], None]) -> None:
        """As the port's."""
        left = [self.tasks[task_id] for task_id in self.running]
        count = len(left)

        def one() -> None:
            nonlocal count
            count -= 1
            if count == 0:
                done()

        for running in left:
            running.waiting.append(one)
            self.stop(running.task, kill=False)
        if not left:
            done()

    def close(self, done: Callable[[], None]) -> None:
        """Nothing: the next daemon on this machine uses the same executor."""
        done()

    def power_off(self) -> None:
        """The machine loses its power: what ran is lost and its exit code unknown, nothing is heard of it any more,
        and no callback that was under way comes."""
        self._lives += 1
        for task_id in self.running:
            running = self.tasks[task_id]
            running.lost = True
            running.waiting.clear()
            running.readers.clear()

    # Inside

    def later(self, then: Callable[[], None], delay: float | None = None) -> None:
        """``then`` after ``delay``, unless the power went off in between."""
        life = self._lives
        self._schedule(self._delay if delay is None else delay, lambda: then() if life == self._lives else None)

    def launch(self, task: objects_pb2.Task) -> Outcome:
        """Starts the task's program; a second time it is ``Already``."""
        known = self.tasks.get(task.id)
        if known is not None:
            return Already(known.status, known.ports)
        program = self._program(task)
        self._pids += 1
        running = self.tasks[task.id] = _Running(task, program, self._pids)
        self.starts[task.id] = self.starts.get(task.id, 0) + 1
        if program.start_error:
            running.exit_code = 127
            return Failed(program.start_error, 127, container_status=running.status)
        for delay, text in program.lines:
            self.later(lambda text=text: self.write(running, text), delay)  # type: ignore[misc]
        if program.exit_code is not None:
            code = program.exit_code
            self.later(lambda: self.exited(running, code), program.after)
        return Done(running.status, running.ports)

    def stop(self, task: objects_pb2.Task, *, kill: bool) -> None:
        """Begins to stop what runs of a task."""
        running = self.tasks.get(task.id)
        if running is None or running.ended:
            return
        container = task.spec.container
        grace = container.stop_grace_period.ToNanoseconds() / 1e9 if container.HasField("stop_grace_period") else 10.0
        patient = running.program.stop_after <= grace and not kill
        delay = 0.0 if kill else min(running.program.stop_after, grace)
        self.later(lambda: self.exited(running, 128 + (SIGTERM if patient else SIGKILL)), delay)

    def exited(self, running: _Running, code: int) -> None:
        """A program's end, once."""
        if running.ended:
            return
        running.exit_code = code
        waiting, running.waiting = running.waiting, []
        for then in waiting:
            then()
        readers, running.readers = running.readers, []
        for reader in readers:
            reader.end()

    def write(self, running: _Running, text: bytes, stream: Stream = Stream.STDOUT) -> None:
        """A line of a program that runs."""
        if running.ended:
            return
        last = running.lines[-1].timestamp_ns if running.lines else 0
        line = LogLine(max(last + 1, int(self._now() * 1e9)), stream, text)
        running.lines.append(line)
        for reader in running.readers:
            reader.line(line)

    def kill(self, task_id: str, code: int = 128 + SIGKILL) -> None:
        """Ends a task as from outside (a test's hand)."""
        self.exited(self.tasks[task_id], code)

    def forget(self, task_id: str) -> None:
        """Nothing of a task is left."""
        self.tasks.pop(task_id, None)
        self.prepared.pop(task_id, None)
