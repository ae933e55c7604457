"""Backups: what is written is what is restored, or nothing is; and where a restored log may go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.disk.backup import Backup, BadBackup, pack, restore, unpack
from runtime.disk.memory import MemoryDisk
from runtime.disk.port import Disk
from runtime.disk.raft_records import Member
from runtime.disk.state_files import DOCKER_STATE, NODE_CERT, NODE_KEY, ROOT_CERT
from runtime.disk.survey import survey
from runtime.pki.key_file import DataKeys, KeyFile, encode_key_file
from runtime.pki.keys import load_key
from runtime.raft.types import ConfState, Snapshot
from runtime.wire.pb import snapshot_pb2
from tests.seeded import entropy
from tests.unit.disk.test_disk import disk
from tests.unit.wire.authority import CLUSTER, authority

__all__ = ["disk"]
STATE = snapshot_pb2.Snapshot().SerializeToString() + b"\x12\x04\x0a\x02\x08\x07"
KEK = bytes(range(32))


def a_backup(*voters: int, kek: bytes = b"") -> Backup:
    certificate, key = authority().issue("node1", "swarm-manager")
    content = KeyFile(load_key(key), 1 if kek else 0, DataKeys(bytes(32)))
    files = {
        ROOT_CERT: authority().pem,
        NODE_CERT: certificate,
        NODE_KEY: encode_key_file(content, kek, entropy(2)),
        DOCKER_STATE: b"{}",
    }
    snapshot = Snapshot(41, 3, ConfState(voters or (7,)), STATE)
    return Backup(1.7e9, "node1", CLUSTER, Member(7, "node1", "10.0.0.1:2377"), snapshot, files)


def test_a_backup_survives_its_file() -> None:
    backup = a_backup(7, 8)
    assert unpack(pack(backup)) == backup
    assert backup.files[NODE_KEY].decode() not in repr(backup)


WHOLE = pack(a_backup())


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7))
def test_a_file_that_is_not_what_was_written_is_refused(position: int, bit: int) -> None:
    flipped = bytearray(WHOLE)
    flipped[position] ^= 1 << bit
    for bad in (bytes(flipped), WHOLE[:position]):
        with pytest.raises(BadBackup):
            unpack(bad)


def test_the_only_manager_is_restored_as_it_was(disk: Disk) -> None:
    backup = a_backup()
    assert restore(disk, backup) == 41
    found = survey(disk, "a")
    assert (found.trouble, found.node_id, found.last_index, found.commit, found.snapshot) == ("", "node1", 41, 41, 41)
    for name, content in backup.files.items():
        assert disk.files.read(name) == content


def test_one_of_several_is_restored_as_a_new_cluster_only(disk: Disk) -> None:
    backup = a_backup(7, 8, 9)
    with pytest.raises(BadBackup, match="--as-new-cluster"):
        restore(disk, backup)
    assert disk.files.listdir("") == []
    assert restore(disk, backup, order="order") == 43
    assert [member.raft_id for member in survey(disk, "a").members] == [7]


def test_a_data_root_in_use_is_left_alone(disk: Disk) -> None:
    disk.files.write_atomic("something", b"", 0o600)
    with pytest.raises(BadBackup, match="not empty"):
        restore(disk, a_backup())
    assert disk.files.listdir("") == ["something"]


def test_a_locked_managers_backup_needs_the_unlock_key(disk: Disk) -> None:
    for wrong in (b"", bytes(32)):
        with pytest.raises(BadBackup, match="unlock key"):
            restore(disk, a_backup(kek=KEK), kek=wrong)
        assert disk.files.listdir("") == []
    assert restore(disk, a_backup(kek=KEK), kek=KEK) == 41


@pytest.mark.parametrize("files_written", range(4))
def test_a_restore_that_fails_half_way_leaves_nothing(files_written: int) -> None:
    disk = MemoryDisk()
    disk.files.fail_after = files_written
    with pytest.raises(BadBackup, match="nothing was restored"):
        restore(disk, a_backup())
    disk.files.fail_after = None
    left = [name for name in disk.files.listdir("") if not name.startswith(".tmp-")]
    assert left == []
    disk.files.lock().release()


def test_files_that_no_node_has_are_not_written() -> None:
    backup = a_backup()
    backup.files["../../etc/passwd"] = b""
    with pytest.raises(BadBackup, match="malformed"):
        unpack(pack(backup))
