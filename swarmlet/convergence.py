"""Whether the services of a stack run as they were asked to, and if not, why. Pure: objects come in, sentences go out.

Rules it owns: a service has converged when each of its replicas has a task that runs, is wanted, and is as the newest
spec asks (or has done its work, where the restart policy does not ask for more), no update is under way, and none is
paused; a job has when its present iteration is complete as often, or on as many nodes, as it was asked to;
reasons come from tasks' own statuses, each told once with the number of tasks that it concerns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from runtime.swarm.defaults import restart_condition
from runtime.swarm.dirty import is_dirty
from runtime.swarm.jobs import is_current
from runtime.swarm.service_spec import is_job
from runtime.wire.pb import objects_pb2, types_pb2

REASONS_MAX: Final = 5
_UNFINISHED: Final = {
    types_pb2.UpdateStatus.UPDATING: "an update is under way",
    types_pb2.UpdateStatus.PAUSED: "its update is paused",
    types_pb2.UpdateStatus.ROLLBACK_STARTED: "a rollback is under way",
    types_pb2.UpdateStatus.ROLLBACK_PAUSED: "its rollback is paused",
}
Nodes = Mapping[str, objects_pb2.Node]
_BAD_ENDS: Final = (types_pb2.FAILED, types_pb2.REJECTED, types_pb2.ORPHANED)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service: how many replicas run of how many wanted (of a job: how many are complete), and why it is not as it
    should be (empty if it is)."""

    name: str
    running: int
    wanted: int
    reasons: tuple[str, ...]

    @property
    def converged(self) -> bool:
        """Whether it is as it should be."""
        return not self.reasons


def judge(
    services: Iterable[objects_pb2.Service], tasks: Iterable[objects_pb2.Task], nodes: Iterable[objects_pb2.Node] = ()
) -> list[ServiceState]:
    """The state of each service, by name. A global service wants a replica on each of ``nodes``."""
    by_id = {node.id: node for node in nodes}
    by_service: dict[str, list[objects_pb2.Task]] = {}
    for task in tasks:
        by_service.setdefault(task.service_id, []).append(task)
    return [
        _judge(service, by_service.get(service.id, []), by_id)
        for service in sorted(services, key=lambda each: each.spec.annotations.name)
    ]


def _judge(service: objects_pb2.Service, tasks: Sequence[objects_pb2.Task], nodes: Nodes) -> ServiceState:
    if is_job(service.spec):
        return _judge_job(service, tasks, len(nodes))
    wanted = len(nodes) if service.spec.HasField("global") else service.spec.replicated.replicas
    done = sum(1 for task in tasks if _fulfils(service, task, nodes))
    running = sum(1 for task in tasks if task.status.state == types_pb2.RUNNING and _wanted(task))
    reasons: list[str] = []
    if service.HasField("update_status") and service.update_status.state in _UNFINISHED:
        text = _UNFINISHED[service.update_status.state]
        reasons.append(f"{text}: {service.update_status.message}" if service.update_status.message else text)
    if done < wanted:
        outdated = running - sum(1 for task in tasks if _runs(task) and _is_current(service, task, nodes))
        reasons.append(f"{done} of {wanted} tasks run" + (f", {outdated} of an older spec" if outdated > 0 else ""))
        reasons.extend(_why(tasks))
    elif running > wanted:
        reasons.append(f"{running} tasks run, {wanted} are wanted")
    return ServiceState(service.spec.annotations.name, running, int(wanted), tuple(reasons))


def _judge_job(service: objects_pb2.Service, tasks: Sequence[objects_pb2.Task], active_nodes: int) -> ServiceState:
    everywhere = service.spec.HasField("global_job")
    wanted = active_nodes if everywhere else int(service.spec.replicated_job.total_completions)
    present = [task for task in tasks if is_current(task, service)]
    open_tasks = [task for task in present if task.status.state != types_pb2.COMPLETE]
    complete = {
        task.node_id if everywhere else task.slot for task in present if task.status.state == types_pb2.COMPLETE
    }
    reasons: list[str] = []
    if len(complete) < wanted:
        reasons = [f"{len(complete)} of {wanted} runs are complete", *_why(open_tasks)]
    return ServiceState(service.spec.annotations.name, len(complete), wanted, tuple(reasons))


def _fulfils(service: objects_pb2.Service, task: objects_pb2.Task, nodes: Nodes) -> bool:
    if not _is_current(service, task, nodes):
        return False
    if _runs(task):
        return True
    finished = task.status.state == types_pb2.COMPLETE
    return finished and restart_condition(task.spec) != types_pb2.RestartPolicy.ANY


def _runs(task: objects_pb2.Task) -> bool:
    return bool(task.status.state == types_pb2.RUNNING and _wanted(task))


def _wanted(task: objects_pb2.Task) -> bool:
    return bool(task.desired_state <= types_pb2.RUNNING)


def _is_current(service: objects_pb2.Service, task: objects_pb2.Task, nodes: Nodes) -> bool:
    """Whether no update has to replace the task: one of an older version may well be as the newest spec asks."""
    return not is_dirty(task, service, nodes.get(task.node_id))


def _why(tasks: Sequence[objects_pb2.Task]) -> list[str]:
    """What the tasks say of themselves: those that wait or failed, the most frequent first."""
    found: Counter[str] = Counter()
    for task in tasks:
        state = task.status.state
        if state == types_pb2.RUNNING or (not _wanted(task) and state not in _BAD_ENDS):
            continue
        text = task.status.err or task.status.message
        found[f"{state_name(state)}: {text}" if text else state_name(state)] += 1
    shown = [
        f"{text} ({count} tasks)" if count > 1 else text
        for text, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    ]
    return shown[:REASONS_MAX]


def state_name(state: types_pb2.TaskState) -> str:
    """A task state as people read it."""
    return types_pb2.TaskState.Name(state).lower()


def task_name(task: objects_pb2.Task) -> str:
    """``web.2``, as ``docker service logs`` and ``docker service ps`` name a task."""
    return f"{task.service_annotations.name}.{task.slot or task.node_id or 0}"
