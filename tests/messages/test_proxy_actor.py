"""ProxyActor: calls that only a leader serves, while this manager leads, follows, or knows no leader."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from actors.proxy_actor import TOO_LATE, WAIT_MAX, ProxyActor
from runtime.errors import Code, Refused
from runtime.protocol.manager import LEADS_HERE, LeaderIs, ToLeader
from runtime.stage import Reply
from runtime.stage.simulator import Simulator
from runtime.swarm.membership import NO_LEADER_MAX, NO_QUORUM, OUTCOME_UNKNOWN
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import ca_pb2, control_pb2, health_pb2
from runtime.wire.port import Access, Call, Channel
from runtime.wire.services import path, routes
from runtime.wire.to_actor import to_actor
from tests.unit.wire.authority import CLUSTER, authority

ROOT = path("CA", "GetRootCACertificate")
ISSUE = path("NodeCA", "IssueNodeCertificate")
CREATE = path("Control", "CreateService")
LEADER = "10.0.0.2:2377"


class Leader:
    """Another manager, which notes who asked for what."""

    def __init__(self, bench: Bench) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.refusal: Refused | None = None
        self.silent = False
        served = {ROOT: self.root, ISSUE: self.issue, CREATE: self.create, path("Health", "Check"): self.check}
        transport = bench.network.transport("10.0.0.2")
        transport.serve(LEADER, routes(served), access=lambda: Access(CLUSTER), credentials=authority().manager("m2"))

    def note(self, call: Call, response: Any) -> None:
        self.asked.append((call.method, call.identity.node_id, call.metadata.get("redirect")))
        if self.silent:
            return
        if self.refusal is not None:
            call.fail(self.refusal)
        else:
            call.reply(response)

    def root(self, call: Call) -> None:
        self.note(call, ca_pb2.GetRootCACertificateResponse(certificate=b"root"))

    def issue(self, call: Call) -> None:
        self.note(call, ca_pb2.IssueNodeCertificateResponse(node_id="issued"))

    def create(self, call: Call) -> None:
        self.note(call, control_pb2.CreateServiceResponse())

    def check(self, call: Call) -> None:
        call.reply(health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING))


class Bench:
    """The proxy of the manager at 10.0.0.1 and a worker who calls there."""

    def __init__(self) -> None:
        self.simulator = Simulator(5)
        self.network = MemoryNetwork(
            lambda delay, call: self.simulator.set(delay, call), random.Random(1), clock=time.time
        )
        self.stage = self.simulator.node("n1", transport=self.network.transport("10.0.0.1"))
        credentials = authority().manager("m1")
        self.proxy = self.stage.mount("proxy", ProxyActor, self.stage.at("/leader"), credentials)
        transport = self.stage.world.transport
        assert transport is not None
        served = routes({name: to_actor(self.proxy) for name in (ROOT, ISSUE)})
        transport.serve("10.0.0.1:2377", served, access=lambda: Access(CLUSTER), credentials=credentials)
        self.worker = self.network.transport("10.0.0.9").connect("10.0.0.1:2377", authority().worker("w9"))

    def leader_is(self, addr: str, here: bool = False) -> None:
        self.proxy.tell(LeaderIs(addr, here))
        self.simulator.run_for(0.1)

    def call(self, channel: Channel | None = None, **extra: Any) -> list[Any]:
        answers: list[Any] = []
        request = ca_pb2.IssueNodeCertificateRequest()
        (channel or self.worker).unary(ISSUE, request, timeout=60, done=answers.append, **extra)
        return answers

    def write(self) -> list[Any]:
        """A write of this manager's own."""
        answers: list[Any] = []
        reply = Reply(lambda answer: answers.append(answer.error or answer.value))
        self.proxy.send(ToLeader(CREATE, control_pb2.CreateServiceRequest()), None, reply, 0)
        return answers

    def answer(self, answers: list[Any]) -> Any:
        self.simulator.run_until(lambda: bool(answers), 60)
        return answers[0]


def test_a_call_goes_to_the_leader_on_behalf_of_whoever_made_it_with_where_it_came_from() -> None:
    bench = Bench()
    leader = Leader(bench)
    bench.leader_is(LEADER)
    assert bench.answer(bench.call()).node_id == "issued"
    ((method, node_id, redirect),) = leader.asked
    assert (method, node_id) == (ISSUE, "w9")
    assert redirect is not None
    assert redirect[0].startswith("10.0.0.9:")


def test_a_call_that_was_passed_on_before_is_refused() -> None:
    bench = Bench()
    Leader(bench)
    bench.leader_is(LEADER)
    other = bench.network.transport("10.0.0.8").connect("10.0.0.1:2377", authority().manager("m8"))
    answer = bench.answer(bench.call(other, metadata=(("redirect", "10.0.0.5:1"),)))
    assert answer.code is Code.RESOURCE_EXHAUSTED
    assert answer.text == "more than one redirect to leader from: [10.0.0.5:1]"


def test_calls_wait_for_whoever_comes_to_lead() -> None:
    bench = Bench()
    leader = Leader(bench)
    answers = bench.call()
    bench.simulator.run_for(3)
    assert answers == []
    bench.leader_is(LEADER)
    assert bench.answer(answers).node_id == "issued"
    assert len(leader.asked) == 1


def test_once_nobody_has_led_for_ten_seconds_calls_are_refused_at_once() -> None:
    bench = Bench()
    bench.simulator.run_for(NO_LEADER_MAX + 1)
    begun = bench.simulator.time
    answer = bench.answer(bench.call())
    assert (answer.code, answer.text) == (Code.UNKNOWN, NO_QUORUM)
    assert bench.simulator.time - begun < 0.1


def test_calls_that_wait_are_refused_when_nobody_has_led_for_ten_seconds() -> None:
    bench = Bench()
    bench.leader_is(LEADER)
    bench.leader_is("")
    begun = bench.simulator.time
    answer = bench.answer(bench.call())
    assert (answer.code, answer.text) == (Code.UNKNOWN, NO_QUORUM)
    assert NO_LEADER_MAX - 1 < bench.simulator.time - begun < NO_LEADER_MAX + 1


def test_a_call_waits_for_a_leader_that_is_named_and_does_not_answer_until_its_own_deadline() -> None:
    bench = Bench()
    bench.leader_is("10.0.0.3:2377")  # nobody is there
    begun = bench.simulator.time
    answer = bench.answer(bench.call())
    assert (answer.code, answer.text) == (Code.DEADLINE_EXCEEDED, TOO_LATE)
    assert WAIT_MAX - 1 < bench.simulator.time - begun < WAIT_MAX + 1


@pytest.mark.parametrize("own", [True, False])
def test_a_call_that_never_reached_a_dead_leader_waits_for_the_next_one(own: bool) -> None:
    bench = Bench()
    bench.leader_is("10.0.0.3:2377")  # nobody is there
    answers = bench.write() if own else bench.call()
    bench.simulator.run_for(1)
    assert answers == []
    leader = Leader(bench)
    bench.leader_is(LEADER)
    assert not isinstance(bench.answer(answers), Refused)
    assert len(leader.asked) == 1


def test_a_call_lost_with_its_leader_is_made_once_more_at_the_next_one() -> None:
    bench = Bench()
    leader = Leader(bench)
    leader.silent = True
    bench.leader_is(LEADER)
    answers = bench.call()
    bench.simulator.run_for(1)
    bench.network.crash("10.0.0.2")
    bench.simulator.run_for(1)
    assert (len(leader.asked), answers) == (1, [])
    again = Leader(bench)
    assert bench.answer(answers).node_id == "issued"
    assert len(again.asked) == 1


def test_a_write_of_our_own_that_was_lost_is_not_repeated_and_its_outcome_is_unknown() -> None:
    bench = Bench()
    leader = Leader(bench)
    leader.silent = True
    bench.leader_is(LEADER)
    answers = bench.write()
    bench.simulator.run_for(1)
    assert len(leader.asked) == 1
    bench.network.crash("10.0.0.2")
    answer = bench.answer(answers)
    assert (answer.code, answer.text) == (Code.UNKNOWN, OUTCOME_UNKNOWN)


def test_a_refusal_of_the_leader_is_passed_back_as_it_is() -> None:
    bench = Bench()
    leader = Leader(bench)
    leader.refusal = Refused(Code.INVALID_ARGUMENT, "no such thing")
    bench.leader_is(LEADER)
    answer = bench.answer(bench.call())
    assert (answer.code, answer.text) == (Code.INVALID_ARGUMENT, "no such thing")
    assert len(leader.asked) == 1


def test_a_write_of_our_own_goes_out_as_ourselves_and_comes_back_if_we_lead_by_then() -> None:
    bench = Bench()
    leader = Leader(bench)
    bench.leader_is(LEADER)
    bench.simulator.ask(bench.proxy, ToLeader(CREATE, control_pb2.CreateServiceRequest()))
    assert [each[:2] for each in leader.asked] == [(CREATE, "m1")]
    bench.leader_is("", here=True)
    answer = bench.simulator.ask(bench.proxy, ToLeader(CREATE, control_pb2.CreateServiceRequest()))
    assert answer == LEADS_HERE
    assert len(leader.asked) == 1
