"""The global orchestrator's decisions: one task on every node that fits.

Rules owned here: a node that is drained or down loses its tasks of global services; a paused one keeps what it has and
gets nothing new; a node that comes back gets what is missing at once and without a rolling update; a node that no
longer fits a service's constraints is left to the constraint enforcer, until the service itself changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.swarm.constraints import node_fits
from runtime.swarm.dirty import is_dirty
from runtime.swarm.ports import View
from runtime.swarm.replicated import NewId, Round
from runtime.swarm.slots import WouldRestart, updatable_tasks
from runtime.swarm.task_changes import CHANGES_MAX, Change, Create, Delete, Desire
from runtime.swarm.task_model import by_place, ended, is_invalid, new_task, the_cluster, wanted
from runtime.swarm.updater import starts_first
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types


def is_global(service: objects.Service | None) -> bool:
    """Whether the service is this orchestrator's concern."""
    return service is not None and service.spec.WhichOneof("mode") == "global"


def reconcile(
    view: View, service_id: str, new_id: NewId, would_restart: WouldRestart, now: float, limit: int = CHANGES_MAX
) -> Round:
    """What brings a global service onto every node that fits; decided in the transaction that carries it out."""
    service = view.get(objects.Service, service_id)
    if service is None or not is_global(service):
        return Round()
    tasks = by_place(view.find(objects.Task, "service", service_id), service)
    nodes = {node.id: node for node in view.all(objects.Node) if not is_invalid(node)}
    cluster, result = the_cluster(view), Round()
    for node_id, node in nodes.items():
        if len(result.changes) > limit:
            break
        held = updatable_tasks(tasks.get(node_id, []), service, would_restart)
        if not node_fits(node, service.spec.task.placement.constraints):
            result.changes.extend(_shut_down(held))
        elif node.spec.availability == specs.NodeSpec.PAUSE:
            continue
        elif held:
            result.update[node_id] = held
        else:
            result.changes.append(Create(new_task(new_id(), service, cluster, now, node_id=node_id)))
    for place in sorted(tasks, key=str):
        if place not in nodes:
            result.changes.extend(_shut_down(tasks[place]))
    return result.bounded(limit)


def matters(old: objects.Node, new: objects.Node) -> bool:
    """Whether a change of a node can mean anything to global services and jobs."""
    same = old.spec == new.spec and old.status.state == new.status.state and old.role == new.role
    return not (same and old.status.addr == new.status.addr and old.description == new.description)


def _shut_down(tasks: Iterable[objects.Task]) -> list[Change]:
    return [Desire(task.id, types.SHUTDOWN) for task in tasks if task.desired_state < types.SHUTDOWN]


def _global_services(view: View) -> list[objects.Service]:
    return [service for service in view.all(objects.Service) if is_global(service)]


def reconcile_node(
    view: View,
    node_id: str,
    new_id: NewId,
    would_restart: WouldRestart,
    now: float,
    limit: int = CHANGES_MAX,
) -> Round:
    """What a node that was created or changed means for the global services; ``would_restart`` as in `reconcile`."""
    node = view.get(objects.Node, node_id)
    if node is None:
        return node_gone(view, node_id, limit)
    held = _by_service(view.find(objects.Task, "node", node_id))
    services = _global_services(view)
    if is_invalid(node):
        return Round(_shut_down(task for service in services for task in held.get(service.id, ()))).bounded(limit)
    if node.spec.availability == specs.NodeSpec.PAUSE:
        return Round()
    cluster, changes = the_cluster(view), list[Change]()
    for service in services:
        if node_fits(node, service.spec.task.placement.constraints):
            tasks = updatable_tasks(held.get(service.id, []), service, would_restart)
            changes.extend(_on_node(node, service, tasks, cluster, new_id, now))
    return Round(changes).bounded(limit)


def _by_service(tasks: Iterable[objects.Task]) -> dict[str, list[objects.Task]]:
    grouped: dict[str, list[objects.Task]] = {}
    for task in tasks:
        grouped.setdefault(task.service_id, []).append(task)
    return grouped


def _on_node(
    node: objects.Node,
    service: objects.Service,
    tasks: Sequence[objects.Task],
    cluster: objects.Cluster | None,
    new_id: NewId,
    now: float,
) -> list[Change]:
    """Exactly one clean task on a node: one is made if there is none, a clean one is kept, all others shut down.

    What an update that starts first has under way is its own to finish.
    """
    clean = [task for task in tasks if not is_dirty(task, service, node)]
    if clean:
        keep = max(clean, key=lambda task: (wanted(task), task.status.state == types.RUNNING, task.id))
        if keep.status.state < types.RUNNING and starts_first(service):
            return []
        return _shut_down(task for task in tasks if task.id != keep.id)
    created = Create(new_task(new_id(), service, cluster, now, node_id=node.id))
    return [created, *_shut_down(tasks)]


def node_gone(view: View, node_id: str, limit: int = CHANGES_MAX) -> Round:
    """A node was deleted: the tasks that global services had on it are forgotten."""
    tasks = view.find(objects.Task, "node", node_id)
    gone = [task for task in tasks if is_global(view.get(objects.Service, task.service_id))]
    return Round([Delete(task.id) for task in gone]).bounded(limit)


def restart_or_shut_down(view: View, task: objects.Task) -> Desire | bool:
    """What an ended task of a global service comes to: True for the restart supervisor, False to leave it alone.

    On a node that is paused, or whose labels no longer fit, it is not replaced: it is only to shut down.
    """
    service = view.get(objects.Service, task.service_id)
    node = view.get(objects.Node, task.node_id)
    if service is None or node is None or not is_global(service) or not (wanted(task) and ended(task)):
        return False
    fits = node_fits(node, service.spec.task.placement.constraints)
    if node.spec.availability == specs.NodeSpec.PAUSE or not fits:
        return Desire(task.id, types.SHUTDOWN)
    return not is_invalid(node)
