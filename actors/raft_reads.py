"""Reads that wait for the index that holds every write acknowledged before them (thesis 6.4).

Not an actor: RaftActor owns it and runs everything here in its own turns. Each read has a context of its own that the
leader gives back with the index; one that is lost with a leader is answered with a refusal after a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.errors import Code, Refused
from runtime.raft.types import ReadState
from runtime.stage import Reply
from runtime.swarm.membership import NO_LEADER

READ_WAIT = 5.0


@dataclass(slots=True)
class _Read:
    """A read index that was asked for."""

    reply: Reply
    until: float


class RaftReads:
    """Those of one member."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, _Read] = {}
        self._number = 0

    def begin(self, own_id: int, reply: Reply, now: float) -> bytes:
        """Notes one, and gives the context to ask for it with: no other member's, and no earlier one."""
        self._number += 1
        context = own_id.to_bytes(8, "big") + self._number.to_bytes(8, "big")
        self._waiting[context] = _Read(reply, now + READ_WAIT)
        return context

    def answer(self, states: Sequence[ReadState]) -> None:
        """What the core has found out."""
        for state in states:
            read = self._waiting.pop(state.context, None)
            if read is not None:
                read.reply.set(state.index)

    def expire(self, now: float) -> None:
        """A read that got lost with a leader is not answered by the next one."""
        for context in [context for context, read in self._waiting.items() if read.until <= now]:
            self._waiting.pop(context).reply.fail(Refused(Code.UNAVAILABLE, NO_LEADER))
