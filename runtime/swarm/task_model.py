"""What every decision about tasks agrees on: states, times, slots, new tasks, and nodes that cannot keep tasks.

Rules owned here: what a new task is made of (SwarmKit's orchestrator/task.go), that a task wants to live while its
desired state is at most RUNNING and has ended once its observed state is beyond it, and which of two tasks is newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runtime.swarm.ports import View, slot_key
from runtime.swarm.service_spec import to_timestamp
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

CREATED: Final = "created"

SlotKey = int | str
"""One place of a service: a slot's number, or a node's id for services with one task a node."""


def wanted(task: objects.Task) -> bool:
    """Whether the task is to live: desired state at most RUNNING."""
    return task.desired_state <= types.RUNNING


def ended(task: objects.Task) -> bool:
    """Whether the task has stopped, for whatever reason."""
    return task.status.state > types.RUNNING


def is_job_task(task: objects.Task) -> bool:
    """Whether the task belongs to a job: those carry the iteration that they were made for."""
    return task.HasField("job_iteration")


def generation_of(task: objects.Task) -> tuple[int, int | None]:
    """What a place's restarts are counted for: a job's iteration (0 for other services) and the spec version."""
    return task.job_iteration.index, version_of(task)


def is_per_node(service: objects.Service) -> bool:
    """Whether the service has one task a node, instead of numbered slots."""
    return service.spec.WhichOneof("mode") in ("global", "global_job")


def place_of(task: objects.Task, service: objects.Service) -> SlotKey:
    """The place in its service that a task fills. The first slot of a replicated job is number 0."""
    return task.node_id if is_per_node(service) else task.slot


def time_of(task: objects.Task) -> float | None:
    """Seconds since the epoch of the newest status: when a manager applied it, else when it came to be."""
    for stamp in ("applied_at", "timestamp"):
        if task.status.HasField(stamp):
            value = getattr(task.status, stamp)
            return float(value.seconds + value.nanos / 1e9)
    return None


def age_key(task: objects.Task) -> tuple[float, str]:
    """Sorts tasks by age, oldest first; those without a time are the oldest."""
    at = time_of(task)
    return (float("-inf") if at is None else at, task.id)


def version_of(message: objects.Task | objects.Service) -> int | None:
    """The number of a spec version, or None when the object has none."""
    return message.spec_version.index if message.HasField("spec_version") else None


def is_invalid(node: objects.Node | None) -> bool:
    """Whether tasks cannot stay on a node: it is gone, DOWN or drained. UNKNOWN and DISCONNECTED nodes keep theirs."""
    if node is None or node.status.state == types.NodeStatus.DOWN:
        return True
    return node.spec.availability == specs.NodeSpec.DRAIN


def node_of(view: View, task: objects.Task) -> objects.Node | None:
    """The node that a task is assigned to, while both exist."""
    return view.get(objects.Node, task.node_id) if task.node_id else None


def slot_tasks(view: View, service_id: str, place: SlotKey) -> list[objects.Task]:
    """All tasks of one place of a service, sorted by id; read by index, whatever the size of the service."""
    if isinstance(place, int):
        return list(view.find(objects.Task, "slot", slot_key(service_id, place)))
    return [task for task in view.find(objects.Task, "node", place) if task.service_id == service_id]


def the_cluster(view: View) -> objects.Cluster | None:
    """The one cluster object."""
    clusters = view.all(objects.Cluster)
    return clusters[0] if clusters else None


def new_task(
    task_id: str,
    service: objects.Service,
    cluster: objects.Cluster | None,
    now: float,
    *,
    slot: int = 0,
    node_id: str = "",
    desired: types.TaskState = types.RUNNING,
) -> objects.Task:
    """A task of a service's present spec, in state NEW; the cluster gives the log driver where the spec has none."""
    task = objects.Task(
        id=task_id,
        service_annotations=service.spec.annotations,
        spec=service.spec.task,
        service_id=service.id,
        slot=slot,
        node_id=node_id,
        status=types.TaskStatus(state=types.NEW, message=CREATED, timestamp=to_timestamp(now)),
        desired_state=desired,
    )
    if service.HasField("spec_version"):
        task.spec_version.CopyFrom(service.spec_version)
    if service.spec.HasField("endpoint"):
        task.endpoint.spec.CopyFrom(service.spec.endpoint)
    _set_log_driver(task, service, cluster)
    return task


def _set_log_driver(task: objects.Task, service: objects.Service, cluster: objects.Cluster | None) -> None:
    if service.spec.task.HasField("log_driver"):
        task.log_driver.CopyFrom(service.spec.task.log_driver)
    elif cluster is not None and cluster.spec.task_defaults.HasField("log_driver"):
        task.log_driver.CopyFrom(cluster.spec.task_defaults.log_driver)


def by_place(tasks: Sequence[objects.Task], service: objects.Service) -> dict[SlotKey, list[objects.Task]]:
    """Tasks by the place they fill, in the order given."""
    places: dict[SlotKey, list[objects.Task]] = {}
    for task in tasks:
        places.setdefault(place_of(task, service), []).append(task)
    return places
