"""What surviving data roots hold, which of them a new cluster may be made of, and that it then is one."""

from __future__ import annotations

import dataclasses
import random

import pytest

from runtime.disk.data_root import RAFT_DATABASE
from runtime.disk.memory import MemoryDisk
from runtime.disk.raft_log import RaftLog
from runtime.disk.raft_records import Member
from runtime.disk.sealer import Sealer
from runtime.disk.state_files import NODE_KEY, Remote, StateFiles
from runtime.disk.survey import Survey, Unsafe, choose, make_new_cluster, survey
from runtime.pki.key_file import DataKeys, KeyFile, encode_key_file
from runtime.pki.keys import load_key
from runtime.raft.codec import encode_change
from runtime.raft.confchange import ChangeType, ConfChange
from runtime.raft.types import Entry, HardState
from runtime.wire.pb import raft_pb2
from tests.seeded import entropy
from tests.unit.disk.test_disk import entries
from tests.unit.wire.authority import CLUSTER, authority

DATA_KEY = bytes(range(32))
entropy = entropy(3)


def joins(index: int, raft_id: int) -> Entry:
    context = raft_pb2.RaftMember(raft_id=raft_id, node_id=f"node{raft_id}", addr=f"10.0.0.{raft_id}:2377")
    change = ConfChange(((ChangeType.ADD_NODE, raft_id),), context=context.SerializeToString(), v1=True)
    kind, data = encode_change(change)
    return Entry(1, index, kind, data)


def a_manager(
    raft_id: int, last: int, commit: int, *, term: int = 1, cluster: str = CLUSTER, kek: bytes = b""
) -> MemoryDisk:
    """One of three managers, whose log ends at ``last``; entries from 7 on are of ``term``."""
    disk = MemoryDisk()
    certificate, key = authority().issue(f"node{raft_id}", "swarm-manager", cluster)
    content = KeyFile(load_key(key), 1 if kek else 0, DataKeys(DATA_KEY))
    state = StateFiles(disk.files)
    state.save_node(certificate, encode_key_file(content, kek, entropy))
    state.save_remotes([Remote("node9", "10.0.0.9:2377")])
    log = RaftLog(disk.open_database(RAFT_DATABASE), Sealer((DATA_KEY,), entropy))
    log.load()
    log.set_member(Member(raft_id, f"node{raft_id}", f"10.0.0.{raft_id}:2377"))
    some = [joins(1, 1), joins(2, 2), joins(3, 3), *entries(4, last)]
    for entry in some[6:]:
        entry.term = term
    log.append(some, HardState(term, 0, commit))
    disk.kill()
    return disk


def surveyed(**disks: MemoryDisk) -> list[Survey]:
    return [survey(disk, name) for name, disk in disks.items()]


def test_what_a_log_holds_is_told() -> None:
    (found,) = surveyed(a=a_manager(1, last=9, commit=6, term=4))
    assert (found.trouble, found.node_id, found.cluster_id, found.raft_id) == ("", "node1", CLUSTER, 1)
    assert (found.term, found.last_index, found.last_term, found.commit, found.snapshot) == (4, 9, 4, 6, 0)
    assert [(member.node_id, member.addr) for member in found.members] == [
        (f"node{raft_id}", f"10.0.0.{raft_id}:2377") for raft_id in (1, 2, 3)
    ]


def test_looking_changes_nothing() -> None:
    disk = a_manager(1, last=9, commit=6)
    before = disk.image(RAFT_DATABASE).current()
    assert survey(disk, "a") == survey(disk, "a")
    assert disk.image(RAFT_DATABASE).current() == before
    disk.files.lock().release()


def test_the_newest_log_is_chosen_by_the_term_of_its_end_before_its_length() -> None:
    old, short, new = a_manager(1, 12, 5), a_manager(2, 8, 5, term=3), a_manager(3, 9, 4, term=3)
    found = surveyed(old=old, short=short, new=new)
    assert choose(found).place == "new"
    assert choose(found, "new").place == "new"
    for pick in ("old", "short"):
        with pytest.raises(Unsafe, match="would be lost"):
            choose(found, pick)


def test_what_cannot_be_compared_is_not_chosen_from() -> None:
    good = a_manager(1, 9, 6)
    running = a_manager(2, 9, 6)
    lock = running.files.lock()
    with pytest.raises(Unsafe, match="stop it first"):
        choose(surveyed(a=good, b=running))
    lock.release()
    with pytest.raises(Unsafe, match="not of one cluster"):
        choose(surveyed(a=good, b=a_manager(2, 9, 6, cluster="another00000000000000000x")))
    with pytest.raises(Unsafe, match="none of the data roots that were given"):
        choose(surveyed(a=good), "b")


def test_damaged_empty_and_foreign_roots_are_named_and_never_picked() -> None:
    damaged = a_manager(2, 20, 6)
    damaged.image(RAFT_DATABASE).corrupt(random.Random(1))
    worker = MemoryDisk()
    foreign = MemoryDisk()
    foreign.files.make_dirs("raft/wal-v3-encrypted", 0o700)
    found = surveyed(good=a_manager(1, 9, 6), damaged=damaged, worker=worker, foreign=foreign)
    assert [bool(each.trouble) for each in found] == [False, True, True, True]
    assert "no manager" in found[2].trouble
    assert "another program" in found[3].trouble
    assert choose(found).place == "good"
    with pytest.raises(Unsafe, match="damaged cannot be picked"):
        choose(found, "damaged")
    with pytest.raises(Unsafe, match="restore a backup"):
        choose(found[1:])


def test_a_locked_manager_needs_its_unlock_key() -> None:
    kek = bytes(reversed(range(32)))
    disk = a_manager(1, 9, 6, kek=kek)
    assert "unlock key" in survey(disk, "a").trouble
    assert "unlock key" in survey(disk, "a", bytes(32)).trouble
    assert survey(disk, "a", kek).trouble == ""
    with pytest.raises(Unsafe, match="unlock key"):
        make_new_cluster(disk, "order")
    assert make_new_cluster(disk, "order", kek) == 11


def test_the_chosen_one_is_alone_afterwards_keeps_its_whole_log_and_asks_no_lost_manager() -> None:
    disk = a_manager(2, last=9, commit=6, term=4)
    assert make_new_cluster(disk, "order") == 11
    found = survey(disk, "a")
    assert [member.node_id for member in found.members] == ["node2"]
    assert (found.commit, found.last_index, found.term) == (11, 11, 4)
    assert StateFiles(disk.files).remotes() == []
    assert disk.files.exists(NODE_KEY)
    assert make_new_cluster(disk, "another") == 11


def test_surveys_show_no_keys() -> None:
    assert DATA_KEY.hex() not in repr(dataclasses.asdict(survey(a_manager(1, 9, 6), "a")))
