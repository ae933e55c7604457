"""When a member that listens has caught up, and may be given a vote (thesis 4.2.1).

It is brought up to date in rounds: a round is all of the log as it was at the round's beginning. The log grows
meanwhile, so the next round is shorter, unless the member is too slow or the log too fast. One that took a round in no
more than ``ROUND_MAX`` will not keep commits waiting for longer than that when they need it.
"""

from __future__ import annotations

from typing import Final

ROUND_MAX: Final = 1.0
"""Seconds."""


class CatchingUp:
    """One member's. ``last`` is the last index of the leader's log at time ``now``, in seconds of any clock."""

    def __init__(self, last: int, now: float) -> None:
        self._goal = last
        self._begun = now

    def is_done(self, match: int, last: int, now: float) -> bool:
        """Whether the member, which is known to have everything up to ``match``, has ended a round that was short. A
        round that was not is followed by another one."""
        if match < self._goal:
            return False
        took = now - self._begun
        self._goal, self._begun = last, now
        return took <= ROUND_MAX
