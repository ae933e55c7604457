"""Changes: what a transaction did, in order, and how the raft log carries it.

One transaction is one log entry: an ``InternalRaftRequest`` with one action per change, each with the whole object.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import Code, Refused
from runtime.store.by_hand import key, varint
from runtime.store.kinds import BY_FIELD, TABLES, Kind
from runtime.store.view import TableEdit, View
from runtime.wire.pb import raft_pb2

MAX_CHANGES = 200  # where a batch cuts; one transaction may hold more, within its bytes
MAX_BYTES = 1572864  # 1.5 MiB: what one proposal may hold
BATCH_BYTES = 1179648  # three quarters of that: where a batch cuts
REQUEST_BYTES = 11  # at most so many bytes an entry has beside its actions


class Action(enum.IntEnum):
    """What happened to an object; the numbers are the wire's."""

    CREATE = 1
    UPDATE = 2
    REMOVE = 3


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """One change. ``old`` is absent for a create, ``new`` for a removal. Its repr holds nothing of the objects.

    ``of_status`` says of an update of a task that nothing but its status (and its ``meta``) is another: most of what is
    written says how far tasks are, and nobody has to find that out by comparing them. Without it nothing is known.
    """

    action: Action
    kind: Kind
    old: Any | None
    new: Any | None
    of_status: bool = False

    @property
    def object(self) -> Any:
        """The object as it is now, or as it was last."""
        return self.new if self.new is not None else self.old

    def __repr__(self) -> str:
        return f"Change({self.action.name}, {TABLES[self.kind].field} {self.object.id})"


class TooLarge(Refused):
    """A transaction that one log entry may not hold."""

    def __init__(self, size: int) -> None:
        super().__init__(
            Code.INVALID_ARGUMENT, f"raft: raft message is too large and can't be sent ({size} of {MAX_BYTES} bytes)"
        )


def encode_action(change: Change) -> bytes:
    """One change as a log entry holds it: a field ``action`` of the request.

    Put together by hand from the object's own bytes: a message around each object would copy it twice.
    """
    data = change.object.SerializeToString(deterministic=True)
    action = b"".join((_KINDS[change.action], _TARGETS[change.kind], varint(len(data)), data))
    return b"".join((_ACTION, varint(len(action)), action))


def join_actions(request_id: int, actions: Iterable[bytes]) -> bytes:
    """The bytes of a log entry; refused when they are too many. (200 changes is where batches cut, no limit of one.)"""
    data = b"".join((raft_pb2.InternalRaftRequest(id=request_id).SerializeToString(), *actions))
    if len(data) > MAX_BYTES:
        raise TooLarge(len(data))
    return data


def encode_request(request_id: int, changes: Iterable[Change]) -> bytes:
    """The bytes of a log entry with these changes; refused when they are too many."""
    return join_actions(request_id, map(encode_action, changes))


_ACTION = key(raft_pb2.InternalRaftRequest, "action")
_TARGETS = {kind: key(raft_pb2.StoreAction, table.field) for kind, table in TABLES.items()}
_KINDS = {each: raft_pb2.StoreAction(action=int(each)).SerializeToString() for each in Action}  # type: ignore[arg-type]


def decode_request(data: bytes) -> raft_pb2.InternalRaftRequest:
    """A log entry read back; DecodeError if it is none."""
    return raft_pb2.InternalRaftRequest.FromString(data)


def from_actions(view: View, actions: Iterable[raft_pb2.StoreAction]) -> list[Change]:
    """What actions mean for a view: the same changes that their transaction made, with the old objects of this view.

    Raises RuntimeError where log and view do not fit together: an update of what is not there, say.
    """
    changes: list[Change] = []
    newest: dict[tuple[Kind, str], Any | None] = {}
    for action in actions:
        field = action.WhichOneof("target")
        if field is None or action.action == 0:
            raise RuntimeError("a log entry holds an action without an object or a kind")
        table = BY_FIELD[field]
        given = getattr(action, field)
        key = (table.kind, given.id)
        old = newest[key] if key in newest else view.get(table.kind, given.id)
        done = Action(action.action)
        if (old is None) != (done is Action.CREATE):
            raise RuntimeError(f"the log says {done.name} of {field} {given.id}, the store says otherwise")
        new = None
        if done is not Action.REMOVE:
            new = table.kind()
            new.CopyFrom(given)
        newest[key] = new
        changes.append(Change(done, table.kind, old, new))
    return changes


def apply(view: View, changes: Sequence[Change], index: int) -> View:
    """The view after a log entry."""
    edits: dict[Kind, TableEdit] = {}
    for change in changes:
        edit = edits.get(change.kind)
        if edit is None:
            edit = edits[change.kind] = TableEdit(view.table(change.kind))
        if change.new is not None:
            edit.put(change.new, change.old, of_status=change.of_status)
        else:
            edit.remove(change.old)
    tables = {table.table.kind: table for table in view.tables()}
    tables.update((kind, edit.freeze()) for kind, edit in edits.items())
    return View(index, tables)
