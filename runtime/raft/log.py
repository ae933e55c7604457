"""The log as a core sees it: what storage holds, followed by the tail that is not durable yet.

    storage entries ... | tail (from ``offset``) ... in progress ... not handed out
                  applied <= applying <= committed <= last

Rules kept here: the tail may overwrite what storage has from ``offset`` on, never what is committed. A part of
the tail is "in progress" once a Ready handed it out; it leaves the tail when storage says it is durable, and only if
it is still the same (an answer that was overtaken by a conflicting append must not count). A snapshot that came
in stands before the tail until storage has it, and nothing is applied until then.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.raft.storage import Storage
from runtime.raft.types import NO_LIMIT, Compacted, Entry, Snapshot, Unavailable, limit_size


class RaftLog:
    """Storage and tail as one log, with the marks of what is committed and applied."""

    __slots__ = (
        "applied", "applying", "applying_paused", "applying_size", "committed", "max_applying_size", "offset",
        "offset_in_progress", "pending_snapshot", "snapshot_in_progress", "storage", "tail",
    )  # fmt: skip

    def __init__(self, storage: Storage, max_applying_size: int = NO_LIMIT) -> None:
        self.storage = storage
        first, last = storage.first_index(), storage.last_index()
        self.tail: list[Entry] = []
        self.offset = last + 1
        self.offset_in_progress = last + 1
        self.pending_snapshot: Snapshot | None = None
        self.snapshot_in_progress = False
        self.committed = first - 1
        self.applying = first - 1
        self.applied = first - 1
        self.applying_size = 0
        self.applying_paused = False
        self.max_applying_size = max_applying_size

    # Reading

    def first_index(self) -> int:
        """The first entry that can be read."""
        if self.pending_snapshot is not None:
            return self.pending_snapshot.index + 1
        return self.storage.first_index()

    def last_index(self) -> int:
        """The last entry."""
        if self.tail:
            return self.offset + len(self.tail) - 1
        if self.pending_snapshot is not None:
            return self.pending_snapshot.index
        return self.storage.last_index()

    def term(self, index: int) -> int:
        """The term of an entry, or of the one before the first; Compacted or Unavailable beyond."""
        if index >= self.offset:
            if index - self.offset >= len(self.tail):
                raise Unavailable(index)
            return self.tail[index - self.offset].term
        if self.pending_snapshot is not None:
            if index == self.pending_snapshot.index:
                return self.pending_snapshot.term
            raise Compacted(index)
        if index + 1 < self.first_index():
            raise Compacted(index)
        return self.storage.term(index)

    def term_or_zero(self, index: int) -> int:
        """The term, or 0 where it is not known."""
        try:
            return self.term(index)
        except LookupError:
            return 0

    def last_term(self) -> int:
        """The term of the last entry."""
        return self.term(self.last_index())

    def entries(self, lo: int, max_size: int = NO_LIMIT) -> Sequence[Entry]:
        """Entries from ``lo`` on, as many as fit but at least one; Compacted if they are gone."""
        last = self.last_index()
        return () if lo > last else self.slice(lo, last + 1, max_size)

    def slice(self, lo: int, hi: int, max_size: int = NO_LIMIT) -> Sequence[Entry]:
        """Entries from ``lo`` up to, without, ``hi``, as many as fit but at least one."""
        if lo < self.first_index():
            raise Compacted(lo)
        assert hi <= self.last_index() + 1, f"entries {lo}..{hi} of a log that ends at {self.last_index()}"
        if lo >= self.offset:
            return limit_size(self.tail[lo - self.offset : hi - self.offset], max_size)
        cut = min(hi, self.offset)
        found = list(self.storage.entries(lo, cut, max_size))
        if hi <= self.offset or len(found) < cut - lo:
            return found
        return limit_size(found + self.tail[: hi - self.offset], max_size)

    def matches(self, index: int, term: int) -> bool:
        """True if the entry at ``index`` is of that term."""
        try:
            return self.term(index) == term
        except LookupError:
            return False

    def up_to_date(self, index: int, term: int) -> bool:
        """True if a log that ends so is at least as new as this one (thesis 3.6.1)."""
        mine = self.last_term()
        return term > mine or (term == mine and index >= self.last_index())

    def conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """The last entry at or before ``index`` whose term is at most ``term``, with its term.

        It lets a leader and a follower skip whole terms while they look for where their logs agree. The term is 0
        where it is not known any more.
        """
        while index > 0:
            try:
                mine = self.term(index)
            except LookupError:
                return index, 0
            if mine <= term:
                return index, mine
            index -= 1
        return 0, 0

    # Appending

    def append(self, entries: Sequence[Entry]) -> int:
        """Puts entries at their indices, over whatever is there; returns the last index."""
        if not entries:
            return self.last_index()
        start = entries[0].index
        assert start > self.committed, f"entry {start} would overwrite committed entries up to {self.committed}"
        if start == self.offset + len(self.tail):
            self.tail.extend(entries)
        elif start <= self.offset:
            self.tail = list(entries)
            self.offset = self.offset_in_progress = start
        else:
            self.tail[start - self.offset :] = entries
            self.offset_in_progress = min(self.offset_in_progress, start)
        return self.last_index()

    def maybe_append(self, index: int, term: int, commit: int, entries: Sequence[Entry]) -> int | None:
        """A follower's append (thesis 3.5): the last index it made sure of; None if the entry before does not match."""
        if not self.matches(index, term):
            return None
        last_new = index + len(entries)
        for at, entry in enumerate(entries):
            if not self.matches(entry.index, entry.term):
                self.append(entries[at:])
                break
        self.commit_to(min(commit, last_new))
        return last_new

    def restore(self, snapshot: Snapshot) -> None:
        """Takes a snapshot in the place of everything."""
        self.committed = snapshot.index
        self.tail = []
        self.offset = self.offset_in_progress = snapshot.index + 1
        self.pending_snapshot, self.snapshot_in_progress = snapshot, False

    # Marks

    def commit_to(self, index: int) -> None:
        """Moves the commit mark; never back."""
        if index > self.committed:
            last = self.last_index()
            assert index <= last, f"commit {index} of a log that ends at {last}: was it damaged or lost?"
            self.committed = index

    def maybe_commit(self, index: int, term: int) -> bool:
        """Commits up to ``index`` if that is news and the entry is of this term (thesis 3.6.2)."""
        if term != 0 and index > self.committed and self.matches(index, term):
            self.commit_to(index)
            return True
        return False

    def applied_to(self, index: int, size: int) -> None:
        """Entries up to ``index``, of ``size`` bytes, have been applied."""
        assert self.applied <= index <= self.committed, f"applied {index} outside {self.applied}..{self.committed}"
        self.applied = index
        self.applying = max(self.applying, index)
        self.applying_size = max(0, self.applying_size - size)
        self.applying_paused = self.applying_size >= self.max_applying_size

    def accept_applying(self, index: int, size: int, allow_unstable: bool) -> None:
        """Entries up to ``index`` were handed out to be applied."""
        self.applying = index
        self.applying_size += size
        # Paused when the budget is used up, or when the budget already cut the last portion short: handing out
        # one small entry behind a large one that did not fit would defeat the limit.
        self.applying_paused = self.applying_size >= self.max_applying_size or index < self._appliable(allow_unstable)

    # Handing out

    def next_tail(self) -> Sequence[Entry]:
        """Entries to be made durable that were not handed out yet."""
        return self.tail[self.offset_in_progress - self.offset :]

    def has_unstable(self) -> bool:
        """True if there are entries that are not durable, handed out or not."""
        return bool(self.tail)

    def next_snapshot(self) -> Snapshot | None:
        """A snapshot to be made durable that was not handed out yet."""
        return None if self.snapshot_in_progress else self.pending_snapshot

    def accept_tail(self) -> None:
        """Everything that is to be made durable was handed out."""
        if self.tail:
            self.offset_in_progress = self.offset + len(self.tail)
        if self.pending_snapshot is not None:
            self.snapshot_in_progress = True

    def stable_to(self, index: int, term: int) -> None:
        """Storage has everything up to this entry: it leaves the tail, if it still is the one of that term."""
        if index < self.offset or not self.tail or index - self.offset >= len(self.tail):
            return
        if self.tail[index - self.offset].term != term:
            return
        del self.tail[: index + 1 - self.offset]
        self.offset = index + 1
        self.offset_in_progress = max(self.offset_in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        """Storage has the snapshot."""
        if self.pending_snapshot is not None and self.pending_snapshot.index == index:
            self.pending_snapshot, self.snapshot_in_progress = None, False

    def next_committed(self, allow_unstable: bool) -> Sequence[Entry]:
        """Committed entries to be applied next, within what may be under way at once."""
        if self.applying_paused or self.pending_snapshot is not None:
            return ()
        lo, hi = self.applying + 1, self._appliable(allow_unstable) + 1
        return () if lo >= hi else self.slice(lo, hi, self.max_applying_size - self.applying_size)

    def has_next_committed(self, allow_unstable: bool) -> bool:
        """True if ``next_committed`` would give something."""
        if self.applying_paused or self.pending_snapshot is not None:
            return False
        return self.applying < self._appliable(allow_unstable)

    def _appliable(self, allow_unstable: bool) -> int:
        return self.committed if allow_unstable else min(self.committed, self.offset - 1)

    def snapshot(self) -> Snapshot:
        """The newest snapshot, to be sent; Unavailable while it is being made."""
        return self.pending_snapshot if self.pending_snapshot is not None else self.storage.snapshot()
