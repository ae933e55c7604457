"""Events: every change once, in commit order, with the object before and after; filters; and where a watcher resumes.

A ``Commit`` holds the changes of one log entry and the view after it. A watcher that names the version it has seen
gets all later commits without a gap, or is told that it lost its place; it never misses one silently.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from runtime.store.changes import Action, Change
from runtime.store.kinds import TABLES, Kind
from runtime.store.view import View
from runtime.wire.pb import objects_pb2 as pb

Event = Change
"""A committed change."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One log entry's changes. ``version`` is its raft index; ``view`` holds the store after it, or where the commit is
    told again to a watcher that resumes, after a later one."""

    version: int
    events: tuple[Event, ...]
    view: View
    kinds: frozenset[Kind] = field(init=False, repr=False, compare=False)
    """Of which kinds its events are: seldom more than one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", frozenset(event.kind for event in self.events))


@dataclass(frozen=True, slots=True)
class Select:
    """Which objects of one kind; what is None does not matter, what is given must all hold.

    ``name`` and ``name_prefix`` compare as the tables do, but in the case given; ``custom`` is ``key|value``, of
    resources ``kind|key|value``. What a kind does not have (a role of tasks, say) is ignored.
    """

    kind: Kind
    actions: frozenset[Action] = frozenset(Action)
    id: str | None = None
    id_prefix: str | None = None
    name: str | None = None
    name_prefix: str | None = None
    node_id: str | None = None
    service_id: str | None = None
    slot: tuple[str, int] | None = None
    desired_state: int | None = None
    role: int | None = None
    membership: int | None = None
    custom: str | None = None
    custom_prefix: str | None = None
    resource_kind: str | None = None

    def match(self, event: Event) -> bool:
        """True when the event is asked for."""
        if event.kind is not self.kind or event.action not in self.actions:
            return False
        obj = event.object
        return self._match_names(obj) and self._match_task(obj) and self._match_rest(obj)

    def _match_names(self, obj: Any) -> bool:
        if (self.id is not None and obj.id != self.id) or (
            self.id_prefix is not None and not obj.id.startswith(self.id_prefix)
        ):
            return False
        if self.name is None and self.name_prefix is None:
            return True
        name = TABLES[self.kind].name(obj)
        return (self.name is None or name == self.name) and (
            self.name_prefix is None or name.startswith(self.name_prefix)
        )

    def _match_task(self, obj: Any) -> bool:
        return self.kind is not pb.Task or (
            (self.node_id is None or obj.node_id == self.node_id)
            and (self.service_id is None or obj.service_id == self.service_id)
            and (self.slot is None or (obj.service_id, obj.slot) == self.slot)
            and (self.desired_state is None or obj.desired_state == self.desired_state)
        )

    def _match_rest(self, obj: Any) -> bool:
        if self.kind is pb.Node:
            if self.role is not None and obj.role != self.role:
                return False
            if self.membership is not None and obj.spec.membership != self.membership:
                return False
        if self.kind is pb.Resource and self.resource_kind is not None and obj.kind != self.resource_kind:
            return False
        return self._match_custom(obj)

    def _match_custom(self, obj: Any) -> bool:
        if self.custom is None and self.custom_prefix is None:
            return True
        entries = [key for index, key in TABLES[self.kind].keys(obj) if index == "custom"]
        return (self.custom is None or self.custom in entries) and (
            self.custom_prefix is None or any(entry.startswith(self.custom_prefix) for entry in entries)
        )


@dataclass(frozen=True, slots=True)
class WatchFilter:
    """Events that match any of the selections; no selection at all is every event."""

    selections: tuple[Select, ...] = ()
    whole_kinds: frozenset[Kind] = field(init=False, repr=False, compare=False)
    """The kinds of which every change is asked for: most watchers ask for nothing else."""
    all_kinds: frozenset[Kind] = field(init=False, repr=False, compare=False)
    """The kinds of which any change is asked for."""

    def __post_init__(self) -> None:
        whole = frozenset(each.kind for each in self.selections if each == Select(each.kind))
        object.__setattr__(self, "whole_kinds", whole)
        object.__setattr__(self, "all_kinds", frozenset(each.kind for each in self.selections))

    @classmethod
    def kinds(cls, *kinds: Kind) -> WatchFilter:
        """Every change of these kinds."""
        return cls(tuple(Select(kind) for kind in kinds))

    def match(self, event: Event) -> bool:
        """True when the event is asked for."""
        if not self.selections or event.kind in self.whole_kinds:
            return True
        return any(select.match(event) for select in self.selections)

    def pick(self, commit: Commit) -> Commit | None:
        """The commit with the events asked for, or None if there are none."""
        if not self.selections or commit.kinds <= self.whole_kinds:
            return commit
        if commit.kinds.isdisjoint(self.all_kinds):
            return None
        events = tuple(event for event in commit.events if self.match(event))
        return Commit(commit.version, events, commit.view) if events else None


class LostPlace(LookupError):
    """The version that a watcher names is older than what is kept: it must read the view and begin anew."""

    def __init__(self, version: int, oldest: int) -> None:
        super().__init__(f"version {version} cannot be resumed from: {oldest} is the oldest that can")
        self.version = version
        self.oldest = oldest


class History:
    """The newest changes, bounded by their number.

    Their views are not kept: each is a version of all tables, 8 KiB of its own, and whoever resumes can do with the
    newest as with theirs, which he would have seen had he been later.
    """

    def __init__(self, start: int = 0, capacity: int = 10_000) -> None:
        self._entries: deque[tuple[int, tuple[Event, ...]]] = deque()
        self._start = start  # the version before the oldest entry kept
        self._events = 0
        self._capacity = capacity
        self._newest = start

    def add(self, commit: Commit) -> None:
        """Takes the next commit; versions grow."""
        assert commit.version > self.newest, f"commit {commit.version} after {self.newest}"
        self._entries.append((commit.version, commit.events))
        self._newest = commit.version
        self._events += len(commit.events)
        while self._events > self._capacity and len(self._entries) > 1:
            version, events = self._entries.popleft()
            self._events -= len(events)
            self._start = version

    @property
    def newest(self) -> int:
        """The newest version, with or without a change in it."""
        return self._newest

    def advance(self, version: int) -> None:
        """The log went on to ``version`` without a change."""
        self._newest = max(self._newest, version)

    def since(self, version: int, view: View) -> list[Commit]:
        """All commits after ``version``, with ``view``, the newest; LostPlace if some are no longer kept, or if it is
        not of this history."""
        if not self._start <= version <= self._newest:
            raise LostPlace(version, self._start)
        return [Commit(at, events, view) for at, events in self._entries if at > version]

    def reset(self, version: int) -> None:
        """Forgets everything: the store was replaced by a snapshot at ``version``."""
        self._entries.clear()
        self._events = 0
        self._start = self._newest = version
