"""What draining or removing a node would do, tried on a copy of the cluster: nothing is changed.

Rules owned here: replicated services and jobs move their tasks where the scheduler would place them now, if their
restart policy replaces them; global services and jobs lose theirs; what would wait says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from runtime.swarm.defaults import restart_condition
from runtime.swarm.naming import task_name
from runtime.swarm.ports import View
from runtime.swarm.scheduling import Decision, Scheduler
from runtime.swarm.task_model import ended, is_per_node, new_task, the_cluster
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

Action = Literal["drain", "rm"]


def plan(view: View, node: objects.Node, action: Action, now: float) -> dict[str, Any]:
    """What would happen, task by task; ``warnings`` are what stands in the way or is lost."""
    tasks = [task for task in view.find(objects.Task, "node", node.id) if _lives(task)]
    moved: list[objects.Task] = []
    ended_for_good: list[objects.Task] = []
    for task in tasks:
        service = view.get(objects.Service, task.service_id)
        (moved if service is not None and _moves(service, task) else ended_for_good).append(task)
    placed = _placements(view, node, moved, now)
    hosts = {each.id: each.description.hostname or each.id for each in view.all(objects.Node)}
    return {
        "action": action,
        "id": node.id,
        "name": node.description.hostname,
        "moves": [
            {"task": task_name(task), "to": hosts[decision.node_id], "waits": ""}
            if decision is not None and decision.node_id
            else {"task": task_name(task), "to": "", "waits": decision.err if decision is not None else ""}
            for task, decision in placed
        ],
        "ends": [{"task": task_name(task), "why": _why_ends(view, task)} for task in ended_for_good],
        "warnings": _warnings(view, node, action),
    }


def _lives(task: objects.Task) -> bool:
    return task.desired_state <= types.COMPLETE and not ended(task)


def _moves(service: objects.Service, task: objects.Task) -> bool:
    return not is_per_node(service) and restart_condition(task.spec) != types.RestartPolicy.NONE


def _why_ends(view: View, task: objects.Task) -> str:
    service = view.get(objects.Service, task.service_id)
    if service is None:
        return "it belongs to no service"
    if is_per_node(service):
        return "its service runs once on each node"
    return "its restart policy replaces nothing"


def _placements(
    view: View, node: objects.Node, moved: Sequence[objects.Task], now: float
) -> list[tuple[objects.Task, Decision | None]]:
    """Where replacements of tasks would go, decided by a scheduler of its own on the cluster without the node."""
    scheduler, gone = Scheduler(), {task.id for task in moved}
    for each in view.all(objects.Node):
        if each.id != node.id:
            scheduler.put_node(each)
    for task in view.all(objects.Task):
        if task.id not in gone and task.status.state >= types.ASSIGNED:
            scheduler.put_task(task, now)
    replacements = {}
    for number, task in enumerate(moved):
        service = view.get(objects.Service, task.service_id)
        assert service is not None
        new = new_task(f"plan-{number}", service, the_cluster(view), now, slot=task.slot)
        new.status.state = types.PENDING
        new.endpoint.CopyFrom(task.endpoint)
        replacements[new.id] = task
        scheduler.put_task(new, now)
    decided = {decision.task_id: decision for decision in scheduler.run(now, lambda id: view.get(objects.Service, id))}
    return [(task, decided.get(id)) for id, task in replacements.items()]


def _warnings(view: View, node: objects.Node, action: Action) -> list[str]:
    warnings = []
    if action == "rm":
        if node.status.state != types.NodeStatus.DOWN:
            warnings.append("it is not down: docker node rm refuses without --force")
        if node.spec.desired_role == types.MANAGER:
            warnings.append("it is a manager: it has to be demoted first")
    if action == "drain" and node.spec.availability == specs.NodeSpec.DRAIN:
        warnings.append("it is drained already")
    left = [each for each in view.all(objects.Node) if each.id != node.id and takes_tasks(each)]
    if not left:
        warnings.append("no other node takes tasks")
    return warnings


def takes_tasks(node: objects.Node) -> bool:
    """Whether new tasks may be placed on the node."""
    return node.status.state == types.NodeStatus.READY and node.spec.availability == specs.NodeSpec.ACTIVE
