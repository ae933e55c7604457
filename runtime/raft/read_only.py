"""Linearizable reads without a log entry (thesis 6.4): a leader notes its commit index, makes sure by a round of
heartbeats that it still leads, and answers with the index once a quorum acknowledged."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from runtime.raft.types import Message


class ReadOnlyOption(enum.Enum):
    """By a round of heartbeats, or by the lease that CheckQuorum gives (which trusts clocks)."""

    SAFE = "safe"
    LEASE_BASED = "lease-based"


@dataclass(slots=True)
class _Read:
    request: Message
    index: int
    acks: dict[int, bool] = field(default_factory=dict)


class ReadOnly:
    """Reads that wait for their round, oldest first; an acknowledgement of one counts for all before it."""

    def __init__(self, option: ReadOnlyOption) -> None:
        self.option = option
        self._reads: dict[bytes, _Read] = {}

    def add(self, index: int, request: Message, context: bytes) -> None:
        """A read at commit index ``index``; one with a context that waits already changes nothing."""
        self._reads.setdefault(context, _Read(request, index))

    def acknowledge(self, id: int, context: bytes) -> dict[int, bool]:
        """``id`` answered the heartbeat with that context; all who did so far."""
        read = self._reads.get(context)
        if read is None:
            return {}
        read.acks[id] = True
        return read.acks

    def advance(self, context: bytes) -> list[tuple[Message, int]]:
        """The read with that context and all before it are done: their requests and indices."""
        if context not in self._reads:
            return []
        done = []
        for waiting in list(self._reads):
            read = self._reads.pop(waiting)
            done.append((read.request, read.index))
            if waiting == context:
                break
        return done

    def last_context(self) -> bytes:
        """The context that the next heartbeats carry."""
        return next(reversed(self._reads), b"")
