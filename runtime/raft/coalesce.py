"""Messages that wait for a peer, joined where one says what two would: batches grow by themselves while a peer is slow.

An append that begins where the one before it ends becomes part of it. Of two acknowledgements, and of two heartbeats,
the later one says it all. Nothing else is joined, and nothing is moved past anything else.
"""

from __future__ import annotations

from runtime.raft.types import Message, MessageType, entry_size

APPEND_MAX = 512 << 10
"""Bytes of entries in one joined append: many small batches, and still far below what a request may hold."""


def joined(waiting: Message, message: Message) -> Message | None:
    """One message that stands for both; None if they must stay two."""
    if waiting.type is not message.type or waiting.term != message.term:
        return None
    if message.type is MessageType.APP:
        return _joined_appends(waiting, message)
    if message.type is MessageType.APP_RESP:
        plain = not waiting.reject and not message.reject and message.index >= waiting.index
        return message if plain else None
    if message.type is MessageType.HEARTBEAT:
        return message if waiting.context == message.context and message.commit >= waiting.commit else None
    return None


def _joined_appends(waiting: Message, message: Message) -> Message | None:
    if waiting.index + len(waiting.entries) != message.index or message.commit < waiting.commit:
        return None
    if message.entries and waiting.entries and _size(waiting) + _size(message) > APPEND_MAX:
        return None
    return Message(
        MessageType.APP,
        to=message.to,
        from_=message.from_,
        term=message.term,
        log_term=waiting.log_term,
        index=waiting.index,
        entries=(*waiting.entries, *message.entries),
        commit=message.commit,
    )


def _size(message: Message) -> int:
    return sum(map(entry_size, message.entries))
