"""What actors did, as it is counted: nothing is lost or counted twice, whoever counts it and when."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime.stage import Actor, GiveUp, Policy, Stage, handles
from runtime.stage.observe import COUNTED_AT, NOTED, REMEMBERED, Past, Tally, quantile
from runtime.stage.simulator import Simulator
from tests.unit.stage.actors import Add, Fail, Tick, Total
from tests.unit.stage.actors import Counter as Adder

KINDS = (Add, Total, Tick)
nanos = st.integers(0, 10**18)  # up to 31 years


@dataclass
class Told:
    """What a model says of the messages of one type."""

    waits: list[int] = field(default_factory=list)
    busies: list[int] = field(default_factory=list)
    failed: int = 0


def within(buckets: list[int], share: float, times: list[int]) -> bool:
    """Whether a quantile is the next power of two above that of a sorted list."""
    exact = sorted(times)[max(0, -int(-share * len(times) // 1) - 1)]
    return quantile(buckets, share) == (2 ** exact.bit_length() / 1e9 if exact else 0.0)


class Tallied(RuleBasedStateMachine):
    """An actor that notes, and others who look at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self.told: dict[type, Told] = {}
        self.order: deque[type] = deque(maxlen=REMEMBERED)
        self.clock = 0

    @rule(kind=st.sampled_from(KINDS), wait=nanos, busy=nanos, times=st.integers(1, COUNTED_AT + 3))
    def handle(self, kind: type, wait: int, busy: int, times: int) -> None:
        """The same a few times."""
        for _ in range(times):
            begun = self.clock + wait
            self.tally.noted += (kind, self.clock, begun, begun + busy)
            told = self.told.setdefault(kind, Told())
            told.waits.append(wait)
            told.busies.append(busy)
            self.order.append(kind)
            self.clock += 1

    @rule(kind=st.sampled_from(KINDS))
    def fail(self, kind: type) -> None:
        self.tally.failed(kind)
        self.told.setdefault(kind, Told()).failed += 1

    @rule()
    def counted_by_itself(self) -> None:
        self.tally.count_if_free()
        assert not self.tally.noted

    @rule()
    def looked_at(self) -> None:
        """All figures are those of the model."""
        stats = self.tally.stats
        assert set(stats) == set(self.told)
        for kind, told in self.told.items():
            found = stats[kind]
            assert (found.count, found.failed) == (len(told.waits), told.failed)
            assert found.busy == sum(told.busies)
            assert found.busy_max == max(told.busies, default=0)
            assert found.wait_max == max(told.waits, default=0)
            assert sum(found.wait_buckets) == found.count
            for share in (0.5, 0.99) if told.waits else ():
                assert within(found.wait_buckets, share, told.waits)
                assert within(found.busy_buckets, share, told.busies)

    @invariant()
    def the_last_are_remembered(self) -> None:
        assert self.tally.recent == tuple(self.order)


TestTallied = Tallied.TestCase
TestTallied.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


class Waiting(Actor):
    """Handles until it is let go."""

    def __init__(self, begun: threading.Event, go_on: threading.Event) -> None:
        super().__init__()
        self.begun, self.go_on = begun, go_on

    @handles(Tick)
    def wait(self, message: Tick) -> None:
        self.begun.set()
        assert self.go_on.wait(30)

    @handles(Add)
    def add(self, message: Add) -> None:
        """Nothing."""


def test_counts_are_what_was_sent_while_somebody_looks_all_the_time() -> None:
    stage, over = Stage(), threading.Event()
    names, senders, each = ("a", "b", "c"), 4, 700
    addresses = {name: stage.mount(name, Adder) for name in names}
    backwards: list[tuple[int, int]] = []

    def look() -> None:
        seen = 0
        while not over.is_set():
            found = sum(stats.count for cell in stage.walk() for stats in list(cell.tally.stats.values()))
            if found < seen:
                backwards.append((seen, found))
            seen = found

    def send() -> None:
        for _ in range(each):
            for name in names:
                addresses[name].tell(Add(1))
                addresses[name].tell(Tick())

    looking = [threading.Thread(target=look) for _ in range(2)]
    sending = [threading.Thread(target=send) for _ in range(senders)]
    for thread in (*looking, *sending):
        thread.start()
    for thread in sending:
        thread.join()
    totals = [addresses[name].ask(Total()).result(30) for name in names]
    over.set()
    for thread in looking:
        thread.join()
    assert stage.close()
    assert totals == [2 * senders * each] * len(names), "an actor's own count"
    past = stage.observations.past["Counter"]
    assert (past.handled, past.failed) == (len(names) * (2 * senders * each + 1), 0)
    assert not backwards, "what was counted is never counted less"


def test_an_actor_does_not_wait_for_who_looks() -> None:
    stage = Stage()
    address = stage.mount("a", Adder)
    cell = address.resolve()
    assert cell is not None
    with cell.tally._counting:  # as somebody who looks, and whose thread does not go on
        for _ in range(3 * COUNTED_AT):
            address.tell(Add(1))
        assert address.ask(Total()).result(30) == 3 * COUNTED_AT
    found = {kind.__name__: stats.count for kind, stats in cell.tally.stats.items()}
    assert found == {"Add": 3 * COUNTED_AT, "Total": 1}
    assert stage.close()


def test_who_looks_while_somebody_counts_sees_what_is_being_counted() -> None:
    tally, found = Tally(), []
    looking = threading.Thread(target=lambda: found.append(tally.stats[Add].count))
    with tally._counting:  # as somebody who took what was noted, and has not counted it yet
        looking.start()
        tally._of(Add).busy_buckets[1] = 7
    looking.join()
    assert found == [7]


def test_little_is_left_uncounted_where_nobody_looks() -> None:
    simulator = Simulator(1, cost=0.0)
    cell = simulator.node("n").mount("a", Adder).resolve()
    assert cell is not None
    for _ in range(10 * COUNTED_AT):
        cell.address.tell(Add(1))
    simulator.settle()
    assert len(cell.noted) < COUNTED_AT * NOTED
    assert cell.tally.stats[Add].count == 10 * COUNTED_AT


def test_the_highest_depth_is_that_of_a_mailbox_whose_actor_did_not_return() -> None:
    stage, begun, go_on = Stage(), threading.Event(), threading.Event()
    address = stage.mount("a", Waiting, begun, go_on)
    cell = address.resolve()
    assert cell is not None
    address.tell(Tick())
    assert begun.wait(30)
    for _ in range(50):
        address.tell(Add(1))
    go_on.set()
    assert stage.close()
    assert (cell.mailbox.highest, cell.mailbox.depth) == (50, 0)


@given(st.lists(st.one_of(st.integers(1, 40), st.floats(0.001, 100.0)), max_size=20))
def test_depths_and_times_in_a_mailbox_are_those_of_who_was_held_back(steps: list[int | float]) -> None:
    """Messages come, time passes; then the actor goes on and all is handled at one instant."""
    simulator = Simulator(1, cost=0.0)
    cell = simulator.node("n").mount("a", Adder).resolve()
    assert cell is not None
    simulator.settle()
    cell.suspend(True)
    simulator.settle()
    sent: list[float] = []
    for step in steps:
        if isinstance(step, int):
            sent += [simulator.time] * step
            for _ in range(step):
                cell.address.tell(Add(1))
        else:
            simulator.run_for(step)
    oldest = cell.mailbox.oldest()
    assert cell.mailbox.depth == len(sent)
    assert oldest == (int(sent[0] * 1e9) if sent else None)
    cell.suspend(False)
    simulator.settle()
    assert cell.mailbox.highest == len(sent)
    waits = [int(simulator.time * 1e9) - int(at * 1e9) for at in sent]
    stats = cell.tally.stats.get(Add)
    assert (stats.count if stats else 0, stats.wait_max if stats else 0) == (len(waits), max(waits, default=0))
    if stats:
        assert within(stats.wait_buckets, 0.5, waits)
        assert within(stats.wait_buckets, 0.99, waits)


def test_a_crash_report_names_the_last_ten_messages_wherever_they_were_counted() -> None:
    simulator = Simulator(1, cost=0.0)
    stage = simulator.node("n")
    cell = stage.mount("a", Adder, policy=Policy(give_up=GiveUp.NEVER)).resolve()
    assert cell is not None
    told: list[Any] = [Add(1)] * COUNTED_AT + [Tick(), Total(), Add(1)]
    for message in told[:-2]:
        cell.address.tell(message)
    simulator.settle()
    assert cell.tally.stats[Add].count == COUNTED_AT, "somebody looks"
    for message in (*told[-2:], Fail(RuntimeError("no"))):
        cell.address.tell(message)
    simulator.run_for(1.0)
    (report,) = stage.observations.crashes
    assert report.before == tuple(type(each).__name__ for each in told[-REMEMBERED:])
    failed = cell.tally.stats[Fail]
    assert (failed.count, failed.failed) == (1, 1)


def test_figures_of_who_is_gone_are_kept_by_class() -> None:
    simulator = Simulator(1, cost=0.0)
    stage = simulator.node("n")
    cell = stage.mount("a", Adder).resolve()
    assert cell is not None
    for message in (Add(1), Add(2), Fail(RuntimeError("no"))):
        cell.address.tell(message)
    simulator.run_for(1.0)
    cell.request_stop()
    simulator.settle()
    past: Past = stage.observations.past["Counter"]
    assert (past.handled, past.failed, past.restarts) == (3, 1, 1)


def test_nothing_is_noted_where_nobody_wants_to_know() -> None:
    simulator = Simulator(1, cost=0.0)
    stage = simulator.node("n")
    stage.observing = False
    cell = stage.mount("a", Adder).resolve()
    assert cell is not None
    cell.address.tell(Add(1))
    simulator.settle()
    assert (cell.noted, cell.tally.stats, Counter(cell.tally.recent)) == ([], {}, Counter())
