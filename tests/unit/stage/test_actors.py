"""What an actor may rely on, under the deterministic dispatcher and under threads alike."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from runtime.errors import Code, Refused
from runtime.stage import (
    Actor,
    ActorDown,
    ActorUnavailable,
    ActorUp,
    Address,
    AskTimeout,
    BlockingGet,
    Overflow,
    Policy,
    Stage,
    handles,
)
from runtime.stage.cell import Life
from runtime.stage.simulator import Simulator
from tests.unit.stage.actors import (
    Add,
    Asker,
    Counter,
    Every,
    Fail,
    Family,
    Later,
    Mourner,
    Refuse,
    Release,
    Total,
    Watcher,
)
from tests.waiting import until


class Ground:
    """One stage, and a way to ask and to wait that suits its dispatcher."""

    def __init__(self, simulator: Simulator | None) -> None:
        self.simulator = simulator
        self.stage = simulator.node("n1") if simulator else Stage(name="test")

    def ask(self, address: Address, message: Any) -> Any:
        if self.simulator:
            return self.simulator.ask(address, message)
        return address.ask(message).result(60)

    def until(self, condition: Callable[[], bool]) -> None:
        if self.simulator:
            return self.simulator.run_until(condition)
        until(condition)
        return None


@pytest.fixture(params=["simulated", "threads"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    ground = Ground(Simulator(7) if request.param == "simulated" else None)
    yield ground
    if ground.simulator is None:
        assert ground.stage.close()


def test_messages_of_one_sender_arrive_in_order_and_all(ground: Ground) -> None:
    counter = ground.stage.mount("counter", Counter)
    for amount in range(1000):
        counter.tell(Add(amount))
    assert ground.ask(counter, Total()) == 499500


def test_an_exception_fails_the_actor_answers_the_asker_and_brings_it_back(ground: Ground) -> None:
    log: list[str] = []
    counter = ground.stage.mount("counter", Counter, log)
    counter.tell(Add(5))
    with pytest.raises(ActorUnavailable, match=r"/counter failed: ValueError: broken"):
        ground.ask(counter, Fail(ValueError("broken")))
    assert ground.ask(counter, Total()) == 0
    assert log == ["started", "crashed", "started"]
    report = list(ground.stage.observations.crashes)[-1]
    assert (report.path, report.message, report.state) == ("/counter", "Fail", {"total": 5})
    assert "broken" in report.traceback


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_no_kind_of_exception_touches_another_actor(ground: Ground, error: BaseException) -> None:
    one, other = ground.stage.mount("one", Counter), ground.stage.mount("other", Counter)
    other.tell(Add(1))
    one.tell(Fail(error))
    assert ground.ask(one, Total()) == 0
    assert ground.ask(other, Total()) == 1


def test_messages_wait_in_the_mailbox_while_the_actor_is_down(ground: Ground) -> None:
    counter = ground.stage.mount("counter", Counter)
    counter.tell(Fail(ValueError()))
    for _ in range(10):
        counter.tell(Add(1))
    assert ground.ask(counter, Total()) == 10


def test_a_refusal_is_an_answer_and_no_failure(ground: Ground) -> None:
    log: list[str] = []
    counter = ground.stage.mount("counter", Counter, log)
    with pytest.raises(Refused, match="no such thing"):
        ground.ask(counter, Refuse())
    ground.ask(counter, Total())
    assert log == ["started"]


def test_a_refusal_that_nobody_asked_for_is_a_failure(ground: Ground) -> None:
    log: list[str] = []
    counter = ground.stage.mount("counter", Counter, log)
    counter.tell(Refuse())
    ground.ask(counter, Total())
    assert log == ["started", "crashed", "started"]


def test_an_answer_may_come_later(ground: Ground) -> None:
    counter = ground.stage.mount("counter", Counter)
    future = counter.ask(Later())
    ground.ask(counter, Total())
    assert not future.done
    counter.tell(Release("now"))
    ground.until(lambda: future.done)
    assert future.result(60) == "now"


def test_a_question_between_actors_is_answered_by_a_message(ground: Ground) -> None:
    answers: list[Any] = []
    counter = ground.stage.mount("counter", Counter)
    asker = ground.stage.mount("asker", Asker, counter, answers)
    asker.tell(Total())
    asker.tell(Refuse())
    asker.tell(Fail(ValueError("no")))
    ground.until(lambda: len(answers) == 3)
    assert answers[0].get() == 0
    assert isinstance(answers[1].error, Refused)
    assert answers[1].error.code is Code.NOT_FOUND
    assert isinstance(answers[2].error, ActorUnavailable)


def test_a_question_that_nobody_answers_ends_with_its_deadline(ground: Ground) -> None:
    answers: list[Any] = []
    counter = ground.stage.mount("counter", Counter)
    asker = ground.stage.mount("asker", Asker, counter, answers, 0.05)
    asker.tell(Later())
    ground.until(lambda: bool(answers))
    assert isinstance(answers[0].error, AskTimeout)
    counter.tell(Release("too late"))
    ground.until(lambda: ground.stage.observations.late_answers == 1)
    assert len(answers) == 1


def test_a_message_to_nobody_is_counted_and_a_question_refused(ground: Ground) -> None:
    nobody = ground.stage.at("/nobody")
    nobody.tell(Total())
    with pytest.raises(ActorUnavailable, match="nobody is at /nobody"):
        ground.ask(nobody, Total())
    assert ground.stage.observations.dead_letters == 2


def test_a_message_of_an_unknown_type_is_refused_and_counted(ground: Ground) -> None:
    counter = ground.stage.mount("counter", Counter)
    with pytest.raises(ActorUnavailable, match="does not take str"):
        ground.ask(counter, "what")
    assert ground.ask(counter, Total()) == 0
    assert ground.stage.observations.dead_letters == 1


def test_an_address_names_the_same_actor_after_its_parents_restart(ground: Ground) -> None:
    family = ground.stage.mount("family", Family, "child")
    ground.until(lambda: "/family/child" in ground.stage.cells)
    child = ground.stage.at("/family/child")
    child.tell(Add(3))
    assert ground.ask(child, Total()) == 3
    before = ground.stage.cells["/family/child"]
    family.tell(Fail(ValueError()))
    ground.until(lambda: ground.stage.cells.get("/family/child") not in (None, before))
    assert ground.ask(child, Total()) == 0


def test_children_survive_where_the_policy_says_so(ground: Ground) -> None:
    family = ground.stage.mount("family", Family, "child", policy=Policy(children_survive=True))
    ground.until(lambda: "/family/child" in ground.stage.cells)
    child = ground.stage.at("/family/child")
    child.tell(Add(3))
    family.tell(Fail(ValueError()))
    ground.until(lambda: ground.stage.cells["/family"].failures.total == 1)
    assert ground.ask(child, Total()) == 3


def test_watchers_hear_of_failure_and_return_through_restarts(ground: Ground) -> None:
    heard: list[Any] = []
    counter = ground.stage.mount("counter", Counter)
    ground.ask(counter, Total())
    ground.stage.mount("watcher", Watcher, heard, counter)
    ground.until(lambda: len(heard) == 1)
    counter.tell(Fail(ValueError("x")))
    ground.until(lambda: len(heard) == 3)
    assert heard[0] == ActorUp("/counter", 0)
    assert isinstance(heard[1], ActorDown)
    assert not heard[1].final
    assert heard[2] == ActorUp("/counter", 1)


def test_a_life_does_not_end_over_children_of_the_life_before(ground: Ground) -> None:
    ground.stage.mount("family", Mourner)
    ground.until(lambda: "/family/child" in ground.stage.cells)
    parent, child = ground.stage.cells["/family"], ground.stage.cells["/family/child"]
    parent.suspend(True)
    for number in range(1, 4):
        child.address.tell(Fail(ValueError(f"failure {number}")))
        ground.until(lambda number=number: child.failures.total == number and child.instance is not None)  # type: ignore[misc]
    parent.suspend(False)
    ground.until(lambda: parent.failures.total > 0 and parent.life is Life.RUNNING and not parent.mailbox.user)
    assert parent.failures.total == 1
    assert ground.ask(ground.stage.at("/family/child"), Total()) == 0


def test_too_many_failures_are_the_parents_matter(ground: Ground) -> None:
    ground.stage.mount("family", Family, "child", policy=Policy(max_restarts=100))
    ground.until(lambda: "/family/child" in ground.stage.cells)
    child = ground.stage.cells["/family/child"]
    child.policy = Policy(max_restarts=0)
    child.address.tell(Fail(ValueError("again")))
    ground.until(lambda: ground.stage.cells["/family"].failures.total == 1)
    assert [report.path for report in ground.stage.observations.crashes] == ["/family/child", "/family"]


def test_a_full_mailbox_refuses_and_counts(ground: Ground) -> None:
    gate = threading.Event()
    counter = ground.stage.mount("counter", Counter, policy=Policy(capacity=2))
    ground.ask(counter, Total())
    ground.stage.cells["/counter"].suspend(True)
    ground.until(lambda: not ground.stage.cells["/counter"].mailbox.control)
    futures = [counter.ask(Total()) for _ in range(3)]
    with pytest.raises(ActorUnavailable, match=r"the mailbox of /counter is full \(2 messages wait\)"):
        futures[2].result(0)
    assert ground.stage.cells["/counter"].mailbox.dropped == 1
    ground.stage.cells["/counter"].suspend(False)
    ground.until(lambda: all(future.done for future in futures))
    gate.set()


def test_a_mailbox_may_drop_its_oldest(ground: Ground) -> None:
    counter = ground.stage.mount("counter", Counter, policy=Policy(capacity=2, overflow=Overflow.DROP_OLDEST))
    ground.ask(counter, Total())
    cell = ground.stage.cells["/counter"]
    cell.suspend(True)
    ground.until(lambda: not cell.mailbox.control)
    for amount in (1, 10, 100):
        counter.tell(Add(amount))
    cell.suspend(False)
    ground.until(lambda: not cell.mailbox.user)
    assert ground.ask(counter, Total()) == 110


def test_a_told_message_of_an_unknown_type_is_counted_and_harms_nobody(ground: Ground) -> None:
    counter = ground.stage.mount("counter", Counter)
    counter.tell(Add(1))
    counter.tell("what")
    assert ground.ask(counter, Total()) == 1
    assert ground.stage.observations.dead_letters == 1


def test_timers_end_with_the_life_that_set_them(ground: Ground) -> None:
    counter = ground.stage.mount("counter", Counter)
    counter.tell(Every(0.01))
    ground.until(lambda: ground.ask(counter, Total()) >= 3)
    counter.tell(Fail(ValueError()))
    ground.ask(counter, Total())  # from here on no timer of the life before tells anything
    waited = ground.ask(counter, Total())  # what was told by then waited in the mailbox through the restart
    again = ground.stage.mount("other", Counter)
    again.tell(Every(0.01))
    ground.until(lambda: ground.ask(again, Total()) >= 3)
    assert ground.ask(counter, Total()) == waited


def test_stopping_ends_the_children_first(ground: Ground) -> None:
    log: list[str] = []
    family = ground.stage.mount("family", Family, "a", "b")
    ground.until(lambda: "/family/b" in ground.stage.cells)
    heard: list[Any] = []
    targets = [ground.stage.at(name) for name in ("/family", "/family/a", "/family/b")]
    ground.stage.mount("watcher", Watcher, heard, *targets)
    ground.until(lambda: len(heard) == 3)
    cell = family.resolve()
    assert cell is not None
    cell.request_stop()
    ground.until(lambda: len(heard) == 6)
    assert [event.path for event in heard[3:]][-1] == "/family"
    assert all(event.final for event in heard[3:])
    assert log == []


def test_waiting_for_an_answer_in_a_handler_raises(ground: Ground) -> None:
    class Waits(Counter):
        def unhandled(self, message: Any) -> Any:
            return self.address.ask(Total()).result(60)

    waits = ground.stage.mount("waits", Waits)
    with pytest.raises(ActorUnavailable, match="BlockingGet"):
        ground.ask(waits, "go")
    assert BlockingGet.__name__ in ground.stage.cells["/waits"].last_error


def test_actors_are_not_in_pykkas_registry(ground: Ground) -> None:
    counter = ground.stage.mount("counter", Counter)
    ground.ask(counter, Total())
    assert pykka.ActorRegistry.get_all() == []
    pykka.ActorRegistry.stop_all()
    assert ground.ask(counter, Total()) == 0


def test_closing_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    stage = Stage(name="short")
    address = stage.mount("own", Counter, policy=Policy(own_thread=True))
    address.tell(Every(0.01))
    assert address.ask(Total()).result(60) >= 0
    assert stage.close()
    until(lambda: not [each for each in threading.enumerate() if each not in before], "no thread is left")
    with pytest.raises(ActorUnavailable):
        address.ask(Total()).result(60)


class _One(Actor):
    @handles(int)
    def one(self, message: int) -> str:
        return "one"


class _Two(Actor):
    @handles(str)
    def two(self, message: str) -> str:
        return "two"


class _Both(_One, _Two):
    """Handlers of all bases."""


def test_an_actor_has_the_handlers_of_all_its_bases() -> None:
    simulator = Simulator(1)
    both = simulator.node("n").mount("both", _Both)
    assert simulator.ask(both, 1) == "one"
    assert simulator.ask(both, "x") == "two"


def test_a_failure_told_twice_is_one_failure() -> None:
    simulator = Simulator(1)
    cell = simulator.node("n").mount("one", _One).resolve()
    assert cell is not None
    simulator.settle()
    for _ in range(2):
        cell.control(lambda: cell.failed(RuntimeError("injected"), None))
    simulator.run_for(1.0)
    assert cell.failures.total == 1
