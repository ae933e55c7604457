"""The transactions of a rolling update: what each step of it does to the store, on the newest state.

Rules owned here (SwarmKit's updater): a clean task is kept and all others of its place shut down, else a replacement is
made; the texts and states of a service's update status. Every step first asks whether the service still wants what the
update was begun for; if not it does nothing and answers `STALE`.

Two differences. With start-first, old tasks are kept until the clean one runs, also where an update is taken up again
half-way. A failure that asks for a rollback pauses the update where there is no previous spec to go back to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from runtime.swarm.dirty import is_dirty
from runtime.swarm.ports import Tx
from runtime.swarm.service_spec import to_timestamp
from runtime.swarm.slots import WouldRestart, may_be_updated, updatable_tasks
from runtime.swarm.task_changes import Change, Create, Desire, apply
from runtime.swarm.task_model import (
    SlotKey,
    ended,
    is_per_node,
    new_task,
    node_of,
    slot_tasks,
    the_cluster,
    wanted,
)
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

UPDATING: Final = types.UpdateStatus.UPDATING
ROLLING_BACK: Final = types.UpdateStatus.ROLLBACK_STARTED
PAUSED_STATES: Final = (types.UpdateStatus.PAUSED, types.UpdateStatus.ROLLBACK_PAUSED)
FINISHED: Final = {
    UPDATING: (types.UpdateStatus.COMPLETED, "update completed"),
    ROLLING_BACK: (types.UpdateStatus.ROLLBACK_COMPLETED, "rollback completed"),
}
IN_PROGRESS: Final = "update in progress"
FAILURE: Final = "due to failure or early termination of task"


@dataclass(frozen=True, slots=True)
class Basis:
    """What an update was begun for: a service's spec, and whether that is being rolled back to."""

    service_id: str
    spec: specs.ServiceSpec
    rolling_back: bool

    @classmethod
    def of(cls, service: objects.Service) -> Basis:
        """The basis of an update that begins now."""
        return cls(service.id, service.spec, service.update_status.state == ROLLING_BACK)

    def holds(self, service: objects.Service | None) -> bool:
        """Whether the update may go on: the service wants the same still, and nobody paused it."""
        if service is None or service.update_status.state in PAUSED_STATES:
            return False
        return self.rolling_back == (service.update_status.state == ROLLING_BACK) and self.spec == service.spec


@dataclass(frozen=True, slots=True)
class Stale:
    """The service went on to something else, or is gone."""


STALE: Final = Stale()


@dataclass(frozen=True, slots=True)
class Replaced:
    """The task that a place waits for now, None where nothing is to come up."""

    task_id: str | None


def begin(tx: Tx, basis: Basis) -> Stale | None:
    """Notes the beginning, unless the service says already how its update goes."""
    service = tx.get(objects.Service, basis.service_id)
    if service is None or not basis.holds(service):
        return STALE
    if not service.HasField("update_status"):
        new = _copy(service)
        new.update_status.CopyFrom(
            types.UpdateStatus(state=UPDATING, message=IN_PROGRESS, started_at=to_timestamp(tx.now))
        )
        tx.update(new)
    return None


def replace(
    tx: Tx,
    basis: Basis,
    place: SlotKey,
    order: types.UpdateConfig.UpdateOrder,
    new_id: str,
    would_restart: WouldRestart,
) -> Replaced | Stale:
    """Brings one place up to date. A replacement that has to wait for an old task is made with desired READY."""
    service = tx.get(objects.Service, basis.service_id)
    if service is None or not basis.holds(service):
        return STALE
    if not may_be_updated(tx, service, place):
        return Replaced(None)
    tasks = updatable_tasks(slot_tasks(tx, service.id, place), service, would_restart)
    clean = [task for task in tasks if not is_dirty(task, service, node_of(tx, task))]
    start_first = order == types.UpdateConfig.START_FIRST
    if clean:
        return _keep(tx, max(clean, key=_keep_order), tasks, start_first)
    return _make(tx, service, place, tasks, start_first, new_id) if tasks else Replaced(None)


def _keep_order(task: objects.Task) -> tuple[bool, int, int, str]:
    """The last is the one to keep: living ones, those further on, of equal ones the one with the greatest id."""
    living = not ended(task)
    return (living and wanted(task), min(task.desired_state, types.RUNNING), task.status.state, task.id)


def _keep(tx: Tx, kept: objects.Task, tasks: Sequence[objects.Task], start_first: bool) -> Replaced:
    comes_up = wanted(kept) and kept.status.state < types.RUNNING
    if not (start_first and comes_up):
        apply(tx, _shut_down(task for task in tasks if task.id != kept.id))
    return Replaced(kept.id if comes_up else None)


def _make(
    tx: Tx,
    service: objects.Service,
    place: SlotKey,
    old: Sequence[objects.Task],
    start_first: bool,
    new_id: str,
) -> Replaced:
    where = {"node_id": str(place)} if is_per_node(service) else {}
    slot = 0 if is_per_node(service) else int(place)
    desired = types.RUNNING if start_first else types.READY
    new = new_task(new_id, service, the_cluster(tx), tx.now, slot=slot, desired=desired, **where)
    apply(tx, [*([] if start_first else _shut_down(old)), Create(new)])
    return Replaced(new_id)


def _shut_down(tasks: Iterable[objects.Task]) -> list[Change]:
    return [Desire(task.id, types.SHUTDOWN) for task in tasks if wanted(task)]


def shut_down_others(tx: Tx, basis: Basis, place: SlotKey, keep: str) -> Stale | None:
    """The new task of a place runs: the old ones may go. Nothing happens if it ended meanwhile."""
    if not basis.holds(tx.get(objects.Service, basis.service_id)):
        return STALE
    tasks = slot_tasks(tx, basis.service_id, place)
    if any(task.id == keep and wanted(task) and not ended(task) for task in tasks):
        apply(tx, _shut_down([task for task in tasks if task.id != keep]))
    return None


def pause(tx: Tx, basis: Basis, task_id: str) -> Stale | None:
    """The update stops where it is, until the service is updated again."""
    service = tx.get(objects.Service, basis.service_id)
    if service is None or not basis.holds(service):
        return STALE
    new = _copy(service)
    what, state = (
        ("rollback", types.UpdateStatus.ROLLBACK_PAUSED)
        if basis.rolling_back
        else ("update", types.UpdateStatus.PAUSED)
    )
    new.update_status.state = state
    new.update_status.message = f"{what} paused {FAILURE} {task_id}"
    tx.update(new)
    return None


def roll_back(tx: Tx, basis: Basis, task_id: str) -> Stale | None:
    """The service goes back to its previous spec. What is rolled back already pauses instead."""
    service = tx.get(objects.Service, basis.service_id)
    if service is None or not basis.holds(service):
        return STALE
    if basis.rolling_back or not service.HasField("previous_spec"):
        return pause(tx, basis, task_id)
    new = _copy(service)
    new.update_status.state = ROLLING_BACK
    new.update_status.message = f"update rolled back {FAILURE} {task_id}"
    new.spec.CopyFrom(service.previous_spec)
    new.ClearField("spec_version")
    if service.HasField("previous_spec_version"):
        new.spec_version.CopyFrom(service.previous_spec_version)
    new.ClearField("previous_spec")
    new.ClearField("previous_spec_version")
    tx.update(new)
    return None


def complete(tx: Tx, basis: Basis) -> Stale | bool:
    """The update is over; says so, and that it did, where the service says that one is going on."""
    service = tx.get(objects.Service, basis.service_id)
    if service is None or not basis.holds(service):
        return STALE
    finished = FINISHED.get(service.update_status.state)
    if finished is not None:
        new = _copy(service)
        new.update_status.state, new.update_status.message = finished
        new.update_status.completed_at.CopyFrom(to_timestamp(tx.now))
        tx.update(new)
    return finished is not None


def _copy(service: objects.Service) -> objects.Service:
    new = objects.Service()
    new.CopyFrom(service)
    return new
