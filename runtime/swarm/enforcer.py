"""The constraint enforcer: which tasks may not stay on their node, because the node or their service changed.

Rules owned here (SwarmKit's constraintenforcer): only active nodes are looked at; a task has to go when the constraints
of its service's present spec do not hold, or when what the node describes no longer covers it. It is observed REJECTED,
its desired state stays, so that its orchestrator replaces it elsewhere.

Differences: the oldest tasks keep what there is, so that equal states lead to equal decisions; a task whose generic
resources are gone does not end the look at the others.
"""

from __future__ import annotations

from typing import Final

from runtime.swarm import generic
from runtime.swarm.constraints import node_fits
from runtime.swarm.ports import Tx, View
from runtime.swarm.task_changes import Observe, apply
from runtime.swarm.task_model import age_key
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

MESSAGE: Final = "task rejected by constraint enforcer"
ERR: Final = "assigned node no longer meets constraints"


def matters(old: objects.Node | None, new: objects.Node) -> bool:
    """Whether a change of a node can make it unfit for a task."""
    if new.spec.availability != specs.NodeSpec.ACTIVE:
        return False
    if old is None or old.spec != new.spec or old.role != new.role or old.status.addr != new.status.addr:
        return True
    return old.description != new.description


def enforce(tx: Tx, node_id: str) -> int:
    """Rejects the tasks that may not stay on a node; gives their number."""
    return apply(tx, [Observe(task.id, types.REJECTED, MESSAGE, ERR) for task in unfit(tx, node_id)])


def unfit(view: View, node_id: str) -> list[objects.Task]:
    """The tasks that may not stay on a node, oldest first."""
    node = view.get(objects.Node, node_id)
    if node is None or node.spec.availability != specs.NodeSpec.ACTIVE:
        return []
    tasks = [task for task in view.find(objects.Task, "node", node_id) if _is_concerned(task)]
    room = _Room(node)
    return [
        task for task in sorted(tasks, key=_made) if not (node_fits(node, _constraints(view, task)) and room.take(task))
    ]


def _is_concerned(task: objects.Task) -> bool:
    return types.ASSIGNED <= task.desired_state <= types.COMPLETE and task.status.state < types.COMPLETE


def _made(task: objects.Task) -> tuple[int, int, float, str]:
    made = task.meta.created_at
    return (made.seconds, made.nanos, *age_key(task))


def _constraints(view: View, task: objects.Task) -> list[str]:
    service = view.get(objects.Service, task.service_id) if task.service_id else None
    spec = service.spec.task if service is not None else task.spec
    return list(spec.placement.constraints)


class _Room:
    """What a node describes, less what the tasks that may stay take of it."""

    def __init__(self, node: objects.Node) -> None:
        offered = node.description.resources
        self._cpus = offered.nano_cpus
        self._memory = offered.memory_bytes
        self._names = {(generic.kind_of(each), each.named_resource_spec.value) for each in offered.generic}
        self._numbers: dict[str, int] = {}
        for each in offered.generic:
            if not generic.is_named(each):
                kind = generic.kind_of(each)
                self._numbers[kind] = self._numbers.get(kind, 0) + each.discrete_resource_spec.value

    def take(self, task: objects.Task) -> bool:
        """Takes what a task needs, if all of it is there."""
        needed = task.spec.resources.reservations
        if needed.nano_cpus > self._cpus or needed.memory_bytes > self._memory or not self._has_generic(task):
            return False
        self._cpus -= needed.nano_cpus
        self._memory -= needed.memory_bytes
        for each in task.assigned_generic_resources:
            if not generic.is_named(each):
                self._numbers[generic.kind_of(each)] -= each.discrete_resource_spec.value
        return True

    def _has_generic(self, task: objects.Task) -> bool:
        asked: dict[str, int] = {}
        for each in task.assigned_generic_resources:
            kind = generic.kind_of(each)
            if generic.is_named(each):
                if (kind, each.named_resource_spec.value) not in self._names:
                    return False
            else:
                asked[kind] = asked.get(kind, 0) + each.discrete_resource_spec.value
        return all(number <= self._numbers.get(kind, 0) for kind, number in asked.items())
