"""What keeps an actor from its messages is said of it, since it cannot say so itself."""

from __future__ import annotations

import pytest

from runtime.introspection.standing import LATE_S, kept, standing
from runtime.stage import Actor, GiveUp, Policy
from runtime.stage.cell import Cell
from runtime.stage.simulator import Simulator
from tests.unit.stage.actors import Add, Counter, Fail

DOWN = Policy(give_up=GiveUp.STAY_DOWN, max_restarts=0)


class Bench:
    def __init__(self) -> None:
        self.simulator = Simulator(1, cost=0.0)
        self.stage = self.simulator.node("n")

    def cell(self, name: str = "a", cls: type[Actor] = Counter, policy: Policy | None = None) -> Cell:
        found = self.stage.mount(name, cls, policy=policy).resolve()
        assert found is not None
        self.simulator.settle()
        return found

    def says(self, cell: Cell) -> str:
        return standing(cell, self.stage.read_nanos())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_is_said_of_an_actor_that_goes_on(bench: Bench) -> None:
    cell = bench.cell()
    cell.address.tell(Add(1))
    bench.simulator.run_for(60.0)
    assert bench.says(cell) == ""


def test_one_that_is_suspended_is_named_so_and_how_long_its_messages_wait(bench: Bench) -> None:
    cell = bench.cell()
    cell.suspend(True)
    bench.simulator.settle()
    assert bench.says(cell) == "suspended"
    cell.address.tell(Add(1))
    bench.simulator.run_for(90.0)
    assert bench.says(cell) == "suspended, its messages wait for 90.0 s"
    cell.suspend(False)
    bench.simulator.settle()
    assert bench.says(cell) == ""


def test_one_that_does_not_return_is_named_with_its_message(bench: Bench) -> None:
    cell = bench.cell()
    cell.handling, cell.handling_since = (Add(1), None, None, 0, 0), bench.stage.read_nanos()
    bench.simulator.run_for(LATE_S / 2)
    assert bench.says(cell) == "", "it may be at work"
    bench.simulator.run_for(LATE_S)
    assert bench.says(cell) == "stuck at Add for 3.0 s"


def test_one_that_is_not_reached_by_its_turn_is_named(bench: Bench) -> None:
    cell = bench.cell()
    assert cell.idle.acquire(blocking=False), "no turn of it comes"
    cell.address.tell(Add(1))
    bench.simulator.run_for(5.0)
    assert bench.says(cell) == "its messages wait for 5.0 s"


def test_one_that_is_down_is_named_with_its_error_without_secrets(bench: Bench) -> None:
    cell = bench.cell(policy=DOWN)
    cell.address.tell(Fail(RuntimeError("no SWMTKN-1-abc")))
    bench.simulator.settle()
    assert bench.says(cell) == "down: RuntimeError: no (hidden)"


def test_only_those_that_are_kept_are_told_of_and_who_is_not_there_is_not(bench: Bench) -> None:
    bench.cell("b")
    bench.cell("a").suspend(True)
    bench.simulator.settle()
    assert kept(bench.stage, ("/a", "/b", "/c")) == {"/a": "suspended"}
    assert kept(bench.stage) == {}
