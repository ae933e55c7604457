"""RaftTransportActor and members that are not known here: where they say that they are, and what that is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.raft_callers import WAITING_MAX
from actors.raft_peer import PACE, PLACE
from runtime.disk.raft_records import Member
from runtime.errors import Code, Refused
from runtime.protocol.raft import Expelled, PeerState, PeerUnreachable, SetPeers, StepRaft
from runtime.raft.claims import CLAIMS_MAX, KEPT, RETRY
from runtime.raft.codec import message_to_pb
from runtime.raft.types import Entry, Message, MessageType
from runtime.swarm.membership import MEMBER_REMOVED
from runtime.wire.pb import raft_pb2
from runtime.wire.port import MANAGER, Channel
from runtime.wire.services import path
from tests.messages.test_raft_transport_actor import OWN, PEER, STRANGER, Bench, Peer, unreachable
from tests.unit.wire.authority import CLUSTER, authority

T = MessageType
VOTES = [T.VOTE, T.PRE_VOTE]
AT = "10.0.0.8:2377"
ANSWER = Message(T.VOTE_RESP, to=STRANGER, from_=OWN, term=5)


def vote(kind: MessageType = T.VOTE, sender: int = STRANGER, term: int = 5) -> Message:
    return Message(kind, to=OWN, from_=sender, term=term, index=4, log_term=2)


class Unknown:
    """A manager of the swarm that this one does not know: a server at 10.0.0.8, and who calls from there."""

    def __init__(self, bench: Bench, node_id: str = "node-8", host: str = "10.0.0.8", *, serves: bool = True) -> None:
        self.bench = bench
        self.credentials = authority().manager(node_id)
        self.server = Peer(bench, host, self.credentials) if serves else None
        transport = self.server.transport if self.server is not None else bench.network.transport(host)
        self.client: Channel = transport.connect("10.0.0.1:2377", self.credentials)

    def call(self, message: Message, place: str = AT, **how: Any) -> Any:
        return self.bench.call(message, client=self.client, place=place, **how)


def stepped(bench: Bench) -> list[StepRaft]:
    return [message for message in bench.raft.messages if isinstance(message, StepRaft)]


def known(bench: Bench) -> str:
    """What the transport says of itself."""
    cell = bench.actor.resolve()
    assert cell is not None
    assert cell.instance is not None
    return str(cell.instance.snapshot()["unknown callers"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", VOTES)
def test_an_unknown_candidate_that_is_where_it_says_is_stepped_as_proven_and_its_answer_finds_it(
    kind: MessageType, stream: bool
) -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    assert not isinstance(unknown.call(vote(kind), stream=stream), Refused)
    step = bench.raft.expect(StepRaft)
    assert (replace(step.message, entries=()), step.proven) == (vote(kind), True)
    assert unknown.server is not None
    assert unknown.server.checked == 1
    bench.send(ANSWER)
    assert [pieces[0].term for pieces in unknown.server.messages] == [5]
    assert unreachable(bench) == []


@pytest.mark.parametrize("kind", VOTES)
@pytest.mark.parametrize("place", ["10.0.0.7:2377", "10.0.0.99:2377", "10.0.0.1:2377"])
def test_one_that_is_not_where_it_says_gets_nothing_and_nothing_is_sent_there(kind: MessageType, place: str) -> None:
    """At another node, at nobody, at this node itself."""
    bench = Bench()
    other = Peer(bench)
    bench.members()
    Unknown(bench).call(vote(kind), place)
    bench.raft.expect_none(StepRaft, 3.0)
    bench.send(ANSWER)
    bench.simulator.run_for(5.0)
    assert other.messages == []
    assert other.asked == [STRANGER], "who knows it is asked instead"
    assert unreachable(bench) == [STRANGER]


@pytest.mark.parametrize("kind", VOTES)
def test_one_that_does_not_serve_gets_nothing(kind: MessageType) -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    assert unknown.server is not None
    unknown.server.serving = False
    unknown.call(vote(kind))
    bench.raft.expect_none(StepRaft, 3.0)
    unknown.server.serving = True
    bench.simulator.run_for(RETRY)
    unknown.call(vote(kind, term=6))
    assert bench.raft.expect(StepRaft).message.term == 6


@pytest.mark.parametrize(
    "place", ["nonsense", "10.0.0.8", "10.0.0.8:0", "10.0.0.8:99999", ":", "[::1", "x" * 5000 + ":1"]
)
def test_a_place_that_is_none_is_nothing_and_the_vote_dropped_as_without_one(place: str) -> None:
    bench = Bench()
    bench.members()
    assert not isinstance(Unknown(bench).call(vote(), place), Refused)
    bench.raft.expect_none(StepRaft, 3.0)
    assert known(bench) == "0"


def test_a_manager_without_an_address_of_its_own_is_where_it_calls_from() -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    unknown.call(vote(), "0.0.0.0:2377")
    assert bench.raft.expect(StepRaft).proven
    bench.send(ANSWER)
    assert unknown.server is not None
    assert len(unknown.server.messages) == 1


def test_a_candidate_of_another_kind_says_no_address_and_is_dropped() -> None:
    bench = Bench()
    bench.members()
    for kind in VOTES:
        bench.call(vote(kind))
    bench.raft.expect_none(StepRaft, 3.0)
    assert known(bench) == "0"


def test_what_another_node_says_on_ones_behalf_makes_it_not_known() -> None:
    bench = Bench()
    bench.members()
    victim = Unknown(bench)
    metadata = (
        (PACE, "fast"), (PLACE, AT), ("forwarded_cert", "true"), ("forwarded_cert_cn", "node-8"),
        ("forwarded_cert_org", CLUSTER), ("forwarded_cert_ou", MANAGER),
    )  # fmt: skip
    answers: list[Any] = []
    request = raft_pb2.ProcessRaftMessageRequest(message=message_to_pb(vote()))
    method = path("Raft", "ProcessRaftMessage")
    bench.client.unary(method, request, timeout=5, done=answers.append, metadata=metadata)
    bench.raft.expect_none(StepRaft, 3.0)
    assert [isinstance(answer, Refused) for answer in answers] == [False]
    assert known(bench) == "0"
    assert victim.server is not None
    assert victim.server.checked == 0


def test_a_removed_member_is_told_so_and_is_not_called_wherever_it_says_to_be() -> None:
    bench = Bench()
    bench.actor.tell(SetPeers(OWN, {OWN: Member(OWN, "node-1", "10.0.0.1:2377")}, frozenset({STRANGER})))
    unknown = Unknown(bench)
    for kind in VOTES:
        answer = unknown.call(vote(kind))
        assert (answer.code, answer.text) == (Code.NOT_FOUND, MEMBER_REMOVED)
    bench.raft.expect_none(StepRaft, 3.0)
    assert unknown.server is not None
    assert unknown.server.checked == 0


def test_a_vote_for_somebody_else_makes_nobody_known() -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    unknown.call(replace(vote(), to=55))
    assert known(bench) == "0"
    assert unknown.server is not None
    assert unknown.server.checked == 0


def test_a_leader_that_joined_meanwhile_is_answered_where_it_says_although_nobody_else_can_be_asked() -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    append = Message(T.APP, to=OWN, from_=STRANGER, term=2, log_term=2, index=4, entries=[Entry(2, 5)], commit=4)
    unknown.call(append)
    assert bench.raft.expect(StepRaft).message == append
    assert unknown.server is not None
    assert unknown.server.checked == 0, "an append needs no proof"
    bench.send(*(Message(T.APP_RESP, to=STRANGER, from_=OWN, term=2, index=index) for index in (5, 6)))
    assert [pieces[0].index for pieces in unknown.server.messages] == [5, 6]
    assert unknown.server.checked == 1
    assert unreachable(bench) == []


def test_what_waits_until_a_leader_has_proven_itself_is_bounded_and_lost_with_it() -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench, serves=False)
    unknown.call(Message(T.HEARTBEAT, to=OWN, from_=STRANGER, term=2))
    bench.network.half_open("10.0.0.1", "10.0.0.8")
    bench.send(*(replace(ANSWER, term=term) for term in range(1, WAITING_MAX + 4)))
    assert unreachable(bench) == [STRANGER] * 3
    bench.simulator.run_for(5.0)
    assert unreachable(bench) == [STRANGER] * (WAITING_MAX + 3)


def test_one_question_at_a_time_is_put_to_a_place_and_after_one_in_vain_none_for_a_while() -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    assert unknown.server is not None
    unknown.server.serving = False
    for term in range(5, 9):
        unknown.call(vote(term=term))
        unknown.call(vote(term=term), "10.0.0.7:2377")
    assert unknown.server.checked == 1
    bench.simulator.run_for(RETRY)
    unknown.call(vote(term=9))
    assert unknown.server.checked == 2


def test_whoever_holds_many_certificates_fills_no_memory_and_idle_callers_are_let_go() -> None:
    bench = Bench()
    bench.members()
    for number in range(CLAIMS_MAX + 5):
        unknown = Unknown(bench, f"other-{number}", f"10.0.1.{number}", serves=False)
        unknown.call(Message(T.HEARTBEAT, to=OWN, from_=1000 + number, term=2), f"10.0.1.{number}:2377")
    assert known(bench) == str(CLAIMS_MAX)
    bench.simulator.run_for(KEPT + 2.0)
    assert known(bench) == "0"


def test_one_node_may_say_anything_and_is_one_caller() -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    for number in range(50):
        unknown.call(Message(T.HEARTBEAT, to=OWN, from_=1000 + number, term=2), f"10.0.1.{number}:2377")
    assert known(bench) == "1"


def test_what_an_unknown_member_says_of_this_ones_membership_ends_nothing() -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    assert unknown.server is not None
    unknown.call(vote())
    unknown.server.refusal = Refused(Code.NOT_FOUND, MEMBER_REMOVED)
    bench.send(ANSWER)
    bench.raft.expect_none(Expelled, 3.0)


def test_nobody_is_said_to_be_reached_or_missed_that_is_no_member() -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    unknown.call(vote())
    bench.send(ANSWER)
    bench.network.isolate("10.0.0.8")
    bench.send(ANSWER)
    bench.simulator.run_for(5.0)
    states = [message for message in bench.raft.messages if isinstance(message, PeerState)]
    assert all(state.raft_id == PEER for state in states)
    assert bench.raft.expect(PeerUnreachable) == PeerUnreachable(STRANGER)


def test_one_that_is_known_by_now_is_sent_to_as_a_member() -> None:
    bench = Bench()
    bench.members()
    unknown = Unknown(bench)
    unknown.call(vote())
    members = {OWN: Member(OWN, "node-1", "10.0.0.1:2377"), STRANGER: Member(STRANGER, "node-8", AT)}
    bench.actor.tell(SetPeers(OWN, members, frozenset()))
    bench.send(ANSWER)
    assert known(bench) == "0"
    assert unknown.server is not None
    assert len(unknown.server.messages) == 1
    assert bench.raft.expect(PeerState) == PeerState(STRANGER, True)
    step = bench.raft.expect(StepRaft)
    unknown.call(vote(term=6))
    assert step.proven
    assert not bench.raft.expect(StepRaft).proven, "it needs no proof any more"


# What is said to others


def place_said(peer: Peer) -> list[str]:
    return [metadata.get(PLACE, ("",))[0] for metadata in peer.metadata]


def test_members_are_told_where_this_one_is_reached() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    bench.send(Message(T.HEARTBEAT, to=PEER, from_=OWN, term=2))
    assert place_said(peer) == ["10.0.0.1:2377"]
    assert peer.metadata[0][PACE] == ("slow",)


def test_a_member_that_has_shown_to_be_of_another_kind_is_told_nothing_more() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    bench.call(Message(T.HEARTBEAT_RESP, to=OWN, from_=PEER, term=2))
    bench.send(Message(T.HEARTBEAT, to=PEER, from_=OWN, term=2))
    bench.members()
    bench.send(Message(T.HEARTBEAT, to=PEER, from_=OWN, term=2))
    assert place_said(peer) == ["", ""]
    assert peer.metadata[0][PACE] == ("slow",)


# A log that was made a new cluster's by force


def test_a_forced_log_takes_nothing_from_who_is_not_known_but_what_a_member_vouches_for() -> None:
    bench = Bench(forced=True)
    peer = Peer(bench)
    bench.members()
    old, new = Unknown(bench), Unknown(bench, "node-9", "10.0.0.10")
    peer.places[100] = "10.0.0.10:2377"
    beat = Message(T.HEARTBEAT, to=OWN, from_=STRANGER, term=9)
    for message in (beat, vote(T.PRE_VOTE), vote()):
        assert not isinstance(old.call(message), Refused)
        bench.simulator.run_for(1.0)
    assert stepped(bench) == []
    assert old.server is not None
    assert old.server.checked == 0
    for message in (replace(beat, from_=100), replace(beat, from_=100), vote(T.PRE_VOTE, 100), vote(T.VOTE, 100)):
        new.call(message, "10.0.0.10:2377")
        old.call(beat)
    kinds = [(step.message.type, step.message.from_, step.proven) for step in stepped(bench)]
    assert kinds == [(T.HEARTBEAT, 100, False), (T.PRE_VOTE, 100, True), (T.VOTE, 100, True)]
    assert peer.asked == [STRANGER, 100], "one that nobody knows is not asked for all the time"


def test_a_forced_log_that_nobody_else_is_a_member_of_is_moved_by_nobody() -> None:
    bench = Bench(forced=True)
    bench.actor.tell(SetPeers(OWN, {OWN: Member(OWN, "node-1", "10.0.0.1:2377")}, frozenset({PEER})))
    unknown = Unknown(bench)
    for _ in range(3):
        unknown.call(Message(T.HEARTBEAT, to=OWN, from_=STRANGER, term=9))
        unknown.call(vote())
        bench.simulator.run_for(3.0)
    assert stepped(bench) == []
