"""What one node is to run, as the dispatcher tells it: a complete set, then changes, each on top of the last.

Rules owned here (SwarmKit's dispatcher):
1. A task is told from ASSIGNED on, and again when anything but its status changed: its status came from the agent.
2. Secrets and configs go with the first task that refers to them and are taken back with the last; a task that is
   beyond RUNNING refers to nothing. They are told before the tasks that need them.
3. Messages are numbered; each names the one that it applies to. Changes wait until 100 of them are there, until none
   has come for 25 ms, or for 100 ms at most.

It holds the published objects themselves, so a set costs a reference for each task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from runtime.swarm.ports import View
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

CHANGES_MAX: Final = 100
QUIET: Final = 0.025
PATIENCE: Final = 0.1

Item = objects.Task | objects.Secret | objects.Config
Key = tuple[Literal["task", "secret", "config"], str]

_STABLE: Final = tuple(
    field.name for field in objects.Task.DESCRIPTOR.fields if field.name not in ("id", "meta", "status")
)
_RESOURCES: Final[dict[int, Literal["secret", "config"]]] = {types.SECRET: "secret", types.CONFIG: "config"}
_UPDATE: Final = dispatcher.AssignmentChange.UPDATE
_REMOVE: Final = dispatcher.AssignmentChange.REMOVE


def same_but_status(one: objects.Task, other: objects.Task) -> bool:
    """Whether two states of a task are the same to an agent: all but ``status`` and ``meta``."""
    return all(getattr(one, name) == getattr(other, name) for name in _STABLE)


def references(task: objects.Task) -> Iterator[Key]:
    """The secrets and configs that a task refers to, perhaps more than once."""
    for reference in task.spec.resource_references:
        kind = _RESOURCES.get(reference.resource_type)
        if kind is not None:
            yield kind, reference.resource_id
    if task.spec.WhichOneof("runtime") == "container":
        container = task.spec.container
        yield from (("secret", each.secret_id) for each in container.secrets)
        yield from (("config", each.config_id) for each in container.configs)


class AssignmentSet:
    """What a node's agent was told over one stream, and what it is to be told next."""

    __slots__ = ("_changes", "_number", "_result", "_tasks", "_users", "node_id")

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self._tasks: dict[str, objects.Task] = {}
        self._users: dict[Key, set[str]] = {}
        self._changes: dict[Key, Item | None] = {}  # None: taken back
        self._number = 0
        self._result = ""

    @property
    def pending(self) -> int:
        """How many changes wait."""
        return len(self._changes)

    @property
    def tasks(self) -> list[objects.Task]:
        """All tasks of the set, by id."""
        return [self._tasks[id] for id in sorted(self._tasks)]

    def begin(self, view: View, tables: Iterable[objects.Config] = ()) -> dispatcher.AssignmentsMessage:
        """The complete set of a view, with what this node is told beside; the first message of a stream."""
        assert self._number == 0, "a stream begins once"
        for table in tables:
            self._note(("config", table.id), table)
        for task in view.find(objects.Task, "node", self.node_id):
            self.put(view, task)
        return self.take()

    def put(self, view: View, task: objects.Task, *, of_status: bool = False) -> bool:
        """A task in its newest state. True if there is more to tell; ``view`` is where its references are found.
        ``of_status`` says that since it was put last nothing but its status became another."""
        assert task.node_id == self.node_id, f"task {task.id} is node {task.node_id}'s, not {self.node_id}'s"
        if task.status.state < types.ASSIGNED:
            return False
        old = self._tasks.get(task.id)
        self._tasks[task.id] = task
        if old is None and task.status.state <= types.RUNNING:
            self._use(view, task)
        if old is not None and task.status.state > types.ASSIGNED and (of_status or same_but_status(old, task)):
            if ("task", task.id) in self._changes:
                self._changes["task", task.id] = task
            return task.status.state > types.RUNNING and self._release(task)
        if task.status.state > types.RUNNING:
            self._release(task)
        self._note(("task", task.id), task)
        return True

    def put_table(self, id: str, table: objects.Config | None) -> None:
        """A config that no task refers to, in its newest state; None when it is no more."""
        self._note(("config", id), table)

    def remove(self, task: objects.Task) -> bool:
        """A task that is gone. True if there is more to tell."""
        told = self._tasks.pop(task.id, None)
        if told is None:
            return False
        self._note(("task", task.id), None)
        self._release(told)
        return True

    def take(self, trace: int = 0) -> dispatcher.AssignmentsMessage:
        """The next message, with all changes that waited. ``applies_to`` is the last one's ``results_in``, which nobody
        but the next message refers to: so it may name a trace for the node to go on with (``trace_in``)."""
        first = self._number == 0
        self._number += 1
        message = dispatcher.AssignmentsMessage(
            type=dispatcher.AssignmentsMessage.COMPLETE if first else dispatcher.AssignmentsMessage.INCREMENTAL,
            applies_to=self._result,
            results_in=f"{self._number}.{trace:x}" if trace else str(self._number),
        )
        self._result = message.results_in
        changes, self._changes = self._changes, {}
        for (kind, id), item in changes.items():
            change = message.changes.add(action=_REMOVE if item is None else _UPDATE)
            told = getattr(change.assignment, kind)
            if item is None:
                told.id = id
            else:
                told.CopyFrom(item)
        return message

    def _note(self, key: Key, item: Item | None) -> None:
        self._changes.pop(key, None)  # the newest stands last, behind what it refers to
        self._changes[key] = item

    def _use(self, view: View, task: objects.Task) -> None:
        for key in references(task):
            users = self._users.get(key)
            if users is None:
                item = _find(view, key)
                if item is None:
                    continue
                users = self._users[key] = set()
                self._note(key, item)
            users.add(task.id)

    def _release(self, task: objects.Task) -> bool:
        """The task needs nothing any more. True if something is taken back for it."""
        more = False
        for key in references(task):
            users = self._users.get(key)
            if users is None:
                continue
            users.discard(task.id)
            if not users:
                del self._users[key]
                self._note(key, None)
                more = True
        return more


def _find(view: View, key: Key) -> objects.Secret | objects.Config | None:
    kind, id = key
    if kind == "config":
        return view.get(objects.Config, id)
    secret = view.get(objects.Secret, id)
    # What a driver holds is not in the store, and there is no driver to ask: the task will say what it misses.
    return None if secret is None or secret.spec.driver.name else secret
