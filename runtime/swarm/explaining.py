"""What a service, a task or a node waits for, said from the store and from what the actors know that own the waiting.

Rules owned here: whose turn it is follows from a task's states (the allocator's up to NEW, the scheduler's up to
PENDING, the agent's from ASSIGNED on, the orchestrator's once it ended); what an actor says about a task itself goes
before that. Equal waits are told once, with their number and the first few of those that wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, Literal

from runtime.errors import Code, Refused
from runtime.swarm import ingress_blocked, jobs
from runtime.swarm.constraints import node_fits
from runtime.swarm.explaining_past import given_up, how_it_ended, with_past
from runtime.swarm.labels import NOWHERE, REBALANCE, STOPPED
from runtime.swarm.naming import task_name
from runtime.swarm.ports import View
from runtime.swarm.task_model import age_key, ended, is_invalid, node_of, slot_tasks, wanted
from runtime.swarm.update_steps import PAUSED_STATES
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

SubjectKind = Literal["", "service", "task", "node"]
SUBJECTS_MAX: Final = 5
Subject = objects.Service | objects.Task | objects.Node
_KINDS: Final[dict[SubjectKind, type[Any]]] = {
    "service": objects.Service, "task": objects.Task, "node": objects.Node,
}  # fmt: skip
_STATES: Final = {types.NodeStatus.READY: "ready", types.NodeStatus.DOWN: "down", types.NodeStatus.UNKNOWN: "unknown"}


def find(view: View, kind: SubjectKind, text: str) -> Subject:
    """The one object that is meant; ``Refused`` if there is none or more than one. A whole id or name of any kind goes
    before the beginning of an id: ids are of random letters, and a node's short name may begin a task's."""
    kinds = [kind] if kind else list(_KINDS)
    for look in (_by_id, _by_name, _by_place, _by_prefix):
        for each in kinds:
            found = look(view, _KINDS[each], text)
            if len(found) > 1:
                raise Refused(Code.INVALID_ARGUMENT, f"{each} {text} is ambiguous ({len(found)} found)")
            if found:
                return found[0]
    raise Refused(Code.NOT_FOUND, f"no such {kind or 'service, task or node'}: {text}")


def _by_id(view: View, kind: type[Any], text: str) -> list[Subject]:
    found = view.get(kind, text)
    return [found] if found is not None else []


def _by_name(view: View, kind: type[Any], text: str) -> list[Subject]:
    return list(view.find(kind, "name", text.lower())) if text else []


def _by_place(view: View, kind: type[Any], text: str) -> list[Subject]:
    """``web.2``, as lists of tasks show them: the task that is wanted there, else the last one that was."""
    name, dot, place = text.rpartition(".")
    services = view.find(objects.Service, "name", name.lower()) if dot and kind is objects.Task else []
    if len(services) != 1:
        return []
    held = slot_tasks(view, services[0].id, int(place) if place.isdecimal() and place.isascii() else place)
    return [max(held, key=lambda task: (wanted(task), age_key(task)))] if held else []


def _by_prefix(view: View, kind: type[Any], text: str) -> list[Subject]:
    return list(view.prefix(kind, "id", text)) if text else []


def concerns(subject: Subject) -> tuple[str, str]:
    """The ids of the service and of the node that the actors are to be asked about; empty for none."""
    if isinstance(subject, objects.Service):
        return subject.id, ""
    if isinstance(subject, objects.Node):
        return "", subject.id
    return subject.service_id, subject.node_id


def explain(view: View, subject: Subject, told: Sequence[Wait], silent: Sequence[str] = ()) -> dict[str, Any]:
    """The answer: what is explained, a sentence on how it stands, what waits, and which actors did not answer."""
    if isinstance(subject, objects.Service):
        name, kind, state, waits = subject.spec.annotations.name, "service", *_service(view, subject, told)
    elif isinstance(subject, objects.Node):
        name, kind, state, waits = subject.description.hostname, "node", *_node(view, subject, told)
    else:
        name, kind, state = task_name(subject), "task", _task_state(subject)
        mine = [wait for wait in told if wait.subject == subject.id]
        waits = mine or _task_waits(view, subject)
    waits = [with_past(view, wait) for wait in waits if wait.why]
    return {
        "kind": kind,
        "id": subject.id,
        "name": name,
        "state": state,
        "waits": _grouped(view, waits),
        "silent": list(silent),
    }


def _grouped(view: View, waits: Iterable[Wait]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for wait in waits:
        group = groups.setdefault(
            (wait.who, wait.why), {"who": wait.who, "why": wait.why, "count": 0, "seconds": None, "subjects": []}
        )
        group["count"] += 1
        if wait.seconds is not None:
            known = group["seconds"]
            group["seconds"] = wait.seconds if known is None else min(known, wait.seconds)
        if len(group["subjects"]) < SUBJECTS_MAX:
            group["subjects"].append(_called(view, wait.subject))
    return list(groups.values())


def _called(view: View, id: str) -> str:
    task = view.get(objects.Task, id)
    if task is not None:
        return f"task {task.service_annotations.name}.{task.slot or task.node_id} ({id})"
    service, node = view.get(objects.Service, id), view.get(objects.Node, id)
    if service is not None:
        return f"service {service.spec.annotations.name}"
    return f"node {node.description.hostname} ({id})" if node is not None else id


# Services


def _service(view: View, service: objects.Service, told: Sequence[Wait]) -> tuple[str, list[Wait]]:
    tasks = list(view.find(objects.Task, "service", service.id))
    about = {wait.subject for wait in told}
    waits = [wait for wait in told if wait.subject == service.id or view.get(objects.Task, wait.subject) is not None]
    if service.update_status.state in PAUSED_STATES:
        why = f"{service.update_status.message}; it goes on with the next docker service update, or --rollback"
        waits.append(Wait(service.id, "operator", why))
    if REBALANCE in service.spec.annotations.labels:
        why = "one of its tasks is being moved; if nobody is at it, swarmlet rebalance --apply takes that back"
        waits.append(Wait(service.id, "operator", why))
    if _is_stopped(service.spec):
        waits.append(Wait(service.id, "operator", f"it is stopped: swarmlet start {service.spec.annotations.name}"))
    for task in tasks:
        if task.id not in about:
            waits += _task_waits(view, task)
    state, missing = _counts(view, service, tasks)
    return state, [*waits, *missing, *ingress_blocked.service_waits(view, service)]


def _is_stopped(spec: specs.ServiceSpec) -> bool:
    if STOPPED not in spec.annotations.labels:
        return False
    return NOWHERE in spec.task.placement.constraints or (spec.HasField("replicated") and not spec.replicated.replicas)


def _counts(view: View, service: objects.Service, tasks: Sequence[objects.Task]) -> tuple[str, list[Wait]]:
    running = sum(task.status.state == types.RUNNING and task.desired_state <= types.COMPLETE for task in tasks)
    mode = service.spec.WhichOneof("mode")
    if mode == "replicated":
        return f"{running} of {service.spec.replicated.replicas} tasks run", given_up(view, service, tasks)
    if mode == "global":
        nodes = view.count(objects.Node)
        state = f"{_tasks(running)} on {nodes} {'node' if nodes == 1 else 'nodes'}"
        held = {task.node_id for task in tasks if wanted(task)}
        return state, _left_out(view, service, held) + given_up(view, service, tasks)
    return _job_counts(view, service, tasks, running)


def _job_counts(
    view: View, service: objects.Service, tasks: Sequence[objects.Task], running: int
) -> tuple[str, list[Wait]]:
    current = [task for task in tasks if jobs.is_current(task, service)]
    complete = sum(task.status.state == types.COMPLETE for task in current)
    given = [task for task in current if task.status.state > types.COMPLETE and not _has_other(task, current)]
    anew = "its restart policy gives up; the next docker service update runs it anew"
    waits = [Wait(task.id, "operator", f"{how_it_ended(task)}; {anew}") for task in given]
    iteration = f"of iteration {service.job_status.job_iteration.index} are complete, {running} run"
    if service.spec.WhichOneof("mode") == "global_job":
        left_out = _left_out(view, service, {task.node_id for task in current})
        return f"{complete} tasks {iteration}", waits + left_out
    job = service.spec.replicated_job
    left = job.total_completions - complete - len(given)
    alive = sum(task.desired_state <= types.COMPLETE and not ended(task) for task in current)
    if not job.max_concurrent:
        waits.append(Wait(service.id, "operator", "no task may run at once (max concurrent is 0)"))
    elif left > alive >= job.max_concurrent:
        why = f"{left - alive} more completions wait for one of the {alive} that may be under way at once"
        waits.append(Wait(service.id, "orchestrator", why))
    return f"{complete} of {job.total_completions} tasks {iteration}", waits


def _tasks(running: int) -> str:
    return "1 task runs" if running == 1 else f"{running} tasks run"


def _has_other(task: objects.Task, tasks: Sequence[objects.Task]) -> bool:
    """Whether another task of the same place lives, or has completed."""
    place = (task.slot, task.node_id if not task.slot else "")
    return any(
        other.desired_state <= types.COMPLETE and (other.slot, other.node_id if not other.slot else "") == place
        for other in tasks
    )


def _left_out(view: View, service: objects.Service, held: Collection[str]) -> list[Wait]:
    """The nodes of a service or job of each node that have no task of it, and why."""
    waits = []
    for node in view.all(objects.Node):
        who, why = _why_left_out(service, node) if node.id not in held else ("", "")
        if why:
            waits.append(Wait(node.id, who, why))
    return waits


def _why_left_out(service: objects.Service, node: objects.Node) -> tuple[str, str]:
    if not node_fits(node, service.spec.task.placement.constraints):
        return "operator", "the service's constraints do not hold on it"
    if node.spec.availability != specs.NodeSpec.ACTIVE:
        how = "drained" if node.spec.availability == specs.NodeSpec.DRAIN else "paused"
        return "operator", f"it is {how}; docker node update --availability active brings it back"
    if node.status.state == types.NodeStatus.DOWN:
        return "agent", "it is down; it gets its task when its agent is back"
    return "", ""


# Tasks


def _task_state(task: objects.Task) -> str:
    names = types.TaskState.Name
    err = f": {task.status.err}" if task.status.err else ""
    return f"{names(task.status.state).lower()}, to be {names(task.desired_state).lower()}{err}"


def _task_waits(view: View, task: objects.Task) -> list[Wait]:
    who, why = whose_turn(view, task)
    return [Wait(task.id, who, why)] if why else []


def whose_turn(view: View, task: objects.Task) -> tuple[str, str]:
    """Who acts next on a task, and why it has not been done; two empty texts when nobody has to."""
    state, desired = task.status.state, task.desired_state
    node = node_of(view, task)
    if ended(task):
        failed = state != types.COMPLETE and desired <= types.COMPLETE
        return ("orchestrator", "it ended and is about to be replaced") if failed else ("", "")
    if desired >= types.SHUTDOWN:
        return _stopping(task, node)
    if state < types.PENDING:
        return "allocator", "it has no ports and networks yet"
    if state < types.ASSIGNED:
        return "scheduler", task.status.err or "it is placed in the next run"
    if task.node_id and is_invalid(node):
        return "orchestrator", "its node is lost or drained; it is about to be replaced elsewhere"
    if state >= desired:
        held = desired == types.READY
        return (
            ("orchestrator", "it is held until its restart delay is over or the old task stopped") if held else ("", "")
        )
    if state == types.RUNNING:
        return ("", "")
    return "agent", _on_node(task, node)


def _on_node(task: objects.Task, node: objects.Node | None) -> str:
    where = node.description.hostname or node.id if node is not None else task.node_id
    said = task.status.err or task.status.message
    if node is not None and node.status.state != types.NodeStatus.READY:
        return f"node {where} is {_STATES.get(node.status.state, 'away')}: nothing is heard of it"
    return f"node {where} is at it: {types.TaskState.Name(task.status.state).lower()}" + (f" ({said})" if said else "")


def _stopping(task: objects.Task, node: objects.Node | None) -> tuple[str, str]:
    if not task.node_id or task.status.state < types.ASSIGNED:
        return "task_reaper", "it never had a node and is about to be forgotten"
    where = node.description.hostname or node.id if node is not None else task.node_id
    if node is None or node.status.state == types.NodeStatus.DOWN:
        return "dispatcher", f"node {where} is down or gone; the task is given up a day after its node was lost"
    return "agent", f"node {where} is to stop it, with its grace period"


# Nodes


def _node(view: View, node: objects.Node, told: Sequence[Wait]) -> tuple[str, list[Wait]]:
    tasks = list(view.find(objects.Task, "node", node.id))
    running = sum(task.status.state == types.RUNNING for task in tasks)
    availability = specs.NodeSpec.Availability.Name(node.spec.availability).lower()
    state = f"{_STATES.get(node.status.state, 'disconnected')}, {availability}, {_tasks(running)}"
    waits = [wait for wait in told if wait.subject == node.id]
    if node.status.state == types.NodeStatus.DOWN:
        said = f" ({node.status.message})" if node.status.message else ""
        waits.append(Wait(node.id, "agent", f"it is down{said}: its agent has to call a manager"))
    if node.spec.availability != specs.NodeSpec.ACTIVE:
        waits.append(Wait(node.id, "operator", f"it takes no new tasks: its availability is {availability}"))
    for task in tasks:
        waits += _task_waits(view, task)
    return state, waits + ingress_blocked.node_waits(node)
