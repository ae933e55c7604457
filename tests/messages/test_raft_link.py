"""Links between managers of our kind: one call that stays open, what it carries, and how it ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.raft_link import LINK, is_link
from actors.raft_peer import ANSWER_PAUSE, COMMIT_PAUSE, PACES
from runtime.errors import Code, Refused
from runtime.failpoints import armed
from runtime.protocol.raft import Expelled, PeerState, PeerUnreachable, SendRaft, SetPeers, SpreadCommit, StepRaft
from runtime.raft.codec import message_to_pb
from runtime.raft.types import Entry, Message, MessageType
from runtime.swarm.membership import MEMBER_REMOVED
from runtime.wire.pb import raft_pb2, raftpb_pb2
from runtime.wire.port import Call
from runtime.wire.services import path
from tests.messages.test_raft_transport_actor import FROM_PEER, HEARTBEAT, OWN, PEER, Bench, Peer, unreachable

T = MessageType
STREAM = path("Raft", "StreamRaftMessage")


class Kin(Peer):
    """A peer of our kind: it takes links, and has said how it ticks."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.bench = bench
        self.links: list[Call] = []
        self.linked: list[raftpb_pb2.Message] = []
        self.ends: list[Refused | None] = []
        bench.members()
        self.say(Message(T.HEARTBEAT, to=OWN, from_=PEER, term=2))

    def stream(self, call: Call) -> None:
        if not is_link(call.metadata):
            super().stream(call)
            return
        self.links.append(call)
        if self.refusal is not None:
            call.fail(self.refusal)
            return
        call.receive(lambda item: self.linked.append(item.message), self.ends.append)  # type: ignore[attr-defined]

    def say(self, message: Message, *, fast: bool = False) -> None:
        """A message to the actor under test, in a call of its own."""
        answers: list[Any] = []
        request = raft_pb2.ProcessRaftMessageRequest(message=message_to_pb(message))
        self.bench.client.unary(
            path("Raft", "ProcessRaftMessage"), request, timeout=5, done=answers.append, metadata=PACES[fast]
        )
        self.bench.simulator.run_until(lambda: bool(answers), 10)
        assert not isinstance(answers[0], Refused), answers

    def answer(self, *args: Any) -> None:
        if args:
            super().answer(*args)
        else:
            self.say(Message(T.APP_RESP, to=OWN, from_=PEER, term=2, index=5))


def append(index: int, commit: int = 0) -> Message:
    entry = Entry(2, index, data=b"x")
    return Message(T.APP, to=PEER, from_=OWN, term=2, log_term=2, index=index - 1, entries=[entry], commit=commit)


def committed(index: int) -> Message:
    return Message(T.APP, to=PEER, from_=OWN, term=2, log_term=2, index=index, commit=index)


def tell(bench: Bench, *messages: Message, fast: bool = False) -> None:
    bench.actor.tell(SendRaft(messages, fast))
    bench.simulator.run_for(0.002)


def test_what_goes_to_a_manager_of_our_kind_goes_over_one_call_in_order() -> None:
    bench = Bench()
    kin = Kin(bench)
    votes = [Message(T.VOTE_RESP, to=PEER, from_=OWN, term=term) for term in range(2, 30)]
    for vote in votes:
        bench.send(vote)
    assert [message.term for message in kin.linked] == [vote.term for vote in votes]
    assert len(kin.links) == 1
    assert kin.calls == []


def test_before_it_has_said_its_kind_it_gets_a_call_for_each_message() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    bench.send(HEARTBEAT)
    assert peer.calls == ["stream"]
    assert len(peer.messages[0]) == 1


def test_appends_wait_for_the_answer_to_the_one_before_and_arrive_as_one() -> None:
    bench = Bench()
    kin = Kin(bench)
    for index in (5, 6, 7, 8):
        tell(bench, append(index))
    assert [len(message.entries) for message in kin.linked] == [1]
    kin.answer()
    bench.simulator.run_for(0.002)
    assert [len(message.entries) for message in kin.linked] == [1, 3]


def test_an_answer_that_does_not_come_holds_the_next_appends_for_a_moment_only() -> None:
    bench = Bench()
    kin = Kin(bench)
    tell(bench, append(5), HEARTBEAT, append(6))
    assert [message.type for message in kin.linked] == [raftpb_pb2.MsgApp, raftpb_pb2.MsgHeartbeat]
    bench.simulator.run_for(2 * ANSWER_PAUSE)
    assert [message.index for message in kin.linked if message.type == raftpb_pb2.MsgApp] == [4, 5]


def test_a_commit_index_rides_with_the_next_append_or_goes_alone_after_a_moment() -> None:
    bench = Bench()
    kin = Kin(bench)
    tell(bench, committed(4), append(5, commit=4))
    assert [(len(message.entries), message.commit) for message in kin.linked] == [(1, 4)]
    kin.answer()
    tell(bench, committed(5))
    assert len(kin.linked) == 1
    bench.simulator.run_for(2 * COMMIT_PAUSE)
    assert [(len(message.entries), message.commit) for message in kin.linked] == [(1, 4), (0, 5)]


def test_an_answer_lets_go_of_appends_and_of_no_commit_index_alone() -> None:
    bench = Bench()
    kin = Kin(bench)
    tell(bench, append(5), committed(5))
    kin.answer()
    bench.simulator.run_for(0.002)
    assert [len(message.entries) for message in kin.linked] == [1]
    tell(bench, append(6, commit=5))
    assert [(len(message.entries), message.commit) for message in kin.linked] == [(1, 0), (1, 5)]


def test_a_commit_index_that_somebody_waits_for_goes_at_once() -> None:
    bench = Bench()
    kin = Kin(bench)
    bench.actor.tell(SpreadCommit())
    tell(bench, committed(4))
    assert kin.linked == []
    bench.actor.tell(SpreadCommit())
    bench.simulator.run_for(0.002)
    assert [message.commit for message in kin.linked] == [4]


def test_a_link_that_breaks_is_one_loss_and_the_next_message_opens_another() -> None:
    bench = Bench()
    kin = Kin(bench)
    tell(bench, append(5))
    kin.links[0].fail(Refused(Code.UNAVAILABLE, "going down"))
    bench.simulator.run_for(0.1)
    assert unreachable(bench) == [PEER]
    assert bench.raft.expect(PeerState) == PeerState(PEER, True)
    assert bench.raft.expect(PeerState) == PeerState(PEER, False)
    kin.serving = True
    tell(bench, append(6))
    assert len(kin.links) == 2
    assert [message.index for message in kin.linked] == [4, 5]


def test_a_link_without_anybody_at_its_end_is_given_up_once_a_health_check_fails() -> None:
    bench = Bench()
    kin = Kin(bench)
    tell(bench, HEARTBEAT)
    kin.serving = False
    assert bench.raft.expect(PeerState) == PeerState(PEER, True)
    assert bench.raft.expect(PeerState, 4.0) == PeerState(PEER, False)
    bench.simulator.run_for(0.1)
    assert unreachable(bench) == [PEER]
    assert [end.code for end in kin.ends if end is not None] == [Code.CANCELLED]
    tell(bench, HEARTBEAT)
    assert len(kin.links) == 2


def test_a_link_that_is_not_listened_to_is_given_up_although_its_peer_is_healthy() -> None:
    bench = Bench()
    kin = Kin(bench)
    tell(bench, HEARTBEAT)
    bench.simulator.run_for(3.0)
    assert unreachable(bench) == [PEER]
    tell(bench, HEARTBEAT)
    assert len(kin.links) == 2


def test_what_wants_no_answer_keeps_its_link() -> None:
    bench = Bench()
    kin = Kin(bench)
    tell(bench, Message(T.APP_RESP, to=PEER, from_=OWN, term=2, index=5))
    bench.simulator.run_for(10.0)
    tell(bench, Message(T.HEARTBEAT_RESP, to=PEER, from_=OWN, term=2))
    assert len(kin.links) == 1
    assert unreachable(bench) == []


def test_a_peer_that_answers_messages_is_not_asked_how_it_is() -> None:
    bench = Bench()
    kin = Kin(bench)
    before = kin.checked
    for _ in range(10):
        tell(bench, HEARTBEAT)
        kin.say(Message(T.HEARTBEAT_RESP, to=OWN, from_=PEER, term=2))
        bench.simulator.run_for(0.4)
    assert kin.checked <= before + 1


def test_who_is_told_over_its_link_that_it_was_removed_says_so_to_its_consensus() -> None:
    bench = Bench()
    kin = Kin(bench)
    kin.refusal = Refused(Code.NOT_FOUND, MEMBER_REMOVED)
    bench.send(HEARTBEAT)
    bench.raft.expect(Expelled)
    assert unreachable(bench) == []


def test_another_pace_is_said_by_another_link() -> None:
    bench = Bench()
    kin = Kin(bench)
    tell(bench, HEARTBEAT)
    tell(bench, HEARTBEAT, fast=True)
    assert [call.metadata["swarmlet-raft"] for call in kin.links] == [("slow",), ("fast",)]
    bench.simulator.run_for(0.1)
    assert kin.ends == [None]


def test_a_removed_peer_still_gets_what_was_sent_to_it() -> None:
    bench = Bench()
    kin = Kin(bench)
    bench.actor.tell(SendRaft((append(5), append(6), committed(6))))
    bench.actor.tell(SetPeers(OWN, {}, frozenset({PEER})))
    bench.simulator.run_for(0.5)
    assert sum(len(message.entries) for message in kin.linked) == 2
    assert kin.linked[-1].commit == 6
    assert kin.ends == [None]


@pytest.mark.parametrize(("path_taken", "calls"), [("peer.calls", 1), ("peer.link_lost", 0)])
def test_the_rare_paths_lose_and_reorder_what_a_link_would_not(path_taken: str, calls: int) -> None:
    bench = Bench()
    kin = Kin(bench)
    with armed(choose=lambda name: name == path_taken):
        bench.send(HEARTBEAT)
    assert len(kin.calls) == calls
    assert unreachable(bench) == ([] if calls else [PEER])


# The receiving side


class Caller:
    """The sending end of a link to the actor under test."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.answers: list[Any] = []
        self.upload = bench.client.upload(STREAM, done=self.answers.append, metadata=(*PACES[True], *LINK))

    def send(self, message: Message) -> None:
        self.upload.send(raft_pb2.StreamRaftMessageRequest(message=message_to_pb(message)))
        self.bench.simulator.run_for(0.1)


def steps(bench: Bench) -> list[StepRaft]:
    return [message for message in bench.raft.messages if isinstance(message, StepRaft)]


def test_each_request_of_a_link_is_a_message_with_the_pace_that_was_said_when_it_was_opened() -> None:
    bench = Bench()
    bench.members()
    caller = Caller(bench)
    sent = [replace(FROM_PEER, commit=commit) for commit in (2, 3, 4)]
    for message in sent:
        caller.send(message)
    assert [step.message for step in steps(bench)] == sent
    assert all(step.fast for step in steps(bench))
    caller.upload.finish()
    bench.simulator.run_for(0.1)
    assert [type(answer) for answer in caller.answers] == [raft_pb2.StreamRaftMessageResponse]


def test_a_member_that_is_removed_while_its_link_stands_hears_it_with_its_next_message() -> None:
    bench = Bench()
    bench.members()
    caller = Caller(bench)
    caller.send(FROM_PEER)
    bench.members(PEER)
    caller.send(FROM_PEER)
    caller.send(FROM_PEER)
    assert len(steps(bench)) == 1
    assert [(answer.code, answer.text) for answer in caller.answers] == [(Code.NOT_FOUND, MEMBER_REMOVED)]


def test_a_link_ends_with_the_life_of_whoever_listens_to_it() -> None:
    bench = Bench()
    bench.members()
    caller = Caller(bench)
    caller.send(FROM_PEER)
    cell = bench.actor.resolve()
    assert cell is not None
    cell.control(lambda: cell.failed(RuntimeError("injected"), None))
    bench.simulator.run_for(0.5)
    assert [answer.code for answer in caller.answers] == [Code.UNAVAILABLE]


def test_what_no_member_sends_ends_the_link_and_reaches_nobody() -> None:
    bench = Bench()
    bench.members()
    caller = Caller(bench)
    caller.send(replace(FROM_PEER, entries=[Entry(9, 90)]))
    assert [answer.code for answer in caller.answers] == [Code.INVALID_ARGUMENT]
    assert steps(bench) == []


def test_a_message_for_somebody_else_is_dropped_and_the_link_goes_on() -> None:
    bench = Bench()
    bench.members()
    caller = Caller(bench)
    caller.send(replace(FROM_PEER, to=55))
    caller.send(FROM_PEER)
    assert [step.message for step in steps(bench)] == [FROM_PEER]
    assert caller.answers == []


def test_no_loss_is_told_of_a_link_that_its_sender_closed() -> None:
    bench = Bench()
    bench.members()
    caller = Caller(bench)
    caller.send(FROM_PEER)
    caller.upload.cancel()
    bench.simulator.run_for(0.5)
    assert not [message for message in bench.raft.messages if isinstance(message, PeerUnreachable)]
    assert len(steps(bench)) == 1


def test_links_end_with_a_life_in_the_order_in_which_they_were_opened() -> None:
    bench = Bench()
    bench.members()
    ended: list[int] = []
    for number in range(8):
        upload = bench.client.upload(
            STREAM, done=lambda _answer, number=number: ended.append(number), metadata=(*PACES[True], *LINK)
        )  # fmt: skip
        upload.send(raft_pb2.StreamRaftMessageRequest(message=message_to_pb(FROM_PEER)))
        bench.simulator.run_for(0.1)
    cell = bench.actor.resolve()
    assert cell is not None
    cell.control(lambda: cell.failed(RuntimeError("injected"), None))
    bench.simulator.run_for(0.5)
    assert ended == list(range(8))
