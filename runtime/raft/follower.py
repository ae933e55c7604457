"""What a follower does with messages (thesis 3.5, 5.3, 6.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from runtime.raft.read_only import ReadOnlyOption
from runtime.raft.types import NOBODY, Message, MessageType, ProposalDropped, ReadState

if TYPE_CHECKING:
    from runtime.raft.core import Raft

T = MessageType


def step(raft: Raft, message: Message) -> None:
    """One message of this term, or without one."""
    handler = _HANDLERS.get(message.type)
    if handler is not None:
        handler(raft, message)


def _propose(raft: Raft, message: Message) -> None:
    if raft.lead == NOBODY or raft.config.disable_proposal_forwarding:
        raise ProposalDropped
    message.to = raft.lead
    raft.send(message)


def _to_leader(raft: Raft, message: Message) -> None:
    if raft.lead != NOBODY:
        message.to = raft.lead
        raft.send(message)


def _heard(raft: Raft, message: Message) -> None:
    raft.election_elapsed = 0
    raft.lead = message.from_


def _append(raft: Raft, message: Message) -> None:
    _heard(raft, message)
    handle_append(raft, message)


def _heartbeat(raft: Raft, message: Message) -> None:
    _heard(raft, message)
    handle_heartbeat(raft, message)


def _snapshot(raft: Raft, message: Message) -> None:
    _heard(raft, message)
    handle_snapshot(raft, message)


def _forget_leader(raft: Raft, message: Message) -> None:
    if raft.config.read_only is ReadOnlyOption.LEASE_BASED:
        raft.config.log("ERROR", "ignoring MsgForgetLeader due to ReadOnlyLeaseBased")
    else:
        raft.lead = NOBODY


def _timeout_now(raft: Raft, message: Message) -> None:
    # A leader hands over: neither PreVote nor leases stand in the way (thesis 3.10).
    raft.stand(transfer=True)


def _read_answered(raft: Raft, message: Message) -> None:
    if len(message.entries) == 1:
        raft.read_states.append(ReadState(message.index, message.entries[0].data))


_HANDLERS: dict[MessageType, Callable[[Raft, Message], None]] = {
    T.PROP: _propose,
    T.APP: _append,
    T.HEARTBEAT: _heartbeat,
    T.SNAP: _snapshot,
    T.TRANSFER_LEADER: _to_leader,
    T.FORGET_LEADER: _forget_leader,
    T.TIMEOUT_NOW: _timeout_now,
    T.READ_INDEX: _to_leader,
    T.READ_INDEX_RESP: _read_answered,
}


def handle_append(raft: Raft, message: Message) -> None:
    """A leader's append: taken, known already, or rejected with a hint where the logs may agree (thesis 3.5)."""
    log = raft.log
    if message.index < log.committed:
        raft.send(Message(T.APP_RESP, to=message.from_, index=log.committed))
        return
    last = log.maybe_append(message.index, message.log_term, message.commit, message.entries)
    if last is not None:
        raft.send(Message(T.APP_RESP, to=message.from_, index=last))
        return
    hint, hint_term = log.conflict_by_term(min(message.index, log.last_index()), message.log_term)
    raft.send(
        Message(T.APP_RESP, to=message.from_, index=message.index, reject=True, reject_hint=hint, log_term=hint_term)
    )


def handle_heartbeat(raft: Raft, message: Message) -> None:
    """A leader lives, and tells how far this follower may commit."""
    raft.log.commit_to(message.commit)
    raft.send(Message(T.HEARTBEAT_RESP, to=message.from_, context=message.context))


def handle_snapshot(raft: Raft, message: Message) -> None:
    """A leader's snapshot."""
    assert message.snapshot is not None, "MsgSnap without a snapshot"
    index = raft.log.last_index() if raft.restore_snapshot(message.snapshot) else raft.log.committed
    raft.send(Message(T.APP_RESP, to=message.from_, index=index))
