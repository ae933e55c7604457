"""What RaftActor is asked about membership and leadership: the part of it that answers other actors.

Membership changes are carried out one at a time, in the order asked; each is answered once it is applied here. When
leadership is lost, those that were proposed have an unknown outcome and those that waited are refused. In a group of
our kind a manager of our kind listens first: no commit waits for it until it has caught up. Then the leader, whoever
that is by then, gives it its vote.
"""

from __future__ import annotations

import abc
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.raft_group import RaftGroup
from actors.raft_join_actor import RaftJoinActor
from actors.raft_reads import RaftReads
from runtime.disk.raft_records import Member
from runtime.errors import Code, Refused
from runtime.failpoints import failpoint
from runtime.protocol.raft import (
    AddMember,
    CanRemoveMember,
    Expelled,
    Joined,
    RaftSetup,
    RaftTick,
    ReadIndex,
    RemoveMember,
    TransferLeadership,
)
from runtime.raft.catching_up import CatchingUp
from runtime.raft.codec import decode_change
from runtime.raft.confchange import ChangeRefused, ChangeType, ConfChange
from runtime.raft.types import NOBODY, ConfState, Entry, EntryType, Message, MessageType, ProposalDropped, Role
from runtime.stage import Reply, Timer, handles
from runtime.store.view import Published
from runtime.swarm import membership
from runtime.swarm.addresses import split_host_port
from runtime.swarm.raft_pace import all_can_be_fast, can_be_fast
from runtime.wire.pb import raft_pb2

ANSWERS = frozenset({MessageType.APP_RESP, MessageType.HEARTBEAT_RESP})
FROM_LEADER = frozenset({MessageType.APP, MessageType.HEARTBEAT, MessageType.SNAP})
TRANSFER_WAIT = 25.0
CHANGES = {
    ChangeType.ADD_NODE: ("add", "votes from now on"),
    ChangeType.ADD_LEARNER: ("listen", "listens until it has caught up"),
    ChangeType.REMOVE_NODE: ("remove", "is no member any more"),
}
log = logging.getLogger("swarmlet.raft")
SILENCE = 10.0
"""Seconds without a leader after which a manager that names no address of its own has itself looked for."""


@dataclass(frozen=True, slots=True)
class GiveVote:
    """A member that listened has caught up."""

    raft_id: int
    node_id: str


@dataclass(slots=True)
class Change:
    """A membership change that was asked for; ``index`` is its entry's once it is proposed."""

    request: AddMember | RemoveMember | GiveVote
    reply: Reply
    index: int = 0


class RaftMembers(RaftGroup):
    """``setup`` says whose log it is; ``published`` is the store's newest view."""

    def __init__(self, setup: RaftSetup, published: Published) -> None:
        super().__init__(setup, published)
        self._ticker: Timer | None = None
        self._changes: deque[Change] = deque()
        self._transfers: list[Reply] = []
        self._transfer_until = 0.0
        self._reads = RaftReads()
        self._heard_leader = 0.0
        self._listeners: dict[int, CatchingUp] = {}

    @abc.abstractmethod
    def _leave(self) -> None:
        """This node is no member any more."""

    # Membership

    @handles(AddMember, RemoveMember)
    def change_members(self, message: Any) -> None:
        """Answered once it is applied, or refused."""
        self._need_leadership()
        self._changes.append(Change(message, self.defer()))
        self._start_change()
        self._pump()

    @handles(CanRemoveMember)
    def can_remove(self, message: CanRemoveMember) -> bool:
        """Whether the quorum survives."""
        self._need_leadership()
        return membership.survives_without(self.member_statuses().values(), message.raft_id)

    def _need_leadership(self) -> None:
        if self.node is None:
            raise Refused(Code.FAILED_PRECONDITION, membership.NOT_MEMBER)
        if not self._leading:
            raise Refused(Code.FAILED_PRECONDITION, membership.LOST_LEADERSHIP)

    def _start_change(self) -> None:
        """Proposes the next change, unless one is under way."""
        while self._changes and not self._changes[0].index and self._leading and self.node is not None:
            change = self._changes[0]
            try:
                if self._too_fast_for(change.request):
                    return
                wanted = self._wanted(change.request)
                if wanted is not None:
                    self.node.propose_conf_change(wanted)
                    change.index = self.node.raft.log.last_index()
                    return
                self._change_over().reply.set(self._outcome(change.request))
            except Refused as refused:
                self._change_over().reply.fail(refused)
            except ProposalDropped as dropped:
                self._change_over().reply.fail(Refused(Code.UNAVAILABLE, str(dropped)))

    def _change_over(self) -> Change:
        """The change under way is no more: nothing waits for a slower pace."""
        self.pace.admitting = False
        return self._changes.popleft()

    def _too_fast_for(self, request: AddMember | RemoveMember | GiveVote) -> bool:
        """Whether the group must slow down first, before this member has a vote in it; then that has begun. Refused, at
        any moment of that, if nobody wants a manager there any more."""
        if isinstance(request, RemoveMember):
            return False
        if isinstance(request, AddMember) and self._member_of(request.node_id) is not None:
            return False
        membership.check_wanted(self.published.view, request.node_id)
        if self._listens_first(request) or can_be_fast(self.published.view, request.node_id):
            return False
        self.pace.admitting = True
        self._keep_pace()
        return self.pace.fast

    def _listens_first(self, request: AddMember | GiveVote) -> bool:
        return isinstance(request, AddMember) and request.listens and self._all_ours()

    def _all_ours(self) -> bool:
        """Whether all members know what a listener is."""
        return all(can_be_fast(self.published.view, each.node_id) for each in self._voting())

    def _voting(self) -> list[Member]:
        assert self.node is not None
        listen = self.node.raft.members.learners
        return [member for id, member in self.members.items() if id not in listen]

    def _wanted(self, request: AddMember | RemoveMember | GiveVote) -> ConfChange | None:
        """The change to propose; None if everything is as it should be."""
        if isinstance(request, RemoveMember):
            return self._removal(request.raft_id)
        if isinstance(request, GiveVote):
            return self._vote_for(request.raft_id)
        known = self._member_of(request.node_id)
        if known is None:
            taken = {*self.members, *self.removed}
            raft_id = membership.draw_raft_id(self.world.entropy, taken)
            kind = ChangeType.ADD_LEARNER if self._listens_first(request) else ChangeType.ADD_NODE
            return conf_change(kind, Member(raft_id, request.node_id, request.addr))
        if known.addr == request.addr:
            return None
        return conf_change(ChangeType.UPDATE_NODE, Member(known.raft_id, known.node_id, request.addr))

    def _vote_for(self, raft_id: int) -> ConfChange | None:
        assert self.node is not None
        member = self.members.get(raft_id)
        if member is None or raft_id not in self.node.raft.members.learners:
            return None  # it is gone, or has it
        return conf_change(ChangeType.ADD_NODE, member)

    def _removal(self, raft_id: int) -> ConfChange | None:
        assert self.node is not None
        if raft_id in self.removed:
            return None
        member = self.members.get(raft_id)
        if member is None:
            raise Refused(Code.NOT_FOUND, membership.UNKNOWN_MEMBER)
        if not membership.survives_without(self.member_statuses().values(), raft_id):
            raise Refused(Code.FAILED_PRECONDITION, membership.CANNOT_REMOVE)
        if raft_id == self.node.raft.id:
            self._hand_over()
            raise Refused(Code.FAILED_PRECONDITION, "raft: the leader hands over before it is removed")
        return conf_change(ChangeType.REMOVE_NODE, member)

    def _outcome(self, request: AddMember | RemoveMember | GiveVote) -> Joined | None:
        if not isinstance(request, AddMember):
            return None
        member = self._member_of(request.node_id)
        assert member is not None, "an applied addition left no member"
        return Joined(member.raft_id, self.member_statuses(), tuple(sorted(self.removed)))

    def _member_of(self, node_id: str) -> Member | None:
        return next((each for each in self.members.values() if each.node_id == node_id), None)

    def _applied_change(self, entry: Entry, accept: Callable[[int, ConfState], None]) -> None:
        assert self.node is not None
        failpoint("conf.before_apply")
        change, known = decode_change(entry), dict(self.members)
        for kind, raft_id in change.changes:
            if kind is ChangeType.REMOVE_NODE:
                self._say_farewell(raft_id, entry)
                self.roster.remove(raft_id)
            elif change.context and raft_id not in self.removed:
                member = raft_pb2.RaftMember.FromString(change.context)
                self.roster.add(Member(raft_id, member.node_id, member.addr))
        try:
            accept(entry.index, self.node.apply_conf_change(change))
        except ChangeRefused:
            return  # the core keeps its configuration, on every member alike
        if self.node.raft.role is Role.LEADER:  # one of them says it, and nobody at a start, over what is long done
            for kind, raft_id in change.changes:
                self._say_change(kind, raft_id, known.get(raft_id) or self.members.get(raft_id))

    def _say_change(self, kind: ChangeType, raft_id: int, member: Member | None) -> None:
        action, text = CHANGES.get(kind, ("update", "has another address"))
        node_id = member.node_id if member is not None else ""
        id = f"{raft_id:x}"
        self.moment(log, "member", action, f"manager {node_id} (raft id {id}) {text}", id=id, node_id=node_id)

    def _give_votes(self) -> None:
        """Looks how far those are that listen. A group that came to have members of another kind has none: these know
        of no such thing, and whoever of them leads would leave it at that."""
        assert self.node is not None
        raft, listeners = self.node.raft, self.node.raft.members.learners
        if not self._leading or not listeners:
            self._listeners.clear()
            return
        last, now = raft.log.last_index(), self.monotonic()
        under_way = {each.request.raft_id for each in self._changes if isinstance(each.request, GiveVote)}
        for id in sorted(listeners - under_way):
            rounds = self._listeners.setdefault(id, CatchingUp(last, now))
            member = self.members.get(id)
            if member is not None and (rounds.is_done(raft.progress[id].match, last, now) or not self._all_ours()):
                self._changes.append(Change(GiveVote(id, member.node_id), Reply(lambda answer: None)))
        self._start_change()

    def _say_farewell(self, raft_id: int, removal: Entry) -> None:
        """The leader sends nothing to a member that is none any more: the commit of its own removal is the last thing
        it is told. Who does not hear it finds out at its next election, which may be many seconds later."""
        assert self.node is not None
        raft, index = self.node.raft, removal.index
        if raft.role is Role.LEADER and raft_id in self.members and raft_id != raft.id:
            last = Message(MessageType.APP, raft_id, raft.id, raft.term, removal.term, index, commit=index)
            self._send(last)
            self._flush()

    def _change_applied(self, index: int) -> None:
        """The entry at ``index`` was applied: if it is the change under way, whoever asked hears of it."""
        if self._changes and self._changes[0].index == index:
            change = self._change_over()
            change.reply.set(self._outcome(change.request))
            self._start_change()

    def _membership_applied(self) -> None:
        """Who leaves learns it from others or here; a group whose leader left elects another at once."""
        assert self.node is not None
        raft = self.node.raft
        if raft.id in self.removed:
            self._leave()
        elif raft.lead in self.removed and raft.role is Role.FOLLOWER:
            self.node.campaign()

    @handles(Expelled)
    def expelled(self, message: Expelled) -> None:
        """Another member says that this one was removed."""
        self._leave()

    def _fail_changes(self) -> None:
        changes, self._changes = self._changes, deque()
        self.pace.admitting = False
        for change in changes:
            proposed = Refused(Code.UNKNOWN, membership.OUTCOME_UNKNOWN)
            waited = Refused(Code.FAILED_PRECONDITION, membership.LOST_LEADERSHIP)
            change.reply.fail(proposed if change.index else waited)

    # Pace

    def _keep_pace(self) -> None:
        """Ticks as it should now; a change that waited for a slower pace goes on."""
        assert self.node is not None
        raft = self.node.raft
        if raft.role is Role.LEADER:
            allowed = all_can_be_fast(self.published.view, [each.node_id for each in self._voting()])
            self.pace.lead(allowed, [id for id in self.members if id != raft.id and self.roster.reaches(id)])
        if self._ticker is None or raft.config.pre_vote is not self.pace.fast:
            if self._ticker is not None:
                self._ticker.cancel()
            raft.config.pre_vote = self.pace.fast
            self._ticker = self.every(self.setup.fast_tick if self.pace.fast else self.setup.tick, RaftTick())

    def _hear_pace(self, message: Message, fast: bool) -> None:
        """What a message that was stepped says of its sender's pace."""
        assert self.node is not None
        raft = self.node.raft
        if raft.role is Role.LEADER:
            if message.type in ANSWERS:
                self.pace.answered(message.from_, fast)
                if fast is not self.pace.fast and not self.pace.told:
                    self._keep_pace()
                    self._start_change()
        elif message.type in FROM_LEADER and message.from_ == raft.lead and fast is not self.pace.fast:
            self.pace.follow(fast)
            self._keep_pace()

    # Leadership

    @handles(TransferLeadership)
    def transfer_leadership(self, message: TransferLeadership) -> bool | None:
        """Lets another one lead; answered when one does."""
        if self.node is None or self.node.raft.role is not Role.LEADER:
            return True
        self._hand_over(message.raft_id)
        self._transfers.append(self.defer())
        self._transfer_until = self.monotonic() + TRANSFER_WAIT
        self._pump()
        return None

    def _hand_over(self, to: int = NOBODY) -> None:
        assert self.node is not None
        to = to or self._furthest()
        if not to:
            raise Refused(Code.FAILED_PRECONDITION, "raft: no other member can be reached to take over the leadership")
        self.node.transfer_leader(to)

    def _furthest(self) -> int:
        """The reachable member that lacks least of the log; 0 if there is none."""
        assert self.node is not None
        raft = self.node.raft
        others = [
            id for id in raft.members.all_voters() if id != raft.id and id in self.members and self.roster.reaches(id)
        ]
        return max(others, key=lambda id: raft.progress[id].match, default=NOBODY)

    def _settle_transfers(self) -> None:
        """Answers hand-overs that have come to something."""
        if not self._transfers or self.node is None:
            return
        raft, late = self.node.raft, self.monotonic() >= self._transfer_until
        if raft.role is Role.LEADER:
            if raft.transferee != NOBODY and not late:
                return
            for reply in self._transfers:
                reply.fail(Refused(Code.DEADLINE_EXCEEDED, "the leadership could not be handed over in time"))
        elif raft.lead == NOBODY and not late:
            return
        else:
            for reply in self._transfers:
                reply.set(True)
        self._transfers = []

    def _correct_address(self) -> None:
        """This node listens elsewhere than the log says (its address or port changed while it was down)."""
        assert self.node is not None
        member = self.members.get(self.node.raft.id)
        if member is not None and self._moved(member.addr):
            self._changes.append(Change(AddMember(member.node_id, self.setup.addr), Reply(lambda answer: None)))
            self._start_change()

    def _moved(self, known: str) -> bool:
        """Whether this node listens elsewhere than others know it to."""
        addr = self.setup.addr
        return addr != known and not self._has_no_address

    @property
    def _has_no_address(self) -> bool:
        return membership.is_unspecified(split_host_port(self.setup.addr)[0])

    def _ask_to_be_found(self) -> None:
        """A manager without an address of its own is known by the one that it spoke from when it joined. If it hears of
        no leader, that may be because it is elsewhere by now: who takes it in sees where it speaks from. One that has
        no vote yet stands for no election, and so hears from nobody that it was removed."""
        assert self.node is not None
        raft, now = self.node.raft, self.monotonic()
        if raft.lead != NOBODY or not self._heard_leader:
            self._heard_leader = now
        elif now - self._heard_leader >= SILENCE and (self._has_no_address or raft.id not in raft.members.all_voters()):
            self._heard_leader = now
            self._join(persists=True)

    def _join(self, *, persists: bool, leaves: int = 0) -> None:
        setup = self.setup
        if setup.join_addrs and self.child("join") is None:
            self.spawn(
                "join", RaftJoinActor, self.address, setup.addr, setup.join_addrs, setup.credentials, persists, leaves
            )  # fmt: skip

    # Reads

    @handles(ReadIndex)
    def read_index(self, message: ReadIndex) -> None:
        """Asks the leader, wherever it is, for an index that holds every write acknowledged by now."""
        if self.node is None:
            raise Refused(Code.UNAVAILABLE, membership.NO_LEADER)
        self._reads.add(self.defer(), self.monotonic())
        self._pump()

    def _ask_reads(self) -> None:
        if self.node is None or not self._reads.waiting or self.node.raft.lead == NOBODY:
            return
        raft = self.node.raft
        context = self._reads.context((raft.term, raft.lead), self.monotonic(), self.world.entropy)
        if context:
            self.node.read_index(context)


def conf_change(kind: ChangeType, member: Member) -> ConfChange:
    """A change of one member, with who it is, as SwarmKit's."""
    context = raft_pb2.RaftMember(raft_id=member.raft_id, node_id=member.node_id, addr=member.addr)
    return ConfChange(((kind, member.raft_id),), context=context.SerializeToString(deterministic=True), v1=True)


def address_book(entries: Sequence[Entry]) -> dict[int, Member]:
    """Where members are reached, from all configuration changes of a log, committed or not."""
    book: dict[int, Member] = {}
    for entry in entries:
        if entry.type is not EntryType.NORMAL:
            change = decode_change(entry)
            for kind, raft_id in change.changes:
                if kind is not ChangeType.REMOVE_NODE and change.context:
                    member = raft_pb2.RaftMember.FromString(change.context)
                    book[raft_id] = Member(raft_id, member.node_id, member.addr)
    return book
