"""Members that this node does not know and that said themselves where they are reached, as far as they proved it.

Before anything is sent to such a place but a health check, whoever answers there must have shown the certificate that
the claim was made with: an address in a message directs nothing elsewhere (``runtime/raft/claims.py`` has the rules).
What such a member says of this node's membership counts for nothing. Not an actor: RaftTransportActor owns it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from actors.raft_peer import PeerEvents, RaftPeer, shown_by
from runtime.disk.raft_records import Member
from runtime.errors import Refused
from runtime.raft.claims import Claim, Claims
from runtime.raft.types import Message
from runtime.swarm.membership import joining_address
from runtime.wire.port import Channel, Identity

PROOF_TIMEOUT = 2.0
WAITING_MAX = 64
ADDR_MAX = 300
"""Characters of an address that is believed: a name has at most 253."""


@dataclass(slots=True)
class _Caller:
    """The peer at the place that was claimed, and what waits until it has proven itself."""

    peer: RaftPeer
    proving: bool = False
    fast: bool = False
    waiting: deque[Message] = field(default_factory=deque)


class Callers:
    """``connect`` opens a channel to an address, ``clock`` gives seconds; ``otherwise`` sends to one that was not found
    where it said to be."""

    def __init__(
        self,
        events: PeerEvents,
        connect: Callable[[str], Channel],
        clock: Callable[[], float],
        otherwise: Callable[[Message, bool], None],
    ) -> None:
        self._lost = events.lost
        self._otherwise = otherwise
        self._events = replace(events, active=lambda raft_id, active: None, expelled=lambda: None)
        self._connect = connect
        self._clock = clock
        self._claims = Claims()
        self._callers: dict[Claim, _Caller] = {}

    def __len__(self) -> int:
        return len(self._callers)

    def heard(self, raft_id: int, addr: str, identity: Identity) -> Claim | None:
        """Whoever called says to be this member and to be reached there; None if that is not to be believed."""
        if len(addr) > ADDR_MAX or identity.forwarded:
            return None  # on whose behalf another one calls has shown no certificate
        try:
            place = joining_address(addr, identity.remote_addr)
        except Refused:
            return None
        claim = Claim(raft_id, identity.node_id, place)
        self._claims.hear(claim, self._clock())
        self._follow()
        return claim if claim in self._callers else None

    def prove(self, claim: Claim, then: Callable[[bool], None]) -> None:
        """Asks at the place whether that very node serves there. No at once while that is being asked, or was in vain
        just now."""
        caller = self._callers.get(claim)
        if caller is None or caller.proving or not self._claims.begin(claim, self._clock()):
            then(False)
            return
        caller.proving = True
        peer = caller.peer

        def checked(serving: bool) -> None:
            caller.proving = False
            proven = serving and shown_by(peer.channel.peer_certificate) == claim.node_id
            then(self._claims.tried(claim, proven))
            waiting, caller.waiting = caller.waiting, deque()
            for message in waiting:
                send = peer.send if proven else self._otherwise
                send(message, caller.fast)

        peer.check(checked, PROOF_TIMEOUT)

    def send(self, message: Message, fast: bool) -> bool:
        """Sends it to who has proven to be its receiver, or once that is proven; False if nobody says to be it, or
        could not prove it."""
        claim = self._claims.of(message.to)
        if claim is None:
            return False
        caller = self._callers[claim]
        if self._claims.standing[claim].proven:
            caller.peer.send(message, fast)
            return True
        if not caller.proving:
            self.prove(claim, lambda proven: None)
        if not caller.proving:
            return False
        if len(caller.waiting) >= WAITING_MAX:
            self._lost(message.to)
        else:
            caller.fast = fast
            caller.waiting.append(message)
        return True

    def look(self) -> None:
        """Lets go of who was not heard for long."""
        self._claims.expire(self._clock())
        self._follow()

    def forget(self, known: Collection[int]) -> None:
        """These are known by now, or removed."""
        self._claims.forget(known)
        self._follow()

    def close(self) -> None:
        """Lets go of everybody."""
        self._claims = Claims()
        self._follow()

    def _follow(self) -> None:
        """A peer for each claim that is remembered, and no other."""
        standing = self._claims.standing
        for claim in [claim for claim in self._callers if claim not in standing]:
            caller = self._callers.pop(claim)
            for message in caller.waiting:
                self._lost(message.to)
            caller.waiting.clear()
            caller.peer.close()
        for claim in standing:
            if claim not in self._callers:
                member = Member(claim.raft_id, claim.node_id, claim.addr)
                self._callers[claim] = _Caller(RaftPeer(member, self._connect(claim.addr), self._events))
