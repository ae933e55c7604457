"""The short cuts of the store's hot path, held against the long way: entries, index keys, what a watcher is told."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.store import changes as ch
from runtime.store.changes import Action, Change, TooLarge, apply, encode_action, encode_request, join_actions
from runtime.store.events import Commit, Select, WatchFilter
from runtime.store.kinds import TABLES, Kind, index_keys, moved_by_status, moved_keys
from runtime.store.transaction import Transaction, cut_batch
from runtime.store.view import View
from runtime.wire.pb import objects_pb2 as pb
from runtime.wire.pb import raft_pb2

KINDS = list(TABLES)


def protobufs_own(request_id: int, changes: list[Change]) -> bytes:
    request = raft_pb2.InternalRaftRequest(id=request_id)
    for change in changes:
        action = request.action.add(action=int(change.action))  # type: ignore[arg-type]
        getattr(action, TABLES[change.kind].field).CopyFrom(change.object)
    return request.SerializeToString(deterministic=True)


def sized(kind: Kind, size: int) -> Any:
    """An object whose message has about so many bytes."""
    return kind(id="x" * size)


@settings(max_examples=60)
@given(
    st.integers(0, 2**64 - 1),
    st.lists(
        st.tuples(
            st.sampled_from(list(Action)),
            st.sampled_from(KINDS),
            st.one_of(st.integers(0, 300), st.integers(16_370, 16_390)),
        )
    ),
)
def test_an_entry_has_the_bytes_that_protobuf_would_give_it(
    request_id: int, drawn: list[tuple[Action, Kind, int]]
) -> None:
    changes = [
        Change(action, kind, sized(kind, size), None if action is Action.REMOVE else sized(kind, size))
        for action, kind, size in drawn
    ]
    assert encode_request(request_id, changes) == protobufs_own(request_id, changes)


def test_maps_are_encoded_in_one_order_whatever_that_of_their_making() -> None:
    labels = {f"label{number}": str(number) for number in range(20)}
    entries = []
    for names in (list(labels), list(reversed(labels))):
        node = pb.Node(id="n")
        for name in names:
            node.spec.annotations.labels[name] = labels[name]
        entries.append(encode_request(1, [Change(Action.CREATE, pb.Node, None, node)]))
    assert entries[0] == entries[1]


def test_a_transaction_encodes_what_is_left_of_it() -> None:
    tx = Transaction(View(), 1, 0.0)
    tx.create(pb.Config(id="a"))
    first = list(tx.encoded())
    tx.create(pb.Config(id="b"))
    assert list(tx.encoded()) == [encode_action(change) for change in tx.changes]
    tx.roll_back(1)
    assert list(tx.encoded()) == first
    tx.create(pb.Config(id="c"))
    assert join_actions(7, tx.encoded()) == protobufs_own(7, tx.changes)


@settings(max_examples=60)
@given(st.integers(-40, 40))
def test_whatever_a_batch_accepts_fits_into_an_entry(beside: int) -> None:
    """The cut and the encoding count alike: no step is taken that the entry then refuses."""
    frame = len(encode_action(Change(Action.CREATE, pb.Config, None, sized_config(ch.MAX_BYTES)))) - ch.MAX_BYTES

    def step(tx: Transaction) -> None:
        tx.create(sized_config(ch.MAX_BYTES - frame + beside))

    tx, results = cut_batch([step], lambda: Transaction(View(), None, 0.0))
    if tx.changes:
        assert len(join_actions(2**64 - 1, tx.encoded())) <= ch.MAX_BYTES
    else:
        assert isinstance(results[0], TooLarge)


def sized_config(size: int) -> pb.Config:
    config = pb.Config(id="c")
    config.spec.data = bytes(size)
    return config


NAMES = st.sampled_from(["", "a", "B"])
FIELDS = st.fixed_dictionaries(
    {
        "node": NAMES,
        "service": NAMES,
        "slot": st.integers(0, 2),
        "state": st.sampled_from([0, 64, 512]),
        "desired": st.sampled_from([512, 704]),
        "network": NAMES,
        "secret": NAMES,
        "name": NAMES,
        "of_service": NAMES,
        "volume": NAMES,
        "custom": NAMES,
    }
)


def task(fields: dict[str, Any]) -> pb.Task:
    obj = pb.Task(id="t", service_id=fields["service"], slot=fields["slot"], node_id=fields["node"])
    obj.status.state, obj.desired_state = fields["state"], fields["desired"]
    obj.annotations.name, obj.service_annotations.name = fields["name"], fields["of_service"]
    if fields["network"]:
        obj.spec.networks.add(target=fields["network"])
    if fields["secret"]:
        obj.spec.container.secrets.add(secret_id=fields["secret"])
    if fields["volume"]:
        obj.volumes.add(id=fields["volume"])
    if fields["custom"]:
        obj.annotations.indices.add(key=fields["custom"], val="1")
    return obj


@settings(max_examples=300)
@given(FIELDS, st.lists(st.sampled_from(["node", "slot", "state", "desired", "secret", "custom"])), FIELDS)
def test_the_keys_that_move_are_the_difference_of_all_keys(
    fields: dict[str, Any], changed: list[str], others: dict[str, Any]
) -> None:
    """Also where only some fields differ: those are the ones that the short cut is for."""
    old, new = task(fields), task({**fields, **{name: others[name] for name in changed}})
    table = TABLES[pb.Task]
    before, after = index_keys(table, old), index_keys(table, new)
    assert moved_keys(table, old, new) == (before - after, after - before)
    assert moved_keys(table, old, task(others))[1] == index_keys(table, task(others)) - before
    assert moved_keys(table, None, new) == (set(), after)
    if not set(changed) - {"state"}:
        assert moved_by_status(old, new) == (before - after, after - before)


def test_a_watcher_is_told_what_its_selections_match_whatever_the_mixture() -> None:
    asked = [
        WatchFilter(),
        WatchFilter.kinds(pb.Task),
        WatchFilter.kinds(pb.Task, pb.Node),
        WatchFilter((Select(pb.Task), Select(pb.Service, id="a"))),
        WatchFilter((Select(pb.Service, id="b"),)),
    ]
    for kinds in ([pb.Task], [pb.Service], [pb.Task, pb.Service], [pb.Node, pb.Service, pb.Secret], []):
        events = tuple(Change(Action.CREATE, kind, None, kind(id=id)) for kind in kinds for id in "ab")
        commit = Commit(3, events, View(3))
        for each in asked:
            wanted = tuple(event for event in events if each.match(event))
            picked = each.pick(commit)
            assert (picked.events if picked is not None else ()) == (wanted if each.selections else events)
            if picked is not None:
                assert (picked.version, picked.view) == (commit.version, commit.view)


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "delete", "roll back", "find"]), st.sampled_from("abc"), st.integers(0, 2)),
    max_size=20,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)), STEPS)
def test_a_transaction_finds_by_key_what_a_look_at_all_would_find(
    stored: dict[str, int], steps: list[tuple[str, str, int]]
) -> None:
    """Whatever it wrote, wrote again, removed and took back, and wherever it was asked in between."""
    first = Transaction(View(), 1, 0.0)
    for id, slot in stored.items():
        first.create(pb.Task(id=id, service_id="s", slot=slot))
    tx = Transaction(apply(View(), first.changes, 1), 1, 0.0)
    for what, id, number in steps:
        old = tx.get(pb.Task, id)
        if what == "write":
            new = pb.Task(id=id, service_id="s", slot=number)
            if old is not None:
                new.meta.CopyFrom(old.meta)
            (tx.create if old is None else tx.update)(new)
        elif what == "delete" and old is not None:
            tx.delete(pb.Task, id)
        elif what == "roll back":
            tx.roll_back(min(number, len(tx.changes)))
        elif what == "find":
            assert tx.find(pb.Task, "slot", f"s/{number}") == [each for each in tx.all(pb.Task) if each.slot == number]
    for slot in range(3):
        assert tx.find(pb.Task, "slot", f"s/{slot}") == [each for each in tx.all(pb.Task) if each.slot == slot]


def test_a_find_in_a_long_batch_looks_only_at_what_was_written_under_its_key() -> None:
    looked_at: list[str] = []

    class Counting(Transaction):
        def _keys_of(self, kind: Kind, obj: Any) -> set[tuple[str, str]]:
            looked_at.append(obj.id)
            return super()._keys_of(kind, obj)

    tx = Counting(View(), 1, 0.0)
    for number in range(100):
        tx.create(pb.Task(id=f"t{number}", service_id="s", slot=number))
        assert [each.id for each in tx.find(pb.Task, "slot", f"s/{number}")] == [f"t{number}"]
    assert len(looked_at) == 200
