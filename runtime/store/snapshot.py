"""Snapshots of the store: all tables as one message, and a store made equal to one."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.store.changes import Action, Change, apply
from runtime.store.kinds import TABLES, Table, index_keys
from runtime.store.view import View
from runtime.wire.pb import snapshot_pb2


def dump(view: View) -> snapshot_pb2.StoreSnapshot:
    """All objects, each table sorted by id."""
    snapshot = snapshot_pb2.StoreSnapshot()
    for table in TABLES.values():
        getattr(snapshot, table.list_field).extend(view.all(table.kind))
    return snapshot


def trouble(snapshot: snapshot_pb2.StoreSnapshot) -> str:
    """Why no store can be made from a snapshot; empty if one can. It is tried on every object."""
    for table in TABLES.values():
        ids = set()
        for obj in getattr(snapshot, table.list_field):
            if not obj.id:
                return f"a {table.field} has no id"
            if obj.id in ids:
                return f"two {table.list_field} have the id {obj.id}"
            ids.add(obj.id)
            index_keys(table, obj)
    return ""


def restore(view: View, snapshot: snapshot_pb2.StoreSnapshot, index: int) -> tuple[View, list[Change]]:
    """The view that equals a snapshot taken at ``index``, and what changed from ``view`` to it.

    By difference, as SwarmKit does it: what is the same stays the same object, and watchers hear only of the rest.
    """
    changes = [change for table in TABLES.values() for change in _differences(view, table, snapshot)]
    return apply(view, changes, index), changes


def _differences(view: View, table: Table, snapshot: snapshot_pb2.StoreSnapshot) -> Iterator[Change]:
    objects = getattr(snapshot, table.list_field)
    wanted = {obj.id: obj for obj in objects}
    assert len(wanted) == len(objects), f"a snapshot holds two {table.list_field} with one id"
    for old in view.all(table.kind):
        if old.id not in wanted:
            yield Change(Action.REMOVE, table.kind, old, None)
    for id in sorted(wanted):
        old = view.get(table.kind, id)
        if old is None or old != wanted[id]:
            new = table.kind()
            new.CopyFrom(wanted[id])
            yield Change(Action.CREATE if old is None else Action.UPDATE, table.kind, old, new)
