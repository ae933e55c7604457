"""The raft log on disk: entries, hard state, the snapshot and whose log it is.

Rules owned here:
1. What one Ready asks to persist is one synced batch; when ``append`` returns, promises may leave.
2. Loading verifies everything (contiguous from the base, chain unbroken, commit within the log, snapshot whole) and
   raises ``LogDamaged`` with what and where. Nothing is ever repaired: cutting at a bad checksum can drop an entry
   that was committed, and a voter that forgot one breaks the cluster's promise.
3. A snapshot is written under keys that nothing refers to, each batch synced, and put in force by one more batch.
   Syncing only the last would not do: LevelDB syncs its newest log file, and a chunk may sit in the one before.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from runtime.disk import raft_records as records
from runtime.disk.errors import DiskDamaged, LogDamaged
from runtime.disk.port import Database, Pair
from runtime.disk.raft_records import Base, Member, Pointer
from runtime.disk.sealer import Sealer
from runtime.failpoints import failpoint
from runtime.raft.types import Entry, HardState, Snapshot

if TYPE_CHECKING:
    from runtime.store.snapshot import Content

P = ParamSpec("P")
T = TypeVar("T")

CHUNK_BYTES = 1 << 20
"""Bytes of a snapshot in one record: large enough to be fast, small enough for LevelDB's buffers."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A verified log. ``entries`` follow ``base_index`` without a gap; ``snapshot`` is None before the first one.

    Entries from before the snapshot may be there: they are kept for followers that lag.
    """

    hard_state: HardState
    snapshot: Snapshot | None
    entries: list[Entry] = field(repr=False)
    base_index: int
    base_term: int
    member: Member | None
    lost_id: int = 0
    """The raft id of a log that this node had and has no more; set by whoever knows."""
    content: Content | None = field(default=None, repr=False)
    """What the snapshot holds, decoded; set by whoever did that."""

    forced: bool = False
    """Whether it was made the log of a new cluster by force at some time."""

    @property
    def empty(self) -> bool:
        """True when nothing was ever written: this node has no raft state."""
        return self.member is None and self.hard_state.empty and self.snapshot is None and not self.entries


@dataclass(slots=True)
class Parts:
    """What of a snapshot is on disk, under keys of this ``sequence`` that nothing refers to yet."""

    sequence: int
    count: int = 0
    size: int = 0
    crc: int = 0


class RaftLog:
    """One node's log over a database of its own. ``load`` comes first; any ``DiskFailed`` ends its use."""

    def __init__(self, db: Database, sealer: Sealer, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._db = db
        self._sealer = sealer
        self._chunk_bytes = chunk_bytes
        self._loaded = False
        self._forget()

    def _forget(self) -> None:
        self._base = Base()
        self._hard_state = HardState()
        self._pointer: Pointer | None = None
        self._sequence = 0  # of the snapshot that was begun last
        # Term and checksum of every entry kept, by distance from the base: what appending and compacting must know.
        self._marks: list[tuple[int, int]] = []

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the base when there is none."""
        return self._base.index + len(self._marks)

    @property
    def snapshot_index(self) -> int:
        """Index of the snapshot in force; 0 without one."""
        return self._pointer.index if self._pointer else 0

    def load(self) -> Loaded:
        """Reads and verifies everything. ``LogDamaged`` says what is wrong; ``CannotUnseal`` that a key is missing."""
        self._forget()
        self._base = self._read_base()
        entries = self._read_entries()
        snapshot = self._read_snapshot()
        state = self._read_hard_state()
        member = self._read_member()
        self._check(state, bool(entries), snapshot)
        self._hard_state = state
        self._loaded = True
        self._drop_leftover_chunks()
        forced = self._db.get(records.FORCED) is not None
        return Loaded(state, snapshot, entries, self._base.index, self._base.term, member, forced=forced)

    def seal_with(self, sealer: Sealer) -> None:
        """Seals with another key from now on; ``sealer`` must open what the present one does."""
        self._sealer = sealer

    def append(self, entries: Sequence[Entry], hard_state: HardState | None = None) -> None:
        """Persists entries and, when given, the hard state, in one synced batch.

        Entries may replace an uncommitted tail, which goes with the same batch. They must join the log without a gap.
        """
        self._check_loaded()
        puts, deletes, kept, marks = self._entry_changes(entries) if entries else ([], [], len(self._marks), [])
        if hard_state is not None:
            self._check_hard_state(hard_state, self._base.index + kept + len(marks))
            puts.append((records.HARD_STATE, records.pack_hard_state(hard_state)))
        failpoint("append.before_write")
        self._db.write(puts, deletes, sync=True, before_sync="append.after_write_before_sync")
        failpoint("append.after_sync")
        self._marks[kept:] = marks
        if hard_state is not None:
            self._hard_state = hard_state
            failpoint("hardstate.after_sync")

    def set_member(self, member: Member) -> None:
        """Records whose log this is."""
        self._check_loaded()
        record = records.pack_plain(member.raft_id, member.node_id, member.addr)
        self._db.write([(records.MEMBER, record)], sync=True)

    def save_snapshot(self, snapshot: Snapshot, hard_state: HardState | None = None) -> None:
        """Writes a snapshot and puts it in force; see ``put_in_force``."""
        parts = self.begin_snapshot()
        data = memoryview(snapshot.data)
        for start in range(0, len(data), self._chunk_bytes):
            self.write_part(parts, bytes(data[start : start + self._chunk_bytes]))
        self.put_in_force(parts, snapshot, hard_state)

    def begin_snapshot(self) -> Parts:
        """A snapshot that is written part by part, between other writes. If a newer one comes into force meanwhile, it
        is to be dropped."""
        self._check_loaded()
        failpoint("snap.before_write")
        self._sequence += 1
        return Parts(self._sequence)

    def write_part(self, parts: Parts, data: bytes) -> None:
        """The next part, in one synced batch under a key that nothing refers to."""
        sealed = self._sealer.seal(data, records.chunk_place(parts.sequence, parts.count))
        self._db.write([(records.chunk_key(parts.sequence, parts.count), sealed)], sync=True)
        parts.count, parts.size, parts.crc = parts.count + 1, parts.size + len(data), zlib.crc32(sealed, parts.crc)
        if parts.count == 1:
            failpoint("snap.half_written")

    def drop_parts(self, parts: Parts) -> None:
        """Forgets a snapshot that is not to come into force."""
        self._db.write([], _chunk_keys(parts.sequence, parts.count), sync=False)

    def put_in_force(self, parts: Parts, snapshot: Snapshot, hard_state: HardState | None = None) -> None:
        """Puts a snapshot in force whose data was written in these parts.

        One of our own making leaves the log as it is. One from the leader, whose entry this log does not hold, takes
        the log's place: the entries go and the snapshot becomes the base, in the batch that switches.

        What a snapshot holds is committed, so the stored commit is raised to it in that same batch.
        """
        self._check_loaded()
        assert snapshot.index > self.snapshot_index, f"snapshot {snapshot.index} after {self.snapshot_index}"
        assert parts.size == len(snapshot.data), f"{parts.size} of {len(snapshot.data)} bytes were written"
        old = self._pointer
        pointer = Pointer(
            parts.sequence, snapshot.index, snapshot.term, snapshot.conf_state, parts.count, parts.size, parts.crc
        )
        puts: list[Pair] = [(records.POINTER, records.pack_pointer(pointer))]
        deletes: list[bytes] = []
        replaces = self._term_at(snapshot.index) != snapshot.term
        base = Base(snapshot.index, snapshot.term) if replaces else self._base
        if replaces:
            deletes.extend(records.entry_key(index) for index in range(self._base.index + 1, self.last_index + 1))
            puts.append((records.BASE, _pack_base(base)))
        state = hard_state or self._hard_state
        state = replace(state, commit=max(state.commit, snapshot.index))
        self._check_hard_state(state, base.index if replaces else self.last_index)
        puts.append((records.HARD_STATE, records.pack_hard_state(state)))
        kind = "install" if replaces else "snap"
        failpoint(f"{kind}.before_switch")
        self._db.write(puts, deletes, sync=True)
        failpoint(f"{kind}.after_switch")
        self._pointer, self._hard_state = pointer, state
        if replaces:
            self._base, self._marks = base, []
        if old is not None:
            self._db.write([], _chunk_keys(old.sequence, old.chunks), sync=False)

    def compact(self, index: int) -> None:
        """Forgets entries up to ``index``, which the snapshot in force must cover."""
        self._check_loaded()
        assert index <= self.snapshot_index, f"compaction to {index} is beyond the snapshot {self.snapshot_index}"
        if index <= self._base.index:
            return
        term, crc = self._marks[index - self._base.index - 1]
        base = Base(index, term, crc)
        keys = [records.entry_key(at) for at in range(self._base.index + 1, index + 1)]
        failpoint("snap.before_compact")
        self._db.write([(records.BASE, _pack_base(base))], keys, sync=True)
        failpoint("snap.after_compact")
        del self._marks[: index - self._base.index]
        self._base = base

    def force_new_cluster(self, entries: Sequence[Entry], order: str, after: int) -> None:
        """Puts ``entries`` behind entry ``after``, in the place of what follows it there, and commits up to the last.

        One synced batch, which also notes the order: the same one is not carried out twice (``was_forced``).
        """
        self._check_loaded()
        if entries:
            puts, deletes, kept, marks = self._entry_changes(entries)
        else:
            puts, kept, marks = [], after - self._base.index, []
            deletes = [records.entry_key(at) for at in range(after + 1, self.last_index + 1)]
        state = replace(self._hard_state, commit=after + len(entries))
        self._check_hard_state(state, self._base.index + kept + len(marks))
        puts += [(records.HARD_STATE, records.pack_hard_state(state)), (records.FORCED, records.pack_plain(order))]
        failpoint("force.before_write")
        self._db.write(puts, deletes, sync=True)
        failpoint("force.after_write")
        self._marks[kept:] = marks
        self._hard_state = state

    def was_forced(self, order: str) -> bool:
        """Whether this order to force a new cluster was carried out on this log."""
        record = self._db.get(records.FORCED)
        return record is not None and _guard("the order to force", records.unpack_plain, record, 1) == [order]

    def wipe(self) -> None:
        """Removes everything: this node has left the consensus group."""
        keys = [key for key, _ in self._db.iterate(records.EVERYTHING, records.EVERYTHING_END)]
        self._db.write([], keys, sync=True)
        self._forget()
        self._loaded = True

    def _check_loaded(self) -> None:
        assert self._loaded, "a raft log must be loaded before it is changed"

    def _term_at(self, index: int) -> int | None:
        if index == self._base.index:
            return self._base.term
        at = index - self._base.index - 1
        return self._marks[at][0] if 0 <= at < len(self._marks) else None

    def _check_hard_state(self, state: HardState, last: int) -> None:
        if not self._hard_state.commit <= state.commit <= last:
            raise RuntimeError(
                f"commit {state.commit} is outside {self._hard_state.commit} (committed) to {last} (last entry)"
            )

    def _entry_changes(self, entries: Sequence[Entry]) -> tuple[list[Pair], list[bytes], int, list[tuple[int, int]]]:
        """What to put and to delete, how many of the present marks stay, and the marks that follow them."""
        first = entries[0].index
        if not max(self._base.index, self._hard_state.commit) < first <= self.last_index + 1:
            raise RuntimeError(
                f"entry {first} does not fit a log to {self.last_index}, committed to {self._hard_state.commit}"
            )
        kept = first - self._base.index - 1
        previous = self._marks[kept - 1][1] if kept else self._base.crc
        puts: list[Pair] = []
        marks: list[tuple[int, int]] = []
        for position, entry in enumerate(entries):
            if entry.index != first + position:
                raise RuntimeError(f"entry {entry.index} stands where {first + position} belongs")
            place = records.entry_place(entry, previous)
            payload = self._sealer.seal(entry.data, place)
            crc = records.chain(place, payload)
            puts.append((records.entry_key(entry.index), records.pack_entry(entry, payload, previous, crc)))
            marks.append((entry.term, crc))
            previous = crc
        gone = range(first + len(entries), self.last_index + 1)
        return puts, [records.entry_key(index) for index in gone], kept, marks

    def _read_base(self) -> Base:
        record = self._db.get(records.BASE)
        return Base(*_guard("the base record", records.unpack_plain, record, 3)) if record is not None else Base()

    def _read_hard_state(self) -> HardState:
        record = self._db.get(records.HARD_STATE)
        if record is None:
            return HardState()
        return HardState(*_guard("the hard state", records.unpack_plain, record, 3))

    def _read_member(self) -> Member | None:
        record = self._db.get(records.MEMBER)
        return Member(*_guard("the member record", records.unpack_plain, record, 3)) if record is not None else None

    def _read_entries(self) -> list[Entry]:
        entries = []
        previous, expected = self._base.crc, self._base.index + 1
        for key, record in self._db.iterate(records.ENTRIES, records.ENTRIES_END):
            where = f"entry {int.from_bytes(key[1:], 'big')}"
            entry, before, crc = _guard(where, records.unpack_entry, record)
            if entry.index != expected or key != records.entry_key(expected):
                raise LogDamaged(f"{where}: entry {expected} is missing")
            if before != previous:
                raise LogDamaged(f"{where}: it does not follow the entry before it")
            entry.data = _guard(where, self._sealer.unseal, entry.data, records.entry_place(entry, before))
            entries.append(entry)
            self._marks.append((entry.term, crc))
            previous, expected = crc, expected + 1
        return entries

    def _read_snapshot(self) -> Snapshot | None:
        record = self._db.get(records.POINTER)
        if record is None:
            return None
        pointer = _guard("the snapshot's record", records.unpack_pointer, record)
        where = f"snapshot at {pointer.index}"
        pieces, crc = [], 0
        for number in range(pointer.chunks):
            sealed = self._db.get(records.chunk_key(pointer.sequence, number))
            if sealed is None:
                raise LogDamaged(f"{where}: part {number} of {pointer.chunks} is missing")
            place = records.chunk_place(pointer.sequence, number)
            pieces.append(_guard(f"{where}, part {number}", self._sealer.unseal, sealed, place))
            crc = zlib.crc32(sealed, crc)
        data = b"".join(pieces)
        if len(data) != pointer.size or crc != pointer.crc:
            raise LogDamaged(f"{where}: its checksum does not match")
        self._pointer, self._sequence = pointer, pointer.sequence
        return Snapshot(pointer.index, pointer.term, pointer.conf_state, data)

    def _check(self, state: HardState, has_entries: bool, snapshot: Snapshot | None) -> None:
        index = snapshot.index if snapshot else 0
        if self._base.index > index:
            raise LogDamaged(f"entries up to {self._base.index} were dropped, but the snapshot is at {index}")
        if self.last_index < index:
            raise LogDamaged(f"the log ends at {self.last_index}, before the snapshot at {index}")
        if snapshot is not None and self._term_at(index) != snapshot.term:
            raise LogDamaged(f"snapshot at {index} has term {snapshot.term}, the log has {self._term_at(index)}")
        if has_entries and state.empty:
            raise LogDamaged("there are entries but no hard state")
        if not index <= state.commit <= self.last_index:
            raise LogDamaged(f"commit is {state.commit}, outside {index} (snapshot) to {self.last_index} (last entry)")

    def _drop_leftover_chunks(self) -> None:
        """Chunks of a snapshot that never came into force, or of one that was replaced."""
        pointer = self._pointer
        inside = set(_chunk_keys(pointer.sequence, pointer.chunks)) if pointer else set()
        keys = [key for key, _ in self._db.iterate(records.CHUNKS, records.CHUNKS_END) if key not in inside]
        if keys:
            self._db.write([], keys, sync=False)


def _guard(where: str, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a reader; damage that it finds is reported with the place where it was found."""
    try:
        return read(*args, **kwargs)
    except DiskDamaged as error:
        raise LogDamaged(f"{where}: {error}") from error


def _pack_base(base: Base) -> bytes:
    return records.pack_plain(base.index, base.term, base.crc)


def _chunk_keys(sequence: int, count: int) -> list[bytes]:
    return [records.chunk_key(sequence, number) for number in range(count)]
