"""Messages as they travel: one call for each, a snapshot in pieces that fit a peer's limit (SwarmKit's raft transport).

Each piece repeats the message and holds a part of the snapshot's data; the receiver joins them. What comes in is looked
at before the core sees it: a message that no core makes is refused here, so that it cannot end one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

from runtime.errors import Code, Refused
from runtime.raft.codec import message_from_pb, message_to_pb
from runtime.raft.types import Message, MessageType
from runtime.wire.pb import raft_pb2, raftpb_pb2

REQUEST_MAX = 4 << 20
"""Bytes of one request in full: what SwarmKit's servers receive at most."""
ASSEMBLY_MAX = 1 << 30
"""Bytes of a snapshot that are taken in: protobuf itself holds less than twice as many."""
PIECE_BYTES = 1 << 20
"""Bytes of a snapshot in one request: little enough that whoever makes, sends and takes it is not held up, and that a
slow link takes one in the time that it has."""
_FRAMING = 64  # what lengths may grow by when a piece of data is put in


def in_pieces(message: Message, limit: int = REQUEST_MAX) -> bool:
    """Whether a message is sent in pieces, as a large snapshot is."""
    return message.snapshot is not None and len(message.snapshot.data) + _FRAMING >= limit // 2


def requests_of(message: Message, limit: int = REQUEST_MAX) -> Iterator[raft_pb2.StreamRaftMessageRequest]:
    """The requests of one call, made as they are taken: one, or the pieces of a snapshot."""
    if message.snapshot is None or not in_pieces(message, limit):
        yield raft_pb2.StreamRaftMessageRequest(message=message_to_pb(message))
        return
    data = memoryview(message.snapshot.data)
    bare = replace(message, snapshot=replace(message.snapshot, data=b""))
    envelope = raft_pb2.StreamRaftMessageRequest(message=message_to_pb(bare))
    room = min(PIECE_BYTES, limit - envelope.ByteSize() - _FRAMING)
    for start in range(0, len(data), room):
        piece = raft_pb2.StreamRaftMessageRequest()
        piece.CopyFrom(envelope)
        piece.message.snapshot.data = bytes(data[start : start + room])
        yield piece


class Assembly:
    """Joins the requests of one call. After ``drop`` nothing is kept and nothing more is taken."""

    def __init__(self) -> None:
        self.size = 0
        self._over = False
        self._first: raftpb_pb2.Message | None = None
        self._data = io.BytesIO()  # gives what it holds without a copy

    def take(self, message: raftpb_pb2.Message, room: int = ASSEMBLY_MAX) -> None:
        """The next piece; ``Refused``: INVALID_ARGUMENT if it does not belong to those before, RESOURCE_EXHAUSTED if it
        has more than ``room`` bytes of a snapshot."""
        data = message.snapshot.data
        if self._over:
            return
        if self._first is None:
            self._first = message
        elif message.type != raftpb_pb2.MsgSnap or self._first.type != raftpb_pb2.MsgSnap:
            raise Refused(Code.INVALID_ARGUMENT, f"a message of type {message.type} cannot be sent in pieces")
        elif message.index != self._first.index:
            raise Refused(Code.INVALID_ARGUMENT, f"{message.index} came in message {self._first.index}")
        if len(data) > room:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"more than {ASSEMBLY_MAX} bytes of snapshots are not taken at once")
        self.size += len(data)
        self._data.write(data)

    def drop(self) -> None:
        """Lets go of everything."""
        self._over, self.size, self._first, self._data = True, 0, None, io.BytesIO()

    @property
    def first(self) -> raftpb_pb2.Message | None:
        """What came first, with its own piece alone; None if nothing did."""
        return self._first

    def decoded(self) -> Message:
        """The whole message, as ``decode_message`` gives it; lets go of the pieces."""
        assert self._first is not None, "nothing came"
        first, data = self._first, self._data.getvalue()
        self.drop()
        message = decode_message(first)
        if message.snapshot is not None:
            return replace(message, snapshot=replace(message.snapshot, data=data))
        return message


def decode_message(message: raftpb_pb2.Message) -> Message:
    """What came from a peer, as the core takes it; ``Refused(INVALID_ARGUMENT)`` for what no core sends."""
    try:
        decoded = message_from_pb(message)
    except ValueError as error:
        raise Refused(Code.INVALID_ARGUMENT, f"not a raft message: {error}") from None
    wrong = _wrong(decoded)
    if wrong:
        raise Refused(Code.INVALID_ARGUMENT, f"not a raft message: {wrong}")
    return decoded


def _wrong(message: Message) -> str:
    """What is wrong with a message; empty if nothing is."""
    kind = message.type
    if kind is MessageType.SNAP and (message.snapshot is None or not message.snapshot.index):
        return "a snapshot is missing"
    if kind in (MessageType.READ_INDEX, MessageType.READ_INDEX_RESP) and len(message.entries) != 1:
        return "a read without its context"
    if kind is MessageType.APP:
        term, index = message.log_term, message.index
        for entry in message.entries:
            if entry.index != index + 1 or not term <= entry.term <= message.term:
                return f"entry {entry.index} of term {entry.term} does not follow {index} of term {term}"
            term, index = entry.term, entry.index
    if kind in _WITH_TERM and not message.term:
        return "a term is missing"
    return ""


_WITH_TERM = frozenset(
    {
        MessageType.APP, MessageType.APP_RESP, MessageType.VOTE, MessageType.VOTE_RESP, MessageType.SNAP,
        MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP, MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESP,
        MessageType.TIMEOUT_NOW,
    }
)  # fmt: skip
