"""What the data roots of a cluster's surviving managers hold, and which of them a new cluster may be made of.

Rules owned here: the pick must have the newest log of those shown (thesis 3.6.1: the term of its last entry, then its
length), for only that one has everything that was acknowledged and survived; logs of two clusters, of a daemon that
runs, and damaged ones are never picked; nothing is changed before all of that was checked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.disk.data_root import RAFT_DATABASE, refuse_foreign
from runtime.disk.errors import (
    CannotUnseal,
    DiskFailed,
    DiskInUse,
    ForeignState,
    LogDamaged,
    NothingToForce,
    StateDamaged,
)
from runtime.disk.force import committed_membership, force_new_cluster
from runtime.disk.port import Database, Disk
from runtime.disk.raft_log import Loaded, RaftLog
from runtime.disk.raft_records import Member
from runtime.disk.sealer import Sealer
from runtime.disk.state_files import StateFiles
from runtime.errors import Refused
from runtime.pki.certificates import certificate_info
from runtime.pki.errors import InvalidCertificate, InvalidKey, InvalidUnlockKey
from runtime.pki.key_file import decode_key_file
from runtime.pki.pem import load_certificates
from runtime.raft.codec import decode_change
from runtime.raft.types import EntryType
from runtime.wire.pb import raft_pb2, snapshot_pb2


class Unsafe(Exception):
    """No new cluster is made: the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Survey:
    """One data root. ``trouble`` is empty when its log is sound; without that only what could be read is there."""

    place: str
    trouble: str = ""
    node_id: str = ""
    cluster_id: str = ""
    raft_id: int = 0
    addr: str = ""
    term: int = 0
    last_index: int = 0
    last_term: int = 0
    commit: int = 0
    snapshot: int = 0
    members: tuple[Member, ...] = ()

    @property
    def age(self) -> tuple[int, int]:
        """What logs are compared by: the newest is the greatest."""
        return self.last_term, self.last_index


class OpenRoot:
    """A data root held for this process, with its log loaded. Close it."""

    def __init__(self, disk: Disk, kek: bytes) -> None:
        """Raises what ``survey`` puts into words."""
        files = disk.files
        self._lock = files.lock()
        self._db: Database | None = None
        try:
            refuse_foreign(files)
            if not files.exists(RAFT_DATABASE):
                raise StateDamaged("it holds no raft log: this was no manager")
            state = StateFiles(files)
            certificate, key = state.load_node(lambda _certificate, _key: True) or (b"", b"")
            if not certificate:
                raise StateDamaged("it holds no certificate")
            self.info = certificate_info(load_certificates(certificate)[0])
            keys = decode_key_file(key, kek).data_keys
            if keys is None:
                raise StateDamaged("its key file holds no data key: this was no manager")
            self._db = disk.open_database(RAFT_DATABASE)
            sealed_with = (keys.pending, keys.current) if keys.pending else (keys.current,)
            self.log = RaftLog(self._db, Sealer(sealed_with, os.urandom))
            self.loaded: Loaded = self.log.load()
            self.state = state
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go."""
        if self._db is not None:
            self._db.close()
        self._lock.release()


_TROUBLES = (
    DiskInUse, DiskFailed, LogDamaged, CannotUnseal, StateDamaged, ForeignState, InvalidCertificate, InvalidKey,
    InvalidUnlockKey, Refused,
)  # fmt: skip


def survey(disk: Disk, place: str, kek: bytes = b"") -> Survey:
    """What one data root holds. ``kek`` opens the key file of a manager that locks itself."""
    try:
        root = OpenRoot(disk, kek)
    except _TROUBLES as error:
        return Survey(place, trouble=_in_words(error))
    try:
        return _describe(root, place)
    finally:
        root.close()


def _in_words(error: Exception) -> str:
    if isinstance(error, DiskInUse):
        return "a daemon runs on it: stop it first"
    if isinstance(error, InvalidUnlockKey):
        return "its key is locked: give the unlock key"
    text = error.text if isinstance(error, Refused) else str(error)
    return f"its log is damaged: {text}" if isinstance(error, LogDamaged) else text


def _describe(root: OpenRoot, place: str) -> Survey:
    loaded, owner = root.loaded, root.loaded.member
    last = loaded.entries[-1] if loaded.entries else None
    return Survey(
        place,
        trouble="" if owner is not None and not loaded.empty else "its log is empty",
        node_id=root.info.node_id,
        cluster_id=root.info.organization,
        raft_id=owner.raft_id if owner is not None else 0,
        addr=owner.addr if owner is not None else "",
        term=loaded.hard_state.term,
        last_index=last.index if last is not None else loaded.base_index,
        last_term=last.term if last is not None else loaded.base_term,
        commit=loaded.hard_state.commit,
        snapshot=loaded.snapshot.index if loaded.snapshot is not None else 0,
        members=_members(loaded),
    )


def _members(loaded: Loaded) -> tuple[Member, ...]:
    """The voters, with names and addresses as far as the log tells them."""
    book: dict[int, Member] = {}
    if loaded.snapshot is not None:
        for each in snapshot_pb2.Snapshot.FromString(loaded.snapshot.data).membership.members:
            book[each.raft_id] = Member(each.raft_id, each.node_id, each.addr)
    for entry in loaded.entries:
        if entry.type is not EntryType.NORMAL:
            context = decode_change(entry).context
            told = raft_pb2.RaftMember.FromString(context)
            if context:
                book[told.raft_id] = Member(told.raft_id, told.node_id, told.addr)
    voters = committed_membership(loaded).all_voters()
    return tuple(book.get(raft_id, Member(raft_id, "", "")) for raft_id in voters)


def choose(surveys: Sequence[Survey], pick: str = "") -> Survey:
    """The one that a new cluster may be made of: the newest, or ``pick`` if that is as new. ``Unsafe`` if none may."""
    for each in surveys:
        if each.trouble.startswith("a daemon runs"):
            raise Unsafe(f"{each.place}: {each.trouble}. While it runs its log still grows, and cannot be compared")
    sound = [each for each in surveys if not each.trouble]
    if len({each.cluster_id for each in sound}) > 1:
        names = ", ".join(f"{each.place} is of {each.cluster_id}" for each in sound)
        raise Unsafe(f"these are not of one cluster: {names}")
    if not sound:
        raise Unsafe("none of these data roots holds a log that a cluster could be made of: restore a backup")
    newest = max(sound, key=lambda each: each.age)
    if not pick:
        return newest
    picked = next((each for each in surveys if each.place == pick), None)
    if picked is None:
        raise Unsafe(f"{pick} is none of the data roots that were given")
    if picked.trouble:
        raise Unsafe(f"{pick} cannot be picked: {picked.trouble}")
    if picked.age < newest.age:
        raise Unsafe(
            f"{pick} ends with entry {picked.last_index} of term {picked.last_term}, {newest.place} with entry "
            f"{newest.last_index} of term {newest.last_term}: what the cluster acknowledged in between would be lost"
        )
    return picked


def make_new_cluster(disk: Disk, order: str, kek: bytes = b"") -> int:
    """Makes the manager of a data root the only one of its cluster, in one synced write; the index of its last entry.

    Its certificate, the tokens, nodes, services and secrets stay. ``Unsafe`` if that cannot be done.
    """
    try:
        root = OpenRoot(disk, kek)
    except _TROUBLES as error:
        raise Unsafe(_in_words(error)) from error
    try:
        force_new_cluster(root.log, root.loaded, order, keep_tail=True)
        last = root.log.load().hard_state.commit
        root.state.save_remotes(())  # the other managers are not to be asked for anything any more
        return last
    except (NothingToForce, DiskFailed, LogDamaged) as error:
        raise Unsafe(str(error)) from error
    finally:
        root.close()
