"""What is said between the consensus actor, the actor that owns its disk, and the manager above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runtime.raft.types import ConfState, Entry, HardState, Message, Snapshot

if TYPE_CHECKING:
    from runtime.disk.raft_records import Member
    from runtime.store.snapshot import Content
    from runtime.store.view import View
    from runtime.wire.port import Credentials


@dataclass(frozen=True, slots=True)
class RaftSetup:
    """Whose log it is. ``addr`` is where other managers reach this one; ticks count ``tick`` seconds each, or
    ``fast_tick`` where all members can be fast.

    A node without a log joins through one of ``join_addrs``, or begins a log of its own where there are none and it
    ``founds`` a cluster: a manager that lost its log must not begin another under the old name.
    ``credentials`` are what it calls other managers with.
    """

    node_id: str
    addr: str
    data_keys: tuple[bytes, ...] = field(repr=False)
    tick: float = 1.0
    fast_tick: float = 0.1
    heartbeat_tick: int = 1
    election_tick: int = 10
    force_new_cluster: str = ""
    join_addrs: tuple[str, ...] = ()
    founds: bool = True
    credentials: Credentials | None = None


# To and from the log


@dataclass(frozen=True, slots=True)
class LoadLog:
    """Question: open the database, verify it, and give what it holds (a ``runtime.disk.raft_log.Loaded``). With an
    order to force a new cluster, that is carried out first unless it was before."""

    force_new_cluster: str = ""


@dataclass(frozen=True, slots=True)
class BeginLog:
    """Question: this new log belongs to ``member`` and begins with ``entries``."""

    member: Member
    entries: Sequence[Entry]
    hard_state: HardState


@dataclass(frozen=True, slots=True)
class Append:
    """Told: make this durable, then say ``Appended`` with the same ``number``. Writes are carried out in order."""

    number: int
    entries: Sequence[Entry]
    hard_state: HardState | None
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Told: everything up to append ``number`` is durable."""

    number: int


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Told: make the state ``view`` (the one after entry ``index``) durable as a snapshot, then forget the entries up
    to ``keep_after``; then say ``SnapshotTaken``. Appends are carried out meanwhile. If one of them brings a snapshot
    of the leader's, ``SnapshotDropped`` is said instead."""

    index: int
    term: int
    conf_state: ConfState
    members: tuple[Member, ...]
    removed: tuple[int, ...]
    view: View
    keep_after: int


@dataclass(frozen=True, slots=True)
class DescribeState:
    """Question: a ``TakeSnapshot`` of the newest applied state, which is carried out by whoever asks. Refused with
    UNAVAILABLE while the membership changes."""


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """Told: the snapshot is in force; entries up to ``keep_after`` are no longer on disk."""

    snapshot: Snapshot
    keep_after: int


@dataclass(frozen=True, slots=True)
class SnapshotDropped:
    """Told: the snapshot that was to be taken is not, since a newer one is in force."""


@dataclass(frozen=True, slots=True)
class UseDataKeys:
    """Told: seal with the first of these from now on, open with any of them."""

    keys: tuple[bytes, ...] = field(repr=False)


# Above


@dataclass(frozen=True, slots=True)
class ChangeDataKey:
    """Question: seal with the first of these keys from now on. Answered once nothing in the log or its snapshot is
    sealed with another one, which takes a snapshot of all that is there now."""

    keys: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A member of the consensus group as this manager sees it."""

    raft_id: int
    node_id: str
    addr: str
    leader: bool
    reachable: bool
    votes: bool = True
    """False for one that listens until it has caught up."""


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """Told to the manager on each change. ``leading`` is true only while this node leads and has applied everything
    that was in the log when it began to; ``members`` are by raft id."""

    raft_id: int
    leader: int
    leading: bool
    term: int
    members: Mapping[int, MemberStatus]


@dataclass(frozen=True, slots=True)
class StepRaft:
    """Told: a message from another member came in, who said that it ticks fast or did not. ``content`` is what its
    snapshot holds, decoded."""

    message: Message
    fast: bool = False
    content: Content | None = field(default=None, repr=False)
    proven: bool = False
    """Whether a sender that is not known here was found where it says to be, with the certificate that it called with,
    or where a member says that it is."""


@dataclass(frozen=True, slots=True)
class RaftTick:
    """One tick of the consensus's logical clock."""


@dataclass(frozen=True, slots=True)
class RemovedFromRaft:
    """Told to the manager: the group has removed this member, and nothing is left of its log."""


@dataclass(frozen=True, slots=True)
class DiscardLog:
    """Question: this node is to be no manager; hand leadership over, forget the log. Answered when it is gone."""


@dataclass(frozen=True, slots=True)
class WipeLog:
    """Question to the log: remove everything. Answered when that is durable."""


# To and from the transport to other members


@dataclass(frozen=True, slots=True)
class SetPeers:
    """Told to the transport: who the members are by raft id, this node (``own_id``) among them, and who was removed."""

    own_id: int
    members: Mapping[int, Member]
    removed: frozenset[int]


@dataclass(frozen=True, slots=True)
class SendRaft:
    """Told to the transport: send these, in order for each peer, and say with them how this member ticks."""

    messages: Sequence[Message]
    fast: bool = False


@dataclass(frozen=True, slots=True)
class PeerState:
    """Told by the transport on each change: whether a member could be reached the last time."""

    raft_id: int
    active: bool


@dataclass(frozen=True, slots=True)
class SpreadCommit:
    """Told when another manager waits until its own store has what was committed: its commit index goes out now."""


@dataclass(frozen=True, slots=True)
class PeerUnreachable:
    """Told by the transport: a message to this member was lost, and the group's progress with it is not known."""

    raft_id: int


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """Told by the transport: a snapshot has arrived, or has not."""

    raft_id: int
    ok: bool


@dataclass(frozen=True, slots=True)
class Expelled:
    """Told by the transport: a member says that this node was removed from the group."""


@dataclass(frozen=True, slots=True)
class JoinAnswered:
    """Told by whoever asked to join: the raft id given, and the members by raft id."""

    raft_id: int
    members: Mapping[int, Member]


@dataclass(frozen=True, slots=True)
class NotWanted:
    """Told by whoever asked to join: this node was demoted, and is no member."""


# Membership and leadership: questions to the consensus of a leader, refused with FAILED_PRECONDITION elsewhere


@dataclass(frozen=True, slots=True)
class AddMember:
    """Question: admit this node's manager, listening at ``addr`` (``host:port``). The answer is ``Joined`` once the
    change is applied. A node that is a member already keeps its raft id and may have a new address. One that
    ``listens`` is of our kind: it may have to catch up before it has a vote."""

    node_id: str
    addr: str
    listens: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """The raft id of a new member, and all members by raft id, itself among them."""

    raft_id: int
    members: Mapping[int, MemberStatus]
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CanRemoveMember:
    """Question: would the others still have a quorum of reachable members without this one? True or False."""

    raft_id: int


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """Question: take this member out; answered with None once the change is applied. A leader that removes itself hands
    its leadership over first, and refuses. Refused too if the quorum would be lost."""

    raft_id: int


@dataclass(frozen=True, slots=True)
class TransferLeadership:
    """Question: let another member lead (0: the one that is furthest). True once this node does not lead."""

    raft_id: int = 0


@dataclass(frozen=True, slots=True)
class ReadIndex:
    """Question: the index that a view must have reached to hold every write acknowledged before now."""
