"""Whatever is asked of tasks that are actors, in whatever order: each question has one answer, and ends stay ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.executor.port import Done, Failed, Outcome
from tests.messages.actor_bench import Asked, Bench, task

IMAGES = ("actor/plain", "actor/patient", "actor/tough")
OPERATIONS = ("prepare", "start", "wait", "shutdown", "terminate", "remove")
WORDS = ("fail words", "exit 3", "exit 0", "end", "sys.exit 4", "nothing")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(OPERATIONS), st.integers(0, 2)),
        st.tuples(st.just("tell"), st.sampled_from(WORDS), st.integers(0, 2)),
        st.tuples(st.just("cancel"), st.just(""), st.integers(0, 2)),
        st.tuples(st.just("pass"), st.just(""), st.integers(0, 8)),
    ),
    max_size=25,
)
ENDLESS = ("wait", "start")
"""What may be under way for as long as the task runs."""


class World:
    """Three tasks, and all that was asked of them."""

    def __init__(self, seed: int) -> None:
        self.bench = Bench(seed)
        self.controllers = [self.bench.controller(task(f"t{number}", image)) for number, image in enumerate(IMAGES)]
        self.asked: list[tuple[str, int, Asked]] = []
        self.ends: dict[int, Outcome] = {}

    def do(self, step: tuple[str, str, int]) -> None:
        kind, what, number = step
        if kind == "ask":
            begin: Callable[[Any], Any] = getattr(self.controllers[number], what)
            self.asked.append((what, number, Asked(begin)))
        elif kind == "tell":
            self.bench.stage.at(f"/tasks/svc.1.t{number}").tell(what)
        elif kind == "cancel":
            for _, of, asked in self.asked:
                if of == number:
                    asked.operation.cancel()
        else:
            self.bench.run(number / 2)
        self.check()

    def fail_supervisor(self) -> None:
        cell = self.bench.stage.cells["/tasks"]
        cell.control(lambda: cell.failed(RuntimeError("ours"), None))
        self.ends.clear()

    def check(self) -> None:
        for what, number, asked in self.asked:
            assert len(asked.outcomes) <= 1, f"{what} was answered twice"
            if what == "wait" and asked.outcomes and not _cancelled(asked.outcomes[0]):
                self._ended(number, asked.outcomes[0])

    def _ended(self, number: int, outcome: Outcome) -> None:
        """An end that was told is the end, until the task is forgotten."""
        if isinstance(outcome, Failed) and outcome.text.startswith("exit code unknown"):
            return
        known = self.ends.setdefault(number, outcome)
        assert known == outcome


def _cancelled(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.cancelled


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(0, 100))
def test_each_question_has_one_answer_and_nothing_is_left_after_the_removal(
    steps: list[tuple[str, str, int]], seed: int
) -> None:
    world = World(seed)
    for step in steps:
        world.do(step)
    removed = [Asked(controller.remove) for controller in world.controllers]
    world.bench.run(20)
    assert all(isinstance(asked.outcome, Done) for asked in removed)
    assert world.bench.actors == []
    world.check()
    assert [what for what, _, asked in world.asked if not asked.outcomes] == []
    supervisor = world.bench.stage.cells["/tasks"].instance
    assert supervisor._tasks == {}  # type: ignore[union-attr]
    assert world.bench.stage._watchers == {}
    assert world.bench.stage.cells["/tasks"].failures.total == 0, "nothing that is asked fails their supervisor"


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(0, 100))
def test_no_task_is_started_twice(steps: list[tuple[str, str, int]], seed: int) -> None:
    world = World(seed)
    starts: list[str] = []
    create = world.bench.stage.create

    def counted(path: str, *rest: Any) -> Any:
        starts.append(path)
        return create(path, *rest)

    world.bench.stage.create = counted  # type: ignore[method-assign]
    for step in steps:
        if step[:2] == ("ask", "remove"):
            continue  # what was forgotten may be told of anew
        world.do(step)
    world.bench.run(20)
    assert len(starts) == len(set(starts))


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(0, 100))
def test_a_supervisor_that_fails_in_between_leaves_no_question_open_for_ever(
    steps: list[tuple[str, str, int]], seed: int
) -> None:
    world = World(seed)
    for place, step in enumerate(steps):
        if place == len(steps) // 2:
            world.fail_supervisor()
        world.do(step)
    world.bench.run(1)
    stopped = [Asked(controller.shutdown) for controller in world.controllers]
    world.bench.run(20)
    assert all(isinstance(asked.outcome, Done) for asked in stopped)
    assert [what for what, _, asked in world.asked if not asked.outcomes] == []
    assert world.bench.actors == []
