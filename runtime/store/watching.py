"""SwarmKit's Watch service: which changes a request asks for, and how commits are told.

Rules it owns: entries are alternatives, and the filters of an entry must all hold; a kind that is none of the store's
own means resources of that kind; two filters of one sort (an id and its prefix are one sort) are refused; what a kind
does not have is ignored. A commit is one message with its version, unless it is so large that no peer would take it:
then the version comes with the last part alone, so that nobody resumes in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from runtime.errors import invalid
from runtime.store.changes import Action, Change
from runtime.store.events import Commit, Select
from runtime.store.kinds import BY_FIELD, TABLES, Kind
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import watch_pb2 as watch

NO_KIND: Final = "no kind of object specified"
NO_ACTION: Final = "unrecognized action"
CONFLICT: Final = "conflicting filters specified"
COMPACTED: Final = "requested index is unavailable due to compaction"
OUT_OF_ORDER: Final = "versions are out of order"
PART_BYTES: Final = 3 << 20  # a peer takes messages of up to 4 MiB; one change is at most 1.5 MiB before and after

_BITS: Final = {
    watch.WATCH_ACTION_CREATE: Action.CREATE,
    watch.WATCH_ACTION_UPDATE: Action.UPDATE,
    watch.WATCH_ACTION_REMOVE: Action.REMOVE,
}
_KINDS: Final[dict[Action, watch.WatchActionKind]] = {action: bit for bit, action in _BITS.items()}
_SORTS: Final = {
    "id_prefix": {"id"},
    "name_prefix": {"name"},
    "custom_prefix": {"custom"},
    "slot": {"slot", "service_id"},
}
_TASK: Final = frozenset({"service_id", "node_id", "slot", "desired_state"})
_NODE: Final = frozenset({"role", "membership"})
_OF_ANY: Final = frozenset({"id", "id_prefix", "name", "name_prefix", "custom", "custom_prefix"})


def selections(entries: Iterable[watch.WatchRequest.WatchEntry]) -> tuple[Select, ...]:
    """What a request asks for; no entries select nothing. Refused with INVALID_ARGUMENT if an entry makes no sense."""
    return tuple(_selection(entry) for entry in entries)


def _selection(entry: watch.WatchRequest.WatchEntry) -> Select:
    if not entry.kind:
        raise invalid(NO_KIND)
    actions = frozenset(action for bit, action in _BITS.items() if entry.action & bit)
    if not actions:
        raise invalid(NO_ACTION)
    known = BY_FIELD.get(entry.kind)
    if known is None or known.kind is objects.Resource:
        prefix = f"{entry.kind}|"
        return Select(objects.Resource, actions, resource_kind=entry.kind, **_filters(entry, _OF_ANY, prefix))
    return Select(known.kind, actions, **_filters(entry, _filters_of(known.kind), ""))


def _filters_of(kind: Kind) -> frozenset[str]:
    if kind is objects.Task:
        return _OF_ANY | _TASK
    return _OF_ANY | _NODE if kind is objects.Node else _OF_ANY


def _filters(entry: watch.WatchRequest.WatchEntry, known: frozenset[str], custom_prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    sorts: set[str] = set()
    for given in entry.filters:
        name = given.WhichOneof("By")
        if name is None or name not in known:
            continue
        sort = _SORTS.get(name, {name})
        if sort & sorts:
            raise invalid(CONFLICT)
        sorts |= sort
        found[name] = _value(name, getattr(given, name), custom_prefix)
    return found


def _value(name: str, value: Any, custom_prefix: str) -> Any:
    if name in ("custom", "custom_prefix"):
        return f"{custom_prefix}{value.index}|{value.value}"
    return (value.service_id, value.slot) if name == "slot" else value


def messages(commit: Commit, old_objects: bool) -> Iterator[watch.WatchMessage]:
    """A commit as it is told, mostly in one message."""
    part, size = watch.WatchMessage(), 0
    for change in commit.events:
        event = _event(change, old_objects)
        more = event.ByteSize()
        if part.events and size + more > PART_BYTES:
            yield part
            part, size = watch.WatchMessage(), 0
        part.events.append(event)
        size += more
    part.version.index = commit.version
    yield part


def _event(change: Change, old_objects: bool) -> watch.WatchMessage.Event:
    event = watch.WatchMessage.Event(action=_KINDS[change.action])
    field = TABLES[change.kind].field
    getattr(event.object, field).CopyFrom(change.object)
    if old_objects and change.action is Action.UPDATE:
        getattr(event.old_object, field).CopyFrom(change.old)
    return event
