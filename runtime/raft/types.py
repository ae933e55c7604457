"""What a consensus core takes in and hands out. Plain data: nothing here decides anything.

Numbers of the enumerations are the wire's. Ids are unsigned 64-bit numbers; 0 is nobody.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

NOBODY = 0
NO_LIMIT = 2**64 - 1
APPEND_THREAD = 2**64 - 1  # whom a MsgStorageAppend is for
APPLY_THREAD = 2**64 - 2  # whom a MsgStorageApply is for
LOCAL_THREADS = frozenset({APPEND_THREAD, APPLY_THREAD})


class EntryType(enum.IntEnum):
    """What an entry holds."""

    NORMAL = 0
    CONF_CHANGE = 1
    CONF_CHANGE_V2 = 2


class MessageType(enum.IntEnum):
    """What a message is; PreVote and the leader's duties are from sections 3, 4, 6 and 9.6 of the Raft thesis."""

    HUP = 0
    BEAT = 1
    PROP = 2
    APP = 3
    APP_RESP = 4
    VOTE = 5
    VOTE_RESP = 6
    SNAP = 7
    HEARTBEAT = 8
    HEARTBEAT_RESP = 9
    UNREACHABLE = 10
    SNAP_STATUS = 11
    CHECK_QUORUM = 12
    TRANSFER_LEADER = 13
    TIMEOUT_NOW = 14
    READ_INDEX = 15
    READ_INDEX_RESP = 16
    PRE_VOTE = 17
    PRE_VOTE_RESP = 18
    STORAGE_APPEND = 19
    STORAGE_APPEND_RESP = 20
    STORAGE_APPLY = 21
    STORAGE_APPLY_RESP = 22
    FORGET_LEADER = 23


class Role(enum.Enum):
    """The role of a node."""

    FOLLOWER = "StateFollower"
    CANDIDATE = "StateCandidate"
    LEADER = "StateLeader"
    PRE_CANDIDATE = "StatePreCandidate"


@dataclass(slots=True)
class Entry:
    """One entry of the log. Never changed once it is in a log."""

    term: int = 0
    index: int = 0
    type: EntryType = EntryType.NORMAL
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be on disk before a message that promises it leaves."""

    term: int = 0
    vote: int = 0
    commit: int = 0

    @property
    def empty(self) -> bool:
        """True when there is nothing to keep."""
        return self.term == 0 and self.vote == 0 and self.commit == 0


@dataclass(frozen=True, slots=True)
class ConfState:
    """A membership: who votes, who listens, and in a joint configuration who voted before (thesis 4.3)."""

    voters: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after entry ``index``, which makes the log up to there dispensable (thesis 5)."""

    index: int = 0
    term: int = 0
    conf_state: ConfState = ConfState()
    data: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class Message:
    """A message between nodes, or between a node and its storage threads."""

    type: MessageType
    to: int = 0
    from_: int = 0
    term: int = 0
    log_term: int = 0
    index: int = 0
    entries: Sequence[Entry] = ()
    commit: int = 0
    vote: int = 0
    snapshot: Snapshot | None = None
    reject: bool = False
    reject_hint: int = 0
    context: bytes = b""
    responses: Sequence[Message] = ()


@dataclass(frozen=True, slots=True)
class SoftState:
    """What is known now and need not last."""

    lead: int
    role: Role


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read asked for with this context may be answered once entry ``index`` is applied (thesis 6.4)."""

    index: int
    context: bytes


@dataclass(slots=True)
class Ready:
    """What a core wants done: to keep, to send, to apply. None and empty mean nothing of that kind."""

    soft_state: SoftState | None = None
    hard_state: HardState | None = None
    read_states: Sequence[ReadState] = ()
    entries: Sequence[Entry] = ()
    snapshot: Snapshot | None = None
    committed_entries: Sequence[Entry] = ()
    messages: Sequence[Message] = ()
    must_sync: bool = False


class ProposalDropped(Exception):
    """A proposal that nobody can take now; the proposer may try again."""

    def __init__(self) -> None:
        super().__init__("raft proposal dropped")


class PeerNotFound(Exception):
    """An answer from somebody who is not in the configuration."""

    def __init__(self) -> None:
        super().__init__("raft: cannot step as peer not found")


class Compacted(LookupError):
    """The entry asked for is behind the snapshot."""


class Unavailable(LookupError):
    """The entry asked for is not there yet."""


def varint_size(value: int) -> int:
    """How many bytes protobuf takes for a number."""
    return max(1, (value.bit_length() + 6) // 7)


def entry_size(entry: Entry) -> int:
    """An entry's size as the wire encodes it."""
    size = 3 + 1 + varint_size(entry.term) + varint_size(entry.index)
    return size + 1 + varint_size(len(entry.data)) + len(entry.data) if entry.data else size


def limit_size(entries: Sequence[Entry], limit: int) -> Sequence[Entry]:
    """The first entries that fit into ``limit`` bytes, but always at least one."""
    if limit >= NO_LIMIT or not entries:
        return entries
    size = entry_size(entries[0])
    for count in range(1, len(entries)):
        size += entry_size(entries[count])
        if size > limit:
            return entries[:count]
    return entries


def payload_size(entries: Sequence[Entry]) -> int:
    """The bytes of the entries' data alone."""
    return sum(len(entry.data) for entry in entries)
