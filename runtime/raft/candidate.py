"""What a candidate, real or pre, does with messages (thesis 3.4, 9.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.raft import follower, leader
from runtime.raft.quorum import Vote
from runtime.raft.types import NOBODY, Message, MessageType, ProposalDropped, Role

if TYPE_CHECKING:
    from runtime.raft.core import Raft

T = MessageType
_FROM_LEADER = {
    T.APP: follower.handle_append,
    T.HEARTBEAT: follower.handle_heartbeat,
    T.SNAP: follower.handle_snapshot,
}


def step(raft: Raft, message: Message) -> None:
    """One message of this term, or without one."""
    if message.type is T.PROP:
        raise ProposalDropped
    if message.type in _FROM_LEADER:
        # Somebody else was elected in this term.
        raft.become_follower(message.term, message.from_)
        _FROM_LEADER[message.type](raft, message)
        return
    asked = T.PRE_VOTE_RESP if raft.role is Role.PRE_CANDIDATE else T.VOTE_RESP
    if message.type is asked:
        _voted(raft, message)


def _voted(raft: Raft, message: Message) -> None:
    result = raft.poll(message.from_, not message.reject)
    if result is Vote.LOST:
        # The term stays: somebody with a higher one would have told us.
        raft.become_follower(raft.term, NOBODY)
    elif result is Vote.WON and raft.role is Role.PRE_CANDIDATE:
        raft.campaign()
    elif result is Vote.WON:
        raft.become_leader()
        leader.broadcast_append(raft)
