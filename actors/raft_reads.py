"""Reads that wait for the index that holds every write acknowledged before them (thesis 6.4).

Not an actor: RaftActor owns it and runs everything here in its own turns. Reads share rounds: what comes while one is
under way waits for the next, since an index that was asked for earlier may be too old for it. A round that got lost, or
whose leader is gone, is asked for again under the same name: whatever answers it was found out after it began. Names
are drawn, not counted: a member that was started again must not hear what its earlier life asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.errors import Code, Refused
from runtime.raft.types import ReadState
from runtime.stage import Reply
from runtime.swarm.membership import NO_LEADER

READ_WAIT = 5.0
ASK_AGAIN = 1.0
CONTEXT_BYTES = 16


@dataclass(slots=True)
class _Read:
    """Somebody who waits for an index."""

    reply: Reply
    until: float


class RaftReads:
    """Those of one member."""

    def __init__(self) -> None:
        self._next: list[_Read] = []
        self._round: list[_Read] = []
        self._context = b""
        self._asked: tuple[int, int] = (0, 0)
        self._asked_at = 0.0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._next) + len(self._round)

    def add(self, reply: Reply, now: float) -> None:
        """One more, which is answered with an index, or refused after five seconds."""
        self._next.append(_Read(reply, now + READ_WAIT))

    def context(self, leader: tuple[int, int], now: float, draw: Callable[[int], bytes]) -> bytes:
        """What to ask ``leader`` (its term and raft id) for now, by the context that comes back with the index; empty
        if there is nothing to ask. ``draw`` gives random bytes."""
        if not self._round:
            if not self._next:
                return b""
            self._round, self._next = self._next, []
            self._context = draw(CONTEXT_BYTES)
        elif self._asked == leader and now < self._asked_at + ASK_AGAIN:
            return b""
        self._asked, self._asked_at = leader, now
        return self._context

    def answer(self, states: Sequence[ReadState]) -> None:
        """What the core has found out."""
        for state in states:
            if state.context == self._context:
                reads, self._round = self._round, []
                for read in reads:
                    read.reply.set(state.index)

    def expire(self, now: float) -> None:
        """Refuses those that waited too long."""
        if not self.waiting:
            return
        late = [read for read in (*self._round, *self._next) if read.until <= now]
        self._round = [read for read in self._round if read.until > now]
        self._next = [read for read in self._next if read.until > now]
        for read in late:
            read.reply.fail(Refused(Code.UNAVAILABLE, NO_LEADER))
