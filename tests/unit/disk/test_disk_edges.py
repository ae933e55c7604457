"""Edges of the disk: error paths of the databases, descriptors, locks, crash order of removals, space kept back."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import stat
from pathlib import Path
from typing import Any

import pytest

from runtime.disk import level
from runtime.disk.ballast import BALLAST, Ballast
from runtime.disk.data_root import RAFT_DATABASE, clear_data_root, inspect_data_root
from runtime.disk.errors import (
    CannotUnseal,
    DiskDamaged,
    DiskFailed,
    DiskInUse,
    ForeignState,
    LogDamaged,
    StateDamaged,
)
from runtime.disk.memory import MemoryDisk
from runtime.disk.port import Disk
from runtime.disk.raft_log import RaftLog
from runtime.disk.raft_records import Member
from runtime.disk.real import RealDisk
from runtime.disk.sealer import Sealer
from runtime.disk.state_files import (
    DOCKER_STATE,
    NEW_NODE_CERT,
    NODE_CERT,
    NODE_KEY,
    DockerState,
    Remote,
    StateFiles,
)
from runtime.disk.tasks import TaskDatabase
from runtime.raft.types import ConfState, Entry, EntryType, HardState, Snapshot
from tests.descriptors import open_files, opened_since
from tests.seeded import entropy
from tests.unit.disk.test_disk import a_log, entries


@pytest.fixture(params=["memory", "real"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return MemoryDisk() if request.param == "memory" else RealDisk(tmp_path / "root")


# Databases


def test_iteration_sees_the_state_at_the_call(disk: Disk) -> None:
    db = disk.open_database("db")
    db.write([(b"a", b"1"), (b"b", b"2")], sync=True)
    pairs = db.iterate(b"", b"\xff")
    db.write([(b"c", b"3")], [b"a"], sync=True)
    assert list(pairs) == [(b"a", b"1"), (b"b", b"2")]
    db.close()


def test_iterating_over_a_closed_database_fails_at_the_call(disk: Disk) -> None:
    db = disk.open_database("db")
    db.close()
    with pytest.raises(DiskFailed):
        db.iterate(b"", b"\xff")


def test_an_iteration_that_is_left_half_way_does_not_keep_the_database(tmp_path: Path) -> None:
    before = open_files()
    disk = RealDisk(tmp_path)
    db = disk.open_database("db")
    db.write([(bytes([number]), b"x" * 1000) for number in range(200)], sync=True)
    pairs = db.iterate(b"", b"\xff")
    assert next(pairs) == (b"\x00", b"x" * 1000)
    db.close()
    with pytest.raises(DiskFailed):
        list(pairs)
    del pairs, db
    disk.open_database("db").close()
    assert opened_since(before) == []


def damage_a_table(path: Path) -> None:
    table = max(path.glob("*.ldb"), key=lambda each: each.stat().st_size)
    content = bytearray(table.read_bytes())
    content[len(content) // 3] ^= 16
    table.write_bytes(bytes(content))


def with_a_table(tmp_path: Path) -> Path:
    """A database whose content is in a table: what LevelDB writes of a log when it is opened again."""
    disk = RealDisk(tmp_path)
    db = disk.open_database("db")
    rng = random.Random(1)
    db.write([(b"%04d" % number, rng.randbytes(300)) for number in range(500)], sync=True)
    db.close()
    disk.open_database("db").close()
    return tmp_path / "db"


def test_a_flipped_bit_in_a_table_is_found_by_the_reader_and_ends_the_handle(tmp_path: Path) -> None:
    before = open_files()
    damage_a_table(with_a_table(tmp_path))
    db = RealDisk(tmp_path).open_database("db")
    with pytest.raises(DiskDamaged):
        list(db.iterate(b"", b"\xff"))
    with pytest.raises(DiskFailed, match="a read failed"):
        db.get(b"0001")
    db.close()
    del db
    assert opened_since(before) == []


def test_a_database_that_does_not_open_leaves_nothing_open(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    disk.open_database("db").close()
    (tmp_path / "db" / "CURRENT").write_text("nonsense\n")
    before = open_files()
    for _ in range(3):
        with pytest.raises(DiskFailed):
            disk.open_database("db")
    assert opened_since(before) == []


def test_a_second_handle_is_refused_and_the_first_stays_good(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    db = disk.open_database("db")
    for _ in range(2):
        with pytest.raises(DiskInUse):
            disk.open_database("db")
    db.write([(b"a", b"1")], sync=True)
    assert db.get(b"a") == b"1"
    db.close()


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("IO error: lock /d/my lock /LOCK: already held by process", True),
        ("IO error: lock /d/my lock /LOCK: Resource temporarily unavailable", True),
        ("IO error: lock /d/my lock /LOCK: No locks available", False),
        ("IO error: /d/my lock /LOCK: Permission denied", False),
        ("IO error: /d/my lock /MANIFEST-000001: No space left on device", False),
    ],
)
def test_only_a_lock_that_somebody_holds_is_use_by_another(text: str, held: bool) -> None:
    assert level._is_held("/d/my lock ", text) is held


def test_the_directory_of_a_database_is_private(tmp_path: Path) -> None:
    RealDisk(tmp_path / "deep" / "root").open_database("raft/log").close()
    for name in ("deep", "deep/root", "deep/root/raft", "deep/root/raft/log"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_where_a_directory_belongs_is_a_failure_of_the_disk(disk: Disk, name: str) -> None:
    disk.files.write_atomic("file", b"x", 0o600)
    with pytest.raises(DiskFailed):
        disk.files.make_dirs(name, 0o700)


def test_a_lying_disk_loses_what_it_said_was_synced() -> None:
    disk = MemoryDisk()
    db = disk.open_database("db")
    db.write([(b"a", b"1")], sync=True)
    disk.image("db").lying = True
    db.write([(b"b", b"2")], sync=True)
    lost = []
    for seed in range(20):
        twin = MemoryDisk()
        image = twin.image("db")
        image.synced, image.tail = dict(disk.image("db").synced), list(disk.image("db").tail)
        twin.crash(random.Random(seed))
        assert image.synced[b"a"] == b"1"
        lost.append(b"b" not in image.synced)
    assert True in lost


def test_a_sync_after_a_rotation_of_the_log_says_nothing_of_what_came_before_it() -> None:
    outcomes = set()
    for seed in range(40):
        disk = MemoryDisk()
        db = disk.open_database("db")
        disk.image("db").rotates = True
        for key, sync in ((b"a", True), (b"b", False), (b"c", False), (b"d", True), (b"e", False)):
            db.write([(key, b"x")], sync=sync)
        disk.crash(random.Random(seed))
        outcomes.add(bytes(key[0] for key in disk.image("db").synced))
    assert all(b"a" in kept and b"d" in kept for kept in outcomes)
    assert {kept.rstrip(b"e") for kept in outcomes} == {b"ad", b"abd", b"acd", b"abcd"}


# Locks and files


def test_a_lock_that_cannot_be_had_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RealDisk(tmp_path).files

    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    before = open_files()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(DiskFailed, match="No locks available"):
        files.lock()
    assert opened_since(before) == []


def test_a_lock_ends_with_its_holder_and_survives_the_clearing_of_the_root(tmp_path: Path) -> None:
    files = RealDisk(tmp_path).files
    before = open_files()
    lock = files.lock()
    clear_data_root(files)
    with pytest.raises(DiskInUse):
        RealDisk(tmp_path).files.lock()
    lock.release()
    lock.release()
    RealDisk(tmp_path).files.lock().release()
    assert opened_since(before) == []


def test_a_lock_is_not_handed_to_programs_that_are_started(tmp_path: Path) -> None:
    lock = RealDisk(tmp_path).files.lock()
    assert fcntl.fcntl(lock._fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    lock.release()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_on_the_real_disk_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    files = RealDisk(tmp_path).files
    files.write_atomic("a", b"old", 0o600)
    before = open_files()

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(DiskFailed, match="Input/output error"):
            files.write_atomic("a", b"new", 0o600)
    assert files.read("a") == b"old"
    assert files.listdir("") == ["a"]
    assert opened_since(before) == []


def test_a_secret_is_private_from_its_first_byte_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    sync = os.fsync

    def look(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        sync(fd)

    monkeypatch.setattr(os, "fsync", look)
    old = os.umask(0)
    try:
        RealDisk(tmp_path).files.write_atomic("key", b"secret", 0o600)
    finally:
        os.umask(old)
    assert seen == [0o600]


# The data root


def a_member(disk: Disk) -> StateFiles:
    state = StateFiles(disk.files)
    state.save_docker_state(DockerState())
    state.save_root_certificate(b"root")
    state.save_node(b"cert", b"key")
    state.save_remotes([Remote("n1", "a:1")])
    disk.open_database(RAFT_DATABASE).close()
    disk.open_database("worker/tasks.db").close()
    return state


class Stop(Exception):
    """Ends a removal half-way."""


@pytest.mark.parametrize("removals", range(6))
def test_a_removal_that_was_cut_short_leaves_a_node_in_no_swarm_that_can_begin_anew(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    a_member(disk)
    removed: list[str] = []
    remove = type(disk.files).remove_tree

    def counted(files: Any, path: str) -> None:
        if len(removed) == removals:
            raise Stop
        removed.append(path)
        remove(files, path)

    with monkeypatch.context() as patch:
        patch.setattr(type(disk.files), "remove_tree", counted)
        with pytest.raises(Stop):
            clear_data_root(disk.files)
    state = inspect_data_root(disk.files)
    assert (state is None) == (removals > 0)
    clear_data_root(disk.files)
    assert disk.files.listdir("") == []


@pytest.mark.parametrize("path", ["raft/wal-v3-encrypted/0.wal", "worker/tasks.db"])
def test_what_is_another_programs_is_not_cleared_whoever_asks(disk: Disk, path: str) -> None:
    disk.files.make_dirs(path.rpartition("/")[0], 0o700)
    disk.files.write_atomic(path, b"theirs", 0o600)
    StateFiles(disk.files).save_node(b"cert", b"key")
    with pytest.raises(ForeignState):
        clear_data_root(disk.files)
    assert disk.files.read(path) == b"theirs"
    assert disk.files.exists(NODE_CERT)


def test_a_log_with_certificate_but_without_state_is_left_alone(disk: Disk) -> None:
    a_member(disk)
    disk.files.remove(DOCKER_STATE)
    assert inspect_data_root(disk.files) is None
    assert disk.files.exists(RAFT_DATABASE)


@pytest.mark.parametrize("missing", [NODE_CERT, NODE_KEY])
def test_half_a_pair_is_named_not_taken_for_none(disk: Disk, missing: str) -> None:
    state = a_member(disk)
    disk.files.remove(missing)
    with pytest.raises(StateDamaged, match=f"{missing} is missing"):
        state.load_node(lambda certificate, key: True)


def test_a_new_certificate_that_never_got_its_key_is_removed(disk: Disk) -> None:
    state = a_member(disk)
    disk.files.write_atomic(NEW_NODE_CERT, b"cert2", 0o644)
    assert state.load_node(lambda certificate, key: certificate == b"cert") == (b"cert", b"key")
    assert not disk.files.exists(NEW_NODE_CERT)


# Log and tasks


def test_a_long_log_is_appended_to_overwritten_and_read_back(disk: Disk) -> None:
    db = disk.open_database(RAFT_DATABASE)
    log = RaftLog(db, Sealer((b"k" * 32,), entropy(5)))
    log.load()
    rng = random.Random(2)
    expected: list[tuple[int, int]] = []
    commit = 0
    for term in range(1, 40):
        first = rng.randint(commit + 1, len(expected) + 1)
        batch = [Entry(term, index, EntryType.NORMAL, b"x") for index in range(first, first + rng.randint(1, 6))]
        commit = rng.randint(commit, first - 1)
        log.append(batch, HardState(term, 1, commit))
        expected[first - 1 :] = [(entry.index, entry.term) for entry in batch]
        assert log.last_index == len(expected)
    db.close()
    again = RaftLog(disk.open_database(RAFT_DATABASE), Sealer((b"k" * 32,), entropy(5)))
    loaded = again.load()
    assert [(entry.index, entry.term) for entry in loaded.entries] == expected
    assert loaded.hard_state.commit == commit


def test_an_append_that_failed_is_not_counted(disk: Disk) -> None:
    db = disk.open_database(RAFT_DATABASE)
    log = RaftLog(db, Sealer((b"k" * 32,), entropy(5)))
    log.load()
    log.append([Entry(1, 1, EntryType.NORMAL, b"a")], HardState(1, 1, 0))
    with pytest.raises(RuntimeError):
        log.append([Entry(1, 2, EntryType.NORMAL, b"b")], HardState(1, 1, 9))
    assert log.last_index == 1
    log.append([Entry(1, 2, EntryType.NORMAL, b"b")])
    db.close()


def test_a_log_that_is_damaged_lets_go_of_its_database(tmp_path: Path) -> None:
    before = open_files()
    disk = RealDisk(tmp_path)
    db = disk.open_database(RAFT_DATABASE)
    sealer = Sealer((b"k" * 32,), entropy(5))
    log = RaftLog(db, sealer)
    log.load()
    log.append([Entry(1, index, EntryType.NORMAL, b"a") for index in range(1, 9)], HardState(1, 1, 0))
    db.write([], [b"e" + (4).to_bytes(8, "big")], sync=True)
    with pytest.raises(LogDamaged, match="entry 4 is missing"):
        RaftLog(db, sealer).load()
    db.close()
    disk.open_database(RAFT_DATABASE).close()
    del db, log
    assert opened_since(before) == []


def test_a_key_that_is_no_tasks_is_damage(disk: Disk) -> None:
    db = disk.open_database("worker/tasks.db")
    db.write([(b"v1/tasks/\xff\xfe/data", b"x")], sync=True)
    with pytest.raises(StateDamaged, match="no task's"):
        TaskDatabase(db).load()
    db.close()


# Space


def test_space_is_kept_back_given_up_and_taken_again_with_a_gap() -> None:
    files = MemoryDisk().files
    files.free = 1000
    ballast = Ballast(files, size=100, low_water=100)
    assert ballast.check()
    assert files.free == 900
    files.free = 99
    assert not ballast.check()
    assert files.free == 199
    assert not files.exists(BALLAST)
    for free in (100, 199, 249):
        files.free = free
        assert not ballast.check()
    files.free = 250
    assert ballast.check()
    assert Ballast(files, size=100, low_water=100).held


def test_space_that_somebody_else_took_first_is_no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    files = MemoryDisk().files
    files.free = 50
    monkeypatch.setattr(files, "free_bytes", lambda: 1000)
    assert not Ballast(files, size=100, low_water=100).check()


def test_what_is_reserved_takes_up_its_space_and_goes_with_the_node(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    ballast = Ballast(disk.files, size=1 << 20, low_water=0)
    assert ballast.check()
    found = (tmp_path / BALLAST).stat()
    assert found.st_size == 1 << 20
    assert found.st_blocks * 512 >= 1 << 20
    assert stat.S_IMODE(found.st_mode) == 0o600
    clear_data_root(disk.files)
    assert disk.files.listdir("") == []


def test_a_reserve_that_does_not_fit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RealDisk(tmp_path).files

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = open_files()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFailed, match="No space left"):
        files.reserve("ballast", 1 << 20)
    assert files.listdir("") == []
    assert opened_since(before) == []


@pytest.mark.parametrize("seed", range(40))
def test_a_bit_flipped_anywhere_in_a_real_database_is_found_or_changes_nothing(tmp_path: Path, seed: int) -> None:
    """Log, tables, manifest and CURRENT alike: never is a log loaded that is not what was written."""
    rng = random.Random(seed)
    disk = RealDisk(tmp_path)
    log, _, db = a_log(disk)
    log.set_member(Member(7, "node", "addr:1"))
    for first in range(1, 200, 20):
        log.append(entries(first, first + 19, size=300), HardState(1, 7, first))
        if seed % 2:
            db.close()  # the next opening makes a table of what was in the write-ahead log
            log, _, db = a_log(disk)
    log.save_snapshot(Snapshot(100, 1, ConfState((7,)), bytes(range(256)) * 8))
    log.compact(80)
    before = log.load()
    db.close()
    kept = [path for path in sorted((tmp_path / RAFT_DATABASE).iterdir()) if path.stat().st_size]
    path = rng.choice([path for path in kept if path.name not in ("LOG", "LOG.old", "LOCK")])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))
    try:
        _, loaded, again = a_log(disk)
    except (DiskFailed, LogDamaged, CannotUnseal):
        return
    again.close()
    assert loaded == before
