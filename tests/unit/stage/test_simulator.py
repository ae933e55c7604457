"""The deterministic dispatcher: one seed, one history."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runtime.stage import Actor, Address, Stage, handles
from runtime.stage.simulator import SimulatedClock, Simulator, Stuck
from runtime.stage.timers import Timer
from tests.unit.stage.actors import Add, Counter, Every, Fail, Later, Total


class Passes(Actor):
    """Passes a number on to a random other, until it is used up."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    @handles(Add)
    def add(self, message: Add) -> None:
        if message.amount:
            name = self.world.random.choice(self.names)
            self.tell(self._cell.stage.at(f"/{name}"), Add(message.amount - 1))


def history(seed: int) -> tuple[str, int]:
    simulator = Simulator(seed)
    stage = simulator.node("n1")
    names = [f"a{number}" for number in range(5)]
    for name in names:
        stage.mount(name, Passes, names)
    for name in names:
        stage.at(f"/{name}").tell(Add(200))
    simulator.settle()
    return simulator.digest, simulator.steps


def test_a_seed_fixes_every_delivery() -> None:
    assert history(3) == history(3)
    assert history(3)[1] > 1000


def test_seeds_differ() -> None:
    assert history(3)[0] != history(4)[0]


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_a_seed_gives_the_same_digest_in_another_process_and_under_another_hash_seed(hash_seed: str) -> None:
    code = "from tests.unit.stage.test_simulator import history; print(history(3)[0])"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert out.stdout.strip() == history(3)[0]


def test_virtual_time_jumps_to_the_next_timer() -> None:
    simulator = Simulator(1)
    stage = simulator.node("n1")
    counter = stage.mount("counter", Counter)
    counter.tell(Every(1.0))
    simulator.run_for(3600.5)
    assert simulator.ask(counter, Total()) == 3600


def test_a_node_that_crashes_runs_nothing_more_and_others_go_on() -> None:
    simulator = Simulator(1)
    one, two = simulator.node("n1"), simulator.node("n2")
    log: list[str] = []
    first, second = one.mount("counter", Counter, log), two.mount("counter", Counter)
    for address in (first, second):
        address.tell(Every(1.0))
    simulator.run_for(5)
    simulator.crash(one)
    simulator.run_for(5.5)
    assert simulator.ask(second, Total()) == 10
    assert log == ["started"]


def test_a_paused_node_catches_up_in_a_burst() -> None:
    simulator = Simulator(1)
    stage = simulator.node("n1")
    counter = stage.mount("counter", Counter)
    counter.tell(Every(1.0))
    simulator.run_for(2.5)
    simulator.pause(stage, 10.0)
    simulator.run_for(9.0)
    future = counter.ask(Total())
    simulator.run_for(0.5)
    assert not future.done
    simulator.run_until(lambda: future.done)
    assert future.result(0) >= 11


def test_worlds_of_nodes_differ_and_repeat() -> None:
    assert Simulator(1).node("a").world.entropy(8) == Simulator(1).node("a").world.entropy(8)
    assert Simulator(1).node("a").world.entropy(8) != Simulator(1).node("b").world.entropy(8)


def test_what_does_not_happen_is_said_with_the_last_deliveries() -> None:
    simulator = Simulator(1)
    counter = simulator.node("n1").mount("counter", Counter)
    with pytest.raises(Stuck, match=r"(?s)seed 1: .*n1:/counter Later"):
        simulator.ask(counter, Later(), within=1)


class Asks(Actor):
    def __init__(self, target: Address) -> None:
        super().__init__()
        self.target = target

    @handles(Add)
    def add(self, message: Add) -> None:
        self.ask(self.target, Total(), lambda answer: self.tell(self.target, Add(answer.get() + message.amount)))


def test_a_probe_stands_for_another_actor() -> None:
    simulator = Simulator(1)
    stage = simulator.node("n1")
    probe = stage.probe()
    probe.answer(Total, lambda _question: 40)
    asks = stage.mount("asks", Asks, probe.address)
    asks.tell(Add(2))
    assert probe.expect(Add) == Add(42)
    probe.expect_none(Add, during=5)


def test_a_probe_that_waits_in_vain_says_for_what_what_came_instead_and_who_failed() -> None:
    simulator = Simulator(4)
    stage = simulator.node("n1")
    probe = stage.probe()
    with pytest.raises(Stuck, match=r"^/probe was told no Total, but nothing\nseed 4: not within 3 virtual seconds\n"):
        probe.expect(Total, within=3)
    stage.mount("counter", Counter).tell(Fail(ValueError("by a test")))
    probe.address.tell(Add(1))
    probe.address.tell(Add(2))
    with pytest.raises(Stuck) as stuck:
        probe.expect(Total)
    told, failed, *_ = str(stuck.value).splitlines()
    assert told == "/probe was told no Total, but Add(amount=1), Add(amount=2)"
    assert failed == "/counter failed over Fail: ValueError: by a test"
    assert probe.expect(Add) == Add(1)


def test_time_does_not_run_past_its_limit_when_a_timer_wakes_nobody() -> None:
    simulator = Simulator(1)
    fired: list[float] = []
    simulator.set(0.0, lambda: fired.append(simulator.time))
    simulator.set(5.0, lambda: fired.append(simulator.time))
    simulator.run_for(0.02)
    assert simulator.time == 0.02
    simulator.run_for(10.0)
    assert fired == [0.0, 5.0]


def test_the_watches_of_an_actor_end_with_it() -> None:
    simulator = Simulator(1)
    stage = simulator.node("n")
    watched, watcher = stage.mount("watched", Actor), stage.mount("watcher", Actor)
    stage.watch(watched, watcher)
    simulator.settle()
    cell = watcher.resolve()
    assert cell is not None
    cell.request_stop()
    simulator.settle()
    assert stage._watchers == {}
    assert stage._watching == {}


def test_time_does_not_run_past_its_limit_over_a_cancelled_timer() -> None:
    simulator = Simulator(1)
    simulator.set(1.0, lambda: None).cancel()
    simulator.set(15.0, lambda: None)
    simulator.run_for(2.0)
    assert simulator.time == 2.0


def test_a_probe_needs_virtual_time() -> None:
    stage = Stage()
    with pytest.raises(RuntimeError, match="virtual time"):
        stage.probe()
    assert stage.close()


def test_pauses_may_overlap_and_a_crash_ends_them() -> None:
    simulator = Simulator(1)
    stage, other = simulator.node("n1"), simulator.node("n2")
    counter = stage.mount("counter", Counter)
    simulator.settle()
    simulator.pause(stage, 10.0)
    simulator.pause(stage, 2.0)
    future = counter.ask(Total())
    simulator.run_for(9.0)
    assert (future.done, simulator.paused(stage), simulator.paused(other)) == (False, True, False)
    simulator.run_for(1.5)
    assert (future.done, simulator.paused(stage)) == (True, False)
    simulator.pause(stage, 5.0)
    late = counter.ask(Total())
    simulator.crash(stage)
    simulator.run_for(10.0)
    assert not late.done


def test_a_slowed_actor_waits_before_each_turn() -> None:
    simulator = Simulator(1)
    stage = simulator.node("n1")
    counter = stage.mount("counter", Counter)
    simulator.settle()
    cell = stage.cells["/counter"]
    simulator.slow(cell, lambda: 2.0)
    began = simulator.time
    simulator.ask(counter, Total())
    assert simulator.time - began == pytest.approx(2.0, abs=0.01)
    simulator.slow(cell, None)
    began = simulator.time
    simulator.ask(counter, Total())
    assert simulator.time - began == pytest.approx(0.0, abs=0.01)


def test_a_clock_that_drifts_takes_its_timers_with_it() -> None:
    simulator = Simulator(1)
    stage = simulator.node("n1")
    counter = stage.mount("counter", Counter)
    simulator.run_for(10.0)
    clock = stage.world.clock
    assert isinstance(clock, SimulatedClock)
    clock.drift(2.0)
    counter.tell(Every(1.0))
    simulator.run_for(10.05)
    assert clock.monotonic() == pytest.approx(30.1)
    assert simulator.ask(counter, Total()) == 20


def test_observers_see_each_delivery_before_it_is_made() -> None:
    simulator = Simulator(1)
    counter = simulator.node("n1").mount("counter", Counter)
    seen: list[tuple[str, str]] = []
    simulator.observers.append(lambda cell, envelope: seen.append((cell.path, type(envelope[0]).__name__)))
    counter.tell(Add(1))
    simulator.ask(counter, Total())
    assert seen == [("/counter", "Add"), ("/counter", "Total")]


def test_a_wait_does_not_jump_over_its_limit() -> None:
    simulator = Simulator(1)
    fired: list[int] = []
    simulator.set(100.0, lambda: fired.append(1))
    with pytest.raises(Stuck):
        simulator.run_until(lambda: bool(fired), within=1.0)
    assert fired == []


class Alarms(Actor):
    """Keeps many timers set, and sets and takes back others."""

    @handles(Add)
    def add(self, message: Add) -> None:
        for _ in range(message.amount):
            self.after(60.0, Later())

    @handles(Total)
    def total(self, message: Total) -> None:
        for _ in range(1000):
            self.after(60.0, Later()).cancel()


def test_a_timer_does_not_cost_a_look_at_all_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [0]

    def active(timer: Timer) -> bool:
        looks[0] += 1
        return timer.call is not None

    monkeypatch.setattr(Timer, "active", property(active))
    simulator = Simulator()
    alarms = simulator.node("n1").mount("alarms", Alarms)
    alarms.tell(Add(10_000))
    simulator.settle()
    assert looks[0] <= 20_000
    looks[0] = 0
    for _ in range(50):
        simulator.ask(alarms, Total())
    assert looks[0] <= 150_000  # 50,000 are gone, and were let go in between
    cell = alarms.resolve()
    assert cell is not None
    assert len(cell._timers) <= 21_000
