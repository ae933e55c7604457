"""Messages as they travel: one call for each, a snapshot in pieces that fit a peer's limit (SwarmKit's raft transport).

Each piece repeats the message and holds a part of the snapshot's data; the receiver joins them. What comes in is looked
at before the core sees it: a message that no core makes is refused here, so that it cannot end one.
"""

from __future__ import annotations

from collections.abc import Iterator

from runtime.errors import Code, Refused
from runtime.raft.codec import message_from_pb, message_to_pb
from runtime.raft.types import Message, MessageType
from runtime.wire.pb import raft_pb2, raftpb_pb2

REQUEST_MAX = 4 << 20
"""Bytes of one request in full: what SwarmKit's servers receive at most."""
_FRAMING = 64  # what lengths may grow by when a piece of data is put in


def requests_of(message: Message, limit: int = REQUEST_MAX) -> Iterator[raft_pb2.StreamRaftMessageRequest]:
    """The requests of one call, made as they are taken: one, or the pieces of a snapshot."""
    if message.snapshot is None or len(message.snapshot.data) + _FRAMING < limit // 2:
        yield raft_pb2.StreamRaftMessageRequest(message=message_to_pb(message))
        return
    data = memoryview(message.snapshot.data)
    envelope = raft_pb2.StreamRaftMessageRequest(message=message_to_pb(message))
    envelope.message.snapshot.data = b""
    room = limit - envelope.ByteSize() - _FRAMING
    for start in range(0, len(data), room):
        piece = raft_pb2.StreamRaftMessageRequest()
        piece.CopyFrom(envelope)
        piece.message.snapshot.data = bytes(data[start : start + room])
        yield piece


class Assembly:
    """Joins the requests of one call; ``Refused(INVALID_ARGUMENT)`` if they do not belong together."""

    def __init__(self) -> None:
        self._first: raftpb_pb2.Message | None = None
        self._pieces: list[bytes] = []

    def take(self, message: raftpb_pb2.Message) -> None:
        """The next piece."""
        if self._first is None:
            self._first = message
        elif message.type != raftpb_pb2.MsgSnap or self._first.type != raftpb_pb2.MsgSnap:
            raise Refused(Code.INVALID_ARGUMENT, f"a message of type {message.type} cannot be sent in pieces")
        elif message.index != self._first.index:
            raise Refused(Code.INVALID_ARGUMENT, f"{message.index} came in message {self._first.index}")
        self._pieces.append(message.snapshot.data)

    def message(self) -> raftpb_pb2.Message | None:
        """The whole message; None if nothing came."""
        if self._first is not None and len(self._pieces) > 1:
            self._first.snapshot.data = b"".join(self._pieces)
            self._pieces = []
        return self._first


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
