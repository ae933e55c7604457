"""Trace ids: what has the id of what, and how one trace is said to go on in another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.stage import Actor, handles
from runtime.stage.cell import Cell
from runtime.stage.mailbox import Envelope
from runtime.stage.observe import CAUSES_MAX, Causes
from runtime.stage.simulator import Simulator


@dataclass(frozen=True, slots=True)
class Begin:
    """Spawn somebody and call an edge."""


@dataclass(frozen=True, slots=True)
class Said:
    what: str


class Child(Actor):
    def started(self) -> None:
        assert self.parent is not None
        self.tell(self.parent, Said("child"))

    @handles(Said)
    def fail_over(self, message: Said) -> None:
        raise RuntimeError(message.what)


class Parent(Actor):
    def __init__(self, edge: list[Callable[[Any], None]]) -> None:
        super().__init__()
        self.edge = edge
        self.causes = Causes()

    @handles(Begin)
    def begin(self, message: Begin) -> None:
        self.ensure("child", Child)
        self.edge.append(self.sink(lambda _: self.tell(self.address, Said("answer")), self.trace))
        self.edge.append(self.sink(lambda _: self.tell(self.address, Said("news"))))

    @handles(Said)
    def said(self, message: Said) -> None:
        if message.what == "gather":
            self.causes.add(self.trace)
        elif message.what == "act":
            self.continues(*self.causes.take())
        elif message.what == "cross":
            self.continue_trace(77)
            self.tell(self.address, Said("crossed"))


class Bench:
    def __init__(self) -> None:
        self.simulator = Simulator(1)
        self.stage = self.simulator.node("n")
        self.edge: list[Callable[[Any], None]] = []
        self.traces: dict[str, int] = {}
        self.links: list[tuple[int, int]] = []
        self.simulator.observers.append(self._observe)
        self.simulator.linkers.append(lambda cause, effect: self.links.append((cause, effect)))
        self.parent = self.stage.mount("parent", Parent, self.edge)
        self.simulator.settle()

    def _observe(self, cell: Cell, envelope: Envelope) -> None:
        if isinstance(envelope[0], Said):
            self.traces[envelope[0].what] = envelope[4]

    def say(self, what: str, trace: int) -> None:
        self.parent.tell(Said(what), trace=trace)
        self.simulator.settle()


def test_what_a_child_says_at_its_start_is_of_the_trace_it_was_spawned_over() -> None:
    bench = Bench()
    bench.parent.tell(Begin(), trace=5)
    bench.simulator.settle()
    assert bench.traces["child"] == 5


def test_a_later_life_of_the_child_is_of_another_trace() -> None:
    bench = Bench()
    bench.parent.tell(Begin(), trace=5)
    bench.simulator.settle()
    bench.stage.at("/parent/child").tell(Said("fail"), trace=6)
    bench.simulator.run_for(1.0)
    assert bench.traces["child"] not in (0, 5, 6)


def test_an_answer_that_is_waited_for_is_of_its_questions_trace_and_news_are_not() -> None:
    bench = Bench()
    bench.parent.tell(Begin(), trace=5)
    bench.simulator.settle()
    for call in bench.edge:
        call(None)
    bench.simulator.settle()
    assert bench.traces["answer"] == 5
    assert bench.traces["news"] not in (0, 5)


def test_what_was_gathered_goes_on_in_what_is_done_about_it_once() -> None:
    bench = Bench()
    for trace in (5, 6, 6, 9):
        bench.say("gather", trace)
    bench.say("act", 9)
    assert bench.links == [(5, 9), (6, 9)]
    bench.say("act", 10)
    assert bench.links == [(5, 9), (6, 9)]


def test_a_trace_that_crossed_goes_on_under_its_own_id() -> None:
    bench = Bench()
    bench.say("cross", 9)
    assert bench.links == [(77, 9)]
    assert bench.traces["crossed"] == 77


def test_no_more_causes_are_kept_than_there_is_room_for() -> None:
    causes = Causes()
    for trace in range(2 * CAUSES_MAX):
        causes.add(trace)
    assert causes.take() == tuple(range(CAUSES_MAX))
    assert causes.take() == ()


def test_without_anybody_who_follows_nothing_is_linked() -> None:
    bench = Bench()
    bench.stage.linker = None
    bench.say("gather", 5)
    bench.say("act", 6)
    assert bench.links == []
