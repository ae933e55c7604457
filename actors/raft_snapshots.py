"""Which snapshots RaftActor has its log take: by count, for newcomers, and for a change of the data key.

Not an actor: RaftActor owns it and runs everything here in its own turns. One snapshot at a time is taken; what is due
meanwhile is looked at again when that one is in force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from runtime.disk.raft_records import Member
from runtime.protocol.raft import SnapshotTaken, TakeSnapshot
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import ConfState
from runtime.stage import Reply
from runtime.store.view import Published, View
from runtime.wire.pb import objects_pb2

SNAPSHOT_INTERVAL = 10_000
KEPT_ENTRIES = 500


@dataclass(slots=True)
class _Rekeying:
    """A change of the data key: a snapshot at ``barrier`` or later makes everything under the old key dispensable."""

    barrier: int
    reply: Reply
    snapshot: int = 0


class RaftSnapshots:
    """``members`` and ``removed`` are the consensus actor's own, ``published`` is what snapshots are made of, ``order``
    has one taken, ``leads`` says whether newcomers get theirs from here."""

    def __init__(
        self,
        members: Mapping[int, Member],
        removed: Set[int],
        published: Published,
        order: Callable[[TakeSnapshot], None],
        leads: Callable[[], bool],
    ) -> None:
        self.storage = MemoryStorage()
        self.index = 0
        """Where the newest snapshot is; 0 before the first."""
        self.ended = False
        """True once there is no log any more to take one of."""
        self._members = members
        self._removed = removed
        self._published = published
        self._order = order
        self._leads = leads
        self._conf_states: list[tuple[int, ConfState]] = []
        self._running = False
        self._rekeying: _Rekeying | None = None
        self._interval = SNAPSHOT_INTERVAL
        self._kept = KEPT_ENTRIES
        self._limits_of: View | None = None

    # What happens to the log

    def restored(self, index: int, conf_state: ConfState) -> None:
        """A snapshot was loaded, or came from the leader."""
        self.index = index
        self._conf_states = [(index, conf_state)]

    def changed(self, index: int, conf_state: ConfState) -> None:
        """The entry at ``index`` changed the membership."""
        self._conf_states.append((index, conf_state))

    def taken(self, message: SnapshotTaken) -> None:
        """A snapshot of ours is in force."""
        self._running = False
        self.index = message.snapshot.index
        self.storage.keep_snapshot(message.snapshot)
        if message.keep_after >= self.storage.first_index():
            self.storage.compact(message.keep_after)
        if self._rekeying is not None and self._rekeying.snapshot == message.snapshot.index:
            self._rekeying.reply.set()
            self._rekeying = None

    def dropped(self) -> None:
        """One of ours was overtaken by the leader's."""
        self._running = False

    # The data key

    @property
    def rekeying(self) -> bool:
        """Whether the data key is being changed."""
        return self._rekeying is not None

    def rekey(self, last: int, reply: Reply) -> None:
        """Answers once a snapshot holds everything up to ``last``, and nothing before it is kept."""
        self._rekeying = _Rekeying(max(last, self.index + 1), reply)

    # What is due

    def read_limits(self) -> None:
        """Takes over what the cluster's spec says of snapshots."""
        view = self._published.view
        if view is self._limits_of:
            return
        self._limits_of = view
        for cluster in view.all(objects_pb2.Cluster):
            self._interval = cluster.spec.raft.snapshot_interval
            self._kept = cluster.spec.raft.log_entries_for_slow_followers

    def take_when_due(self) -> None:
        """Has a snapshot taken if there should be one. What the store has not applied yet is asked about again by the
        next entries, or the next tick."""
        if self._running or self.ended:
            return
        version, rekeying = self._published.view.version, self._rekeying
        if version <= self.index:
            return  # there is nothing new, or the store has yet to take over a snapshot of the leader's
        if rekeying is not None:
            if version >= rekeying.barrier:
                rekeying.snapshot = version
                self._take(kept=0)
            return
        behind = version - self.index if self._interval else -1
        if behind >= self._interval or (self._leads() and self._newcomer_waits(version)):
            self._take(self._kept)

    def _newcomer_waits(self, version: int) -> bool:
        """A member refuses a snapshot that does not know it, and what the log still holds may not reach back to its
        beginning: there must be one from after it was admitted."""
        last = self.storage.last_snapshot
        changed, state = self._conf_states[-1] if self._conf_states else (0, last.conf_state)
        known = {*last.conf_state.voters, *last.conf_state.learners}
        return 0 < last.index < changed <= version and not known.issuperset((*state.voters, *state.learners))

    def _take(self, kept: int) -> None:
        index = self._published.view.version
        self._conf_states = _up_to(self._conf_states, index)
        self._running = True
        self._order(self._description(self._conf_states[0][1], max(0, index - kept)))

    def describe(self) -> TakeSnapshot | None:
        """The newest view with the membership in force there; None while that is not known, or is ahead of the view."""
        if not self._conf_states or self._conf_states[-1][0] > self._published.view.version:
            return None
        return self._description(self._conf_states[-1][1], 0)

    def _description(self, conf_state: ConfState, keep_after: int) -> TakeSnapshot:
        view = self._published.view
        members = tuple(self._members[raft_id] for raft_id in sorted(self._members))
        term = self.storage.term(view.version)
        removed = tuple(sorted(self._removed))
        return TakeSnapshot(view.version, term, conf_state, members, removed, view, keep_after)


def _up_to(states: list[tuple[int, ConfState]], index: int) -> list[tuple[int, ConfState]]:
    """The membership in force at ``index``, and those that came after."""
    at = max(position for position, (changed, _) in enumerate(states) if changed <= index)
    return states[at:]
