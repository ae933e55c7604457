"""One other member of the consensus group, as the transport sends to it.

Not an actor: RaftTransportActor owns it and runs everything here in its own turns. A manager of our kind has a link,
which stays open (``actors/raft_link.py``). To others one call at a time carries one message, so that they arrive in
order; the queue behind it is bounded, and what waits behind a call that failed is lost with it (the consensus sends
anew what matters, and a peer that comes back is not flooded with what is stale).

A snapshot has a call of its own beside them, whose pieces are made as they are sent: it may take minutes, in which the
member must hear heartbeats, and the leader their answers. A newer snapshot takes the place of one that is under way.
One that the member will not have is not offered again at once: it would be refused again, after all of it was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from google.protobuf.message import Message as Protobuf

from actors.raft_link import STREAM, RaftLink
from runtime.disk.raft_records import Member
from runtime.errors import Code, Refused
from runtime.failpoints import rare
from runtime.raft.chunks import REQUEST_MAX, in_pieces, requests_of
from runtime.raft.coalesce import joined
from runtime.raft.codec import message_to_pb
from runtime.raft.types import Message, MessageType
from runtime.swarm.membership import MEMBER_REMOVED
from runtime.wire.certificates import subject_of_der
from runtime.wire.pb import health_pb2, raft_pb2, raftpb_pb2
from runtime.wire.port import Cancel, Channel, Headers, Metadata
from runtime.wire.services import path

QUEUE_MAX = 4096
SEND_TIMEOUT = 2.0
"""Seconds for one message, and for each piece of a snapshot."""
CHECK_TIMEOUT = 5.0
LOOK_TIMEOUT = 2.0
TINY = 1024
EARLY = 0.001
"""Bytes of a piece and seconds of patience on the rare paths."""
PROCESS = path("Raft", "ProcessRaftMessage")
CHECK = path("Health", "Check")

PACE = "swarmlet-raft"
"""The metadata that says with a message how its sender ticks; other kinds of managers neither send nor read it."""
PACES: tuple[Headers, Headers] = (((PACE, "slow"),), ((PACE, "fast"),))
PLACE = "swarmlet-raft-addr"
"""The metadata that says with a message where its sender is reached, for who has not heard yet that it is a member."""
REFUSED = frozenset({Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED})
REFUSED_PAUSE = 10.0
"""Seconds after which a snapshot that was refused with one of these codes is said to have failed."""
COMMIT_PAUSE = 0.02
"""Seconds for which a commit index alone waits for an append to ride with, unless somebody there waits for it."""
ASKS = frozenset({MessageType.APP, MessageType.HEARTBEAT})
UNANSWERED_MAX = 1
ANSWER_PAUSE = 0.02
"""Appends on a link that may be without an answer before the next ones wait, and are joined, for so many seconds."""

Outcome = Protobuf | Refused


@dataclass(frozen=True, slots=True)
class PeerEvents:
    """What a peer has to say: that a message was lost, what became of a snapshot, that it was (not) reached, that this
    node is no member any more. ``sink`` brings callbacks of the transport into the owner's turns, ``later`` has
    something done there after some seconds."""

    sink: Callable[[Callable[[Outcome], None]], Callable[[Outcome], None]]
    lost: Callable[[int], None]
    snapshot: Callable[[int, bool], None]
    active: Callable[[int, bool], None]
    expelled: Callable[[], None]
    later: Callable[[float, Callable[[], None]], None]


@dataclass(slots=True)
class RaftPeer:
    """``channel`` connects on first use."""

    member: Member
    channel: Channel
    events: PeerEvents
    paces: tuple[Headers, Headers] = PACES
    """What is said with messages: that this node ticks slowly, that it ticks fast."""
    active: bool = False
    streaming: bool = True
    dropped: int = 0
    queue: deque[Message] = field(default_factory=deque)
    _sending: Message | None = None
    _snapshot: Message | None = None
    _stop_snapshot: Cancel | None = None
    ours: bool = False
    """Whether it is a manager of our kind: then it has a link, and a commit index alone waits for an append."""
    _link: RaftLink | None = None
    _unanswered: int = 0
    _hurried: bool = False
    """Whether somebody there waits for what is in the queue."""
    _asked: bool = False
    """Whether the link has carried anything to be answered since the last answer."""
    _headers: Headers = PACES[False]
    _held: bool = False
    _closing: bool = False
    _heard: bool = False
    """Whether it has answered anything since it was last looked at."""

    def send(self, message: Message, fast: bool = False) -> None:
        """Queues a message; one too many is lost and said to be. ``fast`` is said with this one and later ones."""
        self._headers = self.paces[fast]
        if message.snapshot is not None:
            self._send_snapshot(message)
            return
        if len(self.queue) >= QUEUE_MAX or rare("peer.full_queue"):
            self._lose(message)
            self._mark(active=False)
            return
        whole = joined(self.queue[-1], message) if self.queue else None
        if whole is not None:
            self.queue[-1] = whole
        else:
            self.queue.append(message)
        self._proceed()

    def _proceed(self) -> None:
        alone = self.ours and self._sending is None and len(self.queue) == 1 and _only_commits(self.queue[0])
        if alone and not self._hurried:
            self._hold(COMMIT_PAUSE)
        else:
            self._next()

    def hurry(self) -> None:
        """Somebody there waits for what is committed: that waits for no append."""
        if self.queue:
            self._hurried = True
            self._proceed()

    def _hold(self, seconds: float) -> None:
        if not self._held:
            self._held = True
            self.events.later(seconds, self.nudge)

    def nudge(self) -> None:
        """What was held back has waited long enough."""
        self._held = False
        self._unanswered = 0
        self._next()

    def look_again(self) -> None:
        """Asks a member that has answered nothing lately, and that nothing is being sent to, whether it is there: a
        follower has nothing to say to the other followers, and would not notice."""
        quiet, self._heard = not self._heard, False
        if quiet and self._sending is None:
            self.check(self._looked, LOOK_TIMEOUT)

    def _looked(self, serving: bool) -> None:
        if not serving or self._asked:
            self._unlink()  # whoever is at its other end does not listen to it any more

    def reveal(self, *, ours: bool) -> None:
        """It has spoken, as a manager of our kind does or as another one, which is told nothing beside messages but how
        this node ticks."""
        self.ours = ours
        if not ours:
            self.paces = PACES

    def hear(self, kind: int) -> None:
        """It has answered something that was sent, an append perhaps."""
        self._mark(active=True)
        self._asked = False
        if kind == raftpb_pb2.MsgAppResp and self._unanswered:
            self._unanswered -= 1
            self._proceed()

    def check(self, then: Callable[[bool], None], timeout: float = CHECK_TIMEOUT) -> None:
        """Asks whether its consensus serves."""

        def answered(answer: Outcome) -> None:
            serving = is_serving(answer)
            self._mark(active=serving)
            then(serving)

        request = health_pb2.HealthCheckRequest(service="Raft")
        self.channel.unary(CHECK, request, timeout=timeout, done=self.events.sink(answered))

    def drain(self) -> None:
        """Closes the connection once what is queued was sent; a snapshot is of no use any more."""
        self._closing = True
        self._break_off()
        self._next()
        if self._link is not None:
            self._link.finish()

    def close(self) -> None:
        """Closes the connection now; a snapshot that was under way is lost."""
        self._link = None
        self.queue.clear()
        self._closing = True
        self.channel.close()

    def _next(self) -> None:
        if self._sending is not None:
            return
        if self.ours and not rare("peer.calls"):
            self._pour()
        elif self.queue:
            self._send_alone(self.queue.popleft())
        if self._closing and not self.queue and self._sending is None and self._link is None:
            self.channel.close()

    def _send_alone(self, message: Message) -> None:
        self._sending = message
        done = self.events.sink(lambda answer: self._done(message, answer))
        self._call(message, done, stream=self.streaming)

    # The link

    def _pour(self) -> None:
        """Sends what waits. Appends wait for the answer to the one before: a busy group sends few large ones."""
        while self.queue:
            if self.queue[0].type is MessageType.APP and not self._closing:
                if self._unanswered >= UNANSWERED_MAX and not self._hurried:
                    self._hold(ANSWER_PAUSE)
                    return
                self._unanswered += 1
            self._send_by_link(self.queue.popleft())
        self._hurried = False

    def _send_by_link(self, message: Message) -> None:
        if self._link is not None and self._link.headers != self._headers:
            self._link.finish()
            self._link = None
        if self._link is None:
            self._link = self._open_link()
        self._link.send(message)
        self._asked = self._asked or message.type in ASKS
        if rare("peer.link_lost"):
            self._unlink()

    def _open_link(self) -> RaftLink:
        def ended(answer: Outcome) -> None:
            if link is self._link:
                self._link_ended(answer)

        link = RaftLink(self.channel, self._headers, self.events.sink(ended))
        return link

    def _unlink(self) -> None:
        """What it did not take by now would only be stale."""
        link, self._link = self._link, None
        if link is not None:
            link.break_off()
            self._unanswered, self._asked = 0, False
            self._lose_one()

    def _link_ended(self, answer: Outcome) -> None:
        self._link, self._unanswered, self._asked = None, 0, False
        if self._closing:
            self.channel.close()
        elif isinstance(answer, Refused) and _expels(answer):
            self.queue.clear()
            self.events.expelled()
        else:
            self._lose_one()
            self._mark(active=False)

    # Calls

    def _call(self, message: Message, done: Callable[[Outcome], None], *, stream: bool) -> Cancel:
        channel, headers = self.channel, self._headers
        if not stream:
            whole = raft_pb2.ProcessRaftMessageRequest(message=message_to_pb(message))
            return channel.unary(PROCESS, whole, timeout=_patience(), done=done, metadata=headers)
        limit = TINY if rare("snapshot.tiny_pieces") else REQUEST_MAX
        requests = requests_of(message, limit)
        if in_pieces(message, limit):
            return channel.upload_items(STREAM, requests, item_timeout=SEND_TIMEOUT, done=done, metadata=headers)
        # A stream of one is the same on the wire, and the reason of a refusal always arrives.
        return channel.unary(STREAM, next(requests), timeout=_patience(), done=done, metadata=headers)

    def _send_snapshot(self, message: Message) -> None:
        self._break_off()
        self._snapshot = message
        done = self.events.sink(lambda answer: self._snapshot_done(message, answer))
        self._stop_snapshot = self._call(message, done, stream=self.streaming)

    def _break_off(self) -> None:
        stop, self._snapshot, self._stop_snapshot = self._stop_snapshot, None, None
        if stop is not None:
            stop()

    def _snapshot_done(self, message: Message, answer: Outcome) -> None:
        if message is not self._snapshot:
            return  # nobody waits for this one any more
        self._stop_snapshot = None
        if isinstance(answer, Refused) and answer.code in REFUSED:
            self.events.later(REFUSED_PAUSE, partial(self._give_up_snapshot, message))
            return
        self._snapshot = None
        if not isinstance(answer, Refused):
            self.events.snapshot(self.member.raft_id, True)
            self._mark(active=True)
        elif answer.code is Code.UNIMPLEMENTED and self.streaming:
            self.streaming = False
            self._send_snapshot(message)
        elif _expels(answer):
            self.events.expelled()
        else:
            self._lose(message)

    def _give_up_snapshot(self, message: Message) -> None:
        if message is self._snapshot:
            self._snapshot = None
            self._lose(message)

    def _done(self, message: Message, answer: Outcome) -> None:
        self._sending = None
        if not isinstance(answer, Refused):
            self._mark(active=True)
        elif answer.code is Code.UNIMPLEMENTED and self.streaming:
            self.streaming = False
            self.queue.appendleft(message)
        elif _expels(answer):
            self.queue.clear()
            self.events.expelled()
        else:
            self._failed(message)
        self._next()

    def _failed(self, message: Message) -> None:
        waiting, self.queue = self.queue, deque()
        for each in (message, *waiting):
            self._lose(each)
        self._mark(active=False)

    def _lose(self, message: Message) -> None:
        if message.type is MessageType.SNAP:
            self.events.snapshot(self.member.raft_id, False)
        self._lose_one()

    def _lose_one(self) -> None:
        self.dropped += 1
        self.events.lost(self.member.raft_id)

    def _mark(self, *, active: bool) -> None:
        self._heard = self._heard or active
        if active != self.active:
            self.active = active
            self.events.active(self.member.raft_id, active)


def _expels(refused: Refused) -> bool:
    return refused.code is Code.NOT_FOUND and MEMBER_REMOVED in refused.text


def _patience() -> float:
    return EARLY if rare("peer.early_timeout") else SEND_TIMEOUT


def _only_commits(message: Message) -> bool:
    return message.type is MessageType.APP and not message.entries


def is_ours(metadata: Metadata) -> bool:
    """Whether who calls is a manager of our kind."""
    return PACE in metadata


def paces_at(addr: str) -> tuple[Headers, Headers]:
    """What a manager that is reached at ``addr`` says with its messages, while it ticks slowly and while it ticks
    fast."""
    slow, fast = PACES
    return (*slow, (PLACE, addr)), (*fast, (PLACE, addr))


def place_of(metadata: Metadata) -> str:
    """Where the sender of a message says that it is reached; empty if it does not."""
    place = metadata.get(PLACE, ())
    return place[0] if len(place) == 1 else ""


def shown_by(certificate: bytes | None) -> str:
    """Whose certificate a peer has shown (it was verified with the connection); empty if none was."""
    return subject_of_der(certificate).cn if certificate is not None else ""


def is_fast(metadata: Metadata) -> bool:
    """Whether the sender of a message ticks fast."""
    return metadata.get(PACE) == ("fast",)


def is_serving(answer: Outcome) -> bool:
    """Whether a health check was answered well."""
    return isinstance(answer, health_pb2.HealthCheckResponse) and answer.status == answer.SERVING
