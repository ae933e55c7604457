"""Between the recorded scenarios' harness and the core: ``replay.py --adapter tests.conformance.adapter:Adapter``."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "conformance"
if "replay" not in sys.modules and FOLDER.is_dir():
    sys.path.append(str(FOLDER))

import replay  # noqa: E402

from runtime.raft import codec  # noqa: E402
from runtime.raft.confchange import ChangeType, ConfChange, Transition  # noqa: E402
from runtime.raft.config import RaftConfig  # noqa: E402
from runtime.raft.node import RawNode  # noqa: E402
from runtime.raft.progress import Progress  # noqa: E402
from runtime.raft.read_only import ReadOnlyOption  # noqa: E402
from runtime.raft.storage import MemoryStorage  # noqa: E402
from runtime.raft.types import (  # noqa: E402
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    PeerNotFound,
    ProposalDropped,
    Role,
    Snapshot,
)

LETTERS = {
    "v": ChangeType.ADD_NODE,
    "l": ChangeType.ADD_LEARNER,
    "r": ChangeType.REMOVE_NODE,
    "u": ChangeType.UPDATE_NODE,
}
LETTER_OF = {kind: letter for letter, kind in LETTERS.items()}
TRANSITIONS = {"auto": Transition.AUTO, "implicit": Transition.JOINT_IMPLICIT, "explicit": Transition.JOINT_EXPLICIT}
ENTRY_NAMES = {
    EntryType.NORMAL: "EntryNormal",
    EntryType.CONF_CHANGE: "EntryConfChange",
    EntryType.CONF_CHANGE_V2: "EntryConfChangeV2",
}
TYPE_NAMES = {kind: "Msg" + "".join(part.capitalize() for part in kind.name.split("_")) for kind in MessageType}
TYPES = {name: kind for kind, name in TYPE_NAMES.items()}


class SourceStorage(MemoryStorage):
    """A memory storage that makes a snapshot when one is asked for."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self._source = source

    def snapshot(self) -> Snapshot:
        return snapshot_in(self._source())


class Adapter:
    """One node's core with its storage."""

    def __init__(self, config: replay.NodeConfig) -> None:
        self.config = config
        self.storage = SourceStorage(config.snapshot_source)
        if config.bootstrap is not None:
            self.storage.apply_snapshot(snapshot_in(config.bootstrap))
        self.node = self._start(config.applied)

    def _start(self, applied: int) -> RawNode:
        config = self.config
        return RawNode(
            RaftConfig(
                id=config.id,
                storage=self.storage,
                election_tick=config.election_tick,
                heartbeat_tick=config.heartbeat_tick,
                applied=applied,
                async_storage_writes=config.async_storage_writes,
                max_size_per_msg=config.max_size_per_msg,
                max_committed_size=config.max_committed_size_per_ready,
                max_inflight_msgs=config.max_inflight_msgs,
                check_quorum=config.check_quorum,
                pre_vote=config.pre_vote,
                read_only=ReadOnlyOption(config.read_only),
                disable_conf_change_validation=config.disable_conf_change_validation,
                step_down_on_removal=config.step_down_on_removal,
                random=random.Random(config.id),
                log=config.log,
            )
        )

    def tick(self) -> None:
        self.node.tick()

    def campaign(self) -> None:
        self.node.campaign()

    def propose(self, data: bytes) -> None:
        refusing(self.node.propose, data)

    def propose_conf_change(self, change: replay.ConfChange) -> None:
        refusing(self.node.propose_conf_change, change_in(change))

    def step(self, message: replay.Message) -> None:
        refusing(self.node.step, message_in(message))

    def has_ready(self) -> bool:
        return self.node.has_ready()

    def ready(self) -> replay.Ready:
        ready = self.node.ready()
        return replay.Ready(
            soft_state=ready.soft_state and replay.SoftState(ready.soft_state.lead, ready.soft_state.role.value),
            hard_state=ready.hard_state and replay.HardState(**hard_fields(ready.hard_state)),
            read_states=[replay.ReadState(each.index, each.context) for each in ready.read_states],
            entries=[entry_out(entry) for entry in ready.entries],
            snapshot=ready.snapshot and snapshot_out(ready.snapshot),
            committed_entries=[entry_out(entry) for entry in ready.committed_entries],
            messages=[message_out(message) for message in ready.messages],
            must_sync=ready.must_sync,
        )

    def advance(self, ready: replay.Ready) -> None:
        self.node.advance()

    def apply_conf_change(self, entry: replay.Entry) -> replay.ConfState:
        return conf_out(self.node.apply_conf_change(codec.decode_change(entry.raw)))

    def transfer_leader(self, to: int) -> None:
        self.node.transfer_leader(to)

    def forget_leader(self) -> None:
        self.node.forget_leader()

    def read_index(self, request_ctx: bytes) -> None:
        self.node.read_index(request_ctx)

    def report_unreachable(self, peer: int) -> None:
        self.node.report_unreachable(peer)

    def report_snapshot(self, peer: int, ok: bool) -> None:
        self.node.report_snapshot(peer, ok)

    def set_randomized_election_timeout(self, ticks: int) -> None:
        self.node.raft.election_timeout = ticks

    def status(self) -> replay.Status:
        raft = self.node.raft
        leads = raft.role is Role.LEADER
        progress = {id: progress_out(each) for id, each in sorted(raft.progress.items())} if leads else {}
        return replay.Status(raft.id, raft.term, raft.lead, raft.role.value, raft.members.all_voters(), progress)

    def basic_status(self) -> replay.BasicStatus:
        raft = self.node.raft
        return replay.BasicStatus(raft.id, raft.term, raft.lead, raft.role.value)

    def restart(self, applied: int, conf_state: replay.ConfState) -> None:
        self.storage.conf_state = codec.conf_state_from_pb(conf_state)
        self.node = self._start(applied)

    def set_hard_state(self, state: replay.HardState) -> None:
        self.storage.hard_state = HardState(state.term, state.vote, state.commit)

    def append(self, entries: Any) -> None:
        self.storage.append([entry_in(entry) for entry in entries])

    def apply_snapshot(self, snapshot: replay.Snapshot) -> None:
        self.storage.apply_snapshot(snapshot_in(snapshot))

    def compact(self, index: int) -> None:
        self.storage.compact(index)

    def first_index(self) -> int:
        return self.storage.first_index()

    def last_index(self) -> int:
        return self.storage.last_index()

    def log_entries(self) -> Any:
        return [entry_out(entry) for entry in self.storage.all_entries()]


def refusing(call: Any, argument: Any) -> None:
    try:
        call(argument)
    except (ProposalDropped, PeerNotFound) as refused:
        raise replay.Rejected(str(refused)) from None


def hard_fields(state: HardState) -> dict[str, int]:
    return {"term": state.term, "vote": state.vote, "commit": state.commit}


def change_in(change: replay.ConfChange) -> ConfChange:
    changes = tuple((LETTERS[letter], id) for letter, id in change.changes)
    return ConfChange(changes, TRANSITIONS[change.transition], v1=change.v1)


def entry_in(entry: replay.Entry) -> Entry:
    if entry.raw is not None:
        return entry.raw  # type: ignore[no-any-return]
    kind = next(kind for kind, name in ENTRY_NAMES.items() if name == entry.type)
    return Entry(entry.term, entry.index, kind, entry.data)


def entry_out(entry: Entry) -> replay.Entry:
    changes: tuple[tuple[str, int], ...] = ()
    context = b""
    if entry.type is not EntryType.NORMAL:
        change = codec.decode_change(entry)
        changes = tuple((LETTER_OF[kind], id) for kind, id in change.changes)
        context = change.context
    return replay.Entry(entry.term, entry.index, ENTRY_NAMES[entry.type], entry.data, changes, context, raw=entry)


def conf_out(state: ConfState) -> replay.ConfState:
    return replay.ConfState(state.voters, state.voters_outgoing, state.learners, state.learners_next, state.auto_leave)


def snapshot_in(snapshot: replay.Snapshot) -> Snapshot:
    return Snapshot(snapshot.index, snapshot.term, codec.conf_state_from_pb(snapshot.conf_state), snapshot.data)


def snapshot_out(snapshot: Snapshot) -> replay.Snapshot:
    return replay.Snapshot(snapshot.index, snapshot.term, conf_out(snapshot.conf_state), snapshot.data)


def message_in(message: replay.Message) -> Message:
    if message.raw is not None:
        # The core gives away what it sends; another node gets a message of its own.
        return message_copy(message.raw)
    return Message(
        type=TYPES[message.type],
        to=message.to,
        from_=message.from_,
        term=message.term,
        log_term=message.log_term,
        index=message.index,
        entries=[entry_in(entry) for entry in message.entries],
        commit=message.commit,
        vote=message.vote,
        snapshot=snapshot_in(message.snapshot) if message.snapshot is not None else None,
        reject=message.reject,
        reject_hint=message.reject_hint,
        context=message.context,
    )


def message_copy(message: Message) -> Message:
    fields = {name: getattr(message, name) for name in Message.__slots__}
    fields["entries"] = [Entry(each.term, each.index, each.type, each.data) for each in message.entries]
    return Message(**fields)


def message_out(message: Message) -> replay.Message:
    return replay.Message(
        type=TYPE_NAMES[message.type],
        to=message.to,
        from_=message.from_,
        term=message.term,
        log_term=message.log_term,
        index=message.index,
        entries=[entry_out(entry) for entry in message.entries],
        commit=message.commit,
        vote=message.vote,
        snapshot=snapshot_out(message.snapshot) if message.snapshot is not None else None,
        reject=message.reject,
        reject_hint=message.reject_hint,
        context=message.context,
        responses=[message_out(each) for each in message.responses],
        raw=message,
    )


def progress_out(progress: Progress) -> replay.Progress:
    return replay.Progress(
        state=progress.state.value,
        match=progress.match,
        next=progress.next,
        learner=progress.learner,
        paused=progress.paused,
        pending_snapshot=progress.pending_snapshot,
        recent_active=progress.recent_active,
        inflight=len(progress.inflights),
        inflight_full=progress.inflights.full,
    )
