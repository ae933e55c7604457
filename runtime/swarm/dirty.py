"""Whether a task is older than what its service asks for now, so that an update has to replace it.

Rules owned here: equal spec versions are clean without a look at the specs; a change of placement alone replaces only
tasks whose node does not fit the new constraints; credentials for pulling an image do not matter once it was pulled.
"""

from __future__ import annotations

from runtime.swarm import constraints
from runtime.swarm.task_model import version_of, wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types


def is_dirty(task: objects.Task, service: objects.Service, node: objects.Node | None) -> bool:
    """Whether ``task`` needs replacement; ``node`` is the one it is assigned to, None when it has none or it is gone.

    As SwarmKit's orchestrator decides it; also tells ``docker service ps`` what is up to date.
    """
    mine, current = version_of(task), version_of(service)
    if mine is not None and mine == current:
        return False
    if _only_placement_differs(task, service) and _fits(node, service):
        return False
    return _spec_differs(task, service) or _endpoint_differs(task, service)


def _fits(node: objects.Node | None, service: objects.Service) -> bool:
    return node is not None and constraints.node_fits(node, service.spec.task.placement.constraints)


def _only_placement_differs(task: objects.Task, service: objects.Service) -> bool:
    if task.spec.placement == service.spec.task.placement and _same_presence(task, service):
        return False
    ours, theirs = _copy(task.spec), _copy(service.spec.task)
    ours.ClearField("placement")
    theirs.ClearField("placement")
    return ours == theirs and not _endpoint_differs(task, service)


def _same_presence(task: objects.Task, service: objects.Service) -> bool:
    return task.spec.HasField("placement") == service.spec.task.HasField("placement")


def _spec_differs(task: objects.Task, service: objects.Service) -> bool:
    if task.spec == service.spec.task:
        return False
    if not (wanted(task) and types.READY <= task.status.state <= types.RUNNING):
        return True
    ours, theirs = _copy(task.spec), _copy(service.spec.task)
    for spec in (ours, theirs):
        if spec.HasField("container"):
            spec.container.ClearField("pull_options")
    return ours != theirs


def _endpoint_differs(task: objects.Task, service: objects.Service) -> bool:
    return task.HasField("endpoint") and task.endpoint.spec != service.spec.endpoint


def _copy(spec: specs.TaskSpec) -> specs.TaskSpec:
    new = specs.TaskSpec()
    new.CopyFrom(spec)
    return new
