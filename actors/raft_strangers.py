"""Members that this node is to answer and does not know: found by asking a member that it does know.

A manager that was away may be led by one that joined meanwhile, whose place in the group stands in the very entries
that it still lacks. Without an answer the leader would never send them. One such member at a time (as SwarmKit); what
comes for another one while the first is looked for is not sent. Not an actor: RaftTransportActor owns it.

Who is found so is vouched for by a member. Who was not is not asked for again at once: there may be members of another
group that send all the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from actors.raft_peer import Outcome, PeerEvents, RaftPeer
from runtime.disk.raft_records import Member
from runtime.errors import Code, Refused
from runtime.raft.types import Message
from runtime.wire.pb import raft_pb2
from runtime.wire.port import Channel
from runtime.wire.services import path

RESOLVE = path("Raft", "ResolveAddress")
RESOLVE_TIMEOUT = 2.0
WAITING_MAX = 64
DENIED_MAX = 16
DENIED_PAUSE = 5.0
"""Seconds in which nobody is asked to vouch again for one that a member did not know."""


class Strangers:
    """``peers`` are the members that are known; ``connect`` opens a channel to an address, ``clock`` gives seconds."""

    def __init__(
        self,
        events: PeerEvents,
        peers: Mapping[int, RaftPeer],
        connect: Callable[[str], Channel],
        clock: Callable[[], float],
    ) -> None:
        self._events = events
        self._peers = peers
        self._connect = connect
        self._clock = clock
        self._denied: dict[int, float] = {}
        self._raft_id = 0
        self._found: RaftPeer | None = None
        self._waiting: deque[Message] = deque()
        self._fast = False
        self._turn = 0

    def send(self, message: Message, fast: bool) -> None:
        """Sends it once its receiver is found, or says that it cannot be reached."""
        if self._raft_id != message.to and not self._look_for(message.to):
            self._events.lost(message.to)
        elif self._found is not None:
            self._found.send(message, fast)
        elif len(self._waiting) < WAITING_MAX:
            self._fast = fast
            self._waiting.append(message)
        else:
            self._events.lost(message.to)

    def vouched(self, raft_id: int) -> RaftPeer | None:
        """This one, if a member that is known has said where it is; else one is asked, if none is being asked."""
        if self._raft_id == raft_id:
            return self._found
        if self._clock() >= self._denied.get(raft_id, 0.0):
            self._look_for(raft_id)
        return None

    def forget(self, known: Collection[int]) -> None:
        """These are known by now, or removed."""
        if self._raft_id in known:
            self.close()

    def close(self) -> None:
        """Lets go of whoever was found."""
        if self._found is not None:
            self._found.close()
        self._raft_id, self._found = 0, None
        self._waiting.clear()

    def _look_for(self, raft_id: int) -> bool:
        """Begins to ask for one, unless another one is being looked for or nobody can be asked."""
        helpers = [peer for peer in self._peers.values() if peer.active]
        if not helpers or (self._raft_id and self._found is None):
            return False
        self.close()
        helper = helpers[self._turn % len(helpers)]
        self._turn += 1  # whoever does not know is not asked again next time
        self._raft_id = raft_id
        request = raft_pb2.ResolveAddressRequest(raft_id=raft_id)
        done = self._events.sink(lambda answer: self._answered(raft_id, answer))
        helper.channel.unary(RESOLVE, request, timeout=RESOLVE_TIMEOUT, done=done)
        return True

    def _answered(self, raft_id: int, answer: Outcome) -> None:
        if raft_id != self._raft_id or self._found is not None:
            return
        waiting, self._waiting = list(self._waiting), deque()
        if not isinstance(answer, raft_pb2.ResolveAddressResponse):
            self._raft_id = 0
            if isinstance(answer, Refused) and answer.code is Code.NOT_FOUND:
                self._deny(raft_id)
            for _ in waiting:
                self._events.lost(raft_id)
            return
        self._found = RaftPeer(Member(raft_id, "", answer.addr), self._connect(answer.addr), self._events)
        for message in waiting:
            self._found.send(message, self._fast)

    def _deny(self, raft_id: int) -> None:
        self._denied.pop(raft_id, None)
        if len(self._denied) >= DENIED_MAX:
            del self._denied[next(iter(self._denied))]
        self._denied[raft_id] = self._clock() + DENIED_PAUSE
