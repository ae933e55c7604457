"""The jobs orchestrator's decisions: each slot, or each node that fits, has a task of the present iteration complete.

Rules owned here (SwarmKit's jobs orchestrator): only tasks of the service's present iteration count; those of earlier
ones are removed; slots are numbered from 0 and no more than ``max_concurrent`` of them are under way; a task that
failed is the restart supervisor's, one that completed is never run again.

Differences. A slot (or node) whose task failed for good by its restart policy is given up until the next iteration:
otherwise the end of any other task would run it again. A job's task is run again elsewhere when its node is lost or
drained, and a global job runs on nodes that become ready later.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from runtime.swarm.constraints import node_fits
from runtime.swarm.ports import View
from runtime.swarm.replicated import NewId, Round
from runtime.swarm.service_spec import is_job, to_timestamp
from runtime.swarm.slots import WouldRestart
from runtime.swarm.task_changes import CHANGES_MAX, Change, Create, Desire, PutService
from runtime.swarm.task_model import (
    age_key,
    by_place,
    ended,
    is_invalid,
    is_per_node,
    new_task,
    node_of,
    the_cluster,
)
from runtime.swarm.update_steps import FINISHED
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types


class Progress(enum.Enum):
    """How far a slot or a node is in the present iteration."""

    OPEN = "open"
    UNDER_WAY = "under way"
    COMPLETE = "complete"
    GIVEN_UP = "given up"


def is_job_service(service: objects.Service | None) -> bool:
    """Whether the service is this orchestrator's concern."""
    return service is not None and is_job(service.spec)


def is_current(task: objects.Task, service: objects.Service) -> bool:
    """Whether a task belongs to the present iteration of its job."""
    return task.HasField("job_iteration") and task.job_iteration.index == service.job_status.job_iteration.index


def is_alive(task: objects.Task) -> bool:
    """Whether a job's task is to run to its end, or has."""
    return task.desired_state <= types.COMPLETE


def is_under_way(view: View, service: objects.Service) -> bool:
    """Whether the present iteration is to go on: a task has not come to its end, or one is still to be made.

    A task that failed counts until the restart policy has been asked, upon which it is replaced or not wanted any more.
    """
    current = [task for task in view.find(objects.Task, "service", service.id) if is_current(task, service)]
    if any(is_alive(task) and task.status.state != types.COMPLETE for task in current):
        return True
    places = len(by_place(current, service))
    return not is_per_node(service) and places < service.spec.replicated_job.total_completions


def needs_restart(view: View, task: objects.Task) -> bool:
    """Whether a job's task failed, or cannot go on where it is."""
    if not is_alive(task) or task.status.state == types.COMPLETE:
        return False
    return ended(task) or (bool(task.node_id) and is_invalid(node_of(view, task)))


def progress(tasks: Sequence[objects.Task], would_restart: WouldRestart) -> Progress:
    """What the present iteration's tasks of one slot or node come to."""
    if any(task.status.state == types.COMPLETE for task in tasks):
        return Progress.COMPLETE
    if any(is_alive(task) for task in tasks):
        return Progress.UNDER_WAY
    if not tasks or would_restart(max(tasks, key=age_key)):
        return Progress.OPEN
    return Progress.GIVEN_UP


def reconcile(
    view: View, service_id: str, new_id: NewId, would_restart: WouldRestart, now: float, limit: int = CHANGES_MAX
) -> Round:
    """What brings a job on its way to completion; to be decided in the transaction that carries it out."""
    service = view.get(objects.Service, service_id)
    if service is None or not is_job_service(service):
        return Round()
    tasks = view.find(objects.Task, "service", service_id)
    current = [task for task in tasks if is_current(task, service)]
    changes = _remove_old(tasks, service)
    room = limit + 1 - len(changes)
    if is_per_node(service):
        held = by_place(current, service)
        changes += list(islice(_over_nodes(view, service, held, new_id, would_restart, now), max(0, room)))
    else:
        changes += _over_slots(view, service, current, new_id, would_restart, now, max(0, room))
    return Round(changes).bounded(limit) if changes else Round(_finish_rollback(service, now))


def _remove_old(tasks: Iterable[objects.Task], service: objects.Service) -> list[Change]:
    """Tasks of earlier iterations that may be running are to be removed."""
    return [
        Desire(task.id, types.REMOVE)
        for task in tasks
        if not is_current(task, service) and not ended(task) and task.desired_state < types.REMOVE
    ]


def _over_slots(
    view: View,
    service: objects.Service,
    current: Sequence[objects.Task],
    new_id: NewId,
    would_restart: WouldRestart,
    now: float,
    room: int,
) -> list[Change]:
    job, cluster = service.spec.replicated_job, the_cluster(view)
    found = {place: progress(held, would_restart) for place, held in by_place(current, service).items()}
    under_way = sum(each is Progress.UNDER_WAY for each in found.values())
    taken = {place for place, each in found.items() if each is not Progress.OPEN}
    number = min(max(0, job.max_concurrent - under_way), room)
    slots = islice(_open_slots(job.total_completions, taken), number)
    return [Create(_task(new_id(), service, cluster, now, slot=slot)) for slot in slots]


def _open_slots(total: int, taken: set[int | str]) -> Iterator[int]:
    missing, slot = total - len(taken), 0
    while missing > 0:
        if slot not in taken:
            missing -= 1
            yield slot
        slot += 1


def _over_nodes(
    view: View,
    service: objects.Service,
    held: dict[int | str, list[objects.Task]],
    new_id: NewId,
    would_restart: WouldRestart,
    now: float,
) -> Iterator[Change]:
    nodes = {node.id: node for node in view.all(objects.Node)}
    for node in nodes.values():
        yield from _on_node(view, service, node, held.get(node.id, []), new_id, would_restart, now)
    for node_id in sorted(held.keys() - nodes.keys(), key=str):
        yield from _shut_down(held[node_id])


def _on_node(
    view: View,
    service: objects.Service,
    node: objects.Node,
    held: Sequence[objects.Task],
    new_id: NewId,
    would_restart: WouldRestart,
    now: float,
) -> list[Change]:
    if is_invalid(node):
        return _shut_down(held)
    if takes_jobs(node, service) and progress(held, would_restart) is Progress.OPEN:
        return [Create(_task(new_id(), service, the_cluster(view), now, node_id=node.id))]
    return []


def takes_jobs(node: objects.Node, service: objects.Service) -> bool:
    """Whether a global job has to run on a node."""
    ready = node.status.state == types.NodeStatus.READY and node.spec.availability == specs.NodeSpec.ACTIVE
    return ready and node_fits(node, service.spec.task.placement.constraints)


def _shut_down(tasks: Iterable[objects.Task]) -> list[Change]:
    return [Desire(task.id, types.SHUTDOWN) for task in tasks if is_alive(task) and not ended(task)]


def reconcile_node(
    view: View, node_id: str, new_id: NewId, would_restart: WouldRestart, now: float, limit: int = CHANGES_MAX
) -> Round:
    """What a node that came, changed or went means for the global jobs."""
    node = view.get(objects.Node, node_id)
    tasks = view.find(objects.Task, "node", node_id)
    changes: list[Change] = []
    for service in view.all(objects.Service):
        if service.spec.WhichOneof("mode") != "global_job":
            continue
        held = [task for task in tasks if task.service_id == service.id and is_current(task, service)]
        if node is None:
            changes += _shut_down(held)
        else:
            changes += _on_node(view, service, node, held, new_id, would_restart, now)
    return Round(changes).bounded(limit)


def restart_or_shut_down(view: View, task: objects.Task) -> Desire | bool:
    """What a task that `needs_restart` comes to: True for the restart supervisor, False to leave it alone.

    Tasks of earlier iterations are not restarted, nor those of global jobs on nodes that take no tasks now.
    """
    service = view.get(objects.Service, task.service_id)
    if service is None or not is_job_service(service) or not needs_restart(view, task):
        return False
    if not is_current(task, service):
        return Desire(task.id, types.REMOVE)
    if is_per_node(service):
        node = view.get(objects.Node, task.node_id)
        if node is None or not takes_jobs(node, service):
            return Desire(task.id, types.SHUTDOWN)
    return True


def _task(
    id: str, service: objects.Service, cluster: objects.Cluster | None, now: float, slot: int = 0, node_id: str = ""
) -> objects.Task:
    task = new_task(id, service, cluster, now, slot=slot, node_id=node_id, desired=types.COMPLETE)
    task.job_iteration.CopyFrom(service.job_status.job_iteration)
    return task


def _finish_rollback(service: objects.Service, now: float) -> list[Change]:
    """A rollback of a job is over once its own iteration is on the way; SwarmKit leaves it under way for good."""
    finished = FINISHED.get(service.update_status.state)
    if finished is None:
        return []
    new = objects.Service()
    new.CopyFrom(service)
    new.update_status.state, new.update_status.message = finished
    new.update_status.completed_at.CopyFrom(to_timestamp(now))
    return [PutService(new)]
