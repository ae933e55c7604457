"""When a member that listens has caught up, and may be given a vote (thesis 4.2.1).

It is brought up to date in rounds: a round is all of the log as it was at the round's beginning. The log grows
meanwhile, so the next round is shorter, unless the member is too slow or the log too fast. One that took a round in no
more than ``ROUND_MAX``, or lacks no more than ``LAG_MAX`` at its end, will not keep commits waiting for long when they
need it. One whose second round was long too may never get nearer by itself (where the log is cut short faster than a
snapshot travels, say): it has its vote then, and the commits that need it wait, which is what lets it catch up.
"""

from __future__ import annotations

from typing import Final

ROUND_MAX: Final = 1.0
"""Seconds."""
LAG_MAX: Final = 500
"""Entries: as many as a leader keeps for slow followers unless told otherwise, and a fraction of a second's work."""
ROUNDS_MAX: Final = 2


class CatchingUp:
    """One member's. ``last`` is the last index of the leader's log at time ``now``, in seconds of any clock."""

    def __init__(self, last: int, now: float) -> None:
        self._goal = last
        self._begun = now
        self._rounds = 0

    def is_done(self, match: int, last: int, now: float) -> bool:
        """Whether the member, which is known to have everything up to ``match``, has ended a round that was short or
        left little to do, or its second one. Any other round is followed by the next."""
        if match < self._goal:
            return False
        self._goal = last
        self._rounds += 1
        return now - self._begun <= ROUND_MAX or last - match <= LAG_MAX or self._rounds >= ROUNDS_MAX
