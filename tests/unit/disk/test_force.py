"""Forcing a new cluster: the log on disk before, after, and when the machine dies over it."""

from __future__ import annotations

import random

import pytest

from runtime.disk.data_root import RAFT_DATABASE
from runtime.disk.errors import NothingToForce
from runtime.disk.force import committed_membership, force_new_cluster
from runtime.disk.memory import MemoryDisk
from runtime.disk.port import Disk
from runtime.disk.raft_log import Loaded, RaftLog
from runtime.disk.raft_records import Member
from runtime.disk.sealer import Sealer
from runtime.failpoints import armed
from runtime.raft.codec import encode_change
from runtime.raft.confchange import ChangeType, ConfChange
from runtime.raft.types import ConfState, Entry, EntryType, HardState, Snapshot
from tests.seeded import entropy
from tests.unit.disk.test_disk import Crash, crash_at, disk, entries

__all__ = ["disk"]
KEY = bytes(32)
OWNER = Member(1, "node-1", "10.0.0.1:2377")


def joins(index: int, raft_id: int) -> Entry:
    kind, data = encode_change(ConfChange(((ChangeType.ADD_NODE, raft_id),), v1=True))
    return Entry(1, index, kind, data)


def opened(disk: Disk) -> tuple[RaftLog, Loaded]:
    log = RaftLog(disk.open_database(RAFT_DATABASE), Sealer((KEY,), entropy(1)), chunk_bytes=64)
    return log, log.load()


def of_three(disk: Disk) -> RaftLog:
    """Entries 1-3 make three members, 4-6 are committed, 7-9 are not."""
    log, _ = opened(disk)
    log.set_member(OWNER)
    log.append([joins(1, 1), joins(2, 2), joins(3, 3), *entries(4, 9)], HardState(3, 2, 6))
    return log


def test_what_was_committed_stays_and_everybody_else_goes(disk: Disk) -> None:
    log = of_three(disk)
    assert committed_membership(log.load()).voters == {1, 2, 3}
    assert force_new_cluster(log, log.load(), "order")
    loaded = log.load()
    assert committed_membership(loaded).voters == {1}
    assert loaded.entries[3:6] == entries(4, 6)
    assert [(each.index, each.term, each.type) for each in loaded.entries[6:]] == [
        (7, 3, EntryType.CONF_CHANGE),
        (8, 3, EntryType.CONF_CHANGE),
    ]
    assert loaded.hard_state == HardState(3, 2, 8)
    assert loaded.member == OWNER


def test_an_order_is_carried_out_once_and_the_next_one_again(disk: Disk) -> None:
    log = of_three(disk)
    assert force_new_cluster(log, log.load(), "first")
    log.append([joins(9, 7)], HardState(4, 1, 9))
    assert not force_new_cluster(log, log.load(), "first")
    assert committed_membership(log.load()).voters == {1, 7}
    assert force_new_cluster(log, log.load(), "second")
    assert committed_membership(log.load()).voters == {1}


def test_a_log_says_ever_after_that_it_was_forced_until_it_is_another(disk: Disk) -> None:
    log = of_three(disk)
    assert not log.load().forced
    assert force_new_cluster(log, log.load(), "first")
    log.append([joins(9, 7)], HardState(4, 1, 9))
    assert log.load().forced
    log.wipe()
    assert not log.load().forced


def test_a_snapshot_and_a_joint_membership_are_no_hindrance(disk: Disk) -> None:
    log, _ = opened(disk)
    log.set_member(OWNER)
    log.append(entries(1, 5), HardState(2, 1, 5))
    log.save_snapshot(Snapshot(5, 1, ConfState((1, 2, 3), (1, 2), (4,)), b"state"))
    log.compact(5)
    log.append(entries(6, 7, term=2))
    assert force_new_cluster(log, log.load(), "order")
    loaded = log.load()
    assert committed_membership(loaded).state() == ConfState((1,))
    assert loaded.snapshot is not None
    assert loaded.snapshot.data == b"state"


def test_a_log_of_one_loses_only_what_was_not_committed(disk: Disk) -> None:
    log, _ = opened(disk)
    log.set_member(OWNER)
    log.append([joins(1, 1), *entries(2, 6)], HardState(1, 1, 4))
    assert force_new_cluster(log, log.load(), "order")
    loaded = log.load()
    assert [each.index for each in loaded.entries] == [1, 2, 3, 4]
    assert loaded.hard_state.commit == 4


def test_no_log_is_no_cluster_to_force_and_an_empty_one_is_refused(disk: Disk) -> None:
    log, loaded = opened(disk)
    assert not force_new_cluster(log, loaded, "order")
    log.set_member(OWNER)
    with pytest.raises(NothingToForce, match="nothing that was committed"):
        force_new_cluster(log, log.load(), "order")


@pytest.mark.parametrize("point", ["force.before_write", "force.after_write"])
@pytest.mark.parametrize(("mode", "seed"), [("kill", 0), ("lost", 0), *(("torn", seed) for seed in range(5))])
def test_a_crash_leaves_the_old_log_or_the_new_one(point: str, mode: str, seed: int) -> None:
    disk = MemoryDisk()
    log = of_three(disk)
    loaded = log.load()
    with armed(crash_at(point)), pytest.raises(Crash):
        force_new_cluster(log, loaded, "order")
    if mode == "kill":
        disk.kill()
    else:
        disk.crash(random.Random(seed), lose_all=mode == "lost")
    log, loaded = opened(disk)
    done = point == "force.after_write"
    assert log.was_forced("order") is loaded.forced is done
    assert committed_membership(loaded).voters == ({1} if done else {1, 2, 3})
    assert force_new_cluster(log, loaded, "order") is not done
    assert committed_membership(log.load()).voters == {1}
