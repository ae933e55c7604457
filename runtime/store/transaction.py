"""Transactions: a view that sees its own writes, and keeps them as changes.

Rules kept here, as SwarmKit's store has them: an update must name the version that is stored (``update out of
sequence``); all objects that one transaction writes get the same new version; names are unique within a table, in any
case of letters, but for nodes and tasks; extensions never change and stay while resources use them.
A transaction function is pure, ``transaction -> answer``: it may be run again, on another view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from runtime.errors import Code, Refused
from runtime.store.changes import (
    BATCH_BYTES,
    MAX_BYTES,
    MAX_CHANGES,
    REQUEST_BYTES,
    Action,
    Change,
    TooLarge,
    encode_action,
)
from runtime.store.kinds import TABLES, Kind, StoreObject, T, Table, index_keys
from runtime.store.view import View
from runtime.wire.pb import objects_pb2 as pb
from runtime.wire.pb import types_pb2 as types

R = TypeVar("R")


class NameConflict(Refused):
    """Another object of the kind has that name."""

    def __init__(self) -> None:
        super().__init__(Code.ALREADY_EXISTS, "name conflicts with an existing object")


class AlreadyExists(Refused):
    """An object with that id exists."""

    def __init__(self) -> None:
        super().__init__(Code.ALREADY_EXISTS, "object already exists")


class NotExist(Refused):
    """There is no object with that id."""

    def __init__(self) -> None:
        super().__init__(Code.NOT_FOUND, "object does not exist")


class OutOfSequence(Refused):
    """The object has changed since the caller read it."""

    def __init__(self) -> None:
        super().__init__(Code.UNKNOWN, "update out of sequence")


class Transaction:
    """``version`` is what written objects are stamped with; None neither stamps nor checks (log replay)."""

    __slots__ = ("_base", "_encoded", "_found", "_keys", "_unkeyed", "_version", "_written", "changes", "now")

    def __init__(self, base: View, version: int | None, now: float) -> None:
        self._base = base
        self._version = version
        self._written: dict[Kind, dict[str, Any | None]] = {}
        self._keys: dict[int, tuple[Any, set[tuple[str, str]]]] = {}  # of what was written, once somebody asked
        self._found: dict[tuple[Kind, str, str], dict[str, None]] = {}  # ids that were under a key, or still are
        self._unkeyed: list[Any] = []  # what was written since that was last looked at
        self._encoded: list[bytes] = []
        self.now = now
        self.changes: list[Change] = []

    @property
    def version(self) -> int:
        """The version of the view underneath."""
        return self._base.version

    # Reading

    def get(self, kind: type[T], id: str) -> T | None:
        """The object as this transaction sees it."""
        written = self._written.get(kind)
        if written is not None and id in written:
            found: T | None = written[id]
            return found
        return self._base.get(kind, id)

    def find(self, kind: type[T], index: str, key: str | int) -> list[T]:
        """As View.find, with what this transaction wrote."""
        found = self._base.find(kind, index, key)
        written = self._written.get(kind)
        if not written:
            return found
        wanted = (index, str(key).lower() if index == "name" else str(key))
        mine = [obj for obj in self._written_under(kind, wanted) if wanted in self._keys_of(kind, obj)]
        return sorted([obj for obj in found if obj.id not in written] + mine, key=lambda obj: obj.id)

    def _written_under(self, kind: Kind, key: tuple[str, str]) -> list[Any]:
        """Of what was written, what stands under an index key or did before it was written again."""
        for obj in self._unkeyed:
            for each in self._keys_of(type(obj), obj):
                self._found.setdefault((type(obj), *each), {})[obj.id] = None
        self._unkeyed.clear()
        written = self._written[kind]
        return [obj for id in self._found.get((kind, *key), ()) if (obj := written[id]) is not None]

    def _keys_of(self, kind: Kind, obj: Any) -> set[tuple[str, str]]:
        """The object's index keys. A batch of many steps asks for those of what it wrote again and again."""
        known = self._keys.get(id(obj))
        if known is None:
            known = self._keys[id(obj)] = (obj, index_keys(TABLES[kind], obj))  # with it, so that its id stays its own
        return known[1]

    def all(self, kind: type[T]) -> list[T]:
        """As View.all, with what this transaction wrote."""
        written = self._written.get(kind)
        if not written:
            return self._base.all(kind)
        others = [obj for obj in self._base.all(kind) if obj.id not in written]
        return sorted(others + [obj for obj in written.values() if obj is not None], key=lambda obj: obj.id)

    def count(self, kind: type[T]) -> int:
        """As View.count, with what this transaction wrote."""
        more = sum(change.action is Action.CREATE for change in self.changes if change.kind is kind)
        less = sum(change.action is Action.REMOVE for change in self.changes if change.kind is kind)
        return self._base.count(kind) + more - less

    def prefix(self, kind: type[T], field: Literal["id", "name"], text: str) -> list[T]:
        """As View.prefix, with what this transaction wrote."""
        name = TABLES[kind].name
        if field == "id":
            return [obj for obj in self.all(kind) if obj.id.startswith(text)]
        return [obj for obj in self.all(kind) if name(obj) and name(obj).lower().startswith(text.lower())]

    # Writing

    def create(self, obj: StoreObject) -> Any:
        """Adds a copy of an object and returns that copy."""
        kind, table = type(obj), TABLES[type(obj)]
        assert obj.id, f"a {table.field} without an id"
        if self.get(kind, obj.id) is not None:
            raise AlreadyExists
        self._check_name(table, obj)
        self._check_extension_rules(obj)
        return self._write(Action.CREATE, table, obj, None)

    def update(self, obj: StoreObject) -> Any:
        """Replaces an object by a copy of its newer self and returns that copy."""
        kind, table = type(obj), TABLES[type(obj)]
        old = self.get(kind, obj.id)
        if old is None:
            raise NotExist
        assert obj is not old, f"{table.field} {obj.id} was changed in place: copy what a view gives before changing it"
        if kind is pb.Extension:
            raise Refused(Code.INVALID_ARGUMENT, "extensions are immutable")
        if self._version is not None and old.meta.version.index != obj.meta.version.index:
            raise OutOfSequence
        if table.unique_name and table.name(old) != table.name(obj):
            self._check_name(table, obj)
        return self._write(Action.UPDATE, table, obj, old)

    def set_status(self, task: pb.Task, status: types.TaskStatus) -> pb.Task:
        """Replaces a task, as this transaction gave it, by one that has another status and is the same otherwise."""
        assert self.get(pb.Task, task.id) is task, f"task {task.id} is not what this transaction gave"
        new = pb.Task()
        new.CopyFrom(task)
        new.status.CopyFrom(status)
        self._add(Action.UPDATE, TABLES[pb.Task], new, task, of_status=True)
        return new

    def delete(self, kind: type[T], id: str) -> T:
        """Removes an object and returns what it was."""
        old = self.get(kind, id)
        if old is None:
            raise NotExist
        if kind is pb.Extension and self.find(pb.Resource, "kind", TABLES[kind].name(old)):
            raise Refused(Code.UNKNOWN, "cannot delete extension: resources of its kind exist")
        self._written.setdefault(kind, {})[id] = None
        self.changes.append(Change(Action.REMOVE, kind, old, None))
        return old

    def roll_back(self, mark: int) -> None:
        """Forgets the changes from number ``mark`` on."""
        for change in reversed(self.changes[mark:]):
            self._written[change.kind][change.object.id] = change.old
            if change.old is not None:
                self._unkeyed.append(change.old)
        del self.changes[mark:]
        del self._encoded[mark:]

    def encoded(self) -> Sequence[bytes]:
        """The changes as a log entry holds them (`encode_action`), each made once."""
        self._encoded += map(encode_action, self.changes[len(self._encoded) :])
        return self._encoded

    def _write(self, action: Action, table: Table, obj: StoreObject, old: Any | None) -> Any:
        new = table.kind()
        new.CopyFrom(obj)
        self._add(action, table, new, old)
        return new

    def _add(self, action: Action, table: Table, new: Any, old: Any | None, *, of_status: bool = False) -> None:
        if self._version is not None:
            new.meta.version.index = self._version
            _set_time(new.meta.updated_at, self.now)
            if not new.meta.HasField("created_at"):
                _set_time(new.meta.created_at, self.now)
        self._written.setdefault(table.kind, {})[new.id] = new
        self._unkeyed.append(new)
        self.changes.append(Change(action, table.kind, old, new, of_status))

    def _check_name(self, table: Table, obj: Any) -> None:
        name = table.name(obj)
        if table.unique_name and name and any(each.id != obj.id for each in self.find(table.kind, "name", name)):
            raise NameConflict

    def _check_extension_rules(self, obj: Any) -> None:
        if isinstance(obj, pb.Extension) and obj.annotations.name in _TABLE_NAMES:
            raise Refused(Code.UNKNOWN, f"extension name {obj.annotations.name} is that of a built-in table")
        if isinstance(obj, pb.Resource) and not self.find(pb.Extension, "name", obj.kind):
            raise Refused(Code.INVALID_ARGUMENT, f"object kind {obj.kind} is unregistered")


_TABLE_NAMES = frozenset(table.field for table in TABLES.values())


def _set_time(stamp: Any, seconds: float) -> None:
    whole = int(seconds // 1)
    stamp.seconds = whole
    stamp.nanos = int((seconds - whole) * 1e9)


def cut_batch(
    steps: Sequence[Callable[[Any], R]], begin: Callable[[], Transaction]
) -> tuple[Transaction, list[R | Refused]]:
    """Runs steps in one transaction until it is full, and returns it with what each of them came to.

    ``begin`` gives an empty transaction on the newest state; the caller goes on with the steps that are left. It is cut
    behind a step that reaches 200 changes or three quarters of the largest entry, and before one that would go
    beyond what an entry may hold; a step that does so alone is refused. A step that is refused leaves nothing of
    itself behind and does not end the others.
    """
    transaction = begin()
    results: list[R | Refused] = []
    size = REQUEST_BYTES
    for step in steps:
        mark = len(transaction.changes)
        try:
            results.append(step(transaction))
        except Refused as refused:
            transaction.roll_back(mark)
            results.append(refused)
            continue
        more = sum(map(len, transaction.encoded()[mark:]))
        if len(transaction.changes) > MAX_CHANGES or size + more > MAX_BYTES:
            transaction.roll_back(mark)
            results.pop()
            if mark:
                break
            results.append(TooLarge(more))
            continue
        size += more
        if len(transaction.changes) >= MAX_CHANGES or size >= BATCH_BYTES:
            break
    return transaction, results
