"""A backup of a manager in one file: its identity, and the state of the cluster at one place of the log.

Rules owned here: what is restored is what was written (a digest over all of it, looked at before anything is made); a
log restored from a backup has forgotten what came after it, so that it may go on only where nobody relies on that: as
the only member it was, or as a new cluster of this manager alone. A backup holds the cluster's secrets and the root's
key in clear: whoever keeps it keeps it private.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import msgpack

from runtime.disk.data_root import RAFT_DATABASE, clear_data_root
from runtime.disk.errors import DiskFailed, LogDamaged, NothingToForce
from runtime.disk.force import force_new_cluster
from runtime.disk.port import Disk
from runtime.disk.raft_log import RaftLog
from runtime.disk.raft_records import Member
from runtime.disk.sealer import Sealer
from runtime.disk.state_files import CERTIFICATES, DOCKER_STATE, NODE_CERT, NODE_KEY, PRIVATE, PUBLIC, ROOT_CERT
from runtime.errors import Refused
from runtime.pki.errors import InvalidKey, InvalidUnlockKey
from runtime.pki.key_file import decode_key_file
from runtime.raft.types import ConfState, HardState, Snapshot

MAGIC = b"swarmlet backup 1\n"
KEPT_FILES = {ROOT_CERT: PUBLIC, NODE_CERT: PUBLIC, NODE_KEY: PRIVATE, DOCKER_STATE: PRIVATE}
"""What is kept of a data root, with the mode that it is restored with."""
_DIGEST_BYTES = 32


class BadBackup(Exception):
    """A file that nothing can be restored from; the text says why."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One manager at entry ``snapshot.index``. ``made`` is the time of day, in seconds."""

    made: float
    node_id: str
    cluster_id: str
    owner: Member
    snapshot: Snapshot
    files: dict[str, bytes] = field(repr=False)

    @property
    def alone(self) -> bool:
        """Whether this manager was the only member."""
        conf = self.snapshot.conf_state
        return conf == ConfState((self.owner.raft_id,))


def pack(backup: Backup) -> bytes:
    """The file's bytes."""
    snapshot, conf = backup.snapshot, backup.snapshot.conf_state
    owner = backup.owner
    content = {
        "made": backup.made,
        "node": backup.node_id,
        "cluster": backup.cluster_id,
        "owner": (owner.raft_id, owner.node_id, owner.addr),
        "index": snapshot.index,
        "term": snapshot.term,
        "members": (conf.voters, conf.voters_outgoing, conf.learners, conf.learners_next, conf.auto_leave),
        "state": snapshot.data,
        "files": backup.files,
    }
    body: bytes = msgpack.packb(content)
    return b"".join((MAGIC, hashlib.sha256(body).digest(), body))


def unpack(data: bytes) -> Backup:
    """What a file holds; ``BadBackup`` if it is none, or not what was written."""
    if not data.startswith(MAGIC):
        raise BadBackup("this is no backup of swarmlet's")
    start = len(MAGIC) + _DIGEST_BYTES
    digest, body = data[len(MAGIC) : start], data[start:]
    if hashlib.sha256(body).digest() != digest:
        raise BadBackup("the backup is damaged: its checksum does not match")
    try:
        return _backup(msgpack.unpackb(body, max_bin_len=len(body)))
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise BadBackup(f"the backup is malformed: {error}") from None


def _backup(content: dict[str, Any]) -> Backup:
    voters, outgoing, learners, learners_next, auto_leave = content["members"]
    conf = ConfState(tuple(voters), tuple(outgoing), tuple(learners), tuple(learners_next), bool(auto_leave))
    files = dict(content["files"])
    if not {ROOT_CERT, NODE_CERT, NODE_KEY} <= set(files) <= set(KEPT_FILES):
        raise ValueError("it does not hold a node's files")
    return Backup(
        made=float(content["made"]),
        node_id=str(content["node"]),
        cluster_id=str(content["cluster"]),
        owner=Member(*content["owner"]),
        snapshot=Snapshot(content["index"], content["term"], conf, content["state"]),
        files=files,
    )


def restore(disk: Disk, backup: Backup, *, order: str = "", kek: bytes = b"") -> int:
    """Makes a data root of a backup and reads it back; the index of the last entry.

    With ``order`` (any name that no other order has) it is made a new cluster of this manager alone. ``BadBackup`` when
    that would be needed and was not asked for, when the data root is not empty, or when the key is locked and ``kek``
    does not open it. What was begun and failed is taken away.
    """
    if disk.files.listdir(""):
        raise BadBackup("the data root is not empty: restore into a new one")
    if not backup.alone and not order:
        raise BadBackup(
            f"the backup is of one of {len(backup.snapshot.conf_state.voters)} managers: what the others have "
            "acknowledged since is not in it, so it cannot take its old place. If they live, join a new manager "
            "instead; if they are lost, restore it with --as-new-cluster"
        )
    lock = disk.files.lock()
    try:
        return _make(disk, backup, order, kek)
    except (BadBackup, DiskFailed, LogDamaged, NothingToForce) as error:
        clear_data_root(disk.files)
        raise BadBackup(f"nothing was restored: {error}") from error
    finally:
        lock.release()


def _make(disk: Disk, backup: Backup, order: str, kek: bytes) -> int:
    try:
        keys = decode_key_file(backup.files[NODE_KEY], kek).data_keys
    except InvalidUnlockKey:
        raise BadBackup("its key is locked: give the unlock key that was in force when it was made") from None
    except (InvalidKey, Refused) as error:
        raise BadBackup(f"its key file cannot be read: {error}") from None
    if keys is None:
        raise BadBackup("its key file holds no data key")
    disk.files.make_dirs(CERTIFICATES, 0o755)
    for name, content in backup.files.items():
        if name != DOCKER_STATE:
            disk.files.write_atomic(name, content, KEPT_FILES[name])
    db = disk.open_database(RAFT_DATABASE)
    try:
        log = RaftLog(db, Sealer((keys.current,), os.urandom))
        log.load()
        snapshot = backup.snapshot
        log.set_member(backup.owner)
        log.save_snapshot(snapshot, HardState(snapshot.term, 0, snapshot.index))
        if order:
            force_new_cluster(log, log.load(), order)
        loaded = log.load()
        if loaded.snapshot != snapshot:
            raise LogDamaged("what was read back is not what was written")
    finally:
        db.close()
    # Last: only with it is this a node in a swarm. A data root without it is cleared by the next start.
    if DOCKER_STATE in backup.files:
        disk.files.write_atomic(DOCKER_STATE, backup.files[DOCKER_STATE], PRIVATE)
    return loaded.hard_state.commit
