"""The task reaper: which tasks are forgotten, because their place has a longer history than is kept or they are done.

Rules owned here (SwarmKit's taskreaper): of each place so many tasks are kept as the cluster says, or one more than
the restart policy may try; the oldest that ended, or will never run, go first; tasks that are to be removed go as soon
as they are done. A negative limit keeps everything.

Differences: a place is looked at when a task of it is made and again when one ends, so nothing has to be kept on a list
of places to look at later. The newest task of a place is never reaped, nor one whose end the orchestrator has not dealt
with yet: both are what the next decision about the place is based on. The tasks of jobs are reaped like others, but
what the present iteration has come to stays: without it, it would be run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runtime.swarm.defaults import TASK_HISTORY_RETENTION_LIMIT
from runtime.swarm.jobs import is_current
from runtime.swarm.ports import Tx, View
from runtime.swarm.service_spec import is_job
from runtime.swarm.task_model import age_key, ended, is_per_node, slot_tasks, the_cluster
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

FLUSH_AFTER_S: Final = 0.25
FLUSH_AT: Final = 1000


@dataclass(frozen=True, slots=True)
class PlaceKey:
    """A place by what its tasks say: which of slot and node matters is the service's to tell."""

    service_id: str
    slot: int
    node_id: str

    @classmethod
    def of(cls, task: objects.Task) -> PlaceKey:
        """The place of a task."""
        return cls(task.service_id, task.slot, task.node_id if not task.slot else "")


class Reaper:
    """Collects what has to be looked at; `take` empties it."""

    def __init__(self) -> None:
        self._places: dict[PlaceKey, None] = {}
        self._done: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._places) + len(self._done)

    def begin(self, view: View) -> None:
        """Everything in the store is looked at once."""
        for task in view.all(objects.Task):
            self.task_created(task)
            self.task_updated(task)

    def task_created(self, task: objects.Task) -> None:
        """A new task makes the history of its place longer."""
        if task.service_id:
            self._places[PlaceKey.of(task)] = None

    def task_updated(self, task: objects.Task) -> None:
        """A task may be done now, or have become part of a history."""
        if is_done(task):
            self._done[task.id] = None
        elif task.service_id and is_history(task):
            self._places[PlaceKey.of(task)] = None

    def task_deleted(self, task_id: str) -> None:
        """A task is gone already."""
        self._done.pop(task_id, None)

    def take(self) -> tuple[list[PlaceKey], list[str]]:
        """The places and the single tasks to look at now."""
        places, done = list(self._places), list(self._done)
        self._places.clear()
        self._done.clear()
        return places, done


def is_done(task: objects.Task) -> bool:
    """Whether a task can be forgotten at once: removed and not with an agent, or orphaned and of no service."""
    state = task.status.state
    if task.desired_state == types.REMOVE:
        return state < types.ASSIGNED or state >= types.COMPLETE
    return state >= types.ORPHANED and not task.service_id


def is_history(task: objects.Task) -> bool:
    """Whether a task is over and dealt with: it ended or will never run, and is not wanted any more."""
    return task.desired_state > types.RUNNING and (ended(task) or task.status.state < types.ASSIGNED)


def reap_task(tx: Tx, task_id: str) -> int:
    """Deletes a task that is done; gives the number of tasks deleted."""
    task = tx.get(objects.Task, task_id)
    if task is None or not is_done(task):
        return 0
    tx.delete(objects.Task, task_id)
    return 1


def reap_place(tx: Tx, place: PlaceKey) -> int:
    """Shortens the history of a place to what is kept; gives the number of tasks deleted."""
    service = tx.get(objects.Service, place.service_id)
    if service is None:
        return 0
    keep = kept(service, the_cluster(tx))
    if keep < 0:
        return 0
    where = place.node_id if is_per_node(service) else place.slot
    tasks = sorted(slot_tasks(tx, service.id, where), key=age_key)
    needed = needed_tasks(tasks, service)
    history = [task for task in tasks if is_history(task) and task.id not in needed]
    surplus = history[: max(0, len(tasks) - keep)]
    for task in surplus:
        tx.delete(objects.Task, task.id)
    return len(surplus)


def needed_tasks(tasks: Sequence[objects.Task], service: objects.Service) -> set[str]:
    """Of a place's tasks, oldest first, those that the next decision about it is based on."""
    needed = {task.id for task in tasks[-1:]}
    if is_job(service.spec):
        current = [task for task in tasks if is_current(task, service)]
        needed.update(task.id for task in current if task.status.state == types.COMPLETE)
        needed.update(task.id for task in current[-1:])
    return needed


def kept(service: objects.Service, cluster: objects.Cluster | None) -> int:
    """How many tasks a place of the service keeps, the present one included; negative for all."""
    attempts = int(service.spec.task.restart.max_attempts)
    if attempts > 0:
        return attempts + 1
    if cluster is None or not cluster.spec.HasField("orchestration"):
        return TASK_HISTORY_RETENTION_LIMIT
    return int(cluster.spec.orchestration.task_history_retention_limit)
