"""The agent's task database: which tasks this node was given, and how far they had come.

Rules owned here: a task is stored without its status, the status beside it, and a mark says that it is assigned; a
status for a task that is not there is ignored (as SwarmKit's ``agent/storage``). Everything one message brings
is one synced batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from runtime.disk.errors import StateDamaged
from runtime.disk.port import Database, Pair
from runtime.failpoints import failpoint
from runtime.wire.pb import objects_pb2, types_pb2

_PREFIX = b"v1/tasks/"
_END = b"v1/tasks0"
_DATA, _STATUS, _ASSIGNED = b"data", b"status", b"assigned"
_MARK = b"\xff"


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task as it was last told, with the last status written here (None before the first)."""

    task: objects_pb2.Task
    status: types_pb2.TaskStatus | None
    assigned: bool


def _key(task_id: str, part: bytes) -> bytes:
    return _PREFIX + task_id.encode() + b"/" + part


class TaskBatch:
    """Changes that become durable together. Later changes to one task win over earlier ones."""

    def __init__(self, tasks: TaskDatabase) -> None:
        self._tasks = tasks
        self._changes: dict[bytes, bytes | None] = {}
        self._added: dict[str, bool] = {}
        self._points: list[str] = []

    def put(self, task: objects_pb2.Task) -> None:
        """Stores a task and marks it assigned; its status is left as it was."""
        blank = objects_pb2.Task()
        blank.CopyFrom(task)
        blank.ClearField("status")
        self._changes[_key(task.id, _DATA)] = blank.SerializeToString(deterministic=True)
        self._changes[_key(task.id, _ASSIGNED)] = _MARK
        self._added[task.id] = True
        self._note("agent.assignment_persisted_unacked")

    def put_status(self, task_id: str, status: types_pb2.TaskStatus) -> bool:
        """Stores a status; False (and nothing stored) when the task is not known."""
        if not self._added.get(task_id, task_id in self._tasks):
            return False
        self._changes[_key(task_id, _STATUS)] = status.SerializeToString(deterministic=True)
        self._note("agent.status_saved_unsent")
        return True

    def set_assigned(self, task_id: str, assigned: bool) -> bool:
        """Marks a task, or takes the mark away; False when the task is not known."""
        if not self._added.get(task_id, task_id in self._tasks):
            return False
        self._changes[_key(task_id, _ASSIGNED)] = _MARK if assigned else None
        return True

    def remove(self, task_id: str) -> None:
        """Forgets a task; one that is not there is fine."""
        for part in (_DATA, _STATUS, _ASSIGNED):
            self._changes[_key(task_id, part)] = None
        self._added[task_id] = False

    def commit(self) -> None:
        """Writes all of it, synced. The batch is then empty and may be used again."""
        if not self._changes:
            return
        puts: list[Pair] = [(key, value) for key, value in self._changes.items() if value is not None]
        deletes = [key for key, value in self._changes.items() if value is None]
        self._tasks.write(puts, deletes, self._added)
        points, self._changes, self._added, self._points = self._points, {}, {}, []
        for point in points:
            failpoint(point)

    def _note(self, point: str) -> None:
        if point not in self._points:
            self._points.append(point)


class TaskDatabase:
    """The tasks of one node, over a database of its own. ``load`` comes first."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: set[str] = set()

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._known

    def load(self) -> list[StoredTask]:
        """All assigned tasks by id; the others are deleted, for nobody will start them again."""
        found: dict[str, dict[bytes, bytes]] = {}
        for key, value in self._db.iterate(_PREFIX, _END):
            owner, _, part = key[len(_PREFIX) :].rpartition(b"/")
            found.setdefault(_task_id(owner), {})[part] = value
        stale = [task_id for task_id, parts in found.items() if _ASSIGNED not in parts or _DATA not in parts]
        self._known = set(found)
        if stale:
            batch = self.batch()
            for task_id in stale:
                batch.remove(task_id)
            batch.commit()
        return [_decode(task_id, found[task_id]) for task_id in sorted(found) if task_id in self._known]

    def batch(self) -> TaskBatch:
        """An empty batch."""
        return TaskBatch(self)

    def write(self, puts: list[Pair], deletes: list[bytes], added: dict[str, bool]) -> None:
        """Used by batches: writes, then takes note of which tasks are there."""
        self._db.write(puts, deletes, sync=True)
        for task_id, there in added.items():
            (self._known.add if there else self._known.discard)(task_id)

    def close(self) -> None:
        """Closes the database."""
        self._db.close()


def _task_id(owner: bytes) -> str:
    try:
        return owner.decode()
    except UnicodeDecodeError:
        raise StateDamaged(f"the agent's task database has a key that is no task's: {owner!r}") from None


def _decode(task_id: str, parts: dict[bytes, bytes]) -> StoredTask:
    try:
        task = objects_pb2.Task.FromString(parts[_DATA])
        status = types_pb2.TaskStatus.FromString(parts[_STATUS]) if _STATUS in parts else None
    except DecodeError as error:
        raise StateDamaged(f"task {task_id} in the agent's task database is malformed: {error}") from None
    if task.id != task_id:
        raise StateDamaged(f"task {task_id} in the agent's task database is stored as {task.id!r}")
    return StoredTask(task, status, True)
