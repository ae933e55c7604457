"""The places of a service and what is in them: which tasks an update would replace, and which places are dead.

Rules owned here (those of SwarmKit's restart supervisor): a place is updatable with its wanted tasks, or with its
newest task when that ended for good, so that finished tasks are still brought up to date; any other place is dead and
may be filled anew. One difference: a task that is to be removed never fills its place, or a service scaled down and up
again could lose it to the reaper afterwards and stay too small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.swarm.constraints import node_fits
from runtime.swarm.dirty import is_dirty
from runtime.swarm.ports import View
from runtime.swarm.task_model import (
    SlotKey,
    age_key,
    by_place,
    ended,
    is_invalid,
    is_per_node,
    node_of,
    place_of,
    slot_tasks,
    wanted,
)
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

WouldRestart = Callable[[objects.Task], bool]
"""Whether the restart policy would replace a task that ended; see `RestartSupervisor.should_restart`."""


@dataclass(slots=True)
class Places:
    """The places of one service, each with its tasks."""

    updatable: dict[SlotKey, list[objects.Task]] = field(default_factory=dict)
    dead: dict[SlotKey, list[objects.Task]] = field(default_factory=dict)


def updatable_tasks(
    tasks: Sequence[objects.Task], service: objects.Service, would_restart: WouldRestart
) -> list[objects.Task]:
    """The tasks of one place that an update has to look at; none when the place is dead."""
    alive = [task for task in tasks if wanted(task)]
    if alive or not tasks or service.update_status.state == types.UpdateStatus.ROLLBACK_STARTED:
        return alive
    newest = max(tasks, key=age_key)
    return [] if newest.desired_state >= types.REMOVE or would_restart(newest) else [newest]


def split(tasks: Sequence[objects.Task], service: objects.Service, would_restart: WouldRestart) -> Places:
    """All places of a service, from all its tasks."""
    places = Places()
    for place, held in by_place(tasks, service).items():
        updatable = updatable_tasks(held, service, would_restart)
        if updatable:
            places.updatable[place] = updatable
        else:
            places.dead[place] = held
    return places


def has_successor(view: View, service: objects.Service, task: objects.Task) -> bool:
    """Whether another task of the present spec is to live in the place of ``task`` already: an update that starts first
    made it, or the restart of another one. (SwarmKit's supervisor would make one more.)"""
    held = slot_tasks(view, service.id, place_of(task, service))
    others = (each for each in held if each.id != task.id and wanted(each) and not ended(each))
    return any(not is_dirty(each, service, node_of(view, each)) for each in others)


def has_several(view: View, service: objects.Service) -> bool:
    """Whether several tasks are to live in one place that an update may bring in order."""
    held = by_place([task for task in view.find(objects.Task, "service", service.id) if wanted(task)], service)
    return any(len(tasks) > 1 and may_be_updated(view, service, place) for place, tasks in held.items())


def may_be_updated(view: View, service: objects.Service, place: SlotKey) -> bool:
    """Whether an update may put a new task into a place. A slot always; a node only while it may get new tasks."""
    if not is_per_node(service):
        return True
    node = view.get(objects.Node, str(place))
    if node is None or is_invalid(node) or node.spec.availability == specs.NodeSpec.PAUSE:
        return False
    return node_fits(node, service.spec.task.placement.constraints)


def is_dirty_place(view: View, service: objects.Service, tasks: Sequence[objects.Task]) -> bool:
    """Whether an update has work in a place with these updatable tasks: several of them, or one that is dirty."""
    return len(tasks) > 1 or any(is_dirty(task, service, node_of(view, task)) for task in tasks)
