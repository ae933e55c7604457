"""RaftLogActor alone: what it answers, in which order it says what is durable, and what its failures leave behind."""

from __future__ import annotations

from typing import Any

import pytest

from actors.raft_log_actor import RaftLogActor, _NextPiece, _Taking, encoded
from runtime.disk.data_root import RAFT_DATABASE
from runtime.disk.errors import DiskFailed, DiskInUse
from runtime.disk.memory import MemoryDisk
from runtime.disk.raft_log import Loaded, Parts
from runtime.disk.raft_records import Member
from runtime.introspection.bodies import to_plain
from runtime.protocol.raft import (
    Append,
    Appended,
    BeginLog,
    LoadLog,
    SnapshotDropped,
    SnapshotTaken,
    TakeSnapshot,
    UseDataKeys,
    WipeLog,
)
from runtime.raft.types import ConfState, Entry, EntryType, HardState, Snapshot
from runtime.stage import Actor, ActorDown, Address, GiveUp, Policy, handles
from runtime.stage.answers import ActorUnavailable
from runtime.stage.simulator import Simulator
from runtime.store.changes import Action, Change, apply
from runtime.store.snapshot import dump, read
from runtime.store.view import View
from runtime.wire.pb import objects_pb2, snapshot_pb2

KEY = bytes(range(32))
ME = Member(7, "node-1", "10.0.0.1:2377")


def entry(index: int, term: int = 1, data: bytes = b"\x08\x01") -> Entry:
    return Entry(term, index, EntryType.NORMAL, data)


class Consensus(Actor):
    """Stands where RaftActor stands: keeps what the log says."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, keys: tuple[bytes, ...], told: list[Any]) -> None:
        super().__init__()
        self.keys, self.told = keys, told

    def started(self) -> None:
        self.watch(self.spawn("log", RaftLogActor, self.keys, policy=Policy(give_up=GiveUp.NEVER)))

    @handles(Appended, SnapshotTaken, SnapshotDropped, ActorDown)
    def keep(self, message: Any) -> None:
        self.told.append(message)

    @handles(tuple)
    def hand_on(self, messages: tuple[Any, ...]) -> None:
        """All of them lie in the log's mailbox before it looks at the first one."""
        child = self.child("log")
        assert child is not None
        for message in messages:
            self.tell(child, message)


class Bench:
    def __init__(self, disk: MemoryDisk | None = None, keys: tuple[bytes, ...] = (KEY,)) -> None:
        self.simulator = Simulator(3)
        self.disk = disk or MemoryDisk()
        self.told: list[Any] = []
        self.stage = self.simulator.node("n1", disk=self.disk)
        self.consensus = self.stage.mount("raft", Consensus, keys, self.told)
        self.simulator.settle()

    @property
    def log(self) -> Address:
        return self.stage.at("/raft/log")

    def load(self) -> Loaded:
        loaded: Loaded = self.simulator.ask(self.log, LoadLog())
        return loaded

    def begin(self) -> None:
        self.load()
        self.simulator.ask(self.log, BeginLog(ME, [entry(1)], HardState(term=1, commit=1)))

    def killed(self, *keys: bytes) -> Bench:
        """Another life on the same disk, with these keys, after the process is gone at once."""
        self.simulator.crash(self.stage)
        self.disk.kill()
        return Bench(self.disk, keys or (KEY,))

    def say(self, *messages: Any) -> list[Any]:
        """Tells the log in order; what it said since."""
        del self.told[:]
        self.consensus.tell(messages)
        self.simulator.settle()
        return self.told


def test_a_new_log_is_empty_and_a_begun_one_names_its_member_and_first_entry() -> None:
    bench = Bench()
    assert bench.load().empty
    bench.begin()
    loaded = bench.load()
    assert (loaded.member, [each.index for each in loaded.entries], loaded.hard_state.commit) == (ME, [1], 1)


def test_appends_are_said_to_be_durable_in_their_order_and_are() -> None:
    bench = Bench()
    bench.begin()
    appends = [Append(number, [entry(number + 1)], HardState(term=1, commit=number)) for number in range(1, 20)]
    assert bench.say(*appends) == [Appended(number) for number in range(1, 20)]
    again = bench.killed().load()
    assert [each.index for each in again.entries] == list(range(1, 21))
    assert again.hard_state == HardState(term=1, commit=19)


def test_an_append_over_an_uncommitted_tail_replaces_it() -> None:
    bench = Bench()
    bench.begin()
    bench.say(Append(1, [entry(2), entry(3), entry(4)], None))
    bench.say(Append(2, [entry(3, term=2, data=b"\x08\x02")], HardState(term=2, commit=1)))
    assert [(each.index, each.term) for each in bench.load().entries] == [(1, 1), (2, 1), (3, 2)]


def test_nothing_is_said_of_an_append_that_fails_and_the_log_can_be_loaded_again() -> None:
    bench = Bench()
    bench.begin()
    bench.disk.image(RAFT_DATABASE).sync_error_at(0)
    told = bench.say(Append(1, [entry(2)], None))
    assert [type(message) for message in told] == [ActorDown]
    assert isinstance(told[0].error, DiskFailed)
    bench.simulator.run_for(1)
    assert bench.load().entries[0].index == 1


def test_loading_twice_lets_go_of_the_first_handle_and_a_stop_lets_go_of_the_last() -> None:
    bench = Bench()
    bench.begin()
    bench.load()
    with pytest.raises(DiskInUse):
        bench.disk.open_database(RAFT_DATABASE)
    cell = bench.consensus.resolve()
    assert cell is not None
    cell.request_stop()
    bench.simulator.settle()
    bench.disk.open_database(RAFT_DATABASE).close()


def test_a_snapshot_of_ours_is_in_force_with_its_members_and_forgets_what_it_may() -> None:
    bench = Bench()
    bench.begin()
    bench.say(Append(1, [entry(index) for index in range(2, 11)], HardState(term=1, commit=10)))
    conf = ConfState(voters=(7,))
    (taken,) = bench.say(TakeSnapshot(10, 1, conf, (ME,), (99,), View(), keep_after=6))
    assert isinstance(taken, SnapshotTaken)
    assert (taken.snapshot.index, taken.keep_after) == (10, 6)
    loaded = bench.load()
    assert loaded.base_index == 6
    assert [each.index for each in loaded.entries] == [7, 8, 9, 10]
    assert loaded.snapshot is not None
    content = snapshot_pb2.Snapshot.FromString(loaded.snapshot.data)
    assert [(each.raft_id, each.node_id, each.addr) for each in content.membership.members] == [
        (7, "node-1", "10.0.0.1:2377")
    ]
    assert list(content.membership.removed) == [99]


CONF = ConfState(voters=(7,))


def a_view(count: int, size: int) -> View:
    """So many configs of so many bytes."""
    changes = []
    for number in range(count):
        config = objects_pb2.Config(id=f"c{number}")
        config.spec.data = bytes(size)
        changes.append(Change(Action.CREATE, objects_pb2.Config, None, config))
    return apply(View(), changes, 10)


LARGE = a_view(5, 700_000)
"""Three pieces, of two objects each but the last."""
THEIRS = Snapshot(50, 3, CONF, snapshot_pb2.Snapshot(store={}).SerializeToString())
"""The leader's, of one part."""


def a_log_of_ten() -> Bench:
    bench = Bench()
    bench.begin()
    bench.say(Append(1, [entry(index) for index in range(2, 11)], HardState(term=1, commit=10)))
    return bench


def take(view: View = LARGE, index: int = 10) -> TakeSnapshot:
    return TakeSnapshot(index, 1, CONF, (ME,), (), view, keep_after=6)


def test_appends_are_durable_before_a_large_snapshot_that_was_begun_before_them_is() -> None:
    bench = a_log_of_ten()
    told = bench.say(take(), *(Append(number, [entry(number + 9)], None) for number in (2, 3)))
    assert [type(each) for each in told] == [Appended, Appended, SnapshotTaken]
    loaded = bench.load()
    assert loaded.snapshot == told[-1].snapshot
    assert loaded.content is not None
    assert loaded.content.objects == dump(LARGE)
    assert [each.index for each in loaded.entries] == [7, 8, 9, 10, 11, 12]


def test_an_uncommitted_tail_is_replaced_while_a_snapshot_is_taken() -> None:
    bench = a_log_of_ten()
    bench.say(Append(2, [entry(11), entry(12)], None))
    told = bench.say(take(), Append(3, [entry(11, term=2)], HardState(term=2, commit=10)))
    assert [type(each) for each in told] == [Appended, SnapshotTaken]
    assert [(each.index, each.term) for each in bench.load().entries][-2:] == [(10, 1), (11, 2)]


def parts_on_disk(bench: Bench) -> int:
    return sum(key.startswith(b"c") for key in bench.disk.image(RAFT_DATABASE).current())


def test_a_snapshot_of_the_leaders_drops_one_of_ours_that_is_being_taken() -> None:
    bench = a_log_of_ten()
    told = bench.say(take(), Append(2, [], HardState(term=3, commit=50), THEIRS))
    assert told == [SnapshotDropped(), Appended(2)]
    assert bench.say(take(index=50)) == [SnapshotDropped()]
    assert bench.say(take(index=49)) == [SnapshotDropped()]
    assert parts_on_disk(bench) == 1
    assert bench.load().snapshot == THEIRS


def test_the_next_snapshot_is_taken_after_one_that_was_dropped() -> None:
    bench = a_log_of_ten()
    bench.say(take(), Append(2, [], HardState(term=3, commit=50), THEIRS))
    bench.say(Append(3, [entry(51, term=3)], HardState(term=3, commit=51)))
    (taken,) = bench.say(TakeSnapshot(51, 3, CONF, (ME,), (), LARGE, keep_after=0))
    assert isinstance(taken, SnapshotTaken)
    assert read(taken.snapshot.data).objects == dump(LARGE)
    assert parts_on_disk(bench) == 3


def test_of_a_snapshot_that_a_crash_interrupts_nothing_is_left() -> None:
    bench = a_log_of_ten()
    bench.consensus.tell((take(),))
    bench.simulator.run_until(lambda: parts_on_disk(bench) == 2, 5)
    assert bench.told == [Appended(1)]
    again = bench.killed()
    loaded = again.load()
    assert (loaded.snapshot, loaded.base_index, len(loaded.entries)) == (None, 0, 10)
    assert parts_on_disk(again) == 0


def test_what_waits_of_a_snapshot_is_in_no_trace() -> None:
    secret = objects_pb2.Secret(id="s")
    secret.spec.data = b"hush-hush"
    view = apply(LARGE, [Change(Action.CREATE, objects_pb2.Secret, None, secret)], 10)
    (piece,) = (each for each in encoded(take(view)) if b"hush-hush" in each)
    waiting = _NextPiece(_Taking(take(view), iter([piece]), Parts(1), 0.0), piece)
    assert "hush-hush" not in repr(waiting)
    assert "hush-hush" not in str(to_plain(waiting))


def test_a_log_that_is_wiped_while_a_snapshot_is_taken_stays_empty() -> None:
    bench = a_log_of_ten()
    bench.consensus.tell((take(),))
    bench.simulator.ask(bench.log, WipeLog())
    assert parts_on_disk(bench) == 0


def test_a_snapshot_may_be_under_two_keys() -> None:
    bench = a_log_of_ten()
    told = bench.say(take(), UseDataKeys((bytes(32), KEY)))
    assert [type(each) for each in told] == [SnapshotTaken]
    both = bench.killed(bytes(32), KEY)
    assert both.load().snapshot == told[0].snapshot
    with pytest.raises(Exception, match="which this node does not have"):
        both.killed(bytes(32)).load()


def test_a_snapshot_from_the_leader_takes_the_place_of_a_log_that_does_not_reach_it() -> None:
    bench = Bench()
    bench.begin()
    snapshot = Snapshot(50, 3, ConfState(voters=(7, 8)), snapshot_pb2.Snapshot().SerializeToString())
    assert bench.say(Append(1, [], HardState(term=3, commit=50), snapshot)) == [Appended(1)]
    loaded = bench.load()
    assert (loaded.base_index, loaded.base_term, loaded.entries) == (50, 3, [])
    assert loaded.hard_state.commit == 50
    assert bench.say(Append(2, [entry(51, term=3)], None)) == [Appended(2)]


def test_without_the_key_that_sealed_it_the_log_is_refused() -> None:
    bench = Bench()
    bench.begin()
    other = bench.killed(bytes(32))
    with pytest.raises(Exception, match=r"(?i)key|unseal"):
        other.load()


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (EntryType.CONF_CHANGE, b"\xff\xff", "entry 2 changes the membership and holds what cannot be decoded"),
        (EntryType.CONF_CHANGE_V2, b"\xff", "entry 2 changes the membership and holds what cannot be decoded"),
        (EntryType.NORMAL, b"\xff\xff", "entry 2 holds what cannot be decoded"),
    ],
)
def test_an_entry_that_nobody_can_apply_is_damage_named_with_its_index_and_what_to_do(
    kind: EntryType, data: bytes, words: str
) -> None:
    bench = Bench()
    bench.begin()
    bench.say(Append(1, [Entry(1, 2, kind, data), entry(3)], HardState(term=1, commit=1)))
    with pytest.raises(ActorUnavailable) as damage:
        bench.load()
    assert words in str(damage.value)
    assert "join again; else restore a backup" in str(damage.value)


def test_a_snapshot_that_cannot_be_decoded_is_damage_too() -> None:
    bench = Bench()
    bench.begin()
    bench.say(Append(1, [], HardState(term=2, commit=9), Snapshot(9, 2, ConfState((7,)), b"\xff\xff")))
    with pytest.raises(ActorUnavailable, match="the snapshot at 9 cannot be decoded"):
        bench.load()
