"""Which messages of other members a core is given: those that a sound member may send to this one.

A core trusts its peers; some messages would end it (a commit beyond the log, a message that only a node itself sends,
indices that no number holds), others would poison the log for good (an entry that nobody can apply). Here they are
refused with a reason before anything is changed by them. What a sound but slow or old member sends passes: the core
knows what to do with it. Certificates keep strangers out; this keeps a broken manager from breaking the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from runtime.raft.codec import decode_change
from runtime.raft.confchange import Changer, ChangeRefused, Config, restore
from runtime.raft.node import LOCAL
from runtime.raft.progress import Inflights
from runtime.raft.types import LOCAL_THREADS, NOBODY, ConfState, Entry, EntryType, Message, MessageType, Role
from runtime.wire.pb import raft_pb2

if TYPE_CHECKING:
    from runtime.raft.core import Raft

T = MessageType
TERM_LEAP = 1 << 32
"""No member is so many terms ahead of another: at one a second that would take it a century."""
LARGEST = 1 << 62
"""Indices and terms stay below, so that what follows them is a number of the wire too."""
_VOTES = frozenset({T.VOTE, T.PRE_VOTE})
_READS = frozenset({T.READ_INDEX, T.READ_INDEX_RESP})


def refusal(raft: Raft, message: Message, *, vouched: bool = False) -> str:
    """Why a core must not be given this message; empty if it may. ``vouched``: its sender is a member although this
    core's configuration does not have it (yet), by an entry of this log or by what it has proven."""
    return _of_sender(raft, message, vouched) or _of_numbers(raft, message) or _of_content(raft, message)


def _of_sender(raft: Raft, message: Message, vouched: bool) -> str:
    sender = message.from_
    if message.to != raft.id:
        return "it is for another member"
    if sender in (NOBODY, raft.id) or sender in LOCAL_THREADS:
        return "its sender is no other member"
    if message.type is T.PROP:
        return "proposals are not forwarded"
    if message.type in LOCAL or message.responses:
        return "only a node itself sends such a message"
    if message.type in _VOTES and raft.progress and sender not in raft.progress:
        return _of_candidate(raft, vouched)
    return ""


def _of_candidate(raft: Raft, vouched: bool) -> str:
    """Whose configuration decides is the candidate's, so a voter need not know it (thesis 4.1): where others are lost,
    its vote may be the one that is missing. But whoever was removed and has not heard of it asks too. So no such
    candidate is listened to before this node has missed a leader for an election timeout; after a start as well, and
    although it says that a leader hands over to it."""
    if not vouched:
        return "a vote is asked for by nobody known"
    if raft.role is Role.LEADER or (raft.role is Role.FOLLOWER and raft.election_elapsed < raft.config.election_tick):
        return "a vote is asked for by a member that is not known here, and there may be a leader"
    return ""


def _of_numbers(raft: Raft, message: Message) -> str:
    if not message.term and message.type is not T.READ_INDEX:
        return "a term is missing"
    if message.term > raft.term + TERM_LEAP:
        return f"term {message.term} is beyond reach of ours, {raft.term}"
    numbers = (message.term, message.log_term, message.index, message.commit, message.reject_hint)
    if max(numbers) >= LARGEST:
        return "a number is too large"
    last = raft.log.last_index()
    if message.type is T.HEARTBEAT and message.commit > last:
        return f"the leader knows this member to have entry {message.commit}, its log ends at {last}: was it lost?"
    if message.type is T.APP_RESP and not message.reject and message.term == raft.term and message.index > last:
        return f"entry {message.index} is acknowledged, the log ends at {last}"
    return ""


def _of_content(raft: Raft, message: Message) -> str:
    if message.type in _READS and len(message.entries) != 1:
        return "a read has one context"
    if message.type is T.SNAP:
        return _of_snapshot(message)
    if message.type is T.APP:
        return _of_order(message) or next(filter(None, map(entry_trouble, message.entries)), "")
    return "it carries entries" if message.entries and message.type not in _READS else ""


def _of_order(message: Message) -> str:
    term, index = message.log_term, message.index
    for entry in message.entries:
        if entry.index != index + 1 or not term <= entry.term <= message.term:
            return f"entry {entry.index} of term {entry.term} does not follow {index} of term {term}"
        term, index = entry.term, entry.index
    return ""


def entry_trouble(entry: Entry) -> str:
    """Why nobody can apply this entry; empty if it can be read. One that is committed is applied by everybody, again at
    each start."""
    try:
        if entry.type is EntryType.NORMAL:
            raft_pb2.InternalRaftRequest.FromString(entry.data)
        else:
            raft_pb2.RaftMember.FromString(decode_change(entry).context)
    except (DecodeError, ValueError):
        what = "holds" if entry.type is EntryType.NORMAL else "changes the membership and holds"
        return f"entry {entry.index} {what} what cannot be decoded"
    return ""


def _of_snapshot(message: Message) -> str:
    snapshot = message.snapshot
    if snapshot is None or not 0 < snapshot.index < LARGEST:
        return "a snapshot is missing"
    if not 0 < snapshot.term <= message.term:
        return f"the snapshot is of term {snapshot.term}, the message of {message.term}"
    return "" if _is_sound(snapshot.conf_state) else "the snapshot's membership is none"


def _is_sound(state: ConfState) -> bool:
    """Whether some changes lead to this membership, and to nothing else."""
    if not state.voters:
        return False
    changer = Changer(Config(), {}, 0, lambda: Inflights(1))
    try:
        restore(changer, state)
    except (ChangeRefused, LookupError):
        return False
    made = changer.config.state()
    return all(_same(given, kept) for given, kept in zip(_groups(state), _groups(made), strict=True))


def _groups(state: ConfState) -> tuple[Sequence[int], ...]:
    return state.voters, state.voters_outgoing, state.learners, state.learners_next


def _same(given: Sequence[int], kept: Sequence[int]) -> bool:
    return sorted(given) == list(kept)
