"""Views: immutable states of the whole store, which anybody may read from any thread without a lock.

What a view hands out are the published objects themselves. They never change: whoever wants another one copies first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from runtime.store.kinds import TABLES, Kind, StoreObject, T, Table, index_keys, moved_by_status, moved_keys
from runtime.store.pmap import Edit, PersistentMap

Ids = PersistentMap[bool]


class InvalidFind(LookupError):
    """A table was asked for an index that it does not have."""


class TableView:
    """One table: its objects by id, and ids by index and key."""

    __slots__ = ("indices", "objects", "table")

    def __init__(self, table: Table, objects: PersistentMap[Any], indices: PersistentMap[Ids]) -> None:
        self.table = table
        self.objects = objects
        self.indices = indices  # "index\0key" -> ids


class View:
    """A state of the store; ``version`` is the raft index of the last change in it."""

    __slots__ = ("_tables", "version")

    def __init__(self, version: int = 0, tables: dict[Kind, TableView] | None = None) -> None:
        self.version = version
        self._tables = tables if tables is not None else _EMPTY

    def get(self, kind: type[T], id: str) -> T | None:
        """The object with that id, or None."""
        found: T | None = self._tables[kind].objects.get(id)
        return found

    def find(self, kind: type[T], index: str, key: str | int) -> list[T]:
        """The objects under a key of an index, sorted by id; InvalidFind if the table has no such index."""
        table = self._tables[kind]
        if index not in table.table.indices:
            raise InvalidFind(f"{table.table.field}s have no index {index!r}")
        text = str(key)
        ids = table.indices.get(f"{index}\0{text.lower() if index == 'name' else text}")
        if ids is None:
            return []
        objects = table.objects
        return [_present(objects.get(id)) for id in sorted(ids)]

    def count_found(self, kind: type[T], index: str, key: str | int) -> int:
        """How many objects ``find`` would give."""
        ids = self._tables[kind].indices.get(f"{index}\0{key}")
        return 0 if ids is None else len(ids)

    def all(self, kind: type[T]) -> list[T]:
        """All objects of a kind, sorted by id."""
        return sorted(self._tables[kind].objects.values(), key=_id)

    def count(self, kind: type[T]) -> int:
        """How many objects of a kind there are."""
        return len(self._tables[kind].objects)

    def prefix(self, kind: type[T], field: Literal["id", "name"], text: str) -> list[T]:
        """The objects whose id or name begins with a text, sorted by id."""
        table = self._tables[kind]
        if field == "id":
            return [_present(table.objects.get(id)) for id in sorted(table.objects) if id.startswith(text)]
        wanted, name = text.lower(), table.table.name
        return [obj for obj in self.all(kind) if name(obj) and name(obj).lower().startswith(wanted)]

    def at(self, version: int) -> View:
        """The same state under another version: the log had entries in between that changed no object."""
        return View(version, self._tables)

    def tables(self) -> Iterable[TableView]:
        """All tables, in the fixed order of their registration."""
        return self._tables.values()

    def table(self, kind: Kind) -> TableView:
        """One table."""
        return self._tables[kind]


def _present(obj: Any) -> Any:
    assert obj is not None, "an index names an object that is not there"
    return obj


def _id(obj: StoreObject) -> str:
    return obj.id


class TableEdit:
    """The next state of one table while it is being made. Each key that changes is edited once, however often."""

    __slots__ = ("_ids", "_indices", "_objects", "_table")

    def __init__(self, base: TableView) -> None:
        self._table = base.table
        self._objects: Edit[Any] = base.objects.edit()
        self._indices = base.indices
        self._ids: dict[str, Edit[bool]] = {}

    def put(self, obj: Any, old: Any | None, *, of_status: bool = False) -> None:
        """Adds an object, or replaces ``old`` by it; ``of_status`` is as in ``Change``."""
        self._objects.set(obj.id, obj)
        gone, new = moved_by_status(old, obj) if of_status else moved_keys(self._table, old, obj)
        for index, key in gone:
            self._edit(f"{index}\0{key}").delete(obj.id)
        for index, key in new:
            self._edit(f"{index}\0{key}").set(obj.id, True)

    def remove(self, old: Any) -> None:
        """Removes an object."""
        self._objects.delete(old.id)
        for index, key in index_keys(self._table, old):
            self._edit(f"{index}\0{key}").delete(old.id)

    def freeze(self) -> TableView:
        """The new state."""
        indices = self._indices.edit()
        for key, ids in self._ids.items():
            if len(ids):
                indices.set(key, ids.freeze())
            elif key in self._indices:
                indices.delete(key)
        return TableView(self._table, self._objects.freeze(), indices.freeze())

    def _edit(self, key: str) -> Edit[bool]:
        edit = self._ids.get(key)
        if edit is None:
            edit = self._ids[key] = (self._indices.get(key) or _NO_IDS).edit()
        return edit


_NO_IDS: Ids = PersistentMap()
_EMPTY: dict[Kind, TableView] = {
    kind: TableView(table, PersistentMap(), PersistentMap()) for kind, table in TABLES.items()
}


class Published:
    """The newest committed view. Its one writer replaces ``view``; readers take the reference and keep it."""

    __slots__ = ("view",)

    def __init__(self, view: View | None = None) -> None:
        self.view = view if view is not None else View()
