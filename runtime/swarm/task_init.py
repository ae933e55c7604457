"""What a new leader's orchestrator finds in the store, and what it makes of that before it watches.

Rules owned here (SwarmKit's taskinit): tasks of services that are gone are deleted; tasks that ended or lost their
node are to be restarted; tasks held at READY are started when the rest of their restart delay is over; the history of
restarts is read from the tasks themselves, all but the first of a place's newest spec version.

One difference: a start still waits for the old task of its place, for its minute, so that an update that stops first
does so across a change of leaders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.swarm.defaults import restart_delay
from runtime.swarm.ports import View
from runtime.swarm.restart import RestartSupervisor, has_stopped
from runtime.swarm.task_changes import Change, Delete
from runtime.swarm.task_model import age_key, by_place, generation_of, place_of, slot_tasks, time_of
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

IsMine = Callable[[objects.Service | None], bool]
NeedsRestart = Callable[[View, objects.Task], bool]


@dataclass(frozen=True, slots=True)
class HeldTask:
    """A task held at READY: it may start after ``delay`` seconds, and once ``old`` has stopped."""

    task: objects.Task
    delay: float
    old: objects.Task | None


@dataclass(slots=True)
class Findings:
    """What is to change at once, which tasks to restart, and which to start later."""

    changes: list[Change] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    held: list[HeldTask] = field(default_factory=list)


def initialise(
    view: View, supervisor: RestartSupervisor, is_mine: IsMine, needs_restart: NeedsRestart, now: float
) -> Findings:
    """Goes through all tasks once; fills the supervisor's history. ``now`` is in seconds since the epoch."""
    findings = Findings()
    for task in view.all(objects.Task):
        service = view.get(objects.Service, task.service_id) if task.service_id else None
        if task.service_id and service is None:
            findings.changes.append(Delete(task.id))
        if not is_mine(service):
            continue
        if needs_restart(view, task):
            findings.restarts.append(task.id)
        if is_held(task):
            left = _remaining(task, now)
            findings.held.append(HeldTask(task, left, predecessor(view, task)))
    for service in view.all(objects.Service):
        if is_mine(service):
            rebuild_history(supervisor, view, service)
    return findings


def is_held(task: objects.Task) -> bool:
    """Whether somebody has to start the task some time."""
    return task.desired_state == types.READY and task.status.state <= types.COMPLETE


def _remaining(task: objects.Task, now: float) -> float:
    delay, since = restart_delay(task.spec), time_of(task)
    return delay if since is None else max(0.0, min(delay, since + delay - now))


def predecessor(view: View, task: objects.Task) -> objects.Task | None:
    """The newest other task of the same place that may still be running although it is to shut down."""
    service = view.get(objects.Service, task.service_id)
    if service is None:
        return None
    others = slot_tasks(view, service.id, place_of(task, service))
    stopping = [other for other in others if other.desired_state > types.RUNNING and not has_stopped(view, other.id)]
    return max(stopping, key=age_key, default=None)


def held_for(view: View, task: objects.Task) -> HeldTask:
    """How long to hold a task that somebody else made at READY: an updater does so, and waits for the old task alone.

    Where the old task is of the same version it is a restart that an earlier life of the orchestrator wrote, whose
    delay counts.
    """
    service = view.get(objects.Service, task.service_id)
    others = slot_tasks(view, task.service_id, place_of(task, service)) if service is not None else []
    before = max((other for other in others if other.id != task.id), key=age_key, default=None)
    same = before is not None and generation_of(before) == generation_of(task)
    return HeldTask(task, restart_delay(task.spec) if same else 0.0, predecessor(view, task))


def rebuild_history(supervisor: RestartSupervisor, view: View, service: objects.Service) -> None:
    """Tells the supervisor of the restarts that a service's tasks show."""
    if not service.spec.task.restart.max_attempts:
        return
    for place, tasks in by_place(view.find(objects.Task, "service", service.id), service).items():
        for task in _restarts(tasks):
            supervisor.record(task, place, _made_at(task))


def _restarts(tasks: Sequence[objects.Task]) -> list[objects.Task]:
    newest = max(map(_generation, tasks))
    current = [task for task in tasks if _generation(task) == newest]
    return sorted(current, key=lambda task: (_made_at(task), task.id))[1:]


def _generation(task: objects.Task) -> tuple[int, int]:
    iteration, version = generation_of(task)
    return iteration, version or 0


def _made_at(task: objects.Task) -> float:
    if task.meta.HasField("created_at"):
        return float(task.meta.created_at.seconds + task.meta.created_at.nanos / 1e9)
    return time_of(task) or 0.0
