"""When a snapshot is due, and what of one that is under way is known."""

from __future__ import annotations

import pytest

from actors.raft_snapshots import SNAPSHOT_INTERVAL, RaftSnapshots
from runtime.disk.raft_records import Member
from runtime.protocol.raft import SnapshotTaken, TakeSnapshot
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import ConfState, Entry, Snapshot
from runtime.stage import Answer, Reply
from runtime.store.view import Published, View

ONE, TWO = Member(1, "node-1", "10.0.0.1:2377"), Member(2, "node-2", "10.0.0.2:2377")
ALONE, BOTH = ConfState((1,)), ConfState((1,), learners=(2,))


class Group:
    """One manager's, whose log goes on behind entry ``index``, where it has a snapshot."""

    def __init__(self, index: int, leads: bool = True) -> None:
        self.leads = leads
        self.published = Published(View(index))
        self.ordered: list[TakeSnapshot] = []
        self.snapshots = RaftSnapshots({1: ONE, 2: TWO}, set(), self.published, self.ordered.append, lambda: self.leads)
        self.snapshots.storage = MemoryStorage()
        self.snapshots.storage.apply_snapshot(Snapshot(index, 1, ALONE, b"x"))
        self.snapshots.restored(index, ALONE)

    def commit(self, count: int) -> int:
        last = self.snapshots.storage.last_index()
        self.snapshots.storage.append([Entry(1, index) for index in range(last + 1, last + count + 1)])
        self.published.view = View(last + count)
        self.snapshots.take_when_due()
        return last + count

    def take(self) -> None:
        """What was ordered last is done."""
        order = self.ordered[-1]
        self.snapshots.taken(SnapshotTaken(Snapshot(order.index, order.term, order.conf_state), order.keep_after))


def test_one_is_due_after_so_many_entries_and_the_next_after_as_many_more() -> None:
    group = Group(100)
    group.commit(SNAPSHOT_INTERVAL - 1)
    assert group.ordered == []
    due = group.commit(1)
    assert [order.index for order in group.ordered] == [due]
    group.commit(SNAPSHOT_INTERVAL)
    assert len(group.ordered) == 1, "one is under way"
    group.take()
    group.snapshots.take_when_due()
    assert [order.index for order in group.ordered] == [due, due + SNAPSHOT_INTERVAL]


@pytest.mark.parametrize("leads", [True, False])
def test_a_newcomer_waits_for_one_that_knows_it_at_the_leader_alone(leads: bool) -> None:
    group = Group(100, leads)
    group.snapshots.changed(101, BOTH)
    group.commit(1)
    assert [(order.index, order.conf_state) for order in group.ordered] == [(101, BOTH)] * leads
    group.leads = True  # it is elected while the newcomer waits
    group.snapshots.take_when_due()
    assert [(order.index, order.conf_state) for order in group.ordered] == [(101, BOTH)]
    group.take()
    group.commit(5)
    assert len(group.ordered) == 1


def test_one_that_was_dropped_is_taken_again_when_there_is_something_newer_than_the_leaders() -> None:
    group = Group(100)
    group.commit(SNAPSHOT_INTERVAL)
    group.snapshots.storage.apply_snapshot(Snapshot(50_000, 3, BOTH))
    group.snapshots.dropped()
    group.snapshots.restored(50_000, BOTH)
    group.snapshots.take_when_due()  # the store has not taken it over yet
    group.published.view = View(50_000)
    group.snapshots.take_when_due()
    assert len(group.ordered) == 1
    due = group.commit(SNAPSHOT_INTERVAL)
    assert [order.index for order in group.ordered[1:]] == [due]


def test_a_change_of_the_data_key_is_over_with_a_snapshot_behind_the_leaders_that_dropped_its_own() -> None:
    group, answers = Group(100), list[Answer]()
    barrier = group.commit(10)
    group.snapshots.rekey(barrier, Reply(answers.append))
    group.snapshots.take_when_due()
    group.snapshots.storage.apply_snapshot(Snapshot(200, 3, BOTH))
    group.snapshots.dropped()
    group.snapshots.restored(200, BOTH)
    group.snapshots.take_when_due()
    assert [order.index for order in group.ordered] == [barrier]
    group.published.view = View(200)
    group.snapshots.take_when_due()
    assert len(group.ordered) == 1, "what the leader sent is all there is"
    group.commit(1)
    assert [(order.index, order.keep_after) for order in group.ordered[1:]] == [(201, 201)]
    assert not answers
    group.take()
    assert [answer.error for answer in answers] == [None]
    assert not group.snapshots.rekeying
