"""RaftActor drives the consensus core: proposals, disk, peers, committed entries, membership, leadership.

Who talks to it: StoreActor proposes and gets entries, the manager above hears RaftStatus, other members' messages come
as StepRaft from its child ``transport``. It never decides (``runtime/raft`` does) and never waits for the disk (its
child ``log`` does) or for the network. A node without a log has its child ``join`` ask a leader for membership first.

Rules kept here:
1. Nothing that promises what a write holds leaves before that write is durable; the core hands such messages out with
   the write, and they are kept with it.
2. Group commit: at most two appends are under way; proposals that come meanwhile share the next one.
3. Leadership is announced once everything that was in the log is applied, and withdrawn before anything else is said.
4. A commit index alone is not synced: it rides with the next write, or is written when nothing else is to do.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.raft_log_actor import RaftLogActor
from actors.raft_members import RaftMembers, address_book, conf_change
from actors.raft_snapshots import RaftSnapshots
from actors.raft_transport_actor import RaftTransportActor
from runtime.disk.errors import LogDamaged
from runtime.disk.raft_log import Loaded
from runtime.disk.raft_records import Member
from runtime.errors import Code, Refused
from runtime.failpoints import failpoint, rare
from runtime.protocol.raft import (
    Append,
    Appended,
    BeginLog,
    ChangeDataKey,
    DescribeState,
    DiscardLog,
    JoinAnswered,
    LoadLog,
    NotWanted,
    RaftSetup,
    RaftTick,
    RemovedFromRaft,
    SnapshotDropped,
    SnapshotTaken,
    StepRaft,
    TakeSnapshot,
    UseDataKeys,
    WipeLog,
)
from runtime.protocol.store import AwaitView, Entries, Leading, NotLeading, ProposalRefused, Propose, Restore
from runtime.raft.admission import refusal
from runtime.raft.codec import encode_change
from runtime.raft.confchange import ChangeType
from runtime.raft.config import RaftConfig
from runtime.raft.node import LocalMessage, RawNode
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import (
    APPEND_THREAD,
    APPLY_THREAD,
    Entry,
    EntryType,
    HardState,
    Message,
    PeerNotFound,
    ProposalDropped,
    Ready,
    Role,
    Snapshot,
)
from runtime.stage import Address, Answer, Policy, Reply, handles
from runtime.store.snapshot import Content, read
from runtime.store.view import Published
from runtime.swarm.membership import LOST_LEADERSHIP, draw_raft_id
from runtime.swarm.raft_pace import RaftPace, all_can_be_fast

APPENDS_IN_FLIGHT = 2
LOAD_WAIT = 600.0
LOG_LOST = (
    "this node was a manager, but its raft log is gone and no other manager is known: restore a backup of it, or leave "
    "the swarm by force and join it again"
)

log = logging.getLogger("swarmlet.raft")


@dataclass(slots=True)
class _Write:
    """An append under way, and what may be said once it is durable; ``content`` is what its snapshot holds, decoded."""

    number: int
    entries: Sequence[Entry]
    snapshot: Snapshot | None
    responses: list[Message]
    content: Content | None


class RaftActor(RaftMembers):
    """``store`` gets the entries, ``published`` is its newest view (what snapshots are made of)."""

    policy = Policy(escalates=(Exception,))

    def __init__(self, setup: RaftSetup, store: Address, published: Published) -> None:
        super().__init__(setup, published)
        self.store = store
        self.member: Member | None = None
        self._storage = MemoryStorage()
        self._ended = False
        self._waiting: list[Propose] = []
        self._writes: deque[_Write] = deque()
        self._write_number = 0
        self._numbers: dict[int, int] = {}
        self._written = HardState()
        self._known = HardState()
        self._role = Role.FOLLOWER
        self._term = 0
        self._leads_from = 0
        self._epoch = 0
        self._refused_messages = 0
        self._last_refusal = ""
        self._applied = 0
        self._may_campaign = False
        self._content: Content | None = None
        self._snapshots = RaftSnapshots(
            self.members, self.removed, published, lambda taken: self.tell(self._log, taken), lambda: self._leading
        )

    def snapshot(self) -> dict[str, Any]:
        raft = self.node.raft if self.node is not None else None
        if raft is None:
            return {"loaded": False}
        return {
            "raft id": f"{raft.id:x}",
            "role": raft.role.value.removeprefix("State").lower(),
            "term": raft.term,
            "leading": self._leading,
            "last": raft.log.last_index(),
            "committed": raft.log.committed,
            "applied": self._applied,
            "appends in flight": len(self._writes),
            "waiting": len(self._waiting),
            "tick": self.setup.fast_tick if self.pace.fast else self.setup.tick,
            "members": len(self.members),
            "leader": f"{raft.lead:x}" if raft.lead else "",
            "pace": "fast" if self.pace.fast else "slow",
            "snapshot": self._snapshots.index,
            "peers": self.peers(),
            "messages refused": self._refused_messages,
            "last refusal": self._last_refusal,
        }

    # Starting

    def started(self) -> None:
        self._log = self.spawn("log", RaftLogActor, self.setup.data_keys)
        self.ask(self._log, LoadLog(self.setup.force_new_cluster), self._loaded, LOAD_WAIT)

    def _loaded(self, answer: Answer) -> None:
        loaded: Loaded = answer.get()
        setup = self.setup
        self.member = loaded.member
        joined = self.roster.expecting
        if loaded.member is not None and (joined or loaded.entries or loaded.snapshot is not None):
            self._start_core(loaded, loaded.member)
        elif setup.join_addrs:
            self._join(persists=False, leaves=loaded.lost_id)
        elif loaded.member is None and setup.founds:
            self._begin_log()
        elif loaded.member is None:
            raise LogDamaged(LOG_LOST)
        else:
            raise Refused(Code.FAILED_PRECONDITION, "this manager joined a group whose members it does not know")

    def _begin_log(self) -> None:
        """A new log begins with the configuration change that makes this node its only voter, as etcd's does."""
        member = Member(draw_raft_id(self.world.entropy, ()), self.setup.node_id, self.setup.addr)
        kind, data = encode_change(conf_change(ChangeType.ADD_NODE, member))
        state = HardState(term=1, commit=1)
        entries = [Entry(1, 1, kind, data)]
        self.ask(self._log, BeginLog(member, entries, state), self._begun, LOAD_WAIT)

    def _begun(self, answer: Answer) -> None:
        answer.get()
        self.ask(self._log, LoadLog(self.setup.force_new_cluster), self._loaded, LOAD_WAIT)

    @handles(JoinAnswered)
    def joined(self, message: JoinAnswered) -> None:
        """This node is a member. A log that has nothing but an owner begins (again) under the raft id given; one that
        has entries goes on, if it was only the address that had changed. Under another raft id the group knows nothing
        of this log: it was made anew, or removed this member, which nobody can tell one that never stands for election.
        """
        if self.node is not None and message.raft_id != self.node.raft.id:
            self._leave()
            return
        self.roster.expect(message.members)
        own = message.members.get(message.raft_id)
        if self.node is None and not self._ended:
            member = own or Member(message.raft_id, self.setup.node_id, self.setup.addr)
            self.roster.recall({member.raft_id: member})
            self.ask(self._log, BeginLog(member, (), HardState()), self._begun, LOAD_WAIT)

    @handles(NotWanted)
    def not_wanted(self, message: NotWanted) -> None:
        """This node is to be no manager: as one that was removed it ends, and waits for what its certificate says."""
        self._leave()

    def _start_core(self, loaded: Loaded, member: Member) -> None:
        self._storage = MemoryStorage.restored(
            loaded.hard_state, loaded.snapshot, loaded.entries, loaded.base_index, loaded.base_term
        )
        self._snapshots.storage = self._storage
        self._written = self._known = loaded.hard_state
        if loaded.snapshot is not None:
            self._applied = loaded.snapshot.index
            self._restore(loaded.snapshot, loaded.content)
        setup = self.setup
        config = RaftConfig(
            id=member.raft_id,
            storage=self._storage,
            election_tick=setup.election_tick,
            heartbeat_tick=setup.heartbeat_tick,
            applied=self._applied,
            async_storage_writes=True,
            random=self.world.random,
        )
        if rare("raft.one_entry_messages"):
            config.max_size_per_msg = 1
        self.node = RawNode(config)
        self._term = self.node.raft.term
        self._may_campaign = True
        self.roster.recall(address_book(loaded.entries))
        self._transport = self.spawn(
            "transport", RaftTransportActor, self.address, setup.credentials, setup.addr, loaded.forced
        )
        self.watch(self._transport)
        self._pump()
        self.ask(self.store, AwaitView(lambda view: True), self._store_restored, LOAD_WAIT)
        if self._moved(member.addr):
            self._join(persists=True)

    def _store_restored(self, answer: Answer) -> None:
        """The store has what the log knew to be committed: the pace of the last life is that of this one."""
        answer.get()
        if self.node is not None:
            managers = [each.node_id for each in self.members.values()]
            self.pace = RaftPace(all_can_be_fast(self.published.view, managers))
            self._keep_pace()

    def _restore(self, snapshot: Snapshot, decoded: Content | None) -> None:
        content = decoded if decoded is not None else read(snapshot.data)
        members = [Member(each.raft_id, each.node_id, each.addr) for each in content.membership.members]
        self.roster.restore(members, content.membership.removed)
        self._snapshots.restored(snapshot.index, snapshot.conf_state)
        self.tell(self.store, Restore(snapshot.index, content.objects))

    # What comes in

    @handles(RaftTick)
    def tick(self, message: RaftTick) -> None:
        """One tick; a commit index that nothing carried to the disk is written now."""
        if self.node is None:
            return
        self.node.tick()
        self._keep_pace()
        self._start_change()
        self._snapshots.read_limits()
        self._snapshots.take_when_due()
        self._reads.expire(self.monotonic())
        self._ask_to_be_found()
        if not self._writes and self._known != self._written:
            self._write((), None, [])
        self._pump()

    @handles(StepRaft)
    def step(self, message: StepRaft) -> None:
        """A message from another member. Answers from members that are gone are nothing."""
        if self.node is None or message.message.from_ in self.removed:
            return
        why = refusal(self.node.raft, message.message, vouched=self._vouched(message))
        if why:
            self._refused_messages += 1
            self._last_refusal = f"{message.message.type.name} of {message.message.from_:x}: {why}"
            return
        try:
            self.node.step(message.message)
        except (PeerNotFound, LocalMessage, ProposalDropped):
            return
        self._hear_pace(message.message, message.fast)
        self._content = message.content  # a snapshot that the core takes is handed to the disk in this turn
        self._pump()
        self._content = None

    def _vouched(self, message: StepRaft) -> bool:
        """Whether the sender is a member, by what it has proven or by what this one was told of the group."""
        return message.proven or self.roster.knows(message.message.from_)

    @handles(Propose)
    def propose(self, message: Propose) -> None:
        """One entry of the store's."""
        if not self._leading or message.epoch != self._epoch:
            return  # the store has heard, or will, that this one is lost
        self._waiting.append(message)
        self._pump()

    @handles(Appended)
    def appended(self, message: Appended) -> None:
        """A write is durable: what was kept with it may be said."""
        if self.node is None:
            return
        write = self._writes.popleft()
        assert write.number == message.number, f"append {message.number} ended before {write.number}"
        self._store_durably(write)
        self._answer(write.responses)
        self._pump()

    @handles(SnapshotTaken)
    def snapshot_taken(self, message: SnapshotTaken) -> None:
        """A snapshot of ours is in force."""
        self._snapshots.taken(message)
        self._snapshots.take_when_due()

    @handles(SnapshotDropped)
    def snapshot_dropped(self, message: SnapshotDropped) -> None:
        """None of ours is under way; whether there should be one is looked at by the next entries, or the next tick."""
        self._snapshots.dropped()

    @handles(ChangeDataKey)
    def change_data_key(self, message: ChangeDataKey) -> None:
        """What is in the log now is under the old key; it goes once a snapshot under the new one holds it."""
        if self.node is None or self._snapshots.rekeying:
            raise Refused(Code.UNAVAILABLE, "the log's key cannot be changed now")
        self._snapshots.rekey(self.node.raft.log.last_index(), self.defer())
        self.tell(self._log, UseDataKeys(message.keys))
        self._snapshots.take_when_due()

    # The core's wishes

    def _pump(self) -> None:
        """Carries out what the core wants until it wants nothing more."""
        node = self.node
        if node is None:
            return
        self._give_votes()
        self._propose_waiting()
        self._ask_reads()
        while self.node is node and node.has_ready():
            self._carry_out(node.ready())
            self._propose_waiting()
            self._ask_reads()
        if self.node is None:
            return
        self._campaign_when_alone()
        self._flush()
        self._settle_transfers()
        self._tell_status()

    def _propose_waiting(self) -> None:
        if not self._waiting or len(self._writes) >= APPENDS_IN_FLIGHT or self.node is None:
            return
        if self.node.raft.transferee or self.node.raft.role is not Role.LEADER:
            return  # refused when the leadership is withdrawn, and made again by whoever leads next
        waiting, self._waiting = self._waiting, []
        first = self.node.raft.log.last_index() + 1
        try:
            self.node.propose_many([each.data for each in waiting])
        except ProposalDropped as dropped:
            self._refuse(waiting, str(dropped))
            return
        for index, each in enumerate(waiting, first):
            self._numbers[index] = each.number

    def _refuse(self, proposals: Sequence[Propose], reason: str) -> None:
        """These were not appended, and nothing built on them will be."""
        self._epoch += 1
        self.tell(self.store, ProposalRefused(proposals[0].number, reason, self._epoch))

    def _carry_out(self, ready: Ready) -> None:
        if ready.soft_state is not None:
            self._role_changed(ready.soft_state.role)
        for message in ready.messages:
            if message.to == APPEND_THREAD:
                self._persist(message)
            elif message.to == APPLY_THREAD:
                self._apply(message)
            else:
                self._send(message)
        self._reads.answer(ready.read_states)
        self._announce_leadership()

    def _role_changed(self, role: Role) -> None:
        assert self.node is not None
        term, led = self.node.raft.term, self._role is Role.LEADER
        if led and (role is not Role.LEADER or term != self._term):
            self._withdraw()
        if role is Role.LEADER:
            self._leads_from = self.node.raft.log.last_index()
        self._role, self._term = role, term
        name = role.value.removeprefix("State").lower()
        if role is Role.LEADER:
            self._say_leadership("lead", f"this manager leads in term {term}")
        elif led:
            self._say_leadership("follow", f"this manager leads no more: {name} in term {term}")
        else:
            log.debug("%s in term %d", name, term, extra=self.about())

    def _say_leadership(self, action: str, text: str) -> None:
        self.moment(log, "manager", action, text, id=self.setup.node_id, term=str(self._term))

    def _withdraw(self) -> None:
        self._numbers.clear()
        waiting, self._waiting = self._waiting, []
        if not self._leading:
            return
        self._leading = False
        if waiting:
            self._refuse(waiting, LOST_LEADERSHIP)
        self.tell(self.store, NotLeading())
        self._fail_changes()

    def _announce_leadership(self) -> None:
        if self._role is Role.LEADER and not self._leading and self._applied >= self._leads_from:
            self._leading = True
            self._epoch += 1
            self.tell(self.store, Leading(self._term, self._applied, self._epoch))
            self._correct_address()

    # Disk

    def _persist(self, message: Message) -> None:
        state = HardState(message.term, message.vote, message.commit)
        if not state.empty:
            self._known = state
        responses = list(message.responses)
        promises = (self._known.term, self._known.vote) != (self._written.term, self._written.vote)
        if message.entries or message.snapshot is not None or promises:
            self._write(message.entries, message.snapshot, responses)
        elif self._writes:
            self._writes[-1].responses += responses
        else:
            self._answer(responses)

    def _write(self, entries: Sequence[Entry], snapshot: Snapshot | None, responses: list[Message]) -> None:
        failpoint("ready.before_persist")
        self._write_number += 1
        state = self._known if self._known != self._written else None
        self._written = self._known
        content = self._content if snapshot is not None else None
        self._writes.append(_Write(self._write_number, entries, snapshot, responses, content))
        self.tell(self._log, Append(self._write_number, entries, state, snapshot))

    def _store_durably(self, write: _Write) -> None:
        snapshot = write.snapshot
        if snapshot is not None:
            self._storage.apply_snapshot(snapshot)
            self._applied = snapshot.index
            self._restore(snapshot, write.content)
        self._storage.append(write.entries)

    def _answer(self, responses: Sequence[Message]) -> None:
        if self.node is None:
            return
        for response in responses:
            if response.to == self.node.raft.id:
                self.node.step(response)
            else:
                self._send(response)

    # Entries

    def _apply(self, message: Message) -> None:
        assert self.node is not None
        entries, changed = [], []
        for entry in message.entries:
            number = self._numbers.pop(entry.index, 0)
            if entry.type is EntryType.NORMAL:
                entries.append((entry.index, number, entry.data))
            else:
                self._applied_change(entry, self._snapshots.changed)
                failpoint("conf.after_apply")
                changed.append(entry.index)
                entries.append((entry.index, 0, b""))
        self._applied = message.entries[-1].index
        failpoint("apply.before_batch")
        self.tell(self.store, Entries(tuple(entries)))
        failpoint("apply.after_batch")
        self._answer(message.responses)
        failpoint("advance.after")
        for index in changed:
            self._change_applied(index)
        if changed:
            self._membership_applied()
        self._snapshots.take_when_due()

    @handles(DiscardLog)
    def discard(self, message: DiscardLog) -> None:
        """This node is to be no manager any more."""
        self._end(self.defer())

    def _leave(self) -> None:
        if not self._ended:
            failpoint("demote.removed_not_stopped")
            self._end(None)

    def _end(self, reply: Reply | None) -> None:
        """Takes no part any more and forgets the log; then whoever asked, or the manager, hears of it."""
        self._ended = self._snapshots.ended = True
        if self._leading:
            self._withdraw()
        self._flush()
        self._reads.expire(float("inf"))
        self.node, self._role = None, Role.FOLLOWER
        self._writes.clear()

        def wiped(answer: Answer) -> None:
            answer.get()
            if reply is not None:
                reply.set()
            elif self.parent is not None:
                self.tell(self.parent, RemovedFromRaft())

        self.ask(self._log, WipeLog(), wiped, LOAD_WAIT)

    def _campaign_when_alone(self) -> None:
        """The only voter need not wait for an election timeout."""
        assert self.node is not None
        if not self._may_campaign:
            return
        voters = self.node.raft.members.all_voters()
        if voters:
            self._may_campaign = False
            if voters == [self.node.raft.id] and self._role is not Role.LEADER:
                self.node.campaign()
                self._pump()

    # Snapshots

    @handles(DescribeState)
    def describe_state(self, message: DescribeState) -> TakeSnapshot:
        """The newest view with the membership in force there, as for a snapshot that nobody writes."""
        described = self._snapshots.describe() if self.node is not None else None
        if described is None:
            raise Refused(Code.UNAVAILABLE, "the consensus is starting, or its membership changes: try again")
        return described
