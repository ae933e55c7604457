"""What decisions ask of the store, as small values, and how they are carried out in a transaction.

Rules owned here: a desired state never moves backwards and an observed state only grows; whatever a change was about
may have gone or moved on by the time it is applied, and then that change is left out: the decision is taken anew when
the event of whatever came first arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runtime.swarm.ports import Tx
from runtime.swarm.service_spec import to_timestamp
from runtime.swarm.task_model import is_job_task
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

CHANGES_MAX = 200
"""So many changes go into one transaction at most; a decision with more of them is taken in rounds."""


@dataclass(frozen=True, slots=True)
class Create:
    """A new task, unless its service is gone."""

    task: objects.Task


@dataclass(frozen=True, slots=True)
class Desire:
    """A task's desired state moves forward to ``state``."""

    task_id: str
    state: types.TaskState


@dataclass(frozen=True, slots=True)
class Start:
    """A task held at READY may run: desired RUNNING, COMPLETE for a job's."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Observe:
    """A task's observed state, as a manager sees it without its agent; empty texts leave what there is."""

    task_id: str
    state: types.TaskState
    message: str = ""
    err: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """A task is forgotten."""

    task_id: str


@dataclass(frozen=True, slots=True)
class PutService:
    """A service as changed from the version that ``service.meta`` names; left out when that is not the stored one."""

    service: objects.Service


Change = Create | Desire | Start | Observe | Delete | PutService


def apply(tx: Tx, changes: Iterable[Change]) -> int:
    """Carries out changes in order; gives the number of those that still applied."""
    return sum(_apply_one(tx, change) for change in changes)


def _apply_one(tx: Tx, change: Change) -> bool:
    if isinstance(change, Create):
        return _create(tx, change.task)
    if isinstance(change, PutService):
        return _put_service(tx, change.service)
    task = tx.get(objects.Task, change.task_id)
    if task is None:
        return False
    if isinstance(change, Delete):
        tx.delete(objects.Task, task.id)
        return True
    return _move(tx, task, change)


def _create(tx: Tx, task: objects.Task) -> bool:
    if task.service_id and tx.get(objects.Service, task.service_id) is None:
        return False
    tx.create(task)
    return True


def _put_service(tx: Tx, service: objects.Service) -> bool:
    stored = tx.get(objects.Service, service.id)
    if stored is None or stored.meta.version.index != service.meta.version.index:
        return False
    tx.update(service)
    return True


def _move(tx: Tx, task: objects.Task, change: Desire | Start | Observe) -> bool:
    if isinstance(change, Observe):
        return change.state > task.status.state and _edit(tx, task, lambda new: _observe(new, change, tx.now))
    state = change.state if isinstance(change, Desire) else start_state(task)
    if state <= task.desired_state:
        return False
    return _edit(tx, task, lambda new: setattr(new, "desired_state", state))


def start_state(task: objects.Task) -> types.TaskState:
    """The desired state of a task that may run."""
    return types.COMPLETE if is_job_task(task) else types.RUNNING


def _observe(task: objects.Task, change: Observe, now: float) -> None:
    task.status.state = change.state
    task.status.timestamp.CopyFrom(to_timestamp(now))
    task.status.message = change.message or task.status.message
    task.status.err = change.err or task.status.err


def _edit(tx: Tx, task: objects.Task, edit: Callable[[objects.Task], object]) -> bool:
    new = objects.Task()
    new.CopyFrom(task)
    edit(new)
    tx.update(new)
    return True
