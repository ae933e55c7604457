"""RaftTransportActor carries messages between the members of the consensus group, both ways.

RaftActor above it says who the members are and what to send; it hears what arrived, which messages were lost, who can
be reached. Other managers call the Raft service here. Nothing is decided about consensus; what cannot be a message of a
member is refused or dropped before the core sees it:

1. From a removed member: NOT_FOUND with the text that tells it so. From nobody known, to somebody else, or a
   forwarded proposal: dropped, answered well.
2. A request for a vote counts only if its sender answers a health check of ours: one that can send but not be
   reached must not become leader. One that is not known here must be reached where it says, and be the node that asks.
3. A log that was made a new cluster's by force is a member of two groups. The other one's members are removed, but
   those that joined it since are not known here: of whom is not known only what a known member vouches for is taken.
4. A snapshot is decoded as a whole, down to each object, before it may replace anything. Pieces that are collected
   are bounded, over all calls together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message

from actors.raft_callers import Callers
from actors.raft_link import is_link
from actors.raft_peer import PACE, PeerEvents, RaftPeer, is_fast, paces_at, place_of
from actors.raft_strangers import Strangers
from actors.serving import Serving, serves
from runtime.disk.raft_records import Member
from runtime.errors import Code, Refused
from runtime.failpoints import failpoint
from runtime.protocol.raft import (
    Expelled,
    PeerState,
    PeerUnreachable,
    SendRaft,
    SetPeers,
    SnapshotSent,
    SpreadCommit,
    StepRaft,
)
from runtime.raft import types as raft
from runtime.raft.chunks import ASSEMBLY_MAX, Assembly, decode_message
from runtime.raft.claims import Claim
from runtime.raft.types import MessageType
from runtime.stage import Address, Answer, Policy, Reply, handles
from runtime.store.snapshot import Content, read, trouble
from runtime.swarm.membership import MEMBER_REMOVED, UNKNOWN_MEMBER
from runtime.wire.pb import raft_pb2, raftpb_pb2, snapshot_pb2
from runtime.wire.port import Call, Channel, Credentials

LINGER = 8.0
VOTER_CHECK_TIMEOUT = 2.0
LOOK_PERIOD = 1.0
ANSWERS = frozenset(
    {
        raftpb_pb2.MsgAppResp, raftpb_pb2.MsgHeartbeatResp, raftpb_pb2.MsgVoteResp, raftpb_pb2.MsgPreVoteResp,
        raftpb_pb2.MsgReadIndexResp,
    }
)  # fmt: skip


class _Look:
    """Time to see who can be reached again."""


class _Later:
    """Time for what a peer held back."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then


class _Close:
    """A removed peer's time is over."""

    def __init__(self, peer: RaftPeer) -> None:
        self.peer = peer


class RaftTransportActor(Serving):
    """``raft`` is the consensus that it works for; ``credentials`` are this manager's, ``addr`` is where it is reached,
    ``forced`` says that its log was made a new cluster's by force."""

    policy = Policy()

    def __init__(self, raft: Address, credentials: Credentials | None, addr: str, forced: bool) -> None:
        super().__init__()
        self.raft = raft
        self.credentials = credentials
        self.own_id = 0
        self.members: Mapping[int, Member] = {}
        self.removed: frozenset[int] = frozenset()
        self.peers: dict[int, RaftPeer] = {}
        self._paces = paces_at(addr)
        self._forced = forced
        self._dropped = 0
        self._assemblies: dict[Assembly, None] = {}  # both in the order in which they were opened
        self._links: dict[Reply, None] = {}
        self._events = PeerEvents(
            sink=self.sink,
            lost=lambda raft_id: self.tell(self.raft, PeerUnreachable(raft_id)),
            snapshot=lambda raft_id, ok: self.tell(self.raft, SnapshotSent(raft_id, ok)),
            active=lambda raft_id, active: self.tell(self.raft, PeerState(raft_id, active)),
            expelled=lambda: self.tell(self.raft, Expelled()),
            later=self._do_later,
        )
        self._strangers = Strangers(self._events, self.peers, self._connect, self.monotonic)
        self._callers = Callers(self._events, self._connect, self.monotonic, self._strangers.send)

    def started(self) -> None:
        self.every(LOOK_PERIOD, _Look())

    def stopped(self) -> None:
        for peer in self.peers.values():
            peer.close()
        self._strangers.close()
        self._callers.close()
        for link in self._links:
            link.fail(Refused(Code.UNAVAILABLE, "the consensus starts anew"))

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, Any]:
        return {
            "peers": {
                f"{raft_id:x}": f"{peer.member.addr} {'active' if peer.active else 'not reached'}, "
                f"{len(peer.queue)} queued, {peer.dropped} lost"
                for raft_id, peer in self.peers.items()
            },
            "unknown callers": len(self._callers),
            "dropped": self._dropped,
            "bytes of snapshots coming in": self._collected(),
        }

    # Peers

    @handles(SetPeers)
    def set_peers(self, message: SetPeers) -> None:
        """Connects to who is new or moved, lets go of who is gone."""
        self.own_id, self.members, self.removed = message.own_id, message.members, message.removed
        for unknown in (self._strangers, self._callers):
            unknown.forget({*self.members, *self.removed})
        for raft_id in [raft_id for raft_id in self.peers if raft_id not in message.members]:
            peer = self.peers.pop(raft_id)
            peer.drain()
            self.after(LINGER, _Close(peer))
        for raft_id, member in sorted(message.members.items()):
            if raft_id != message.own_id:
                self._set_peer(raft_id, member)

    def _set_peer(self, raft_id: int, member: Member) -> None:
        known = self.peers.get(raft_id)
        if known is not None and known.member.addr == member.addr:
            return
        if known is not None:
            known.close()
        peer = self.peers[raft_id] = RaftPeer(member, self._connect(member.addr), self._events, self._paces)
        peer.check(lambda serving: None)

    def _connect(self, addr: str) -> Channel:
        transport = self.world.transport
        assert transport is not None, "a member of a group needs a network"
        return transport.connect(addr, self.credentials)

    def _do_later(self, seconds: float, then: Callable[[], None]) -> None:
        self.after(seconds, _Later(then))

    @handles(_Later)
    def later(self, message: _Later) -> None:
        """Does what a peer held back."""
        message.then()

    @handles(_Look)
    def look(self, message: _Look) -> None:
        """Members that nobody talks to are missed, and found again, all the same."""
        for peer in self.peers.values():
            peer.look_again()
        self._callers.look()

    @handles(_Close)
    def close(self, message: _Close) -> None:
        """Whatever a removed peer did not take by now, it need not."""
        message.peer.close()

    @handles(SendRaft)
    def send(self, message: SendRaft) -> None:
        """To whom it may concern; where somebody unknown is reached he has proven, or it is asked of the others."""
        failpoint("send.before_any")
        for each in message.messages:
            peer = self.peers.get(each.to)
            if peer is not None:
                peer.send(each, message.fast)
                failpoint("send.after_some")
            elif each.to not in self.removed and not self._callers.send(each, message.fast):
                self._strangers.send(each, message.fast)

    @handles(SpreadCommit)
    def spread_commit(self, message: SpreadCommit) -> None:
        """Lets go of commit indices that wait for an append."""
        for peer in self.peers.values():
            peer.hurry()

    # The Raft service

    @serves("Raft", "ProcessRaftMessage")
    def process(self, call: Call) -> Message | None:
        """One message in one request."""
        request = call.request
        assert isinstance(request, raft_pb2.ProcessRaftMessageRequest)
        if not request.HasField("message"):
            return raft_pb2.ProcessRaftMessageResponse()
        received = request.message
        well = raft_pb2.ProcessRaftMessageResponse()
        self._take(received, lambda: decode_message(received), self.defer(), well, call)
        return None

    @serves("Raft", "StreamRaftMessage")
    def stream(self, call: Call) -> Message | None:
        """One message in any number of requests, or a link: one in each."""
        if is_link(call.metadata):
            self._serve_link(call, self.defer())
        else:
            self._assemble(call, self.defer())
        return None

    def _serve_link(self, call: Call, reply: Reply) -> None:
        """Takes message after message until its sender ends the call, or one is refused."""
        well = raft_pb2.StreamRaftMessageResponse()
        self._links[reply] = None

        def taken(answer: Answer) -> None:
            if answer.error is not None:
                reply.fail(answer.error)

        def came(request: Any) -> None:
            if reply.open:
                received = request.message
                self._take(received, lambda: decode_message(received), Reply(taken), well, call)

        def ended(refused: Refused | None) -> None:
            self._links.pop(reply, None)
            reply.pass_on(Answer(well, refused))

        call.receive(self.sink(came), self.sink(ended))

    def _assemble(self, call: Call, reply: Reply) -> None:
        assembly = Assembly()
        self._assemblies[assembly] = None

        def ended(refused: Refused | None) -> None:
            self._assemblies.pop(assembly, None)
            first = assembly.first
            if refused is not None:
                assembly.drop()
                reply.fail(refused)
            elif first is None:
                reply.set(raft_pb2.StreamRaftMessageResponse())
            else:
                self._take(first, assembly.decoded, reply, raft_pb2.StreamRaftMessageResponse(), call)

        def came(request: Any) -> None:
            try:
                self._refuse_removed(request.message)
                assembly.take(request.message, ASSEMBLY_MAX - self._collected())
            except Refused as refused:
                assembly.drop()
                reply.fail(refused)

        call.receive(self.sink(came), self.sink(ended))

    def _collected(self) -> int:
        return sum(assembly.size for assembly in self._assemblies)

    def _know(self, received: raftpb_pb2.Message, call: Call) -> Claim | None:
        """Who says how it ticks is of our kind; who answers was reached. Who is not known may say where it is."""
        sender, metadata = getattr(received, "from"), call.metadata
        peer = self.peers.get(sender)
        if peer is None:
            listens = received.to == self.own_id and not self._forced
            place = place_of(metadata) if listens else ""
            return self._callers.heard(sender, place, call.identity) if place else None
        if peer.member.node_id == call.identity.node_id:
            peer.reveal(ours=PACE in metadata)
            if received.type in ANSWERS:
                peer.hear(received.type)
        return None

    def _refuse_removed(self, received: raftpb_pb2.Message) -> None:
        if getattr(received, "from") in self.removed:
            raise Refused(Code.NOT_FOUND, MEMBER_REMOVED)

    def _take(
        self,
        received: raftpb_pb2.Message,
        decode: Callable[[], raft.Message],
        reply: Reply,
        well: Message,
        call: Call,
    ) -> None:
        """Hands a message on, or not; ``reply`` is answered in any case."""
        try:
            self._refuse_removed(received)
            claim = self._know(received, call)
            message = decode()
            content = _content(message)
        except Refused as refused:
            reply.fail(refused)
            return
        unknown = message.from_ not in self.peers
        if message.type is MessageType.PROP or message.to != self.own_id or (unknown and not self._is_taken(message)):
            self._drop(reply, well)
        elif message.type is MessageType.VOTE or (message.type is MessageType.PRE_VOTE and unknown):
            self._take_vote(message, claim, reply, well)
        else:
            self.tell(self.raft, StepRaft(message, is_fast(call.metadata), content))
            reply.set(well)

    def _is_taken(self, message: raft.Message) -> bool:
        """Whether anything is taken from a sender that is not known here."""
        return not self._forced or self._strangers.vouched(message.from_) is not None

    def _take_vote(self, message: raft.Message, claim: Claim | None, reply: Reply, well: Message) -> None:
        known = self.peers.get(message.from_)

        def checked(serving: bool) -> None:
            if serving:
                self.tell(self.raft, StepRaft(message, proven=known is None))
                reply.set(well)
            else:
                self._drop(reply, well)

        candidate = self._strangers.vouched(message.from_) if known is None and self._forced else known
        if claim is not None:
            self._callers.prove(claim, checked)
        elif candidate is not None:
            candidate.check(checked, VOTER_CHECK_TIMEOUT)
        else:
            self._drop(reply, well)

    def _drop(self, reply: Reply, well: Message) -> None:
        self._dropped += 1
        reply.set(well)

    @serves("Raft", "ResolveAddress")
    def resolve(self, call: Call) -> raft_pb2.ResolveAddressResponse:
        """Where a member is reached, as far as known here."""
        member = self.members.get(call.request.raft_id)  # type: ignore[attr-defined]
        if member is None:
            raise Refused(Code.NOT_FOUND, UNKNOWN_MEMBER)
        return raft_pb2.ResolveAddressResponse(addr=member.addr)


def _content(message: raft.Message) -> Content | None:
    """What a message's snapshot holds, if it has one and a store can be made from it."""
    if message.snapshot is None:
        return None
    try:
        content = read(message.snapshot.data)
    except DecodeError:
        raise Refused(Code.INVALID_ARGUMENT, "the snapshot cannot be decoded") from None
    if content.version != snapshot_pb2.Snapshot.V0:
        raise Refused(Code.INVALID_ARGUMENT, f"the snapshot has the unknown version {content.version}")
    wrong = trouble(content.objects)
    if wrong:
        raise Refused(Code.INVALID_ARGUMENT, f"no store can be made from the snapshot: {wrong}")
    return content
