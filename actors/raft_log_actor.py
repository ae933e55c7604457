"""RaftLogActor owns the disk under the consensus: it loads, appends, snapshots, and lets go of the database.

Only RaftActor talks to it. It has a thread of its own, since every append waits for the disk. After any error it
fails, which its parent and then the manager answer for: the handle is closed and everything is read from disk again.

A snapshot of ours is made in pieces, one a turn, so that an append waits for one of them at most and not for all of a
large state. If the leader sends a snapshot meanwhile, which is a newer one, ours is dropped.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from google.protobuf.message import DecodeError

from runtime.disk.data_root import RAFT_DATABASE, RAFT_MEMBER, note_raft_member, noted_raft_member
from runtime.disk.errors import LogDamaged
from runtime.disk.force import force_new_cluster
from runtime.disk.port import Database
from runtime.disk.raft_log import Loaded, Parts, RaftLog
from runtime.disk.sealer import Sealer
from runtime.failpoints import failpoint, rare
from runtime.protocol.raft import (
    Append,
    Appended,
    BeginLog,
    LoadLog,
    SnapshotDropped,
    SnapshotTaken,
    TakeSnapshot,
    UseDataKeys,
    WipeLog,
)
from runtime.raft.admission import entry_trouble
from runtime.raft.types import Snapshot
from runtime.stage import Actor, Policy, handles
from runtime.store.snapshot import PIECE_BYTES, Content, pieces, read
from runtime.wire.pb import snapshot_pb2

SNAPSHOT = "swarm_raft_snapshot_latency_seconds"
WHAT_NEXT = (
    "Nothing of it was changed. Where other managers run: leave the swarm by force here, remove this node there, and "
    "join again; else restore a backup"
)


@dataclass(slots=True)
class _Taking:
    """A snapshot of ours on its way: what it is of, what is to come, what is on disk, and all of that together."""

    state: TakeSnapshot
    rest: Iterator[bytes]
    parts: Parts
    begun: float
    data: io.BytesIO = field(default_factory=io.BytesIO)


@dataclass(frozen=True, slots=True)
class _NextPiece:
    """Told to itself: there is more of a snapshot to write."""

    taking: _Taking = field(repr=False)
    piece: bytes = field(repr=False)


class RaftLogActor(Actor):
    """``keys`` are the node's data keys, the one to write with first."""

    policy = Policy(own_thread=True, escalates=(Exception,))

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        super().__init__()
        self._keys = keys
        self._rekeyed = False
        self._db: Database | None = None
        self._log: RaftLog | None = None
        self._taking: _Taking | None = None

    def stopped(self) -> None:
        self._close()

    def crashed(self) -> None:
        self._close()

    def _close(self) -> None:
        db, self._db, self._log, self._taking = self._db, None, None, None
        if db is not None:
            db.close()

    def snapshot(self) -> dict[str, object]:
        log = self._log
        return {"last": log.last_index, "snapshot": log.snapshot_index} if log is not None else {}

    @property
    def log(self) -> RaftLog:
        """The log, once it is loaded."""
        assert self._log is not None, "the log was not loaded"
        return self._log

    @handles(LoadLog)
    def load(self, message: LoadLog) -> Loaded:
        """Opens, verifies and reads everything. What is damaged is refused with what and where."""
        self._close()
        self._db = self.world.disk.open_database(RAFT_DATABASE)
        self._log = RaftLog(self._db, Sealer(self._keys, self.world.entropy))
        try:
            loaded = self._log.load()
            content = _decoded(loaded)
        except LogDamaged as damage:
            raise LogDamaged(f"the raft log is damaged: {damage}. {WHAT_NEXT}") from damage
        if message.force_new_cluster and force_new_cluster(self._log, loaded, message.force_new_cluster):
            loaded = self._log.load()
        files = self.world.disk.files
        if loaded.member is None:
            return replace(loaded, lost_id=noted_raft_member(files))
        note_raft_member(files, loaded.member.raft_id)
        return replace(loaded, content=content)

    @handles(BeginLog)
    def begin(self, message: BeginLog) -> None:
        """The first records of a new log."""
        self.log.set_member(message.member)
        note_raft_member(self.world.disk.files, message.member.raft_id)
        if message.entries:
            self.log.append(message.entries, message.hard_state)

    @handles(Append)
    def append(self, message: Append) -> None:
        """One synced batch; a snapshot that came from the leader goes first."""
        hard_state = message.hard_state
        if message.snapshot is not None:
            failpoint("install.received")
            self._drop_taking()
            # One batch switches to the snapshot and to the term it came in, unless entries follow it.
            self.log.save_snapshot(message.snapshot, None if message.entries else hard_state)
        if message.entries or (message.snapshot is None and hard_state is not None):
            self.log.append(message.entries, hard_state)
        self._tell_parent(Appended(message.number))

    @handles(UseDataKeys)
    def use_keys(self, message: UseDataKeys) -> None:
        """Another key to seal with; what was appended before this stays under the old one until it is dropped."""
        self._keys, self._rekeyed = message.keys, True
        self.log.seal_with(Sealer(self._keys, self.world.entropy))

    @handles(WipeLog)
    def wipe(self, message: WipeLog) -> None:
        """Nothing is left of it."""
        self._taking = None
        self.world.disk.files.remove(RAFT_MEMBER)
        self.log.wipe()

    @handles(TakeSnapshot)
    def take_snapshot(self, message: TakeSnapshot) -> None:
        """Encodes a state, puts it in force and drops what it makes dispensable: at once where it is of one piece."""
        if message.index <= self.log.snapshot_index:
            self._tell_parent(SnapshotDropped())
            return
        assert self._taking is None, f"a snapshot at {message.index} while one is being taken"
        self._taking = _Taking(message, encoded(message), self.log.begin_snapshot(), self.monotonic())
        self._write_piece(self._taking, next(self._taking.rest))

    @handles(_NextPiece)
    def next_piece(self, message: _NextPiece) -> None:
        """Goes on where other writes were let in between."""
        if message.taking is self._taking:
            self._write_piece(message.taking, message.piece)

    def _write_piece(self, taking: _Taking, piece: bytes) -> None:
        self.log.write_part(taking.parts, piece)
        taking.data.write(piece)
        following = next(taking.rest, None)
        if following is None:
            self._taken(taking)
        else:
            self.tell(self.address, _NextPiece(taking, following))

    def _taken(self, taking: _Taking) -> None:
        state, self._taking = taking.state, None
        snapshot = Snapshot(state.index, state.term, state.conf_state, taking.data.getvalue())
        self.log.put_in_force(taking.parts, snapshot)
        if self._rekeyed:
            failpoint("dek.half_reencrypted")
        if state.keep_after > 0:
            self.log.compact(state.keep_after)
        self.timed(SNAPSHOT, self.monotonic() - taking.begun)
        self._tell_parent(SnapshotTaken(snapshot, state.keep_after))

    def _drop_taking(self) -> None:
        taking, self._taking = self._taking, None
        if taking is not None:
            self.log.drop_parts(taking.parts)
            self._tell_parent(SnapshotDropped())

    def _tell_parent(self, message: object) -> None:
        assert self.parent is not None
        self.tell(self.parent, message)


def _decoded(loaded: Loaded) -> Content | None:
    """What the snapshot holds. What the disk gives back whole may still be nothing that can be applied: that is said
    before anybody tries."""
    for entry in loaded.entries:
        wrong = entry_trouble(entry)
        if wrong:
            raise LogDamaged(wrong)
    if loaded.snapshot is None:
        return None
    try:
        return read(loaded.snapshot.data)
    except DecodeError:
        raise LogDamaged(f"the snapshot at {loaded.snapshot.index} cannot be decoded") from None


def encoded(state: TakeSnapshot) -> Iterator[bytes]:
    """A state with its members as SwarmKit's snapshots are, in pieces (see ``pieces``)."""
    head = snapshot_pb2.Snapshot()
    head.membership.removed.extend(state.removed)
    for member in state.members:
        head.membership.members.add(raft_id=member.raft_id, node_id=member.node_id, addr=member.addr)
    size = 1 if rare("snapshot.tiny_parts") else PIECE_BYTES
    yield from pieces(head.SerializeToString(deterministic=True), state.view, size)


def snapshot_of(state: TakeSnapshot) -> Snapshot:
    """A state encoded as a whole."""
    return Snapshot(state.index, state.term, state.conf_state, b"".join(encoded(state)))
