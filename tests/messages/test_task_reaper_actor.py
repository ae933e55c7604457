"""TaskReaperActor: when it looks, that it looks at everything, and what it does after a failure."""

from __future__ import annotations

from typing import Any

from actors.store_actor import StoreActor
from actors.task_reaper_actor import TaskReaperActor
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Leading, Write
from runtime.stage.simulator import Simulator
from runtime.store.view import Published
from runtime.swarm.reaper import FLUSH_AFTER_S, FLUSH_AT
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.messages.orchestration_bench import Consensus
from tests.unit.swarm_orchestration.little_store import NOW, cluster_with, service_of, task_of


class Bench:
    """A store and a reaper, nobody else."""

    def __init__(self, *things: Any) -> None:
        self.simulator = Simulator(4)
        self.stage = self.simulator.node("n1")
        consensus = self.stage.mount("raft", Consensus)
        self.published = Published()
        self.store = self.stage.mount("store", StoreActor, consensus, self.published)
        self.store.tell(Leading(2, 8))
        self.simulator.settle()
        self.put(cluster_with(2), service_of(), *things)
        context = LeaderContext("n1", "cluster", self.store, self.published, None)  # type: ignore[arg-type]
        self.reaper = self.stage.mount("task_reaper", TaskReaperActor, context)
        self.simulator.settle()

    def put(self, *things: Any) -> None:
        self.simulator.ask(self.store, Write(lambda tx: [tx.create(thing) for thing in things] and None))

    def change(self, id: str, **more: Any) -> None:
        def step(tx: Any) -> None:
            new = objects.Task()
            new.CopyFrom(tx.get(objects.Task, id))
            new.desired_state = more.get("desired", new.desired_state)
            new.status.state = more.get("state", new.status.state)
            tx.update(new)

        self.simulator.ask(self.store, Write(step))

    def ids(self) -> list[str]:
        return [task.id for task in self.published.view.all(objects.Task)]


def failed(id: str, at: float, slot: int = 1) -> objects.Task:
    return task_of(service_of(), id, slot, state=types.FAILED, desired=types.SHUTDOWN, at=NOW + at)


def test_what_is_there_in_the_beginning_is_looked_at() -> None:
    gone = task_of(service_of(), "removed", 5, state=types.SHUTDOWN, desired=types.REMOVE)
    bench = Bench(failed("a", 1), failed("b", 2), failed("c", 3), gone)
    bench.simulator.run_for(1)
    assert bench.ids() == ["b", "c"]


def test_changes_are_collected_for_a_quarter_of_a_second() -> None:
    bench = Bench(failed("a", 1), failed("b", 2))
    bench.simulator.run_for(1)
    bench.put(failed("c", 3))
    bench.simulator.run_for(FLUSH_AFTER_S * 0.9)
    assert bench.ids() == ["a", "b", "c"]
    bench.simulator.run_for(FLUSH_AFTER_S * 0.2)
    assert bench.ids() == ["b", "c"]


def test_a_thousand_changes_are_not_waited_for() -> None:
    bench = Bench()
    many = [failed(f"t{number:05}", number, slot) for slot in range(1, FLUSH_AT + 3) for number in (slot,)]
    bench.put(*many[:800])
    bench.put(*many[800:])
    bench.simulator.settle()
    assert bench.reaper.resolve() is not None
    sizes = bench.stage.cells["/task_reaper"].instance.snapshot()
    assert sizes["to look at"] == 0


def test_a_task_to_be_removed_goes_when_it_stopped() -> None:
    bench = Bench(task_of(service_of(), "t", node="n1", desired=types.REMOVE))
    bench.simulator.run_for(5)
    assert bench.ids() == ["t"]
    bench.change("t", state=types.SHUTDOWN)
    bench.simulator.run_for(1)
    assert bench.ids() == []


def test_a_history_that_a_living_task_made_too_long_is_cut_when_that_ends() -> None:
    bench = Bench(failed("a", 2), task_of(service_of(), "old", at=NOW, desired=types.SHUTDOWN, node="n1"))
    bench.put(task_of(service_of(), "z", at=NOW + 9, node="n1"))
    bench.put(failed("y", 5))
    bench.simulator.run_for(1)
    assert bench.ids() == ["old", "z"]
    bench.put(failed("x", 6))
    bench.simulator.run_for(1)
    assert bench.ids() == ["old", "z"]
    bench.put(task_of(service_of(), "zz", at=NOW + 10, node="n1"))
    bench.simulator.run_for(1)
    assert bench.ids() == ["old", "z", "zz"]
    bench.change("old", state=types.SHUTDOWN)
    bench.simulator.run_for(1)
    assert bench.ids() == ["z", "zz"]


def test_what_came_up_while_it_was_away_is_looked_at_by_the_next_life() -> None:
    bench = Bench(failed("a", 1), failed("b", 2))
    bench.simulator.run_for(1)

    def burst(_value: Any) -> None:
        raise RuntimeError("made to fail")

    instance = bench.stage.cells["/task_reaper"].instance
    assert instance is not None
    instance.sink(burst)(None)
    bench.simulator.settle()
    bench.put(failed("c", 3), failed("d", 4))
    bench.simulator.run_for(5)
    assert bench.ids() == ["c", "d"]


def test_an_idle_reaper_writes_nothing() -> None:
    bench = Bench(failed("a", 1), task_of(service_of(), "live", at=NOW + 5))
    bench.simulator.run_for(5)
    version = bench.published.view.version
    bench.simulator.run_for(60)
    assert bench.published.view.version == version
