"""Snapshots of the store: all its objects, how they are written and read, and a store made equal to them.

A snapshot may be as large as all of a swarm's state. So it is never a message of the library's, which would hold every
object once more: it is written in pieces and read object by object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from runtime.store.by_hand import LENGTH_DELIMITED, fields, key, varint
from runtime.store.changes import Action, Change, apply
from runtime.store.kinds import TABLES, Kind, Table, index_keys
from runtime.store.view import View
from runtime.wire.pb import snapshot_pb2

PIECE_BYTES = 1 << 20

Objects: TypeAlias = Mapping[Kind, Sequence[Any]]

_STORE = key(snapshot_pb2.Snapshot, "store")
_STORE_NUMBER = snapshot_pb2.Snapshot.STORE_FIELD_NUMBER
_TABLES: dict[int, Table] = {
    field.number: table
    for field in snapshot_pb2.StoreSnapshot.DESCRIPTOR.fields
    for table in TABLES.values()
    if table.list_field == field.name
}
"""By the number of the field that holds a table, in the order in which they are written."""


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """What a snapshot holds: its version, the members, and the objects of each kind."""

    version: int
    membership: snapshot_pb2.ClusterSnapshot
    objects: Objects


def dump(view: View) -> Objects:
    """All objects of a view, each kind sorted by id."""
    return {table.kind: view.all(table.kind) for table in TABLES.values()}


def pieces(head: bytes, view: View, size: int = PIECE_BYTES) -> Iterator[bytes]:
    """The bytes of a ``Snapshot``: ``head``, which is what it holds beside the store, then all objects, each kind
    sorted by id.

    They come in pieces of ``size`` bytes and at most one object more, one at least, so that whoever takes them can do
    something else in between. Each piece is a message by itself; joined they are the whole, for messages that stand one
    behind the other are read as one. (SwarmKit reads them so, too.)
    """
    parts, held, over = list[bytes](), 0, False
    for table in _TABLES.values():
        before = key(snapshot_pb2.StoreSnapshot, table.list_field)
        for obj in view.all(table.kind):
            data = obj.SerializeToString(deterministic=True)
            parts += (before, varint(len(data)), data)
            held += len(data)
            if held >= size:
                yield _piece(head, parts)
                head, parts, held, over = b"", [], 0, True
    if parts or not over:
        yield _piece(head, parts)


def _piece(head: bytes, parts: list[bytes]) -> bytes:
    return b"".join((head, _STORE, varint(sum(map(len, parts))), *parts))


def read(data: bytes) -> Content:
    """What the bytes of a ``Snapshot`` hold; DecodeError if they are none."""
    objects: dict[Kind, list[Any]] = {table.kind: [] for table in TABLES.values()}
    rest = []
    for each in fields(data):
        if (each.number, each.wire_type) != (_STORE_NUMBER, LENGTH_DELIMITED):
            rest.append(data[each.begin : each.end])
            continue
        for inner in fields(data, each.start, each.end):
            table = _TABLES.get(inner.number)
            if table is not None and inner.wire_type == LENGTH_DELIMITED:
                objects[table.kind].append(table.kind.FromString(data[inner.start : inner.end]))
    head = snapshot_pb2.Snapshot.FromString(b"".join(rest))
    return Content(head.version, head.membership, objects)


def trouble(objects: Objects) -> str:
    """Why no store can be made from a snapshot; empty if one can. It is tried on every object."""
    for table in TABLES.values():
        ids = set()
        for obj in objects.get(table.kind, ()):
            if not obj.id:
                return f"a {table.field} has no id"
            if obj.id in ids:
                return f"two {table.list_field} have the id {obj.id}"
            ids.add(obj.id)
            index_keys(table, obj)
    return ""


def restore(view: View, objects: Objects, index: int) -> tuple[View, list[Change]]:
    """The view that equals a snapshot taken at ``index``, and what changed from ``view`` to it. The objects are taken
    over.

    By difference, as SwarmKit does it: what is the same stays the same object, and watchers hear only of the rest.
    """
    changes = [change for table in TABLES.values() for change in _differences(view, table, objects.get(table.kind, ()))]
    return apply(view, changes, index), changes


def _differences(view: View, table: Table, objects: Sequence[Any]) -> Iterator[Change]:
    wanted = {obj.id: obj for obj in objects}
    assert len(wanted) == len(objects), f"a snapshot holds two {table.list_field} with one id"
    for old in view.all(table.kind):
        if old.id not in wanted:
            yield Change(Action.REMOVE, table.kind, old, None)
    for id in sorted(wanted):
        old, new = view.get(table.kind, id), wanted[id]
        if old is None or old != new:
            yield Change(Action.CREATE if old is None else Action.UPDATE, table.kind, old, new)
