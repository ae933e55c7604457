"""Containers of other nodes of the swarm, as a manager knows them from the tasks in its store.

Rules: a container is named by its id or a prefix of it, by its name (``web.1.ID``), or as ``web.1`` (of a global
service ``web.NODE``): the newest of that slot that runs. The bare id of a task names none, for `docker inspect` asks
for containers first and is to show the task. On a worker there are none.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from runtime.engine_api import resolve
from runtime.engine_api.convert.local import Container
from runtime.protocol.cluster import ClusterError
from runtime.wire.pb import control_pb2, logs_pb2, types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend
    from runtime.wire.pb.objects_pb2 import Task

CONTAINER_ID: Final = re.compile("[0-9a-f]{2,64}")
OBJECT_ID: Final = re.compile("[0-9a-z]{25}")


async def find(backend: Backend, term: str) -> list[Container]:
    """Those that ``term`` names; of a prefix all that begin with it. Nothing where this is no manager."""
    try:
        tasks = await _named(backend, term.removeprefix("/"))
    except ClusterError:
        return []
    found = [Container(task, task.status, remote=True) for task in tasks]
    return [each for each in found if each.id and each.task.node_id]


async def _named(backend: Backend, term: str) -> list[Task]:
    service, dot, last = term.rpartition(".")
    if dot and OBJECT_ID.fullmatch(last) and (task := await _task(backend, last)) is not None:
        return [task] if Container(task, task.status).name == term else []
    if dot:
        return await _in_slot(backend, service, last)
    if not CONTAINER_ID.fullmatch(term):
        return []
    tasks = await resolve.listed(backend, resolve.TASK, control_pb2.ListTasksRequest.Filters())
    known = [task for task in tasks if task.status.container.container_id.startswith(term)]
    exact = [task for task in known if task.status.container.container_id == term]
    return exact or known


async def _task(backend: Backend, task_id: str) -> Task | None:
    found: Task | None = await resolve.by_id(backend, resolve.TASK, task_id)
    return found


async def _in_slot(backend: Backend, name: str, slot: str) -> list[Task]:
    """The newest task that runs in a slot of a service, or on a node of a global one."""
    named = control_pb2.ListServicesRequest.Filters(names=[name])
    services = await resolve.listed(backend, resolve.SERVICE, named)
    if not services or not slot:
        return []
    filters = control_pb2.ListTasksRequest.Filters(service_ids=[services[0].id])
    tasks = await resolve.listed(backend, resolve.TASK, filters)
    there = [
        task
        for task in tasks
        if task.status.state == types_pb2.RUNNING and slot == (str(task.slot) if task.slot else task.node_id)
    ]
    return sorted(there, key=lambda task: task.meta.created_at.ToNanoseconds())[-1:]


async def hint(backend: Backend, term: str) -> str:
    """What to add to "there is no such container", if ``term`` is the id of a task."""
    if not OBJECT_ID.fullmatch(term):
        return ""
    try:
        task = await _task(backend, term)
    except ClusterError:
        return ""
    if task is None:
        return ""
    return f" (that is a task; the name of its container is {Container(task, task.status).name})"


async def node_of(backend: Backend, container: Container) -> types_pb2.NodeDescription:
    """What is known of a container's node."""
    node = await resolve.by_id(backend, resolve.NODE, container.task.node_id)
    description: types_pb2.NodeDescription = types_pb2.NodeDescription() if node is None else node.description
    return description


def lines(
    backend: Backend, container: Container, options: logs_pb2.LogSubscriptionOptions
) -> AsyncIterator[logs_pb2.SubscribeLogsMessage]:
    """The log of a container, whichever node it is on."""
    if not container.remote:
        return backend.local_logs(container.task, options)
    selector = logs_pb2.LogSelector(task_ids=[container.task.id])
    return backend.logs(logs_pb2.SubscribeLogsRequest(selector=selector, options=options))
