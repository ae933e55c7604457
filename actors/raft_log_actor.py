"""RaftLogActor owns the disk under the consensus: it loads, appends, snapshots, and lets go of the database.

Only RaftActor talks to it. It has a thread of its own, since every append waits for the disk. After any error it
fails, which its parent and then the manager answer for: the handle is closed and everything is read from disk again.
"""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.message import DecodeError

from runtime.disk.data_root import RAFT_DATABASE, RAFT_MEMBER, note_raft_member, noted_raft_member
from runtime.disk.errors import LogDamaged
from runtime.disk.force import force_new_cluster
from runtime.disk.port import Database
from runtime.disk.raft_log import Loaded, RaftLog
from runtime.disk.sealer import Sealer
from runtime.failpoints import failpoint
from runtime.protocol.raft import (
    Append,
    Appended,
    BeginLog,
    LoadLog,
    SnapshotTaken,
    TakeSnapshot,
    UseDataKeys,
    WipeLog,
)
from runtime.raft.admission import entry_trouble
from runtime.raft.types import Snapshot
from runtime.stage import Actor, Policy, handles
from runtime.store.snapshot import dump
from runtime.wire.pb import snapshot_pb2

SNAPSHOT = "swarm_raft_snapshot_latency_seconds"
WHAT_NEXT = (
    "Nothing of it was changed. Where other managers run: leave the swarm by force here, remove this node there, and "
    "join again; else restore a backup"
)


class RaftLogActor(Actor):
    """``keys`` are the node's data keys, the one to write with first."""

    policy = Policy(own_thread=True, escalates=(Exception,))

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        super().__init__()
        self._keys = keys
        self._rekeyed = False
        self._db: Database | None = None
        self._log: RaftLog | None = None

    def stopped(self) -> None:
        self._close()

    def crashed(self) -> None:
        self._close()

    def _close(self) -> None:
        db, self._db, self._log = self._db, None, None
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
        self.world.disk.files.remove(RAFT_MEMBER)
        self.log.wipe()

    @handles(TakeSnapshot)
    def take_snapshot(self, message: TakeSnapshot) -> None:
        """Encodes a state, puts it in force and drops what it makes dispensable."""
        begun = self.monotonic()
        snapshot = snapshot_of(message)
        self.log.save_snapshot(snapshot)
        if self._rekeyed:
            failpoint("dek.half_reencrypted")
        if message.keep_after > 0:
            self.log.compact(message.keep_after)
        self.timed(SNAPSHOT, self.monotonic() - begun)
        self._tell_parent(SnapshotTaken(snapshot, message.keep_after))

    def _tell_parent(self, message: object) -> None:
        assert self.parent is not None
        self.tell(self.parent, message)


def _decoded(loaded: Loaded) -> snapshot_pb2.Snapshot | None:
    """What the snapshot holds. What the disk gives back whole may still be nothing that can be applied: that is said
    before anybody tries."""
    for entry in loaded.entries:
        wrong = entry_trouble(entry)
        if wrong:
            raise LogDamaged(wrong)
    if loaded.snapshot is None:
        return None
    try:
        return snapshot_pb2.Snapshot.FromString(loaded.snapshot.data)
    except DecodeError:
        raise LogDamaged(f"the snapshot at {loaded.snapshot.index} cannot be decoded") from None


def snapshot_of(state: TakeSnapshot) -> Snapshot:
    """A state encoded, with its members, as SwarmKit's snapshots are."""
    content = snapshot_pb2.Snapshot(store=dump(state.view))
    content.membership.removed.extend(state.removed)
    for member in state.members:
        content.membership.members.add(raft_id=member.raft_id, node_id=member.node_id, addr=member.addr)
    return Snapshot(state.index, state.term, state.conf_state, content.SerializeToString(deterministic=True))
