"""Between the core's data and the wire's messages (package raftpb)."""

from __future__ import annotations

from runtime.raft.confchange import ChangeType, ConfChange, Transition
from runtime.raft.types import ConfState, Entry, EntryType, Message, MessageType, Snapshot
from runtime.wire.pb import raftpb_pb2 as pb


def encode_change(change: ConfChange) -> tuple[EntryType, bytes]:
    """A configuration change as the type and data of an entry."""
    if change.v1:
        ((kind, id),) = change.changes
        one = pb.ConfChange(id=change.id, type=int(kind), node_id=id, context=change.context)  # type: ignore[arg-type]
        return EntryType.CONF_CHANGE, one.SerializeToString(deterministic=True)
    message = pb.ConfChangeV2(transition=int(change.transition), context=change.context or None)  # type: ignore[arg-type]
    for kind, id in change.changes:
        message.changes.add(type=int(kind), node_id=id)
    return EntryType.CONF_CHANGE_V2, message.SerializeToString(deterministic=True)


def decode_change(entry: Entry) -> ConfChange:
    """The configuration change of an entry of one of the two types."""
    if entry.type is EntryType.CONF_CHANGE:
        one = pb.ConfChange.FromString(entry.data)
        return ConfChange(((ChangeType(one.type), one.node_id),), context=one.context, v1=True, id=one.id)
    message = pb.ConfChangeV2.FromString(entry.data)
    changes = tuple((ChangeType(each.type), each.node_id) for each in message.changes)
    return ConfChange(changes, Transition(message.transition), message.context)


def entry_to_pb(entry: Entry) -> pb.Entry:
    """One entry; fields are present even when they are zero, as the other implementation writes them."""
    return pb.Entry(Term=entry.term, Index=entry.index, Type=int(entry.type), Data=entry.data or None)  # type: ignore[arg-type]


def entry_from_pb(entry: pb.Entry) -> Entry:
    """One entry read back."""
    return Entry(entry.Term, entry.Index, EntryType(entry.Type), entry.Data)


def conf_state_to_pb(state: ConfState) -> pb.ConfState:
    """A membership."""
    return pb.ConfState(
        voters=state.voters,
        voters_outgoing=state.voters_outgoing,
        learners=state.learners,
        learners_next=state.learners_next,
        auto_leave=state.auto_leave,
    )


def conf_state_from_pb(state: pb.ConfState) -> ConfState:
    """A membership read back."""
    return ConfState(
        tuple(state.voters),
        tuple(state.voters_outgoing),
        tuple(state.learners),
        tuple(state.learners_next),
        state.auto_leave,
    )


def snapshot_to_pb(snapshot: Snapshot) -> pb.Snapshot:
    """A snapshot."""
    result = pb.Snapshot(data=snapshot.data)
    result.metadata.conf_state.CopyFrom(conf_state_to_pb(snapshot.conf_state))
    result.metadata.index = snapshot.index
    result.metadata.term = snapshot.term
    return result


def snapshot_from_pb(snapshot: pb.Snapshot) -> Snapshot:
    """A snapshot read back."""
    metadata = snapshot.metadata
    return Snapshot(metadata.index, metadata.term, conf_state_from_pb(metadata.conf_state), snapshot.data)


def message_to_pb(message: Message) -> pb.Message:
    """A message between nodes."""
    written = pb.Message()
    write_message(message, written)
    return written


def write_message(message: Message, into: pb.Message) -> None:
    """Writes a message into one of the wire's that has nothing in it, which spares the copy into a request; zero fields
    are written too."""
    into.type = int(message.type)  # type: ignore[assignment]
    into.to = message.to
    setattr(into, "from", message.from_)
    into.term = message.term
    into.logTerm = message.log_term
    into.index = message.index
    into.commit = message.commit
    into.reject = message.reject
    into.rejectHint = message.reject_hint
    for entry in message.entries:
        into.entries.add(Term=entry.term, Index=entry.index, Type=int(entry.type), Data=entry.data or None)
    if message.context:
        into.context = message.context
    if message.snapshot is not None:
        into.snapshot.CopyFrom(snapshot_to_pb(message.snapshot))
    if message.vote:
        into.vote = message.vote


def message_from_pb(message: pb.Message) -> Message:
    """A message read back. ValueError for a type that is not known."""
    return Message(
        type=MessageType(message.type),
        to=message.to,
        from_=getattr(message, "from"),
        term=message.term,
        log_term=message.logTerm,
        index=message.index,
        entries=[entry_from_pb(entry) for entry in message.entries],
        commit=message.commit,
        vote=message.vote,
        snapshot=snapshot_from_pb(message.snapshot) if message.HasField("snapshot") else None,
        reject=message.reject,
        reject_hint=message.rejectHint,
        context=message.context,
    )
