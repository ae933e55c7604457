"""Control requests about tasks.

Rules owned here: the precedence of the task filters; label filters look at the labels of the task's service, and
``up_to_date`` keeps the tasks that are not older than their service's spec.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.swarm.control.checks import find_or_refuse, require
from runtime.swarm.control.context import Context
from runtime.swarm.control.listing import by_id_prefix, by_index, by_name, by_name_prefix, labels_match, select
from runtime.swarm.naming import runtime_name, task_name
from runtime.swarm.ports import Tx, View
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects


def get_task(view: View, request: control.GetTaskRequest, ctx: Context) -> control.GetTaskResponse:
    """One task."""
    require(request.task_id)
    return control.GetTaskResponse(task=find_or_refuse(view, objects.Task, request.task_id))


def remove_task(request: control.RemoveTaskRequest, ctx: Context) -> Callable[[Tx], control.RemoveTaskResponse]:
    """Deletes a task's record outright, whatever its state."""
    require(request.task_id)

    def run(tx: Tx) -> control.RemoveTaskResponse:
        find_or_refuse(tx, objects.Task, request.task_id)
        tx.delete(objects.Task, request.task_id)
        return control.RemoveTaskResponse()

    return run


def list_tasks(view: View, request: control.ListTasksRequest, ctx: Context) -> control.ListTasksResponse:
    """The tasks that pass the filters."""
    wanted = request.filters
    filters = [
        by_name(objects.Task, wanted.names, task_name),
        by_name_prefix(objects.Task, wanted.name_prefixes, task_name),
        by_id_prefix(objects.Task, wanted.id_prefixes),
        by_index(objects.Task, "service", wanted.service_ids, lambda task: task.service_id),
        by_index(objects.Task, "runtime", wanted.runtimes, lambda task: runtime_name(task.spec)),
        by_index(objects.Task, "node", wanted.node_ids, lambda task: task.node_id),
        by_index(objects.Task, "desired_state", wanted.desired_states, lambda task: task.desired_state),
    ]
    found = select(
        view,
        objects.Task,
        filters,
        lambda task: (
            labels_match(task.service_annotations.labels, wanted.labels)
            and (not wanted.up_to_date or _is_up_to_date(view, task, ctx))
        ),
    )
    return control.ListTasksResponse(tasks=found)


def _is_up_to_date(view: View, task: objects.Task, ctx: Context) -> bool:
    service = view.get(objects.Service, task.service_id)
    if service is None:
        return False
    node = view.get(objects.Node, task.node_id) if task.node_id else None
    return not ctx.is_dirty(task, service, node)
