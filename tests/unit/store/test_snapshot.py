"""Snapshots as bytes: written in pieces, read object by object, the same that protobuf's own messages are."""

from __future__ import annotations

import random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.store.by_hand import VARINT, fields, key, varint
from runtime.store.changes import Action, Change, apply
from runtime.store.kinds import TABLES
from runtime.store.snapshot import dump, pieces, read, restore, trouble
from runtime.store.view import View
from runtime.wire.pb import objects_pb2 as pb
from runtime.wire.pb import snapshot_pb2

STORE = b"\x1a"


def service(id: str, size: int = 0) -> pb.Service:
    made = pb.Service(id=id)
    made.spec.annotations.name = f"name-{id}"
    made.spec.annotations.labels["x"] = "y" * size
    return made


def config(id: str, size: int = 0) -> pb.Config:
    made = pb.Config(id=id)
    made.spec.annotations.name = f"name-{id}"
    made.spec.data = bytes(size)
    return made


def a_view(*objects: pb.Service | pb.Config) -> View:
    return apply(View(), [Change(Action.CREATE, type(each), None, each) for each in objects], 7)


def whole(head: snapshot_pb2.Snapshot, view: View) -> snapshot_pb2.Snapshot:
    """The same as a message of the library's."""
    message = snapshot_pb2.Snapshot()
    message.CopyFrom(head)
    message.store.SetInParent()
    for table in TABLES.values():
        getattr(message.store, table.list_field).extend(view.all(table.kind))
    return message


def a_head() -> snapshot_pb2.Snapshot:
    head = snapshot_pb2.Snapshot()
    head.membership.members.add(raft_id=7, node_id="n", addr="a:1")
    head.membership.removed.append(9)
    return head


sizes = st.lists(st.integers(0, 400), max_size=12)


@given(sizes, sizes, st.integers(1, 600))
def test_pieces_joined_are_the_whole_snapshot_and_each_is_one_by_itself(
    services: list[int], configs: list[int], size: int
) -> None:
    view = a_view(
        *(service(f"s{number:02}", size) for number, size in enumerate(services)),
        *(config(f"c{number:02}", size) for number, size in enumerate(configs)),
    )
    head = a_head()
    found = list(pieces(head.SerializeToString(), view, size))
    assert snapshot_pb2.Snapshot.FromString(b"".join(found)) == whole(head, view)
    assert max(map(len, found)) < size + 400 + 200
    merged = snapshot_pb2.Snapshot()
    for piece in found:
        merged.MergeFrom(snapshot_pb2.Snapshot.FromString(piece))
    assert merged == whole(head, view)
    content = read(b"".join(found))
    assert (content.version, content.membership) == (0, head.membership)
    assert content.objects == dump(view)


def test_a_state_that_fits_is_one_piece_and_the_same_bytes_as_protobuf_writes() -> None:
    view, head = a_view(service("a"), config("b", 100)), a_head()
    assert list(pieces(head.SerializeToString(), view)) == [whole(head, view).SerializeToString(deterministic=True)]


def test_an_empty_store_is_said_to_be_there() -> None:
    head = a_head()
    assert list(pieces(head.SerializeToString(), View())) == [whole(head, View()).SerializeToString()]
    assert list(pieces(b"", View())) == [snapshot_pb2.Snapshot(store={}).SerializeToString()] == [STORE + b"\x00"]


def test_what_is_read_of_one_message_is_what_protobuf_reads_of_it() -> None:
    """A snapshot of SwarmKit's holds its store as one field."""
    view, head = a_view(*(service(f"s{number}", 50) for number in range(20)), config("c", 9)), a_head()
    content = read(whole(head, view).SerializeToString())
    assert content.objects == dump(view)
    assert content.membership == head.membership


def test_fields_that_nobody_knows_are_passed_over_and_a_version_is_told() -> None:
    odd = b"".join(
        (
            b"\x08\x05",  # version 5
            varint(50 << 3 | VARINT) + varint(1 << 60),
            varint(51 << 3 | 1) + bytes(8),
            varint(52 << 3 | 5) + bytes(4),
            varint(53 << 3 | 2) + b"\x03abc",
            b"\x18\x07",  # the store's number, as a plain number
            STORE + b"\x05" + varint(200 << 3 | 2) + b"\x02hi",
        )
    )
    content = read(odd)
    assert content.version == 5 == snapshot_pb2.Snapshot.FromString(odd).version
    assert not any(content.objects.values())


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a", b"\x0a\x05abc", b"\x80" * 11, b"\x03", b"\x07", b"\x02\x00", b"\x09\x00", b"\x0d\x00", b"\x08\x80",
        STORE + b"\x02\x0a\x05", STORE + b"\x02\x0a\x01" + b"\xff", STORE + b"\x7f", b"\x12\x01\xff",
    ],
)  # fmt: skip
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read(data)


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_damaged_bytes_are_read_as_protobuf_reads_them_or_refused(seed: int) -> None:
    random_ = random.Random(seed)
    view = a_view(service("a", 20), service("b"), config("c", 30))
    data = bytearray(b"".join(pieces(a_head().SerializeToString(), view, random_.choice([1, 1000]))))
    for _ in range(random_.randint(1, 3)):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    try:
        content = read(bytes(data))
    except DecodeError:
        return
    message = snapshot_pb2.Snapshot.FromString(bytes(data))
    assert (content.version, content.membership) == (message.version, message.membership)
    for table in TABLES.values():
        read_there = list(getattr(message.store, table.list_field))
        assert list(content.objects[table.kind]) == read_there


def test_the_fields_of_a_message_are_told_with_their_places() -> None:
    data = b"\x08\x96\x01" + key(pb.Service, "meta") + b"\x02ab"
    one, two = fields(data)
    assert (one.number, one.wire_type, data[one.begin : one.end]) == (1, VARINT, b"\x08\x96\x01")
    assert data[two.start : two.end] == b"ab"
    assert [data[each.start : each.end] for each in fields(data, 3, len(data))] == [b"ab"]
    with pytest.raises(DecodeError):
        list(fields(data, 0, 2))


@given(st.integers(0, 2**64 - 1))
def test_a_number_is_read_as_it_was_written(number: int) -> None:
    (field,) = fields(b"\x08" + varint(number))
    assert field.end == 1 + len(varint(number))
    length = number % 1000
    (held,) = fields(b"\x0a" + varint(length) + bytes(length))
    assert held.end - held.start == length


def test_what_is_restored_is_the_objects_themselves_where_they_are_new_and_the_old_ones_where_they_are_not() -> None:
    old = a_view(service("a"), service("b"))
    content = read(b"".join(pieces(b"", a_view(service("b"), service("c")))))
    view, changes = restore(old, content.objects, 9)
    assert [(change.action, change.object.id) for change in changes] == [(Action.REMOVE, "a"), (Action.CREATE, "c")]
    assert view.get(pb.Service, "b") is old.get(pb.Service, "b")
    assert view.get(pb.Service, "c") is content.objects[pb.Service][1]


def test_objects_that_no_store_can_hold_are_named() -> None:
    assert trouble(dump(a_view(service("a"), config("a")))) == ""
    assert trouble({pb.Service: [service("")]}) == "a service has no id"
    assert trouble({pb.Config: [config("a"), config("b"), config("a")]}) == "two configs have the id a"
