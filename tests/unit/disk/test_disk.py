"""Databases (real and simulated alike), the raft log, the agent's tasks, state files and the data root."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.disk.data_root import RAFT_DATABASE, inspect_data_root
from runtime.disk.errors import CannotUnseal, DiskFailed, DiskInUse, ForeignState, LogDamaged, StateDamaged
from runtime.disk.memory import MemoryDisk
from runtime.disk.port import Database, Disk
from runtime.disk.raft_log import Loaded, RaftLog
from runtime.disk.raft_records import Member
from runtime.disk.real import RealDisk
from runtime.disk.sealer import Sealer
from runtime.disk.state_files import (
    NEW_NODE_CERT,
    NODE_CERT,
    NODE_KEY,
    DockerState,
    Remote,
    StateFiles,
    decode_docker_state,
    decode_remotes,
    encode_docker_state,
    encode_remotes,
)
from runtime.disk.tasks import TaskDatabase
from runtime.failpoints import armed
from runtime.raft.types import ConfState, Entry, EntryType, HardState, Snapshot
from runtime.wire.pb import objects_pb2, types_pb2
from tests.seeded import entropy

KEY, OTHER_KEY = b"k" * 32, b"o" * 32


class Crash(Exception):
    """What an armed failpoint raises."""


def crash_at(name: str) -> Callable[[str], None]:
    def hook(reached: str) -> None:
        if reached == name:
            raise Crash(name)

    return hook


@pytest.fixture(params=["memory", "real"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return MemoryDisk() if request.param == "memory" else RealDisk(tmp_path / "root")


@pytest.fixture
def db(disk: Disk) -> Iterator[Database]:
    opened = disk.open_database("some/db")
    yield opened
    opened.close()


def a_sealer(*keys: bytes) -> Sealer:
    return Sealer(keys or (KEY,), entropy(5))


def entries(first: int, last: int, term: int = 1, size: int = 5) -> list[Entry]:
    return [Entry(term, index, EntryType.NORMAL, bytes([index % 251]) * size) for index in range(first, last + 1)]


def a_log(disk: Disk, *keys: bytes) -> tuple[RaftLog, Loaded, Database]:
    db = disk.open_database(RAFT_DATABASE)
    log = RaftLog(db, a_sealer(*keys), chunk_bytes=100)
    return log, log.load(), db


def reload(disk: Disk, db: Database) -> Loaded:
    db.close()
    _, loaded, again = a_log(disk)
    again.close()
    return loaded


def test_a_batch_is_read_back_in_order(db: Database) -> None:
    db.write([(b"b", b"2"), (b"a", b"1"), (b"c", b"")], sync=True)
    db.write([(b"d", b"4")], [b"a", b"nothing"], sync=False)
    assert list(db.iterate(b"", b"\xff")) == [(b"b", b"2"), (b"c", b""), (b"d", b"4")]
    assert list(db.iterate(b"b", b"d")) == [(b"b", b"2"), (b"c", b"")]
    assert (db.get(b"c"), db.get(b"a")) == (b"", None)


def test_a_closed_database_fails_every_call(db: Database) -> None:
    db.close()
    db.close()
    for call in (lambda: db.get(b"a"), lambda: db.write([], sync=True), lambda: list(db.iterate(b"", b"z"))):
        with pytest.raises(DiskFailed):
            call()


def test_a_database_is_open_once_and_keeps_its_content(disk: Disk) -> None:
    first = disk.open_database("db")
    with pytest.raises(DiskInUse):
        disk.open_database("db")
    first.write([(b"a", b"1")], sync=False)
    first.close()
    second = disk.open_database("db")
    assert second.get(b"a") == b"1"
    second.close()


def test_a_real_database_is_dead_after_a_failed_write(tmp_path: Path) -> None:
    db = RealDisk(tmp_path).open_database("db")
    with pytest.raises(DiskFailed):
        db.write([(b"a", None)], sync=True)  # type: ignore[list-item]
    with pytest.raises(DiskFailed, match="a write failed"):
        db.write([(b"a", b"1")], sync=True)
    again = RealDisk(tmp_path).open_database("db")
    assert again.get(b"a") is None
    again.close()


def test_a_flipped_bit_on_the_real_disk_is_noticed(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    db = disk.open_database("db")
    for number in range(50):
        db.write([(b"key%d" % number, b"v" * 200)], sync=True)
    db.close()
    log = max((tmp_path / "db").glob("*.log"), key=lambda path: path.stat().st_size)
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 4
    log.write_bytes(bytes(content))
    with pytest.raises(DiskFailed):
        disk.open_database("db")


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 2**32))
def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest(syncs: list[bool], seed: int) -> None:
    disk = MemoryDisk()
    db = disk.open_database("db")
    for number, sync in enumerate(syncs):
        db.write([(bytes([number]), b"x")], sync=sync)
    disk.crash(random.Random(seed))
    with pytest.raises(DiskFailed):
        db.get(b"a")
    kept = [key[0] for key, _ in disk.open_database("db").iterate(b"", b"\xff")]
    synced = max((number + 1 for number, sync in enumerate(syncs) if sync), default=0)
    assert kept == list(range(len(kept)))
    assert len(kept) >= synced


def test_a_killed_process_loses_nothing_it_had_written() -> None:
    disk = MemoryDisk()
    disk.open_database("db").write([(b"a", b"1")], sync=False)
    disk.kill()
    assert disk.open_database("db").get(b"a") == b"1"


def test_a_full_disk_and_a_failed_sync_kill_the_handle() -> None:
    disk = MemoryDisk()
    for switch in ("full", "sync"):
        db = disk.open_database("db")
        image = disk.image("db")
        (image.full_after if switch == "full" else image.sync_error_at)(1)
        db.write([(b"a", b"1")], sync=True)
        with pytest.raises(DiskFailed):
            db.write([(b"b", b"2")], sync=True)
        with pytest.raises(DiskFailed):
            db.write([(b"c", b"3")], sync=True)
        image.heal()
        assert (image.refused_writes, image.failed_syncs) == (1, switch == "sync")


def test_files_are_written_whole_with_their_mode(disk: Disk) -> None:
    files = disk.files
    files.make_dirs("a/b", 0o755)
    files.write_atomic("a/b/c", b"one", 0o600)
    files.write_atomic("a/b/c", b"two", 0o644)
    assert files.read("a/b/c") == b"two"
    assert files.listdir("a/b") == ["c"]
    assert files.is_file("a/b/c")
    assert not files.is_file("a/b")
    files.rename("a/b/c", "a/b/d")
    assert (files.read("a/b/c"), files.read("a/b/d")) == (None, b"two")
    files.remove("a/b/d")
    files.remove("a/b/d")
    files.remove_tree("a")
    assert (files.exists("a"), files.listdir("a")) == (False, [])


def test_emptying_a_directory_keeps_it(disk: Disk) -> None:
    disk.files.make_dirs("a/b/c", 0o700)
    disk.files.write_atomic("a/x", b"", 0o600)
    disk.files.remove_tree_contents("a")
    assert disk.files.exists("a")
    assert disk.files.listdir("a") == []


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_no_path_leads_out_of_the_data_root(disk: Disk, path: str) -> None:
    with pytest.raises(AssertionError):
        disk.files.read(path)


def test_modes_are_exact_on_the_real_disk(tmp_path: Path) -> None:
    files = RealDisk(tmp_path / "root").files
    files.write_atomic("f", b"", 0o644)
    files.write_atomic("g", b"", 0o600)
    assert [(tmp_path / "root" / name).stat().st_mode & 0o777 for name in "fg"] == [0o644, 0o600]
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700


def test_a_data_root_has_one_owner(disk: Disk) -> None:
    lock = disk.files.lock()
    with pytest.raises(DiskInUse):
        disk.files.lock()
    lock.release()
    lock.release()
    disk.files.lock().release()


def test_a_write_that_fails_leaves_the_old_file() -> None:
    files = MemoryDisk().files
    files.write_atomic("f", b"old", 0o600)
    files.fail_after = 0
    with pytest.raises(DiskFailed):
        files.write_atomic("f", b"new content", 0o600)
    assert files.read("f") == b"old"
    assert files.listdir("") == [".tmp-f", "f"]


def test_a_new_log_is_empty(disk: Disk) -> None:
    _, loaded, db = a_log(disk)
    assert loaded.empty
    db.close()


def test_a_log_gives_back_what_was_appended(disk: Disk) -> None:
    log, _, db = a_log(disk)
    log.set_member(Member(7, "node", "addr:1"))
    log.append(entries(1, 5), HardState(1, 7, 0))
    log.append([], HardState(1, 7, 5))
    log.append([Entry(2, 6, EntryType.CONF_CHANGE, b"")], HardState(2, 2**63, 5))
    loaded = reload(disk, db)
    assert loaded.entries == [*entries(1, 5), Entry(2, 6, EntryType.CONF_CHANGE, b"")]
    assert loaded.hard_state == HardState(2, 2**63, 5)
    assert loaded.member == Member(7, "node", "addr:1")
    assert (loaded.snapshot, loaded.base_index, loaded.empty) == (None, 0, False)


def test_a_new_term_replaces_the_uncommitted_tail(disk: Disk) -> None:
    log, _, db = a_log(disk)
    log.append(entries(1, 9), HardState(1, 1, 3))
    log.append(entries(5, 6, term=2), HardState(2, 1, 4))
    assert log.last_index == 6
    assert reload(disk, db).entries == entries(1, 4) + entries(5, 6, term=2)


@pytest.mark.parametrize("batch", [entries(3, 4), entries(7, 8), [*entries(6, 6), *entries(8, 8)]])
def test_entries_that_do_not_join_are_a_broken_promise(batch: list[Entry]) -> None:
    log, _, _ = a_log(MemoryDisk())
    log.append(entries(1, 5), HardState(1, 1, 4))
    with pytest.raises(RuntimeError):
        log.append(batch)


@pytest.mark.parametrize("commit", [2, 6])
def test_commit_neither_falls_nor_passes_the_end(commit: int) -> None:
    log, _, _ = a_log(MemoryDisk())
    log.append(entries(1, 5), HardState(1, 1, 3))
    with pytest.raises(RuntimeError):
        log.append([], HardState(1, 1, commit))


CONF = ConfState(voters=(1, 2), voters_outgoing=(3,), learners=(4,), learners_next=(5,), auto_leave=True)


@pytest.mark.parametrize("size", [0, 1, 100, 101, 999])
def test_a_snapshot_of_our_own_leaves_the_log(disk: Disk, size: int) -> None:
    log, _, db = a_log(disk)
    log.append(entries(1, 9), HardState(1, 1, 8))
    snapshot = Snapshot(8, 1, CONF, bytes(range(256)) * 4)
    snapshot = Snapshot(8, 1, CONF, snapshot.data[:size])
    log.save_snapshot(snapshot)
    log.compact(5)
    log.append(entries(10, 10))
    loaded = reload(disk, db)
    assert loaded.snapshot == snapshot
    assert loaded.entries == entries(6, 10)
    assert (loaded.base_index, loaded.base_term) == (5, 1)


def test_a_snapshot_from_the_leader_takes_the_place_of_the_log(disk: Disk) -> None:
    log, _, db = a_log(disk)
    log.append(entries(1, 9), HardState(1, 1, 3))
    log.save_snapshot(Snapshot(50, 4, CONF, b"s"), HardState(4, 0, 50))
    log.append(entries(51, 52, term=4))
    loaded = reload(disk, db)
    assert loaded.entries == entries(51, 52, term=4)
    assert (loaded.base_index, loaded.base_term, loaded.hard_state.commit) == (50, 4, 50)


def test_snapshots_follow_each_other_and_leave_nothing_behind(disk: Disk) -> None:
    log, _, db = a_log(disk)
    log.append(entries(1, 30), HardState(1, 1, 30))
    for index in (10, 20, 30):
        log.save_snapshot(Snapshot(index, 1, CONF, bytes(350)))
        log.compact(index - 2)
    assert len(list(db.iterate(b"c", b"d"))) == 4
    assert len(list(db.iterate(b"e", b"f"))) == 2
    log.compact(1)
    db.close()


def test_a_snapshot_written_between_appends_is_one_and_one_that_is_dropped_leaves_nothing(disk: Disk) -> None:
    log, _, db = a_log(disk)
    log.append(entries(1, 9), HardState(1, 1, 8))
    parts, dropped = log.begin_snapshot(), log.begin_snapshot()
    snapshot = Snapshot(8, 1, CONF, bytes(range(200)))
    for start in (0, 70):
        log.write_part(parts, snapshot.data[start : start + 70])
        log.write_part(dropped, b"other")
        log.append(entries(log.last_index + 1, log.last_index + 2))
    log.write_part(parts, snapshot.data[140:])
    log.drop_parts(dropped)
    log.put_in_force(parts, snapshot)
    assert len(list(db.iterate(b"c", b"d"))) == 3
    with pytest.raises(AssertionError, match="snapshot 7 after 8"):
        log.put_in_force(dropped, Snapshot(7, 1, CONF, b"otherother"))
    loaded = reload(disk, db)
    assert loaded.snapshot == snapshot
    assert loaded.entries == entries(1, 13)


def test_a_snapshot_of_which_a_part_is_missing_does_not_come_into_force() -> None:
    log, _, _ = a_log(MemoryDisk())
    log.append(entries(1, 9), HardState(1, 1, 8))
    parts = log.begin_snapshot()
    log.write_part(parts, b"half")
    with pytest.raises(AssertionError, match="4 of 8 bytes"):
        log.put_in_force(parts, Snapshot(8, 1, CONF, b"halfhalf"))
    assert log.snapshot_index == 0


def test_a_compaction_beyond_the_snapshot_is_a_broken_promise() -> None:
    log, _, _ = a_log(MemoryDisk())
    log.append(entries(1, 5), HardState(1, 1, 5))
    with pytest.raises(AssertionError):
        log.compact(3)


def test_wiping_leaves_an_empty_log_that_can_be_used(disk: Disk) -> None:
    log, _, db = a_log(disk)
    log.append(entries(1, 5), HardState(1, 1, 5))
    log.save_snapshot(Snapshot(4, 1, CONF, b"x" * 300))
    log.wipe()
    assert list(db.iterate(b"", b"\xff")) == []
    log.append(entries(1, 1, term=9), HardState(9, 1, 0))
    assert reload(disk, db).entries == entries(1, 1, term=9)


def test_nothing_of_an_entry_stands_on_disk_in_clear() -> None:
    disk = MemoryDisk()
    log, _, db = a_log(disk)
    secret = b"correct horse battery staple"
    log.append([Entry(1, 1, EntryType.NORMAL, secret)], HardState(1, 1, 1))
    log.save_snapshot(Snapshot(1, 1, CONF, secret))
    assert not any(secret in value or KEY in value for _, value in db.iterate(b"", b"\xff"))
    assert KEY.hex() not in repr(a_sealer())


def test_a_log_under_another_key_says_so() -> None:
    disk = MemoryDisk()
    log, _, db = a_log(disk)
    log.append(entries(1, 1), HardState(1, 1, 0))
    db.close()
    with pytest.raises(CannotUnseal, match="data key"):
        a_log(disk, OTHER_KEY)
    disk.kill()
    _, loaded, _ = a_log(disk, OTHER_KEY, KEY)
    assert loaded.entries == entries(1, 1)


def _damaged(change: Callable[[Database], None]) -> str:
    disk = MemoryDisk()
    log, _, db = a_log(disk)
    log.append(entries(1, 9), HardState(1, 1, 9))
    log.save_snapshot(Snapshot(6, 1, CONF, bytes(350)))
    log.compact(3)
    change(db)
    before = list(db.iterate(b"", b"\xff"))
    with pytest.raises(LogDamaged) as damage:
        RaftLog(db, a_sealer()).load()
    assert list(db.iterate(b"", b"\xff")) == before, "damage was tampered with"
    return str(damage.value)


def _key(index: int) -> bytes:
    return b"e" + index.to_bytes(8, "big")


def _swap(db: Database) -> None:
    left, right = db.get(_key(7)), db.get(_key(8))
    assert left is not None
    assert right is not None
    db.write([(_key(7), right), (_key(8), left)], sync=True)


def test_every_kind_of_damage_is_found_and_placed() -> None:
    assert "entry 7 is missing" in _damaged(lambda db: db.write([], [_key(7)], sync=True))
    assert "entry 4 is missing" in _damaged(lambda db: db.write([], [_key(4)], sync=True))
    assert "commit" in _damaged(lambda db: db.write([], [_key(9)], sync=True))
    assert "entry 7" in _damaged(_swap)
    assert "hard state" in _damaged(lambda db: db.write([], [b"h"], sync=True))
    assert "missing" in _damaged(lambda db: db.write([], [b"b"], sync=True))
    assert "dropped" in _damaged(lambda db: db.write([], [b"s"], sync=True))
    assert "part 2 of 4 is missing" in _damaged(
        lambda db: db.write([], [b"c" + (1).to_bytes(8, "big") + (2).to_bytes(4, "big")], sync=True)
    )


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_a_flipped_bit_anywhere_is_found(seed: int) -> None:
    disk = MemoryDisk()
    log, _, _ = a_log(disk)
    log.set_member(Member(1, "n", "a"))
    log.append(entries(1, 9), HardState(1, 1, 9))
    log.save_snapshot(Snapshot(6, 1, CONF, bytes(350)))
    log.compact(3)
    disk.kill()
    disk.image(RAFT_DATABASE).corrupt(random.Random(seed))
    with pytest.raises((LogDamaged, CannotUnseal)):
        a_log(disk)


@settings(max_examples=150)
@given(st.data())
def test_acknowledged_entries_survive_any_crash(data: st.DataObject) -> None:
    """Whatever point a crash comes at, the log loads and holds all that was acknowledged."""
    disk, term, commit, acknowledged = MemoryDisk(), 1, 0, list[Entry]()
    rotates = data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 4))):
        log, loaded, _ = a_log(disk)
        disk.image(RAFT_DATABASE).rotates = rotates
        have = {entry.index: entry for entry in loaded.entries}
        for entry in acknowledged:
            assert entry.index <= loaded.base_index or have[entry.index] == entry
        acknowledged, commit = list(loaded.entries), loaded.hard_state.commit
        term += 1
        point = data.draw(st.sampled_from(POINTS))
        try:
            with armed(crash_at(point)):
                for _ in range(data.draw(st.integers(1, 4))):
                    first = data.draw(st.integers(max(commit, 0) + 1, log.last_index + 1))
                    new = entries(first, first + data.draw(st.integers(0, 3)), term)
                    commit_to = data.draw(st.integers(commit, new[-1].index))
                    old, acknowledged = acknowledged, [e for e in acknowledged if e.index < first]
                    log.append(new, HardState(term, 1, commit_to))
                    commit, acknowledged = commit_to, [e for e in old if e.index < first] + new
                    if commit > log.snapshot_index and data.draw(st.booleans()):
                        held = next(e.term for e in acknowledged if e.index == commit)
                        log.save_snapshot(Snapshot(commit, held, CONF, bytes(250)))
                        log.compact(max(0, commit - 2))
        except Crash:
            pass  # the point that was drawn; the crash itself comes next, in every case
        disk.crash(random.Random(data.draw(st.integers(0, 2**32))))


POINTS = [
    "append.before_write",
    "append.after_write_before_sync",
    "append.after_sync",
    "hardstate.after_sync",
    "snap.before_write",
    "snap.half_written",
    "snap.before_switch",
    "snap.after_switch",
    "snap.before_compact",
    "snap.after_compact",
    "none",
]


def test_every_crash_point_is_passed() -> None:
    reached: list[str] = []
    log, _, _ = a_log(MemoryDisk())
    with armed(reached.append):
        log.append(entries(1, 5), HardState(1, 1, 5))
        log.save_snapshot(Snapshot(4, 1, CONF, bytes(250)))
        log.compact(2)
    assert reached == POINTS[:-1]


def a_task(name: str, state: int = 0) -> objects_pb2.Task:
    return objects_pb2.Task(id=name, service_id="s", status=types_pb2.TaskStatus(state=state))  # type: ignore[arg-type]


def test_tasks_come_back_with_their_last_status(disk: Disk) -> None:
    db = disk.open_database("tasks")
    tasks = TaskDatabase(db)
    assert tasks.load() == []
    batch = tasks.batch()
    batch.put(a_task("b", 192))
    batch.put(a_task("a"))
    assert batch.put_status("a", types_pb2.TaskStatus(message="one"))
    batch.commit()
    assert not batch.put_status("nobody", types_pb2.TaskStatus())
    assert batch.put_status("a", types_pb2.TaskStatus(message="two"))
    batch.commit()
    found = TaskDatabase(db).load()
    assert [stored.task.id for stored in found] == ["a", "b"]
    assert found[0].status == types_pb2.TaskStatus(message="two")
    assert found[1].status is None
    assert not found[1].task.HasField("status")
    tasks.close()


def test_tasks_that_are_not_assigned_are_deleted_at_start(disk: Disk) -> None:
    db = disk.open_database("tasks")
    tasks = TaskDatabase(db)
    batch = tasks.batch()
    for name in "abc":
        batch.put(a_task(name))
    batch.commit()
    assert batch.set_assigned("b", assigned=False)
    assert not batch.set_assigned("x", assigned=True)
    batch.remove("c")
    assert not batch.put_status("c", types_pb2.TaskStatus())
    batch.commit()
    again = TaskDatabase(db)
    assert [stored.task.id for stored in again.load()] == ["a"]
    assert "a" in again
    assert "b" not in again
    assert {key.split(b"/")[2] for key, _ in db.iterate(b"", b"\xff")} == {b"a"}
    db.close()


def test_a_crash_before_a_batch_is_committed_loses_all_of_it() -> None:
    disk = MemoryDisk()
    tasks = TaskDatabase(disk.open_database("tasks"))
    batch = tasks.batch()
    batch.put(a_task("a"))
    disk.crash(random.Random(1))
    with pytest.raises(DiskFailed):
        batch.commit()
    assert TaskDatabase(disk.open_database("tasks")).load() == []


def test_the_agents_crash_points_come_after_the_write() -> None:
    db = MemoryDisk().open_database("tasks")
    batch = TaskDatabase(db).batch()
    batch.put(a_task("a"))
    with armed(crash_at("agent.assignment_persisted_unacked")), pytest.raises(Crash):
        batch.commit()
    assert [stored.task.id for stored in TaskDatabase(db).load()] == ["a"]


RECORDED = (
    b'{"LocalAddr":"10.77.0.1","RemoteAddr":"","ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"10.77.0.1:2377",'
    b'"DataPathAddr":"","DefaultAddressPool":[],"SubnetSize":24,"DataPathPort":4789,"JoinInProgress":false}'
)


def test_docker_state_is_what_dockerd_writes() -> None:
    state = DockerState("10.77.0.1", "", "0.0.0.0:2377", "10.77.0.1:2377", "", (), 24, 4789, False)
    assert encode_docker_state(state) == RECORDED
    assert decode_docker_state(RECORDED) == state
    assert b'"DefaultAddressPool":null' in encode_docker_state(DockerState())
    assert decode_docker_state(b"{}") == DockerState()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"Strange":1}',
        b'{"SubnetSize":"24"}',
        b'{"SubnetSize":true}',
        b'{"JoinInProgress":0}',
        b'{"DefaultAddressPool":[1]}',
        b'{"LocalAddr":null}',
        b"\xff",
    ],
)
def test_docker_state_that_is_not_understood_is_named(data: bytes) -> None:
    with pytest.raises(StateDamaged, match=r"docker-state\.json"):
        decode_docker_state(data)


def test_remotes_are_sorted_and_empty_fields_left_out() -> None:
    data = encode_remotes([Remote("b", "2:1"), Remote("", "3:1"), Remote("a", "1:1")])
    assert data == b'[{"addr":"3:1"},{"node_id":"a","addr":"1:1"},{"node_id":"b","addr":"2:1"}]'
    assert decode_remotes(data) == [Remote("", "3:1"), Remote("a", "1:1"), Remote("b", "2:1")]
    assert decode_remotes(b"null") == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'[{"node_id":1}]', b'[{"port":"x"}]', b"[" * 100_000])
def test_remotes_that_are_not_understood_are_named(data: bytes) -> None:
    with pytest.raises(StateDamaged, match=r"state\.json"):
        decode_remotes(data)


def test_remotes_are_written_only_when_they_changed(disk: Disk) -> None:
    state = StateFiles(disk.files)
    assert state.remotes() == []
    assert state.save_remotes([Remote("a", "1:1")])
    assert not state.save_remotes([Remote("a", "1:1")])
    assert state.remotes() == [Remote("a", "1:1")]


def fits(certificate: bytes, key: bytes) -> bool:
    return certificate[-1:] == key[-1:]


def test_certificate_and_key_are_replaced_together(disk: Disk) -> None:
    state = StateFiles(disk.files)
    assert state.load_node(fits) is None
    state.save_node(b"cert1", b"key1")
    state.save_node(b"cert2", b"key2")
    assert state.load_node(fits) == (b"cert2", b"key2")
    assert disk.files.listdir("certificates") == ["swarm-node.crt", "swarm-node.key"]
    state.save_root_certificate(b"root")
    assert (state.root_certificate(), state.root_key()) == (b"root", None)


@pytest.mark.parametrize("fail_after", [0, 1, 2])
def test_a_crash_while_replacing_leaves_a_pair_that_fits(fail_after: int) -> None:
    disk = MemoryDisk()
    state = StateFiles(disk.files)
    state.save_node(b"cert1", b"key1")
    disk.files.fail_after = fail_after
    with armed(crash_at("node.key_written_cert_missing")), pytest.raises((DiskFailed, Crash)):
        state.save_node(b"cert2", b"key2")
    disk.files.fail_after = None
    expected = (b"cert1", b"key1") if fail_after < 2 else (b"cert2", b"key2")
    assert state.load_node(fits) == expected
    assert state.load_node(fits) == expected


def test_a_pair_that_does_not_fit_is_named(disk: Disk) -> None:
    state = StateFiles(disk.files)
    state.save_node(b"cert1", b"key2")
    disk.files.write_atomic(NEW_NODE_CERT, b"cert3", 0o644)
    with pytest.raises(StateDamaged, match=r"swarm-node\.crt does not belong"):
        state.load_node(fits)
    assert not disk.files.exists(NEW_NODE_CERT)


def test_the_state_of_a_member_is_found(disk: Disk) -> None:
    state = StateFiles(disk.files)
    state.save_docker_state(DockerState(local_addr="x"))
    state.save_node(b"cert1", b"key1")
    disk.files.write_atomic("certificates/.tmp-swarm-node.crtabc", b"half", 0o600)
    assert inspect_data_root(disk.files) == DockerState(local_addr="x")
    assert disk.files.listdir("certificates") == ["swarm-node.crt", "swarm-node.key"]


def test_leftovers_of_a_failed_attempt_are_cleared_and_nothing_else(disk: Disk) -> None:
    state = StateFiles(disk.files)
    state.save_docker_state(DockerState(join_in_progress=True))
    state.save_root_certificate(b"root")
    disk.files.write_atomic("photo.jpg", b"mine", 0o644)
    assert inspect_data_root(disk.files) is None
    assert disk.files.listdir("") == ["photo.jpg"]


def test_a_raft_log_without_certificate_is_never_thrown_away(disk: Disk) -> None:
    StateFiles(disk.files).save_docker_state(DockerState())
    disk.open_database(RAFT_DATABASE).close()
    with pytest.raises(ForeignState, match="only copy"):
        inspect_data_root(disk.files)
    assert disk.files.exists(RAFT_DATABASE)


@pytest.mark.parametrize("path", ["raft/wal-v3-encrypted/0.wal", "raft/snap-v3/0.snap", "worker/tasks.db"])
def test_another_programs_swarm_is_refused_untouched(disk: Disk, path: str) -> None:
    disk.files.make_dirs(path.rpartition("/")[0], 0o700)
    disk.files.write_atomic(path, b"theirs", 0o600)
    with pytest.raises(ForeignState, match="another program"):
        inspect_data_root(disk.files)
    assert disk.files.read(path) == b"theirs"


def test_key_without_certificate_keeps_the_data_root(disk: Disk) -> None:
    StateFiles(disk.files).save_docker_state(DockerState())
    disk.files.make_dirs("certificates", 0o755)
    disk.files.write_atomic(NODE_KEY, b"key1", 0o600)
    disk.files.write_atomic(NEW_NODE_CERT, b"cert1", 0o644)
    assert inspect_data_root(disk.files) == DockerState()
    assert StateFiles(disk.files).load_node(fits) == (b"cert1", b"key1")
    assert disk.files.exists(NODE_CERT)


def test_a_leaders_snapshot_without_hard_state_can_be_loaded_and_built_upon(disk: Disk) -> None:
    log, _, db = a_log(disk)
    log.append(entries(1, 3), HardState(1, 1, 1))
    log.save_snapshot(Snapshot(50, 4, CONF, b"s"))
    loaded = reload(disk, db)
    assert loaded.hard_state.commit == 50
