"""RaftTransportActor over a network in memory: what it sends, loses, takes and refuses; a probe is the consensus."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import pytest

from actors.raft_peer import PACE, PLACE, QUEUE_MAX
from actors.raft_transport_actor import RaftTransportActor
from runtime.disk.raft_records import Member
from runtime.errors import Code, Refused
from runtime.protocol.raft import Expelled, PeerState, PeerUnreachable, SendRaft, SetPeers, SnapshotSent, StepRaft
from runtime.raft.chunks import requests_of
from runtime.raft.codec import message_to_pb
from runtime.raft.types import ConfState, Entry, Message, MessageType, Snapshot
from runtime.stage import Address, Stage
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.swarm.membership import MEMBER_REMOVED, UNKNOWN_MEMBER
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import health_pb2, raft_pb2, snapshot_pb2
from runtime.wire.port import Access, Call, Channel, Credentials, Metadata
from runtime.wire.services import path, routes
from runtime.wire.to_actor import to_actor
from tests.unit.wire.authority import CLUSTER, authority

T = MessageType
PEER, OWN = 7, 1
HEARTBEAT = Message(T.HEARTBEAT, to=PEER, from_=OWN, term=2)
SNAPSHOT = snapshot_pb2.Snapshot()


class Peer:
    """Another manager, as a server that notes what it was sent."""

    def __init__(self, bench: Bench, host: str = "10.0.0.7", credentials: Credentials | None = None) -> None:
        self.messages: list[Any] = []
        self.metadata: list[Metadata] = []
        self.calls: list[str] = []
        self.serving = True
        self.checked = 0
        self.streaming = True
        self.refusal: Refused | None = None
        self.silent = False
        self.places: dict[int, str] = {}
        self.asked: list[int] = []
        self.stuck = False
        self.held: list[Call] = []
        served = {
            path("Health", "Check"): self.check,
            path("Raft", "ResolveAddress"): self.resolve,
            path("Raft", "ProcessRaftMessage"): self.process,
            path("Raft", "StreamRaftMessage"): self.stream,
        }
        self.transport = bench.network.transport(host)
        self.transport.serve(
            f"{host}:2377", routes(served), access=lambda: Access(CLUSTER), credentials=credentials or bench.credentials
        )

    def check(self, call: Call) -> None:
        self.checked += 1
        kinds = health_pb2.HealthCheckResponse
        call.reply(kinds(status=kinds.SERVING if self.serving else kinds.NOT_SERVING))

    def process(self, call: Call) -> None:
        self.calls.append("process")
        self.answer(call, call.request.message, raft_pb2.ProcessRaftMessageResponse())  # type: ignore[attr-defined]

    def stream(self, call: Call) -> None:
        self.calls.append("stream")
        self.metadata.append(call.metadata)
        if not self.streaming:
            call.fail(Refused(Code.UNIMPLEMENTED, "unknown method StreamRaftMessage"))
            return
        if self.stuck:
            self.held.append(call)
            return
        pieces: list[Any] = []
        call.receive(
            lambda item: pieces.append(item.message),  # type: ignore[attr-defined]
            lambda refused: self.answer(call, pieces, raft_pb2.StreamRaftMessageResponse()),
        )

    def resolve(self, call: Call) -> None:
        raft_id = call.request.raft_id  # type: ignore[attr-defined]
        self.asked.append(raft_id)
        if self.silent:
            return
        if raft_id in self.places:
            call.reply(raft_pb2.ResolveAddressResponse(addr=self.places[raft_id]))
        else:
            call.fail(Refused(Code.NOT_FOUND, UNKNOWN_MEMBER))

    def answer(self, call: Call, message: Any, well: Any) -> None:
        if self.silent:
            return
        if self.refusal is not None:
            call.fail(self.refusal)
        else:
            self.messages.append(message)
            call.reply(well)


class Bench:
    """The actor under test at 10.0.0.1, its consensus as a probe, and a client who calls it."""

    def __init__(self, *, forced: bool = False) -> None:
        self.simulator = Simulator(3)
        self.network = MemoryNetwork(
            lambda delay, call: self.simulator.set(delay, call),
            random.Random(1),
            clock=time.time,
        )
        self.credentials = authority().manager("node-7")
        self.stage: Stage = self.simulator.node("n1", transport=self.network.transport("10.0.0.1"))
        self.raft = Probe(self.simulator, self.stage, "raft")
        self.actor: Address = self.stage.mount(
            "transport", RaftTransportActor, self.raft.address, self.credentials, "10.0.0.1:2377", forced
        )
        transport = self.stage.world.transport
        assert transport is not None
        served = [path("Raft", name) for name in ("ProcessRaftMessage", "StreamRaftMessage", "ResolveAddress")]
        transport.serve(
            "10.0.0.1:2377",
            routes({name: to_actor(self.actor) for name in served}),
            access=lambda: Access(CLUSTER),
            credentials=self.credentials,
        )
        self.client: Channel = self.network.transport("10.0.0.9").connect("10.0.0.1:2377", self.credentials)

    def members(self, *removed: int) -> None:
        members = {OWN: Member(OWN, "node-1", "10.0.0.1:2377"), PEER: Member(PEER, "node-7", "10.0.0.7:2377")}
        kept = {id: member for id, member in members.items() if id not in removed}
        self.actor.tell(SetPeers(OWN, kept, frozenset(removed)))
        self.simulator.run_for(0.5)

    def send(self, *messages: Message) -> None:
        self.actor.tell(SendRaft(messages))
        self.simulator.run_for(0.5)

    def call(self, message: Message, *, stream: bool = False, client: Channel | None = None, place: str = "") -> Any:
        """What a call of the Raft service is answered, by a node that says where it is reached."""
        answers: list[Any] = []
        client = client or self.client
        metadata = ((PACE, "fast"), (PLACE, place)) if place else ()
        if stream:
            stream_path = path("Raft", "StreamRaftMessage")
            upload = client.upload(stream_path, done=answers.append, timeout=5, metadata=metadata)
            for request in requests_of(message, 400):
                upload.send(request)
            upload.finish()
        else:
            whole = raft_pb2.ProcessRaftMessageRequest(message=message_to_pb(message))
            process = path("Raft", "ProcessRaftMessage")
            client.unary(process, whole, timeout=5, done=answers.append, metadata=metadata)
        self.simulator.run_until(lambda: bool(answers), 10)
        self.simulator.run_for(0.1)
        return answers[0]


def test_messages_go_one_in_a_call_and_in_order_and_the_peer_counts_as_reached() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    assert bench.raft.expect(PeerState) == PeerState(PEER, True)
    votes = [Message(T.VOTE_RESP, to=PEER, from_=OWN, term=term) for term in (2, 3, 4)]
    bench.send(*votes)
    assert [pieces[0].term for pieces in peer.messages] == [2, 3, 4]
    assert peer.calls == ["stream"] * 3


def test_a_peer_without_streams_gets_the_same_message_as_a_plain_call_and_is_not_asked_again() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.streaming = False
    bench.members()
    bench.send(HEARTBEAT)
    bench.send(replace(HEARTBEAT, term=3))
    assert peer.calls == ["stream", "process", "process"]
    assert [message.term for message in peer.messages] == [2, 3]


def test_a_peer_that_is_silent_costs_two_seconds_then_what_waited_is_lost_and_said_to_be() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    peer.silent = True
    bench.raft.expect(PeerState)
    bench.send(*(Message(T.VOTE_RESP, to=PEER, from_=OWN, term=term) for term in (2, 3)))
    bench.raft.expect_none(PeerUnreachable, 1.0)
    assert bench.raft.expect(PeerUnreachable, 1.5) == PeerUnreachable(PEER)
    assert bench.raft.expect(PeerState) == PeerState(PEER, False)


def test_a_queue_that_is_full_loses_what_comes_instead_of_growing() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    peer.silent = True
    bench.send(*(Message(T.VOTE_RESP, to=PEER, from_=OWN, term=term) for term in range(1, QUEUE_MAX + 4)))
    lost = [message for message in bench.raft.messages if isinstance(message, PeerUnreachable)]
    assert len(lost) == 2  # one is being sent, QUEUE_MAX wait


def test_a_peer_that_cannot_be_reached_is_found_again_although_nothing_is_sent_to_it() -> None:
    bench = Bench()
    bench.members()
    bench.raft.expect_none(PeerState, 3.0)
    Peer(bench)
    assert bench.raft.expect(PeerState, 10.0) == PeerState(PEER, True)


def test_a_peer_that_is_gone_is_missed_within_seconds_although_nothing_is_sent_to_it() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    assert bench.raft.expect(PeerState) == PeerState(PEER, True)
    bench.raft.expect_none(PeerState, 10.0)
    peer.serving = False
    assert bench.raft.expect(PeerState, 2.1) == PeerState(PEER, False)
    peer.serving = True
    assert bench.raft.expect(PeerState, 2.1) == PeerState(PEER, True)


def test_a_peer_that_answers_messages_is_not_asked_how_it_is() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    bench.send(HEARTBEAT)
    before = peer.checked
    for term in range(3, 23):
        bench.send(replace(HEARTBEAT, term=term))
    assert peer.checked == before


def test_whoever_is_told_that_it_was_removed_says_so_to_its_consensus() -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.refusal = Refused(Code.NOT_FOUND, MEMBER_REMOVED)
    bench.members()
    bench.send(HEARTBEAT)
    bench.raft.expect(Expelled)


@pytest.mark.parametrize("arrives", [True, False])
def test_what_became_of_a_snapshot_is_said(arrives: bool) -> None:
    bench = Bench()
    peer = Peer(bench)
    peer.refusal = None if arrives else Refused(Code.UNAVAILABLE, "no")
    bench.members()
    snapshot = Snapshot(9, 2, ConfState((OWN, PEER)), SNAPSHOT.SerializeToString())
    bench.send(Message(T.SNAP, to=PEER, from_=OWN, term=2, snapshot=snapshot))
    assert bench.raft.expect(SnapshotSent) == SnapshotSent(PEER, arrives)


def test_a_message_for_nobody_known_is_unreachable_and_one_for_a_removed_member_is_nothing() -> None:
    bench = Bench()
    bench.members(PEER)
    bench.send(HEARTBEAT, replace(HEARTBEAT, to=99))
    unreachable = [message for message in bench.raft.messages if isinstance(message, PeerUnreachable)]
    assert unreachable == [PeerUnreachable(99)]


STRANGER = 99


def unreachable(bench: Bench) -> list[int]:
    return [message.raft_id for message in bench.raft.messages if isinstance(message, PeerUnreachable)]


def test_a_member_that_joined_while_this_one_was_away_is_found_by_asking_another_and_answered() -> None:
    bench = Bench()
    peer, stranger = Peer(bench), Peer(bench, "10.0.0.8")
    peer.places[STRANGER] = "10.0.0.8:2377"
    bench.members()
    bench.send(replace(HEARTBEAT, to=STRANGER), replace(HEARTBEAT, to=STRANGER, term=3))
    bench.send(replace(HEARTBEAT, to=STRANGER, term=4))
    assert [message[0].term for message in stranger.messages] == [2, 3, 4]
    assert peer.asked == [STRANGER]
    assert unreachable(bench) == []


def test_a_member_that_nobody_knows_is_unreachable_each_time_and_asked_for_each_time() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    for _ in range(2):
        bench.send(replace(HEARTBEAT, to=STRANGER))
    assert peer.asked == [STRANGER, STRANGER]
    assert unreachable(bench) == [STRANGER, STRANGER]


def test_one_stranger_is_looked_for_at_a_time_and_one_that_is_known_by_now_is_let_go() -> None:
    bench = Bench()
    peer, stranger = Peer(bench), Peer(bench, "10.0.0.8")
    bench.members()
    peer.silent = True
    bench.send(replace(HEARTBEAT, to=STRANGER), replace(HEARTBEAT, to=100))
    assert unreachable(bench) == [100]
    bench.simulator.run_for(3)
    assert unreachable(bench) == [100, STRANGER], "nobody answered"
    peer.silent = False
    peer.places.update({STRANGER: "10.0.0.8:2377", 100: "10.0.0.8:2377"})
    bench.send(replace(HEARTBEAT, to=STRANGER))
    bench.send(replace(HEARTBEAT, to=100))
    assert [message[0].to for message in stranger.messages] == [STRANGER, 100]
    members = {OWN: Member(OWN, "node-1", "10.0.0.1:2377"), 100: Member(100, "node-8", "10.0.0.8:2377")}
    bench.actor.tell(SetPeers(OWN, members, frozenset()))
    bench.send(replace(HEARTBEAT, to=100, term=5))
    assert [message[0].term for message in stranger.messages] == [2, 2, 5]
    assert peer.asked == [STRANGER, STRANGER, 100]


FROM_PEER = Message(T.APP, to=OWN, from_=PEER, term=2, log_term=2, index=4, entries=[Entry(2, 5, data=b"x")], commit=4)


@pytest.mark.parametrize("stream", [True, False])
def test_a_members_message_reaches_the_consensus(stream: bool) -> None:
    bench = Bench()
    bench.members()
    assert not isinstance(bench.call(FROM_PEER, stream=stream), Refused)
    assert bench.raft.expect(StepRaft).message == FROM_PEER


def test_a_snapshot_in_pieces_is_one_message_and_one_that_cannot_be_read_never_gets_there() -> None:
    bench = Bench()
    bench.members()
    content = snapshot_pb2.Snapshot()
    content.membership.members.add(raft_id=1, node_id="x" * 900, addr="y")
    whole = Message(
        T.SNAP, to=OWN, from_=PEER, term=2, snapshot=Snapshot(9, 2, ConfState((1, 7)), content.SerializeToString())
    )
    assert not isinstance(bench.call(whole, stream=True), Refused)
    assert bench.raft.expect(StepRaft).message.snapshot == whole.snapshot
    assert whole.snapshot is not None
    broken = replace(whole, snapshot=replace(whole.snapshot, data=whole.snapshot.data[:-3]))
    assert bench.call(broken, stream=True).code is Code.INVALID_ARGUMENT
    bench.raft.expect_none(StepRaft)


def store_of(*ids: str, size: int = 10) -> bytes:
    content = snapshot_pb2.Snapshot()
    for id in ids:
        config = content.store.configs.add(id=id)
        config.spec.data = bytes(size)
    return content.SerializeToString()


def big(index: int = 9, term: int = 2, size: int = 10 << 20) -> Message:
    snapshot = Snapshot(index, term, ConfState((OWN, PEER)), store_of("c", size=size))
    return Message(T.SNAP, to=PEER, from_=OWN, term=term, snapshot=snapshot)


def test_a_snapshot_larger_than_any_queue_arrives_in_pieces_that_peers_take() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    message = big(size=80 << 20)
    assert message.snapshot is not None
    bench.send(message)
    assert bench.raft.expect(SnapshotSent) == SnapshotSent(PEER, True)
    (pieces,) = peer.messages
    assert len(pieces) == 81
    assert b"".join(piece.snapshot.data for piece in pieces) == message.snapshot.data


def test_heartbeats_go_on_beside_a_snapshot_that_takes_long() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    peer.stuck = True
    bench.send(big())
    peer.stuck = False
    for term in (3, 4):
        bench.send(replace(HEARTBEAT, term=term))
    assert [pieces[0].term for pieces in peer.messages] == [3, 4]
    assert not [message for message in bench.raft.messages if isinstance(message, SnapshotSent)]


def test_a_peer_that_takes_no_piece_for_two_seconds_has_lost_the_snapshot() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    peer.stuck = True
    bench.send(big())
    bench.raft.expect_none(SnapshotSent, 1.0)
    assert bench.raft.expect(SnapshotSent, 1.5) == SnapshotSent(PEER, False)


def test_a_peer_that_is_gone_in_the_middle_has_lost_the_snapshot_and_gets_another_once_it_is_back() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    peer.stuck = True
    bench.send(big())
    got: list[Any] = []
    peer.held[0].receive(lambda item: got.append(item) or bench.network.crash("10.0.0.7"), lambda refused: None)
    assert bench.raft.expect(SnapshotSent, 5.0) == SnapshotSent(PEER, False)
    assert 0 < len(got) < 3
    again = Peer(bench)
    bench.send(big(index=12))
    assert bench.raft.expect(SnapshotSent, 10.0) == SnapshotSent(PEER, True)
    assert again.messages[-1][0].snapshot.metadata.index == 12


def test_a_newer_snapshot_takes_the_place_of_one_under_way_of_which_nothing_more_is_said() -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    peer.stuck = True
    bench.send(big())
    peer.stuck = False
    bench.send(big(index=20, term=3, size=10))
    assert bench.raft.expect(SnapshotSent) == SnapshotSent(PEER, True)
    bench.raft.expect_none(SnapshotSent, 60.0)
    ends: list[Refused | None] = []
    peer.held[0].receive(lambda item: None, ends.append)
    bench.simulator.run_for(1.0)
    assert [end.code for end in ends if end is not None] == [Code.CANCELLED]


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED])
def test_a_snapshot_that_a_peer_will_not_have_is_said_to_have_failed_only_after_a_while(code: Code) -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    peer.refusal = Refused(code, "not this one")
    bench.send(big(size=10))
    bench.raft.expect_none(SnapshotSent, 9.0)
    assert bench.raft.expect(SnapshotSent, 1.0) == SnapshotSent(PEER, False)
    bench.send(big(index=12, size=10))
    peer.refusal = None
    bench.send(big(index=13, size=10))
    assert bench.raft.expect(SnapshotSent) == SnapshotSent(PEER, True)
    bench.raft.expect_none(SnapshotSent, 20.0)  # nothing of the one in between


def incoming(data: bytes, index: int = 9) -> Message:
    return Message(T.SNAP, to=OWN, from_=PEER, term=2, snapshot=Snapshot(index, 2, ConfState((1, 7)), data))


@pytest.mark.parametrize(("ids", "words"), [(("c", "c"), "two configs have the id c"), (("",), "a config has no id")])
def test_a_snapshot_that_no_store_can_be_made_from_is_refused_and_named(ids: tuple[str, ...], words: str) -> None:
    bench = Bench()
    bench.members()
    answer = bench.call(incoming(store_of(*ids)), stream=True)
    assert answer.code is Code.INVALID_ARGUMENT
    assert words in answer.text
    bench.raft.expect_none(StepRaft)


def test_pieces_of_snapshots_are_collected_up_to_a_bound_over_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.raft_transport_actor.ASSEMBLY_MAX", 3000)
    bench = Bench()
    bench.members()
    open_answers: list[Any] = []
    half = bench.client.upload(path("Raft", "StreamRaftMessage"), done=open_answers.append)
    first, *_ = requests_of(incoming(store_of("c", size=2500)), 2400)
    half.send(first)
    bench.simulator.run_for(0.1)
    refused = bench.call(incoming(store_of("d", size=1500)), stream=True)
    assert refused.code is Code.RESOURCE_EXHAUSTED
    half.cancel()
    bench.simulator.run_for(0.5)
    assert not isinstance(bench.call(incoming(store_of("d", size=1500)), stream=True), Refused)
    assert bench.raft.expect(StepRaft).message.snapshot is not None


def test_a_removed_member_is_told_so_at_its_first_piece() -> None:
    bench = Bench()
    bench.members(PEER)
    answers: list[Any] = []
    upload = bench.client.upload(path("Raft", "StreamRaftMessage"), done=answers.append)
    upload.send(next(iter(requests_of(incoming(store_of("c", size=900)), 400))))
    bench.simulator.run_for(0.5)
    assert [(answer.code, answer.text) for answer in answers] == [(Code.NOT_FOUND, MEMBER_REMOVED)]


def test_a_removed_member_is_told_so_in_the_words_that_it_looks_for() -> None:
    bench = Bench()
    bench.members(PEER)
    answer = bench.call(FROM_PEER)
    assert (answer.code, answer.text) == (Code.NOT_FOUND, MEMBER_REMOVED)
    bench.raft.expect_none(StepRaft)


@pytest.mark.parametrize(
    "message", [replace(FROM_PEER, to=55), Message(T.PROP, to=OWN, from_=PEER, entries=[Entry(data=b"x")])]
)
def test_forwarded_proposals_and_messages_for_others_are_dropped_and_answered_well(message: Message) -> None:
    bench = Bench()
    bench.members()
    assert not isinstance(bench.call(message), Refused)
    bench.raft.expect_none(StepRaft)


@pytest.mark.parametrize("serving", [True, False])
def test_a_vote_counts_only_for_a_candidate_that_answers_a_health_check(serving: bool) -> None:
    bench = Bench()
    peer = Peer(bench)
    bench.members()
    peer.serving = serving
    vote = Message(T.VOTE, to=OWN, from_=PEER, term=5, index=4, log_term=2)
    assert not isinstance(bench.call(vote), Refused)
    if serving:
        assert replace(bench.raft.expect(StepRaft).message, entries=()) == vote
    else:
        bench.raft.expect_none(StepRaft)


def test_a_vote_for_nobody_known_is_dropped() -> None:
    bench = Bench()
    bench.members()
    assert not isinstance(bench.call(Message(T.VOTE, to=OWN, from_=42, term=5)), Refused)
    bench.raft.expect_none(StepRaft)


def test_a_members_address_is_told_and_an_unknown_members_is_not() -> None:
    bench = Bench()
    bench.members()
    answers: list[Any] = []
    for raft_id in (PEER, 99):
        request = raft_pb2.ResolveAddressRequest(raft_id=raft_id)
        bench.client.unary(path("Raft", "ResolveAddress"), request, timeout=5, done=answers.append)
        bench.simulator.run_for(0.5)
    assert answers[0].addr == "10.0.0.7:2377"
    assert answers[1].code is Code.NOT_FOUND
