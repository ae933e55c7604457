"""RawNode: a core with its Ready, the only thing an application handles.

With ``async_storage_writes`` a Ready carries its writes as messages to two storage threads, with the answers that those
send when they are done: several writes may be under way while the next Ready is taken, which is what lets proposals
share one disk write. Without, a Ready is carried out at once (keep, send, apply) and then ``advance`` is called.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.raft.codec import encode_change
from runtime.raft.confchange import ConfChange
from runtime.raft.config import RaftConfig
from runtime.raft.core import Raft
from runtime.raft.types import (
    APPEND_THREAD,
    APPLY_THREAD,
    LOCAL_THREADS,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    PeerNotFound,
    Ready,
    SoftState,
    entry_size,
)

T = MessageType
LOCAL = frozenset(
    {
        T.HUP, T.BEAT, T.UNREACHABLE, T.SNAP_STATUS, T.CHECK_QUORUM, T.STORAGE_APPEND, T.STORAGE_APPEND_RESP,
        T.STORAGE_APPLY, T.STORAGE_APPLY_RESP,
    }
)  # fmt: skip
RESPONSES = frozenset(
    {
        T.APP_RESP, T.VOTE_RESP, T.HEARTBEAT_RESP, T.UNREACHABLE, T.READ_INDEX_RESP, T.PRE_VOTE_RESP,
        T.STORAGE_APPEND_RESP, T.STORAGE_APPLY_RESP,
    }
)  # fmt: skip


class LocalMessage(Exception):
    """A message that only a node itself may give to its core came from outside."""


class RawNode:
    """Not safe for threads: one owner calls it."""

    def __init__(self, config: RaftConfig) -> None:
        self.raft = Raft(config)
        self._async = config.async_storage_writes
        self._soft: SoftState = self.raft.soft_state()
        self._hard: HardState = self.raft.hard_state()
        self._on_advance: list[Message] = []

    # Requests

    def tick(self) -> None:
        """One tick of the logical clock."""
        self.raft.tick()

    def campaign(self) -> None:
        """Stands for election now."""
        self.raft.step(Message(T.HUP, from_=self.raft.id))

    def propose(self, data: bytes) -> None:
        """Proposes one entry; ProposalDropped if nobody can take it."""
        self.propose_many([data])

    def propose_many(self, datas: Sequence[bytes]) -> None:
        """Proposes entries that are appended together, in order."""
        self._propose([Entry(data=data) for data in datas])

    def propose_conf_change(self, change: ConfChange) -> None:
        """Proposes a configuration change. One that is out of turn is appended as an empty entry."""
        kind, data = encode_change(change)
        self._propose([Entry(type=kind, data=data)])

    def _propose(self, entries: Sequence[Entry]) -> None:
        self.raft.step(Message(T.PROP, from_=self.raft.id, entries=entries))

    def step(self, message: Message) -> None:
        """A message arrived. PeerNotFound: an answer from no member; LocalMessage: may not come from outside."""
        from_thread = message.from_ in LOCAL_THREADS
        if message.type in LOCAL and not from_thread:
            raise LocalMessage(message.type.name)
        if message.type in RESPONSES and not from_thread and message.from_ not in self.raft.progress:
            raise PeerNotFound
        self.raft.step(message)

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """A committed change is being applied; the membership that follows."""
        return self.raft.apply_conf_change(change)

    def transfer_leader(self, to: int) -> None:
        """Asks the leader to hand over to ``to``."""
        self.raft.step(Message(T.TRANSFER_LEADER, from_=to))

    def forget_leader(self) -> None:
        """Makes a follower forget its leader, so that it may vote before its election timeout."""
        self.raft.step(Message(T.FORGET_LEADER))

    def read_index(self, context: bytes) -> None:
        """Asks for a linearizable read; a ReadState with this context follows, or nothing if leadership is lost."""
        self.raft.step(Message(T.READ_INDEX, entries=[Entry(data=context)]))

    def report_unreachable(self, peer: int) -> None:
        """A message to this peer was not delivered."""
        self.raft.step(Message(T.UNREACHABLE, from_=peer))

    def report_snapshot(self, peer: int, ok: bool) -> None:
        """What became of a snapshot sent to this peer."""
        self.raft.step(Message(T.SNAP_STATUS, from_=peer, reject=not ok))

    # Ready

    def has_ready(self) -> bool:
        """True if ``ready`` would hold something."""
        raft, hard = self.raft, self._hard_state()
        return bool(
            raft.messages
            or raft.after_append
            or raft.read_states
            or raft.log.next_tail()
            or raft.log.has_next_committed(self._apply_unstable)
            or raft.log.next_snapshot() is not None
            or (hard is not self._hard and not hard.empty)
            or self._soft_state() is not self._soft
        )

    def _soft_state(self) -> SoftState:
        """That of the last Ready itself as long as nothing in it changes, which is nearly always."""
        raft, last = self.raft, self._soft
        return last if raft.lead == last.lead and raft.role is last.role else raft.soft_state()

    def _hard_state(self) -> HardState:
        """The same of what must last."""
        raft, last = self.raft, self._hard
        same = raft.log.committed == last.commit and raft.term == last.term and raft.vote == last.vote
        return last if same else raft.hard_state()

    @property
    def _apply_unstable(self) -> bool:
        # Whoever carries out a Ready by hand keeps its entries before it applies any, so that a committed entry may
        # be applied from the Ready that first writes it. Storage threads work side by side: there it waits.
        return not self._async

    def ready(self) -> Ready:
        """Takes everything that is to be done; it counts as accepted."""
        raft = self.raft
        soft, hard = self._soft_state(), self._hard_state()
        entries = raft.log.next_tail()
        ready = Ready(
            soft_state=soft if soft is not self._soft else None,
            hard_state=hard if hard is not self._hard else None,
            read_states=raft.read_states,
            entries=tuple(entries),
            snapshot=raft.log.next_snapshot(),
            committed_entries=raft.log.next_committed(self._apply_unstable),
            messages=raft.messages,
            must_sync=bool(entries) or (hard.term, hard.vote) != (self._hard.term, self._hard.vote),
        )
        if self._async:
            self._add_storage_messages(ready)
        else:
            ready.messages = [*ready.messages, *(each for each in raft.after_append if each.to != raft.id)]
        self._accept(ready, soft, hard)
        return ready

    def advance(self) -> None:
        """The Ready taken last is carried out; only without storage threads."""
        steps, self._on_advance = self._on_advance, []
        for message in steps:
            self.raft.step(message)

    def _accept(self, ready: Ready, soft: SoftState, hard: HardState) -> None:
        raft = self.raft
        self._soft = soft
        if not hard.empty:
            self._hard = hard
        if not self._async:
            assert not self._on_advance, "advance was not called after the last Ready"
            self._on_advance = [each for each in raft.after_append if each.to == raft.id]
            if raft.log.has_unstable() or ready.snapshot is not None:
                self._on_advance.append(self._append_answer(ready))
            if ready.committed_entries:
                self._on_advance.append(self._apply_answer(ready))
        raft.read_states, raft.messages, raft.after_append = [], [], []
        raft.log.accept_tail()
        if ready.committed_entries:
            size = sum(entry_size(entry) for entry in ready.committed_entries)
            raft.log.accept_applying(ready.committed_entries[-1].index, size, self._apply_unstable)

    def _add_storage_messages(self, ready: Ready) -> None:
        raft, messages = self.raft, list(ready.messages)
        hard = ready.hard_state or HardState()
        if ready.entries or not hard.empty or ready.snapshot is not None or raft.after_append:
            answers = list(raft.after_append)
            if raft.log.has_unstable() or ready.snapshot is not None:
                answers.append(self._append_answer(ready))
            messages.append(
                Message(
                    T.STORAGE_APPEND, to=APPEND_THREAD, from_=raft.id, entries=ready.entries, term=hard.term,
                    vote=hard.vote, commit=hard.commit, snapshot=ready.snapshot, responses=answers,
                )
            )  # fmt: skip
        if ready.committed_entries:
            messages.append(
                Message(
                    T.STORAGE_APPLY, to=APPLY_THREAD, from_=raft.id, entries=ready.committed_entries,
                    responses=[self._apply_answer(ready)],
                )
            )  # fmt: skip
        ready.messages = messages

    def _append_answer(self, ready: Ready) -> Message:
        """What storage says once it has everything up to now.

        It names the last entry of the whole tail, not of this write: writes are carried out in order, so the one
        that holds that entry, handed out before, is done by then. It carries the present term, and an answer from an
        older term is ignored: between two terms the same index may have been overwritten and written again, and a
        late answer about the first must not vouch for the second. So each new term has its tail vouched for anew,
        by a write that may be empty.
        """
        raft = self.raft
        answer = Message(
            T.STORAGE_APPEND_RESP, to=raft.id, from_=APPEND_THREAD, term=raft.term, snapshot=ready.snapshot
        )
        if raft.log.has_unstable():
            answer.index, answer.log_term = raft.log.last_index(), raft.log.last_term()
        return answer

    def _apply_answer(self, ready: Ready) -> Message:
        return Message(T.STORAGE_APPLY_RESP, to=self.raft.id, from_=APPLY_THREAD, entries=ready.committed_entries)
