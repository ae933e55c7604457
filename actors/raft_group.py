"""The group as RaftActor sees it: who the members are, how they stand, and what there is to send to them.

The part of RaftActor that stands on the transport. It changes nobody's membership.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Set
from typing import Any

from actors.raft_roster import Roster
from runtime.disk.raft_records import Member
from runtime.protocol.raft import (
    MemberStatus,
    PeerState,
    PeerUnreachable,
    RaftSetup,
    RaftStatus,
    SendRaft,
    SetPeers,
    SnapshotSent,
    SpreadCommit,
)
from runtime.raft.node import RawNode
from runtime.raft.types import NOBODY, Message, Role
from runtime.stage import Actor, ActorUp, Address, handles
from runtime.store.view import Published
from runtime.swarm.raft_pace import RaftPace


class RaftGroup(Actor):
    """``published`` is the store's newest view."""

    def __init__(self, setup: RaftSetup, published: Published) -> None:
        super().__init__()
        self.setup = setup
        self.published = published
        self.pace = RaftPace()
        self.node: RawNode | None = None
        self.roster = Roster()
        self._leading = False
        self._peers: SetPeers | None = None
        self._peers_version = -1
        self._outgoing: list[Message] = []
        self._transport: Address | None = None
        self._status: RaftStatus | None = None
        self._status_of: object = None

    @property
    def members(self) -> Mapping[int, Member]:
        """Those that the applied log knows, by raft id."""
        return self.roster.members

    @property
    def removed(self) -> Set[int]:
        """The raft ids that never come back."""
        return self.roster.removed

    @abc.abstractmethod
    def _pump(self) -> None:
        """Carries out what the core wants."""

    def member_statuses(self) -> dict[int, MemberStatus]:
        """The members as this manager sees them, by raft id."""
        raft = self.node.raft if self.node is not None else None
        own, lead, listen = (raft.id, raft.lead, raft.members.learners) if raft is not None else (NOBODY, NOBODY, set())
        return {
            id: MemberStatus(
                id, member.node_id, member.addr, id == lead, id == own or self.roster.reaches(id), id not in listen
            )
            for id, member in sorted(self.members.items())
        }

    def peers(self) -> list[dict[str, Any]]:
        """Each member as this manager sees it; how many entries a follower is behind is known to the leader alone."""
        raft = self.node.raft if self.node is not None else None
        found: list[dict[str, Any]] = []
        for id, status in self.member_statuses().items():
            peer: dict[str, Any] = {
                "raft id": f"{id:x}", "node": status.node_id, "addr": status.addr, "leader": status.leader,
                "reached": status.reachable, "votes": status.votes,
            }  # fmt: skip
            progress = raft.progress.get(id) if raft is not None and raft.role is Role.LEADER else None
            if raft is not None and progress is not None:
                match = raft.log.last_index() if id == raft.id else progress.match
                peer |= {
                    "match": match, "lag": raft.log.last_index() - match, "state": progress.state.name.lower(),
                    "appends in flight": len(progress.inflights), "pending snapshot": progress.pending_snapshot,
                }  # fmt: skip
            found.append(peer)
        return found

    @handles(PeerState)
    def peer_state(self, message: PeerState) -> None:
        """A member was reached, or was not."""
        self.roster.mark(message.raft_id, message.active)
        if self.node is not None:
            self._pump()

    # To the transport

    def _send(self, message: Message) -> None:
        self._outgoing.append(message)

    def _flush(self) -> None:
        """Hands the transport what there is to send, after it knows to whom."""
        if self._transport is None:
            return
        if self._peers_version != self.roster.version:
            self._set_peers(self._transport)
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, []
            self.tell(self._transport, SendRaft(outgoing, self.pace.told))

    def _set_peers(self, transport: Address) -> None:
        assert self.node is not None
        self._peers_version = self.roster.version
        peers = SetPeers(self.node.raft.id, self.roster.known(), frozenset(self.removed))
        if peers != self._peers:
            self._peers = peers
            self.tell(transport, peers)

    @handles(SpreadCommit)
    def spread_commit(self, message: SpreadCommit) -> None:
        """What is committed is known to the transport already."""
        if self._transport is not None:
            self.tell(self._transport, message)

    @handles(ActorUp)
    def transport_up(self, message: ActorUp) -> None:
        """A new life of the transport knows nobody."""
        transport = self._transport
        if transport is not None and self._peers is not None and message.path == transport.path:
            self.tell(transport, self._peers)

    def _tell_status(self) -> None:
        """Tells the manager how the group stands, if that has changed."""
        assert self.node is not None
        raft = self.node.raft
        follows_from = self.roster.version, raft.members, raft.lead, self._leading, raft.term
        if follows_from == self._status_of or self.parent is None:
            return
        self._status_of = follows_from
        status = RaftStatus(raft.id, raft.lead, self._leading, raft.term, self.member_statuses())
        if status != self._status:
            self._status = status
            self.tell(self.parent, status)

    @handles(PeerUnreachable)
    def peer_unreachable(self, message: PeerUnreachable) -> None:
        """What was sent to a member is lost."""
        if self.node is not None:
            self.node.report_unreachable(message.raft_id)
            self._pump()

    @handles(SnapshotSent)
    def snapshot_sent(self, message: SnapshotSent) -> None:
        """What became of a snapshot for a member."""
        if self.node is not None:
            self.node.report_snapshot(message.raft_id, message.ok)
            self._pump()
