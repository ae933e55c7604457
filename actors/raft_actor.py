"""RaftActor drives the consensus core: proposals, disk, peers, committed entries, membership, leadership.

Who talks to it: StoreActor proposes and gets entries, the manager above hears RaftStatus, other members' messages come
as StepRaft. It never decides (``runtime/raft`` does) and never waits for the disk (its child ``log`` does).

Rules kept here:
1. Nothing that promises what a write holds leaves before that write is durable; the core hands such messages out with
   the write, and they are kept with it.
2. Group commit: at most two appends are under way; proposals that come meanwhile share the next one.
3. Leadership is announced once everything that was in the log is applied, and withdrawn before anything else is said.
4. A commit index alone is not synced: it rides with the next write, or is written when nothing else is to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.raft_log_actor import RaftLogActor
from runtime.disk.raft_log import Loaded
from runtime.disk.raft_records import Member
from runtime.errors import Code, Refused
from runtime.protocol.raft import (
    Append,
    Appended,
    BeginLog,
    ChangeDataKey,
    LoadLog,
    MemberStatus,
    RaftSetup,
    RaftStatus,
    RaftTick,
    SnapshotTaken,
    StepRaft,
    TakeSnapshot,
    UseDataKeys,
)
from runtime.protocol.store import Entries, Leading, NotLeading, ProposalRefused, Propose, Restore
from runtime.raft.codec import decode_change, encode_change
from runtime.raft.confchange import ChangeType, ConfChange
from runtime.raft.config import RaftConfig
from runtime.raft.node import RawNode
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfState,
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
from runtime.stage import Actor, Address, Answer, Policy, Reply, handles
from runtime.store.view import Published
from runtime.wire.pb import objects_pb2, raft_pb2, snapshot_pb2

APPENDS_IN_FLIGHT = 2
LOAD_WAIT = 600.0
SNAPSHOT_INTERVAL = 10_000
KEPT_ENTRIES = 500


@dataclass(slots=True)
class _Write:
    """An append under way, and what may be said once it is durable."""

    number: int
    entries: Sequence[Entry]
    snapshot: Snapshot | None
    responses: list[Message]


@dataclass(slots=True)
class _Rekeying:
    """A change of the data key: a snapshot at ``barrier`` or later makes everything under the old key dispensable."""

    barrier: int
    reply: Reply
    snapshot: int = 0


class RaftActor(Actor):
    """``store`` gets the entries, ``published`` is its newest view (what snapshots are made of)."""

    policy = Policy(escalates=(Exception,))

    def __init__(self, setup: RaftSetup, store: Address, published: Published) -> None:
        super().__init__()
        self.setup = setup
        self.store = store
        self.published = published
        self.members: dict[int, Member] = {}
        self.removed: set[int] = set()
        self.node: RawNode | None = None
        self._storage = MemoryStorage()
        self._waiting: list[Propose] = []
        self._writes: deque[_Write] = deque()
        self._write_number = 0
        self._numbers: dict[int, int] = {}
        self._written = HardState()
        self._known = HardState()
        self._role = Role.FOLLOWER
        self._term = 0
        self._leads_from = 0
        self._leading = False
        self._epoch = 0
        self._applied = 0
        self._may_campaign = False
        self._conf_states: list[tuple[int, ConfState]] = []
        self._snapshot_index = 0
        self._snapshot_running = False
        self._rekeying: _Rekeying | None = None
        self._interval = SNAPSHOT_INTERVAL
        self._kept = KEPT_ENTRIES
        self._status: RaftStatus | None = None

    def snapshot(self) -> dict[str, Any]:
        raft = self.node.raft if self.node is not None else None
        if raft is None:
            return {"loaded": False}
        return {
            "raft id": f"{raft.id:x}",
            "role": raft.role.value,
            "term": raft.term,
            "leading": self._leading,
            "last": raft.log.last_index(),
            "committed": raft.log.committed,
            "applied": self._applied,
            "appends in flight": len(self._writes),
            "waiting": len(self._waiting),
            "members": len(self.members),
        }

    # Starting

    def started(self) -> None:
        self._log = self.spawn("log", RaftLogActor, self.setup.data_keys)
        self.ask(self._log, LoadLog(self.setup.force_new_cluster), self._loaded, LOAD_WAIT)

    def _loaded(self, answer: Answer) -> None:
        loaded: Loaded = answer.get()
        if loaded.member is None:
            self._begin_log()
        else:
            self._start_core(loaded, loaded.member)

    def _begin_log(self) -> None:
        """A new log begins with the configuration change that makes this node its only voter, as etcd's does."""
        raft_id = 0
        while raft_id == 0:
            raft_id = int.from_bytes(self.world.entropy(8), "big")
        member = Member(raft_id, self.setup.node_id, self.setup.addr)
        kind, data = encode_change(_change(ChangeType.ADD_NODE, raft_id, member.node_id, member.addr))
        state = HardState(term=1, commit=1)
        entries = [Entry(1, 1, kind, data)]
        self.ask(self._log, BeginLog(member, entries, state), lambda answer: self._begun(answer, member), LOAD_WAIT)

    def _begun(self, answer: Answer, member: Member) -> None:
        answer.get()
        self.ask(self._log, LoadLog(self.setup.force_new_cluster), self._loaded, LOAD_WAIT)

    def _start_core(self, loaded: Loaded, member: Member) -> None:
        self._storage = MemoryStorage.restored(
            loaded.hard_state, loaded.snapshot, loaded.entries, loaded.base_index, loaded.base_term
        )
        self._written = self._known = loaded.hard_state
        if loaded.snapshot is not None:
            self._applied = self._snapshot_index = loaded.snapshot.index
            self._restore(loaded.snapshot.index, loaded.snapshot.data, loaded.snapshot.conf_state)
        setup = self.setup
        self.node = RawNode(
            RaftConfig(
                id=member.raft_id,
                storage=self._storage,
                election_tick=setup.election_tick,
                heartbeat_tick=setup.heartbeat_tick,
                applied=self._applied,
                async_storage_writes=True,
                random=self.world.random,
            )
        )
        self._term = self.node.raft.term
        self._may_campaign = True
        self._pump()
        self.every(setup.tick, RaftTick())

    def _restore(self, index: int, data: bytes, conf_state: ConfState) -> None:
        content = snapshot_pb2.Snapshot.FromString(data)
        self.members = {
            each.raft_id: Member(each.raft_id, each.node_id, each.addr) for each in content.membership.members
        }
        self.removed |= set(content.membership.removed)
        self._conf_states = [(index, conf_state)]
        self.tell(self.store, Restore(index, content.store.SerializeToString(deterministic=True)))

    # What comes in

    @handles(RaftTick)
    def tick(self, message: RaftTick) -> None:
        """One tick; a commit index that nothing carried to the disk is written now."""
        if self.node is None:
            return
        self.node.tick()
        self._read_limits()
        if self._rekeying is not None:
            self._snapshot_when_due()
        if not self._writes and self._known != self._written:
            self._write((), None, [])
        self._pump()

    @handles(StepRaft)
    def step(self, message: StepRaft) -> None:
        """A message from another member. Answers from members that are gone are nothing."""
        if self.node is None or message.message.from_ in self.removed:
            return
        try:
            self.node.step(message.message)
        except PeerNotFound:
            return
        self._pump()

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
        write = self._writes.popleft()
        assert write.number == message.number, f"append {message.number} ended before {write.number}"
        self._store_durably(write)
        self._answer(write.responses)
        self._pump()

    @handles(SnapshotTaken)
    def snapshot_taken(self, message: SnapshotTaken) -> None:
        """A snapshot of ours is in force."""
        self._snapshot_running = False
        self._snapshot_index = message.snapshot.index
        self._storage.keep_snapshot(message.snapshot)
        if message.keep_after >= self._storage.first_index():
            self._storage.compact(message.keep_after)
        if self._rekeying is not None and self._rekeying.snapshot == message.snapshot.index:
            self._rekeying.reply.set()
            self._rekeying = None
        self._snapshot_when_due()

    @handles(ChangeDataKey)
    def change_data_key(self, message: ChangeDataKey) -> None:
        """What is in the log now is under the old key; it goes once a snapshot under the new one holds it."""
        if self.node is None or self._rekeying is not None:
            raise Refused(Code.UNAVAILABLE, "the log's key cannot be changed now")
        last = self.node.raft.log.last_index()
        self._rekeying = _Rekeying(max(last, self._snapshot_index + 1), self.defer())
        self.tell(self._log, UseDataKeys(message.keys))
        self._snapshot_when_due()

    # The core's wishes

    def _pump(self) -> None:
        """Carries out what the core wants until it wants nothing more."""
        node = self.node
        assert node is not None
        self._propose_waiting()
        while node.has_ready():
            self._carry_out(node.ready())
            self._propose_waiting()
        self._campaign_when_alone()
        self._tell_status()

    def _propose_waiting(self) -> None:
        if not self._waiting or len(self._writes) >= APPENDS_IN_FLIGHT or self.node is None:
            return
        waiting, self._waiting = self._waiting, []
        first = self.node.raft.log.last_index() + 1
        try:
            self.node.propose_many([each.data for each in waiting])
        except ProposalDropped as dropped:
            self._epoch += 1
            self.tell(self.store, ProposalRefused(waiting[0].number, str(dropped), self._epoch))
            return
        for index, each in enumerate(waiting, first):
            self._numbers[index] = each.number

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
        self._announce_leadership()

    def _role_changed(self, role: Role) -> None:
        assert self.node is not None
        term = self.node.raft.term
        if self._role is Role.LEADER and (role is not Role.LEADER or term != self._term):
            self._withdraw()
        if role is Role.LEADER:
            self._leads_from = self.node.raft.log.last_index()
        self._role, self._term = role, term

    def _withdraw(self) -> None:
        self._numbers.clear()
        self._waiting.clear()  # the store fails all that is in flight, these too
        if self._leading:
            self._leading = False
            self.tell(self.store, NotLeading())

    def _announce_leadership(self) -> None:
        if self._role is Role.LEADER and not self._leading and self._applied >= self._leads_from:
            self._leading = True
            self._epoch += 1
            self.tell(self.store, Leading(self._term, self._applied, self._epoch))
            self._correct_address()

    def _correct_address(self) -> None:
        """This node listens elsewhere than the log says (its address or port changed while it was down)."""
        assert self.node is not None
        raft_id = self.node.raft.id
        member = self.members.get(raft_id)
        if member is not None and member.addr != self.setup.addr:
            self.node.propose_conf_change(_change(ChangeType.UPDATE_NODE, raft_id, member.node_id, self.setup.addr))

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
        self._write_number += 1
        state = self._known if self._known != self._written else None
        self._written = self._known
        self._writes.append(_Write(self._write_number, entries, snapshot, responses))
        self.tell(self._log, Append(self._write_number, entries, state, snapshot))

    def _store_durably(self, write: _Write) -> None:
        snapshot = write.snapshot
        if snapshot is not None:
            self._storage.apply_snapshot(snapshot)
            self._snapshot_index = self._applied = snapshot.index
            self._restore(snapshot.index, snapshot.data, snapshot.conf_state)
        self._storage.append(write.entries)

    def _answer(self, responses: Sequence[Message]) -> None:
        assert self.node is not None
        for response in responses:
            if response.to == self.node.raft.id:
                self.node.step(response)
            else:
                self._send(response)

    # Entries

    def _apply(self, message: Message) -> None:
        assert self.node is not None
        entries = []
        for entry in message.entries:
            number = self._numbers.pop(entry.index, 0)
            if entry.type is EntryType.NORMAL:
                entries.append((entry.index, number, entry.data))
            else:
                self._apply_change(entry)
                entries.append((entry.index, 0, b""))
        self._applied = message.entries[-1].index
        self.tell(self.store, Entries(tuple(entries)))
        self._answer(message.responses)
        self._snapshot_when_due()

    def _apply_change(self, entry: Entry) -> None:
        assert self.node is not None
        change = decode_change(entry)
        for kind, raft_id in change.changes:
            if kind is ChangeType.REMOVE_NODE:
                self.members.pop(raft_id, None)
                self.removed.add(raft_id)
            elif change.context:
                member = raft_pb2.RaftMember.FromString(change.context)
                self.members[raft_id] = Member(raft_id, member.node_id, member.addr)
        self._conf_states.append((entry.index, self.node.apply_conf_change(change)))

    def _campaign_when_alone(self) -> None:
        """The only member need not wait for an election timeout."""
        assert self.node is not None
        if self._may_campaign and self.members:
            self._may_campaign = False
            if list(self.members) == [self.node.raft.id] and self._role is not Role.LEADER:
                self.node.campaign()
                self._pump()

    # Snapshots

    def _read_limits(self) -> None:
        for cluster in self.published.view.all(objects_pb2.Cluster):
            self._interval = cluster.spec.raft.snapshot_interval
            self._kept = cluster.spec.raft.log_entries_for_slow_followers

    def _snapshot_when_due(self) -> None:
        rekeying = self._rekeying
        if rekeying is not None:
            if not self._snapshot_running and self.published.view.version >= rekeying.barrier:
                rekeying.snapshot = self.published.view.version
                self._take_snapshot(kept=0)
            return
        if self._snapshot_running or not self._interval or self._applied - self._snapshot_index < self._interval:
            return
        view = self.published.view
        if view.version - self._snapshot_index < self._interval:
            return  # the store has not applied that far; the next entries ask again
        self._take_snapshot(self._kept)

    def _take_snapshot(self, kept: int) -> None:
        view = self.published.view
        index = view.version
        self._conf_states = _up_to(self._conf_states, index)
        self._snapshot_running = True
        members = tuple(self.members[raft_id] for raft_id in sorted(self.members))
        keep_after = max(0, index - kept)
        self.tell(
            self._log,
            TakeSnapshot(
                index, self._storage.term(index), self._conf_states[0][1], members, tuple(sorted(self.removed)), view,
                keep_after,
            ),
        )  # fmt: skip

    # Others

    def _send(self, message: Message) -> None:
        """There are no other members yet: whom the core wants to reach is not reachable, and it is told so."""
        assert self.node is not None
        self.node.report_unreachable(message.to)

    def _tell_status(self) -> None:
        assert self.node is not None
        raft = self.node.raft
        members = {
            id: MemberStatus(id, member.node_id, member.addr, id == raft.lead, id == raft.id)
            for id, member in sorted(self.members.items())
        }
        status = RaftStatus(raft.id, raft.lead, self._leading, raft.term, members)
        if status != self._status and self.parent is not None:
            self._status = status
            self.tell(self.parent, status)


def _change(kind: ChangeType, raft_id: int, node_id: str, addr: str) -> ConfChange:
    member = raft_pb2.RaftMember(raft_id=raft_id, node_id=node_id, addr=addr)
    return ConfChange(((kind, raft_id),), context=member.SerializeToString(deterministic=True), v1=True)


def _up_to(states: list[tuple[int, ConfState]], index: int) -> list[tuple[int, ConfState]]:
    """The membership in force at ``index``, and those that came after."""
    at = max(position for position, (changed, _) in enumerate(states) if changed <= index)
    return states[at:]
