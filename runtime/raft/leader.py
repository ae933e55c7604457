"""What a leader does: replicate, commit, keep its lease, hand over, answer reads (thesis 3.5, 3.10, 5, 6.2, 6.4).

Flow control is ``Progress``'s; here is when something is sent and what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from runtime.raft.codec import decode_change
from runtime.raft.progress import Progress, ProgressState
from runtime.raft.quorum import Vote, joint_vote
from runtime.raft.read_only import ReadOnlyOption
from runtime.raft.types import (
    NOBODY,
    Entry,
    EntryType,
    Message,
    MessageType,
    ProposalDropped,
    Role,
    Unavailable,
    payload_size,
)

if TYPE_CHECKING:
    from runtime.raft.core import Raft

T = MessageType


def tick(raft: Raft) -> None:
    """One tick: each election timeout it checks its quorum and gives up a hand-over, each heartbeat it beats."""
    raft.heartbeat_elapsed += 1
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.config.election_tick:
        raft.election_elapsed = 0
        if raft.config.check_quorum:
            raft.step(Message(T.CHECK_QUORUM, from_=raft.id))
        if raft.role is Role.LEADER:
            raft.transferee = NOBODY
    if raft.role is Role.LEADER and raft.heartbeat_elapsed >= raft.config.heartbeat_tick:
        raft.heartbeat_elapsed = 0
        raft.step(Message(T.BEAT, from_=raft.id))


def step(raft: Raft, message: Message) -> None:
    """One message of this term, or without one."""
    handler = _OWN.get(message.type)
    if handler is not None:
        handler(raft, message)
        return
    answer = _OF_PEERS.get(message.type)
    peer = raft.progress.get(message.from_)
    if answer is not None and peer is not None:
        answer(raft, message, peer)


# Its own duties


def _beat(raft: Raft, message: Message) -> None:
    broadcast_heartbeat(raft, raft.read_only.last_context())


def _check_quorum(raft: Raft, message: Message) -> None:
    """Steps down if it has not heard from a quorum since the last check (thesis 6.2)."""
    active = {id: id == raft.id or each.recent_active for id, each in raft.progress.items() if not each.learner}
    if joint_vote(raft.members.voters, raft.members.outgoing, active) is not Vote.WON:
        raft.become_follower(raft.term, NOBODY)
    for id, each in raft.progress.items():
        if id != raft.id:
            each.recent_active = False


def _propose(raft: Raft, message: Message) -> None:
    assert message.entries, "a proposal of nothing"
    if raft.id not in raft.progress or raft.transferee != NOBODY:
        raise ProposalDropped
    entries = [_checked(raft, entry, offset) for offset, entry in enumerate(message.entries, 1)]
    if not raft.append(entries):
        raise ProposalDropped
    broadcast_append(raft)


def _checked(raft: Raft, entry: Entry, offset: int) -> Entry:
    """The entry to append: a configuration change that is out of turn becomes an empty one (thesis 4.1)."""
    if entry.type is EntryType.NORMAL:
        return Entry(data=entry.data)
    joint, leaves = raft.members.joint, not decode_change(entry).changes
    pending = raft.pending_conf_index > raft.log.applied
    if (pending or joint != leaves) and not raft.config.disable_conf_change_validation:
        return Entry()
    raft.pending_conf_index = raft.log.last_index() + offset
    return Entry(type=entry.type, data=entry.data)


def _read(raft: Raft, message: Message) -> None:
    if len(raft.members.voters) == 1 and not raft.members.joint:
        raft.answer_read(message, raft.log.committed)
    elif not raft.committed_in_term():
        raft.waiting_reads.append(message)
    else:
        _begin_read(raft, message)


def _begin_read(raft: Raft, message: Message) -> None:
    if raft.read_only.option is ReadOnlyOption.LEASE_BASED:
        raft.answer_read(message, raft.log.committed)
        return
    context = message.entries[0].data
    raft.read_only.add(raft.log.committed, message, context)
    raft.read_only.acknowledge(raft.id, context)
    broadcast_heartbeat(raft, context)


def _release_reads(raft: Raft) -> None:
    if raft.waiting_reads and raft.committed_in_term():
        waiting, raft.waiting_reads = raft.waiting_reads, []
        for message in waiting:
            _begin_read(raft, message)


# Answers of peers


def _appended(raft: Raft, message: Message, peer: Progress) -> None:
    peer.recent_active = True
    if message.reject:
        _rejected(raft, message, peer)
        return
    known = peer.match
    if not (peer.acknowledged(message.index) or (known == message.index and peer.state is ProgressState.PROBE)):
        return
    _leave_slow_states(raft, message, peer)
    if raft.maybe_commit():
        _release_reads(raft)
        broadcast_append(raft)
    elif message.from_ != raft.id and peer.commit_is_news(raft.log.committed):
        send_append(raft, message.from_, peer)
    if message.from_ != raft.id:
        while send_append(raft, message.from_, peer, even_empty=False):
            pass
    if message.from_ == raft.transferee and peer.match == raft.log.last_index():
        _hand_over(raft, message.from_)


def _rejected(raft: Raft, message: Message, peer: Progress) -> None:
    hint = message.reject_hint
    if message.log_term > 0:
        # The follower says which term it has there: skip all of ours that are newer.
        hint, _term = raft.log.conflict_by_term(message.reject_hint, message.log_term)
    if peer.rejected(message.index, hint):
        if peer.state is ProgressState.REPLICATE:
            peer.become_probe()
        send_append(raft, message.from_, peer)


def _leave_slow_states(raft: Raft, message: Message, peer: Progress) -> None:
    if peer.state is ProgressState.PROBE:
        peer.become_replicate()
    elif peer.state is ProgressState.SNAPSHOT and peer.match + 1 >= raft.log.first_index():
        # It caught up with our log, by this snapshot or otherwise.
        peer.become_probe()
        peer.become_replicate()
    elif peer.state is ProgressState.REPLICATE:
        peer.inflights.free_to(message.index)


def _heartbeat_answered(raft: Raft, message: Message, peer: Progress) -> None:
    peer.recent_active = True
    # Even a follower whose inflight window is full gets one empty append, in case all that filled it was lost.
    peer.paused_by_flow = False
    if peer.match < raft.log.last_index() or peer.state is ProgressState.PROBE:
        send_append(raft, message.from_, peer)
    if raft.read_only.option is not ReadOnlyOption.SAFE or not message.context:
        return
    acks = raft.read_only.acknowledge(message.from_, message.context)
    if joint_vote(raft.members.voters, raft.members.outgoing, acks) is Vote.WON:
        for request, index in raft.read_only.advance(message.context):
            raft.answer_read(request, index)


def _snapshot_done(raft: Raft, message: Message, peer: Progress) -> None:
    if peer.state is not ProgressState.SNAPSHOT:
        return
    if message.reject:
        peer.pending_snapshot = 0
    peer.become_probe()
    # Sent: wait for the follower's answer before the next append. Failed: wait for a heartbeat before the next try.
    peer.paused_by_flow = True


def _unreachable(raft: Raft, message: Message, peer: Progress) -> None:
    # What was sent ahead may be lost.
    if peer.state is ProgressState.REPLICATE:
        peer.become_probe()


def _transfer(raft: Raft, message: Message, peer: Progress) -> None:
    """Hands over to a voter once it has everything (thesis 3.10)."""
    to = message.from_
    if peer.learner or raft.transferee == to:
        return
    raft.transferee = NOBODY
    if to == raft.id:
        return
    raft.election_elapsed = 0  # a hand-over may take one election timeout
    raft.transferee = to
    if peer.match == raft.log.last_index():
        _hand_over(raft, to)
    else:
        send_append(raft, to, peer)


def _hand_over(raft: Raft, to: int) -> None:
    raft.send(Message(T.TIMEOUT_NOW, to=to))


_OWN: dict[MessageType, Callable[[Raft, Message], None]] = {
    T.BEAT: _beat,
    T.CHECK_QUORUM: _check_quorum,
    T.PROP: _propose,
    T.READ_INDEX: _read,
}
_OF_PEERS: dict[MessageType, Callable[[Raft, Message, Progress], None]] = {
    T.APP_RESP: _appended,
    T.HEARTBEAT_RESP: _heartbeat_answered,
    T.SNAP_STATUS: _snapshot_done,
    T.UNREACHABLE: _unreachable,
    T.TRANSFER_LEADER: _transfer,
}


# Sending


def broadcast_append(raft: Raft) -> None:
    """An append to everybody who may be sent to."""
    for id in sorted(raft.progress):
        if id != raft.id:
            send_append(raft, id, raft.progress[id])


def send_append(raft: Raft, to: int, peer: Progress, even_empty: bool = True) -> bool:
    """Sends what comes next for a follower, a snapshot if the log does not reach back so far. True if it sent."""
    if peer.paused:
        return False
    before = peer.next - 1
    entries: Sequence[Entry] = ()
    try:
        before_term = raft.log.term(before)
        # A follower whose window is full gets an empty append at most, so that it can still answer.
        if peer.state is not ProgressState.REPLICATE or not peer.inflights.full:
            entries = raft.log.entries(peer.next, raft.config.max_size_per_msg)
    except LookupError:
        return _send_snapshot(raft, to, peer)
    if not entries and not even_empty:
        return False
    commit = raft.log.committed
    raft.send(Message(T.APP, to=to, index=before, log_term=before_term, entries=tuple(entries), commit=commit))
    peer.sent(len(entries), payload_size(entries))
    peer.sent_commit = commit
    return True


def _send_snapshot(raft: Raft, to: int, peer: Progress) -> bool:
    if not peer.recent_active:
        return False
    try:
        snapshot = raft.log.snapshot()
    except Unavailable:
        return False
    assert snapshot.index, "a snapshot is needed and there is none"
    peer.become_snapshot(snapshot.index)
    raft.send(Message(T.SNAP, to=to, snapshot=snapshot))
    return True


def broadcast_heartbeat(raft: Raft, context: bytes) -> None:
    """A heartbeat to everybody; it commits no further than what the follower is known to have."""
    for id in sorted(raft.progress):
        if id == raft.id:
            continue
        peer = raft.progress[id]
        commit = min(peer.match, raft.log.committed)
        raft.send(Message(T.HEARTBEAT, to=id, commit=commit, context=context))
        peer.sent_commit = commit


def configuration_changed(raft: Raft) -> None:
    """Goes on in a new configuration: more may be committed, newcomers are sent to, a hand-over may be void."""
    if raft.maybe_commit():
        broadcast_append(raft)
    else:
        for id in sorted(raft.progress):
            if id != raft.id:
                send_append(raft, id, raft.progress[id], even_empty=False)
    if raft.transferee != NOBODY and raft.transferee not in raft.members.all_voters():
        raft.transferee = NOBODY
