"""What a core reads back from what was made durable, and a storage in memory.

The core never writes: whoever carries out a Ready does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.raft.types import Compacted, ConfState, Entry, HardState, Snapshot, Unavailable, limit_size


class Storage(Protocol):
    """Durable state. Indices ``lo`` inclusive to ``hi`` exclusive."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        """What was kept last, and the membership at the point up to which entries were applied."""

    def entries(self, lo: int, hi: int, max_size: int) -> Sequence[Entry]:
        """Entries, at least one and no more than fit; Compacted or Unavailable."""

    def term(self, index: int) -> int:
        """The term of an entry, or of the one before the first; Compacted or Unavailable."""

    def first_index(self) -> int:
        """The first entry that may be asked for."""

    def last_index(self) -> int:
        """The last entry; one less than the first if there is none."""

    def snapshot(self) -> Snapshot:
        """A snapshot to send; Unavailable if it is being made."""


class MemoryStorage:
    """A storage in memory, with the writes that carrying out a Ready needs."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.conf_state = ConfState()
        self.last_snapshot = Snapshot()
        self._offset = 0  # the index of the entry before the first
        self._offset_term = 0
        self._entries: list[Entry] = []

    def initial_state(self) -> tuple[HardState, ConfState]:
        return self.hard_state, self.conf_state

    def first_index(self) -> int:
        return self._offset + 1

    def last_index(self) -> int:
        return self._offset + len(self._entries)

    def term(self, index: int) -> int:
        if index < self._offset:
            raise Compacted(index)
        if index == self._offset:
            return self._offset_term
        if index > self.last_index():
            raise Unavailable(index)
        return self._entries[index - self._offset - 1].term

    def entries(self, lo: int, hi: int, max_size: int) -> Sequence[Entry]:
        if lo <= self._offset:
            raise Compacted(lo)
        if hi > self.last_index() + 1:
            raise Unavailable(hi)
        return limit_size(self._entries[lo - self._offset - 1 : hi - self._offset - 1], max_size)

    def snapshot(self) -> Snapshot:
        return self.last_snapshot

    @classmethod
    def restored(
        cls,
        hard_state: HardState,
        snapshot: Snapshot | None,
        entries: Sequence[Entry],
        base_index: int,
        base_term: int,
    ) -> MemoryStorage:
        """What a node had made durable before it was restarted.

        ``entries`` follow ``base_index`` without a gap and may begin before the snapshot: those are kept for members
        that lag. Without a snapshot the membership is empty; the log's own configuration changes make it.
        """
        storage = cls()
        storage.hard_state = hard_state
        storage._offset, storage._offset_term, storage._entries = base_index, base_term, list(entries)
        if snapshot is not None:
            storage.last_snapshot, storage.conf_state = snapshot, snapshot.conf_state
        return storage

    # Writing

    def keep_snapshot(self, snapshot: Snapshot) -> None:
        """A snapshot of our own making is in force: the log stays as it is."""
        assert self._offset <= snapshot.index <= self.last_index(), f"snapshot at {snapshot.index} is not of this log"
        self.last_snapshot, self.conf_state = snapshot, snapshot.conf_state

    def append(self, entries: Sequence[Entry]) -> None:
        """Keeps entries; what conflicts with them and what follows that is replaced."""
        if not entries or entries[-1].index <= self._offset:
            return
        if entries[0].index <= self._offset:
            entries = entries[self._offset + 1 - entries[0].index :]
        at = entries[0].index - self._offset - 1
        if at > len(self._entries):
            raise RuntimeError(f"a hole in the log: {self.last_index()} is followed by {entries[0].index}")
        self._entries[at:] = entries

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Replaces everything by a snapshot; an older one than the present is ignored."""
        if snapshot.index <= self.last_snapshot.index:
            return
        self.last_snapshot = snapshot
        self.conf_state = snapshot.conf_state
        self._offset, self._offset_term, self._entries = snapshot.index, snapshot.term, []

    def compact(self, index: int) -> None:
        """Drops entries up to and including ``index``."""
        if index <= self._offset:
            raise Compacted(index)
        term = self.term(index)
        del self._entries[: index - self._offset]
        self._offset, self._offset_term = index, term

    def all_entries(self) -> Sequence[Entry]:
        """Everything that is in the log."""
        return tuple(self._entries)
