"""The replicated orchestrator's decisions: as many tasks as replicas, each in a slot of its own.

Rules owned here: slots are numbered from 1 and the lowest free numbers are used first; when there are too many, those
that are kept run, and lie evenly over the nodes; what is in a dead slot is cleared away. A round never asks for more
changes than it was allowed; the next round sees what the last one did and goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice

from runtime.swarm.ports import View
from runtime.swarm.slots import Places, WouldRestart, split
from runtime.swarm.task_changes import CHANGES_MAX, Change, Create, Delete, Desire
from runtime.swarm.task_model import SlotKey, ended, is_invalid, new_task, node_of, the_cluster, wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

NewId = Callable[[], str]


@dataclass(slots=True)
class Round:
    """One round of reconciliation: the changes, the places to bring up to date, and whether another round is due."""

    changes: list[Change] = field(default_factory=list)
    update: dict[SlotKey, list[objects.Task]] = field(default_factory=dict)
    more: bool = False

    def bounded(self, limit: int = CHANGES_MAX) -> Round:
        """The round cut to ``limit`` changes; an update waits for the last round."""
        if len(self.changes) <= limit:
            return self
        return Round(self.changes[:limit], {}, True)


def is_replicated(service: objects.Service | None) -> bool:
    """Whether the service is this orchestrator's concern."""
    return service is not None and service.spec.WhichOneof("mode") == "replicated"


def needs_restart(view: View, task: objects.Task) -> bool:
    """Whether a wanted task of a replicated service has ended, or is on a node that cannot keep it."""
    if not wanted(task):
        return False
    return ended(task) or (bool(task.node_id) and is_invalid(node_of(view, task)))


def tasks_to_restart(view: View, node_id: str) -> list[objects.Task]:
    """The tasks of replicated services that a node which is gone, down or drained has to give up."""
    tasks = [task for task in view.find(objects.Task, "node", node_id) if needs_restart(view, task)]
    return [task for task in tasks if is_replicated(view.get(objects.Service, task.service_id))]


def remove_tasks(view: View, service_id: str, limit: int = CHANGES_MAX) -> Round:
    """A service is gone: all its tasks are to be removed."""
    tasks = view.find(objects.Task, "service", service_id)
    return Round([Desire(task.id, types.REMOVE) for task in tasks if task.desired_state < types.REMOVE]).bounded(limit)


def reconcile(
    view: View, service_id: str, new_id: NewId, would_restart: WouldRestart, now: float, limit: int = CHANGES_MAX
) -> Round:
    """What brings a replicated service to its number of replicas.

    To be decided in the transaction that carries it out, on the newest state: then no slot is filled twice.
    """
    service = view.get(objects.Service, service_id)
    if service is None or not is_replicated(service):
        return Round()
    tasks = view.find(objects.Task, "service", service_id)
    places = split(tasks, service, would_restart)
    replicas = service.spec.replicated.replicas
    have = len(places.updatable)
    if replicas > have:
        return _grow(view, service, places, min(replicas - have, limit + 1), new_id, now).bounded(limit)
    if replicas < have:
        return _shrink(places, replicas, tasks).bounded(limit)
    return Round(_clear(places, ()), places.updatable).bounded(limit)


def _grow(view: View, service: objects.Service, places: Places, number: int, new_id: NewId, now: float) -> Round:
    cluster = the_cluster(view)
    slots = list(islice(_free_slots(places), number))
    created: list[Change] = [Create(new_task(new_id(), service, cluster, now, slot=slot)) for slot in slots]
    return Round(created + _clear(places, slots), places.updatable)


def _free_slots(places: Places) -> Iterator[int]:
    return (slot for slot in count(1) if slot not in places.updatable)


def _shrink(places: Places, replicas: int, tasks: Sequence[objects.Task]) -> Round:
    """Slots that are given up lose the tasks that live, and their history with them."""
    order = _keep_order(places)
    surplus = set(order[replicas:])
    dropped = [task for task in tasks if task.slot in surplus]
    changes: list[Change] = [Desire(task.id, types.REMOVE) for task in dropped if wanted(task)]
    changes += [change for task in dropped if not wanted(task) and (change := _cleared(task)) is not None]
    return Round(changes + _clear(places, ()), {slot: places.updatable[slot] for slot in order[:replicas]})


def _keep_order(places: Places) -> list[SlotKey]:
    """Slots, those to keep first: running ones, and of each node's the first, then of each the second, and so on.

    A slot with several tasks, or whose task has no node, says nothing about evenness and comes last.
    """
    running = {slot: _is_running(tasks) for slot, tasks in places.updatable.items()}
    order = sorted(places.updatable, key=lambda slot: (not running[slot], slot))
    on_node: Counter[str] = Counter()
    ordinal: dict[SlotKey, int | float] = {}
    for slot in order:
        tasks = places.updatable[slot]
        if len(tasks) == 1 and tasks[0].node_id:
            on_node[tasks[0].node_id] += 1
            ordinal[slot] = on_node[tasks[0].node_id]
        else:
            ordinal[slot] = float("inf")
    return sorted(order, key=lambda slot: ordinal[slot])


def _is_running(tasks: Sequence[objects.Task]) -> bool:
    return any(task.status.state == types.RUNNING for task in tasks)


def _clear(places: Places, reused: Sequence[int]) -> list[Change]:
    """Dead slots lose their tasks, those still running once they stopped; a slot just reused keeps its history."""
    kept = set(reused)
    tasks = [task for slot, held in places.dead.items() if slot not in kept for task in held]
    return [change for task in tasks if (change := _cleared(task)) is not None]


def _cleared(task: objects.Task) -> Change | None:
    """A task nobody runs goes at once; one that an agent may have is to be removed, and reaped when it stopped."""
    if ended(task) or task.status.state < types.ASSIGNED:
        return Delete(task.id)
    return Desire(task.id, types.REMOVE) if task.desired_state < types.REMOVE else None
