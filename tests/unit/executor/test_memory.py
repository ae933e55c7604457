"""The simulated executor: what its tasks do, and that they outlast their controllers."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import pytest

from runtime.executor.memory import MemoryExecutor, Program
from runtime.executor.port import (
    CONTROLLER_CLOSED,
    Already,
    Done,
    Failed,
    LogLine,
    LogOptions,
    Outcome,
    Rejected,
    Stream,
)
from tests.unit.executor.builders import context, task


class Time:
    """Virtual time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def schedule(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._numbers), call))

    def run(self, until: float = 1e9) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, call = heapq.heappop(self._heap)
            call()
        self.now = max(self.now, until) if until < 1e9 else self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def executor(time: Time) -> MemoryExecutor:
    return MemoryExecutor(time.schedule, now=lambda: time.now)


def started(executor: MemoryExecutor, time: Time, identity: str, *command: str) -> tuple[list[Outcome], float]:
    told: list[Outcome] = []
    executor.controller(task(identity, *command), context()).start(told.append)
    time.run(time.now + 0.01)
    return told, time.now


def test_a_task_starts_after_a_delay_and_runs_on(executor: MemoryExecutor, time: Time) -> None:
    told: list[Outcome] = []
    executor.controller(task("t", "web"), context()).start(told.append)
    assert told == []
    time.run(0.01)
    (outcome,) = told
    assert isinstance(outcome, Done)
    assert outcome.container_status is not None
    assert outcome.container_status.pid > 0
    assert len(outcome.container_status.container_id) == 64
    time.run()
    assert executor.running == ["t"]


@pytest.mark.parametrize(
    ("command", "code", "at"),
    [(("exit", "3", "after", "5"), 3, 5.0), (("exit", "0"), 0, 0.0), (("sleep", "7"), 0, 7.0), (("echo", "x"), 0, 0.0)],
)
def test_a_command_says_when_and_how_the_task_ends(
    executor: MemoryExecutor, time: Time, command: tuple[str, ...], code: int, at: float
) -> None:
    _, began = started(executor, time, "t", *command)
    told: list[tuple[float, Outcome]] = []
    executor.controller(task("t", *command), context()).wait(lambda outcome: told.append((time.now, outcome)))
    time.run()
    ((when, outcome),) = told
    assert when == pytest.approx(began + at)
    if code:
        assert isinstance(outcome, Failed)
        assert (outcome.text, outcome.exit_code) == (f"task: non-zero exit ({code})", code)
    else:
        assert isinstance(outcome, Done)


def test_a_task_that_cannot_start_says_so_with_127(executor: MemoryExecutor, time: Time) -> None:
    (outcome,), _ = started(executor, time, "t", "missing")
    assert isinstance(outcome, Failed)
    assert outcome.text.startswith("starting container failed: ")
    assert outcome.exit_code == 127


def test_a_task_outlasts_its_controller_and_is_found_again(executor: MemoryExecutor, time: Time) -> None:
    first = executor.controller(task("t", "web"), context())
    told: list[Outcome] = []
    first.start(lambda _: None)
    time.run()
    first.wait(told.append)
    first.close(lambda _: None)
    assert told == [Failed(CONTROLLER_CLOSED)]
    again: list[Outcome] = []
    executor.controller(task("t", "web"), context()).start(again.append)
    time.run()
    assert isinstance(again[0], Already)
    assert executor.starts == {"t": 1}


@pytest.mark.parametrize("stop", ["shutdown", "terminate", "remove"])
def test_what_is_stopped_after_a_cancelled_start_does_not_start_behind_that(
    executor: MemoryExecutor, time: Time, stop: str
) -> None:
    controller = executor.controller(task("t", "web"), context())
    told: list[Outcome] = []
    operation = controller.start(told.append)
    operation.cancel()
    getattr(controller, stop)(told.append)
    time.run(60.0)
    assert executor.running == []
    assert len(told) == 2


def test_a_cancelled_start_has_started_all_the_same(executor: MemoryExecutor, time: Time) -> None:
    told: list[Outcome] = []
    operation = executor.controller(task("t", "web"), context()).start(told.append)
    operation.cancel()
    operation.cancel()
    time.run()
    assert told == [Failed("cancelled", cancelled=True)]
    assert executor.running == ["t"]


@pytest.mark.parametrize(("stop_after", "grace", "code", "at"), [(1.0, 10, 143, 1.0), (20.0, 10, 137, 10.0)])
def test_a_stop_gives_its_grace_period_and_then_kills(
    time: Time, stop_after: float, grace: int, code: int, at: float
) -> None:
    executor = MemoryExecutor(time.schedule, program=lambda _: Program(stop_after=stop_after))
    made = task("t", "web")
    made.spec.container.stop_grace_period.seconds = grace
    controller = executor.controller(made, context())
    controller.start(lambda _: None)
    time.run()
    began = time.now
    told: list[Outcome] = []
    controller.shutdown(told.append)
    time.run()
    (outcome,) = told
    assert isinstance(outcome, Done)
    assert outcome.container_status is not None
    assert outcome.container_status.exit_code == code
    assert time.now == pytest.approx(began + at)


def test_what_is_gone_is_stopped_and_removed_without_a_word(executor: MemoryExecutor, time: Time) -> None:
    controller = executor.controller(task("t", "web"), context())
    told: list[Outcome] = []
    for operation in (controller.shutdown, controller.terminate, controller.remove):
        operation(told.append)
    time.run()
    assert told == [Done(), Done(), Done()]


def test_a_power_cut_loses_the_exit_code_and_every_callback(executor: MemoryExecutor, time: Time) -> None:
    started(executor, time, "t", "web")
    silent: list[Outcome] = []
    executor.controller(task("t", "web"), context()).wait(silent.append)
    executor.controller(task("u", "web"), context()).start(silent.append)
    executor.power_off()
    time.run()
    assert silent == []
    assert executor.running == []
    told: list[Outcome] = []
    executor.controller(task("t", "web"), context()).wait(told.append)
    (outcome,) = told
    assert isinstance(outcome, Failed)
    assert outcome.text == "exit code unknown: the machine was restarted"
    assert outcome.exit_code is None


def test_all_tasks_can_be_stopped_at_once(executor: MemoryExecutor, time: Time) -> None:
    for identity in ("a", "b"):
        started(executor, time, identity, "web")
    told: list[bool] = []
    executor.stop_all(lambda: told.append(True))
    assert told == []
    time.run()
    assert told == [True]
    assert executor.running == []
    executor.stop_all(lambda: told.append(False))
    assert told == [True, False]


def test_logs_are_told_from_the_past_and_followed(executor: MemoryExecutor, time: Time) -> None:
    _, began = started(executor, time, "t", "log", "tick")
    time.run(began + 1.5)
    lines: list[LogLine] = []
    ends: list[str | None] = []
    controller = executor.controller(task("t", "log", "tick"), context())
    reading = controller.logs(LogOptions(follow=True, tail=-2), lines.append, ends.append)
    assert [line.data for line in lines] == [b"tick\n"]
    time.run(began + 3.5)
    assert len(lines) == 3
    assert [line.timestamp_ns for line in lines] == sorted({line.timestamp_ns for line in lines})
    reading.cancel()
    time.run(began + 5.5)
    assert len(lines) == 3
    assert ends == [None]


def test_only_the_streams_asked_for_are_read(executor: MemoryExecutor, time: Time) -> None:
    started(executor, time, "t", "echo", "hi")
    time.run()
    lines: list[LogLine] = []
    executor.controller(task("t"), context()).logs(LogOptions(streams=[Stream.STDERR]), lines.append, lambda _: None)
    assert lines == []


def test_a_refusal_is_the_scripts(time: Time) -> None:
    executor = MemoryExecutor(time.schedule, rejects=lambda made: "no" if made.id == "t" else "")
    with pytest.raises(Rejected, match="no"):
        executor.controller(task("t"), context())
    executor.controller(task("u"), context())
