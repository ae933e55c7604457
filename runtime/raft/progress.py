"""A leader's view of one follower, and what it may send.

    PROBE      one append at a time, to find where the logs agree
    REPLICATE  appends stream ahead of acknowledgements, within the inflight limit
    SNAPSHOT   nothing, until the snapshot that was sent is done with

``match`` is known to be in the follower's log; ``next`` is sent next; ``match < next`` always.
"""

from __future__ import annotations

import enum
from collections import deque


class ProgressState(enum.Enum):
    """How a follower is sent to; see above."""

    PROBE = "StateProbe"
    REPLICATE = "StateReplicate"
    SNAPSHOT = "StateSnapshot"


class Inflights:
    """Appends that were sent and not acknowledged: the last index of each. Bounded by number and by bytes."""

    __slots__ = ("_bytes", "_max_bytes", "_sent", "_size")

    def __init__(self, size: int, max_bytes: int = 0) -> None:
        self._size = size
        self._max_bytes = max_bytes
        self._sent: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def add(self, index: int, size: int) -> None:
        """An append up to ``index`` was sent."""
        assert not self.full, "an append beyond the inflight limit"
        self._sent.append((index, size))
        self._bytes += size

    def free_to(self, index: int) -> None:
        """Everything up to ``index`` was acknowledged."""
        while self._sent and self._sent[0][0] <= index:
            self._bytes -= self._sent.popleft()[1]

    def clear(self) -> None:
        """Nothing is on its way."""
        self._sent.clear()
        self._bytes = 0

    @property
    def full(self) -> bool:
        """True if no more may be sent."""
        return len(self._sent) == self._size or (self._max_bytes != 0 and self._bytes >= self._max_bytes)

    def __len__(self) -> int:
        return len(self._sent)


class Progress:
    """One follower. The methods are the only way its fields move together."""

    __slots__ = (
        "inflights", "learner", "match", "next", "paused_by_flow", "pending_snapshot", "recent_active", "sent_commit",
        "state",
    )  # fmt: skip

    def __init__(self, next_index: int, inflights: Inflights, learner: bool, recent_active: bool = False) -> None:
        self.match = 0
        self.next = next_index
        self.sent_commit = 0
        self.state = ProgressState.PROBE
        self.pending_snapshot = 0
        self.recent_active = recent_active
        self.paused_by_flow = False
        self.inflights = inflights
        self.learner = learner

    def copy(self) -> Progress:
        """Another one with the same fields; the inflights are shared, as a configuration change keeps them."""
        other = Progress(self.next, self.inflights, self.learner, self.recent_active)
        other.match, other.sent_commit, other.state = self.match, self.sent_commit, self.state
        other.pending_snapshot, other.paused_by_flow = self.pending_snapshot, self.paused_by_flow
        return other

    @property
    def paused(self) -> bool:
        """True while nothing may be sent."""
        return self.state is ProgressState.SNAPSHOT or self.paused_by_flow

    def _enter(self, state: ProgressState) -> None:
        self.paused_by_flow = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.clear()

    def become_probe(self) -> None:
        """Looks for where the logs agree; behind a snapshot that was sent, it looks there first."""
        first = self.match + 1
        if self.state is ProgressState.SNAPSHOT:
            first = max(first, self.pending_snapshot + 1)
        self._enter(ProgressState.PROBE)
        self.next = first
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """The logs agree up to ``match``."""
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """A snapshot at ``index`` was sent."""
        self._enter(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def sent(self, entries: int, size: int) -> None:
        """An append with so many entries and bytes was sent."""
        if self.state is ProgressState.REPLICATE:
            if entries:
                self.next += entries
                self.inflights.add(self.next - 1, size)
            # An empty append to a full follower was the one that this heartbeat round allowed.
            self.paused_by_flow = self.inflights.full
        elif entries:
            self.paused_by_flow = True

    def acknowledged(self, index: int) -> bool:
        """The follower has everything up to ``index``; False if that was known."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.paused_by_flow = False
        return True

    def rejected(self, index: int, hint: int) -> bool:
        """An append behind ``index`` did not match, the logs may agree at ``hint``; False if that is old news."""
        if self.state is ProgressState.REPLICATE:
            if index <= self.match:
                return False
            self.next = self.match + 1
        else:
            if self.next - 1 != index:
                return False
            self.next = max(min(index, hint + 1), self.match + 1)
            self.paused_by_flow = False
        self.sent_commit = min(self.sent_commit, self.next - 1)
        return True

    def commit_is_news(self, commit: int) -> bool:
        """True if telling this commit index would move the follower's."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1
