"""Writes that a store refuses before they are proposed: made once more, where the leader is by then."""

from __future__ import annotations

from typing import Any

import pytest

from actors.control_actor import LEADER_PAUSE, ControlActor
from runtime.errors import Code, Refused
from runtime.protocol.cluster import Control
from runtime.protocol.manager import LeaderIs, MembersChanged, ToLeader
from runtime.protocol.store import AwaitView, Write
from runtime.protocol.wire import Incoming
from runtime.stage import Actor, handles
from runtime.stage.answers import Future
from runtime.stage.simulator import Simulator
from runtime.store.view import Published
from runtime.swarm.membership import LOST_LEADERSHIP, NO_QUORUM, OUTCOME_UNKNOWN
from runtime.wire.pb import control_pb2
from runtime.wire.port import Identity
from runtime.wire.services import path
from tests.messages.test_control_actor import MEMBER, service

HERE, ELSEWHERE = LeaderIs("", True), LeaderIs("10.0.0.2:2377", False)
REFUSALS = [Refused(Code.UNAVAILABLE, LOST_LEADERSHIP), Refused(Code.UNKNOWN, NO_QUORUM)]
DONE = control_pb2.CreateServiceResponse()


class FakeStore(Actor):
    """Refuses as often as it is told to, then answers."""

    def __init__(self, refusals: list[Refused]) -> None:
        super().__init__()
        self.refusals = refusals
        self.writes = 0
        self.behind = False

    @handles(Write)
    def write(self, message: Write) -> Any:
        self.writes += 1
        if self.refusals:
            raise self.refusals.pop(0)
        return DONE

    @handles(AwaitView)
    def seen(self, message: AwaitView) -> int | None:
        if self.behind:
            self.awaiting = self.defer()
            return None
        return 1


class FakeProxy(Actor):
    """Stands for the leader elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.silent = False

    @handles(ToLeader)
    def to_leader(self, message: ToLeader) -> Any:
        self.calls += 1
        if self.silent:
            self.unanswered = self.defer()
            return None
        return DONE


class Bench:
    def __init__(self, *refusals: Refused) -> None:
        self.simulator = Simulator(1)
        self.stage = self.simulator.node("n1")
        store = self.stage.mount("store", FakeStore, list(refusals))
        proxy = self.stage.mount("proxy", FakeProxy)
        self.control = self.stage.mount("control", ControlActor, "node-1", store, Published(), None, proxy)
        self.control.tell(MembersChanged({7: MEMBER}))
        self.control.tell(HERE)
        self.simulator.settle()

    def instance(self, name: str) -> Any:
        cell = self.stage.at(f"/{name}").resolve()
        assert cell is not None
        return cell.instance

    @property
    def counts(self) -> tuple[int, int]:
        """Writes at the store here, and at the leader elsewhere."""
        return self.instance("store").writes, self.instance("proxy").calls

    def end(self, fails: bool) -> None:
        """Of this life of the control actor."""
        control = self.instance("control")

        def end(_: Any) -> None:
            if fails:
                raise RuntimeError("made to fail")
            control.stop()

        control.sink(end)(None)
        self.simulator.settle()

    def begin(self) -> Future:
        future = self.control.ask(Control("CreateService", control_pb2.CreateServiceRequest(spec=service())))
        self.simulator.settle()
        return future


@pytest.mark.parametrize("refusal", REFUSALS, ids=["handed over", "not leading"])
def test_a_write_that_was_never_proposed_goes_to_the_next_leader_as_soon_as_that_is_known(refusal: Refused) -> None:
    bench = Bench(refusal)
    future = bench.begin()
    assert not future.done
    bench.control.tell(ELSEWHERE)
    bench.simulator.settle()
    assert future.result(0) == DONE
    assert bench.counts == (1, 1)


def test_a_manager_that_goes_on_leading_makes_it_once_more_itself_and_no_more_often() -> None:
    bench = Bench(REFUSALS[0])
    future = bench.begin()
    bench.simulator.run_for(LEADER_PAUSE + 0.1)
    assert future.result(0) == DONE
    assert bench.counts == (2, 0)
    bench = Bench(*REFUSALS, *REFUSALS)
    future = bench.begin()
    bench.simulator.run_for(60)
    with pytest.raises(Refused, match="does not have a leader"):
        future.result(0)
    assert bench.counts == (2, 0)


@pytest.mark.parametrize(
    "refusal", [Refused(Code.UNKNOWN, OUTCOME_UNKNOWN), Refused(Code.ALREADY_EXISTS, "name conflicts")]
)
def test_what_may_have_been_proposed_or_was_refused_for_good_is_never_made_again(refusal: Refused) -> None:
    bench = Bench(refusal)
    future = bench.begin()
    with pytest.raises(Refused) as refused:
        future.result(0)
    assert refused.value.text == refusal.text
    bench.control.tell(ELSEWHERE)
    bench.simulator.run_for(5)
    assert bench.counts == (1, 0)


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_a_manager_that_ends_before_its_store_shows_a_write_answers_as_the_leader_did(fails: bool) -> None:
    bench = Bench()
    bench.control.tell(ELSEWHERE)
    bench.instance("store").behind = True
    future = bench.begin()
    assert not future.done
    bench.end(fails)
    assert future.result(0) == DONE


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_a_manager_that_ends_before_the_leader_answers_says_that_the_outcome_is_unknown(fails: bool) -> None:
    bench = Bench()
    bench.control.tell(ELSEWHERE)
    bench.instance("proxy").silent = True
    future = bench.begin()
    assert not future.done
    bench.end(fails)
    with pytest.raises(Refused, match=OUTCOME_UNKNOWN):
        future.result(0)


class FakeCall:
    """A call of the wire that another manager passed on."""

    method = path("Control", "CreateService")
    identity = Identity()

    def __init__(self) -> None:
        self.metadata = {"redirect": ("10.0.0.3:1",)}
        self.request = control_pb2.CreateServiceRequest(spec=service())


@pytest.mark.parametrize("refusal", REFUSALS, ids=["handed over", "not leading"])
def test_a_write_that_another_manager_passed_on_is_told_to_be_made_again_there(refusal: Refused) -> None:
    bench = Bench(refusal)
    future = bench.control.ask(Incoming(FakeCall()))  # type: ignore[arg-type]
    bench.simulator.settle()
    with pytest.raises(Refused) as refused:
        future.result(0)
    assert (refused.value.code, refused.value.text) == (Code.UNAVAILABLE, LOST_LEADERSHIP)
    bench.control.tell(ELSEWHERE)
    bench.simulator.run_for(5)
    assert bench.counts == (1, 0)


def test_writes_that_wait_when_the_control_api_ends_are_refused() -> None:
    bench = Bench(REFUSALS[0])
    future = bench.begin()
    bench.instance("control").stopped()
    bench.simulator.settle()
    with pytest.raises(Refused, match="lost leader status"):
        future.result(0)
