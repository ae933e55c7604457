"""The cluster layer's state on disk: what is kept, what is not, what is refused and what is never touched."""

from __future__ import annotations

import json

import pytest

from runtime.disk.data_root import RAFT_DATABASE
from runtime.disk.memory import MemoryDisk
from runtime.disk.state_files import DOCKER_STATE, StateFiles
from runtime.pki.unlock_key import UnlockKeyBox
from runtime.protocol.cluster import ClusterError
from runtime.protocol.node import ClusterState, StartConfig
from swarmlet.cluster_state import FileClusterState

INIT = StartConfig(
    local_addr="10.77.0.1",
    listen_addr="0.0.0.0:2377",
    advertise_addr="10.77.0.1:2377",
    default_address_pool=(),
    subnet_size=24,
    data_path_port=4789,
)


def state_on(disk: MemoryDisk) -> ClusterState:
    return FileClusterState(disk.files)


def with_certificate(disk: MemoryDisk) -> MemoryDisk:
    StateFiles(disk.files).save_node(b"cert", b"key")
    return disk


def test_a_new_disk_is_in_no_swarm() -> None:
    assert state_on(MemoryDisk()).load() is None


def test_what_is_saved_is_dockerds_file() -> None:
    disk = MemoryDisk()
    state_on(disk).save(INIT)
    assert disk.files.read(DOCKER_STATE) == (
        b'{"LocalAddr":"10.77.0.1","RemoteAddr":"","ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"10.77.0.1:2377",'
        b'"DataPathAddr":"","DefaultAddressPool":[],"SubnetSize":24,"DataPathPort":4789,"JoinInProgress":false}'
    )
    assert disk.files.mode(DOCKER_STATE) == 0o600


def test_what_was_saved_comes_back_with_a_certificate() -> None:
    disk = with_certificate(MemoryDisk())
    state_on(disk).save(INIT)
    assert state_on(disk).load() == INIT


def test_secrets_and_what_lives_with_the_process_are_not_kept() -> None:
    disk = with_certificate(MemoryDisk())
    config = StartConfig(
        remote_addr="10.0.0.1:2377", join_addr="10.0.0.1:2377", join_token="SWMTKN-1-x", lock=UnlockKeyBox(b"key")
    )
    state_on(disk).save(config)
    kept = disk.files.read(DOCKER_STATE)
    assert kept is not None
    assert b"SWMTKN" not in kept
    assert set(json.loads(kept)) & {"JoinToken", "LockKey", "JoinAddr"} == set()
    loaded = state_on(disk).load()
    assert loaded is not None
    assert (loaded.join_addr, loaded.join_token, loaded.lock.key) == ("", "", b"")


def test_a_join_that_was_under_way_goes_on_at_the_remote_address() -> None:
    disk = with_certificate(MemoryDisk())
    state_on(disk).save(StartConfig(remote_addr="10.0.0.1:2377", join_in_progress=True))
    loaded = state_on(disk).load()
    assert loaded is not None
    assert (loaded.join_addr, loaded.default_address_pool) == ("10.0.0.1:2377", None)


def test_state_without_certificate_is_a_failed_attempt_and_is_cleared() -> None:
    disk = MemoryDisk()
    state_on(disk).save(INIT)
    assert state_on(disk).load() is None
    assert disk.files.listdir("") == []


def test_a_raft_log_without_certificate_is_refused_and_kept() -> None:
    disk = MemoryDisk()
    state_on(disk).save(INIT)
    disk.open_database(RAFT_DATABASE).close()
    with pytest.raises(ClusterError, match="only copy of a cluster"):
        state_on(disk).load()
    assert disk.files.exists(RAFT_DATABASE)
    assert disk.files.exists(DOCKER_STATE)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"New":1}', b'{"SubnetSize":"x"}'])
def test_state_that_cannot_be_understood_is_refused_and_kept(content: bytes) -> None:
    disk = with_certificate(MemoryDisk())
    disk.files.write_atomic(DOCKER_STATE, content, 0o600)
    with pytest.raises(ClusterError, match=DOCKER_STATE) as refused:
        state_on(disk).load()
    assert refused.value.kind == "plain"
    assert disk.files.read(DOCKER_STATE) == content


def test_another_programs_swarm_is_neither_loaded_nor_cleared() -> None:
    disk = with_certificate(MemoryDisk())
    disk.files.make_dirs("raft/wal-v3-encrypted", 0o700)
    for call in (state_on(disk).load, state_on(disk).clear):
        with pytest.raises(ClusterError, match="another program"):
            call()
    assert disk.files.exists("raft/wal-v3-encrypted")


def test_clearing_leaves_what_is_not_ours() -> None:
    disk = with_certificate(MemoryDisk())
    disk.files.write_atomic("photo.jpg", b"mine", 0o644)
    state_on(disk).save(INIT)
    state_on(disk).clear()
    state_on(disk).clear()
    assert disk.files.listdir("") == ["photo.jpg"]
