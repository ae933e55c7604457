"""Tasks as the engine shows them.

Rules: ``Labels`` are the task's own (empty for the tasks of services); slot 0 is left out, as for global tasks;
``PortStatus`` is always an object, ``ContainerStatus`` is there once the node reported one, be it zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runtime.engine_api.convert import common, network, service, task_spec
from runtime.wire.pb import types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Task

STATE_NAMES: Final = {number: name.lower() for name, number in types_pb2.TaskState.items()}
STATES: Final = {name: number for number, name in STATE_NAMES.items()}


def task_to_json(task: Task) -> JsonObject:
    """A task."""
    out = common.meta_to_json(task.id, task.meta)
    out |= common.annotations_to_json(task.annotations)
    out["Spec"] = task_spec.task_to_json(task.spec, in_service=False)
    common.keep(out, ServiceID=task.service_id, Slot=task.slot, NodeID=task.node_id)
    out["Status"] = status_to_json(task.status)
    out["DesiredState"] = STATE_NAMES.get(task.desired_state, "")
    common.keep(
        out,
        NetworksAttachments=[network.attachment_to_json(attachment) for attachment in task.networks],
        GenericResources=task_spec.generic_to_json(task.assigned_generic_resources),
    )
    if task.HasField("job_iteration"):
        out["JobIteration"] = service.version_to_json(task.job_iteration)
    volumes: list[JsonObject] = []
    for volume in task.volumes:
        item: JsonObject = {}
        common.keep(item, ID=volume.id, Source=volume.source, Target=volume.target)
        volumes.append(item)
    common.keep(out, Volumes=volumes)
    return out


def status_to_json(status: types_pb2.TaskStatus) -> JsonObject:
    """What is observed of a task."""
    out: JsonObject = {
        "Timestamp": common.time_to_json(status.timestamp) if status.HasField("timestamp") else common.ZERO_TIME,
        "State": STATE_NAMES.get(status.state, ""),
    }
    common.keep(out, Message=status.message, Err=status.err)
    if status.HasField("container"):
        container = status.container
        out["ContainerStatus"] = {
            "ContainerID": container.container_id,
            "PID": container.pid,
            "ExitCode": container.exit_code,
        }
    ports: JsonObject = {}
    common.keep(ports, Ports=[service.port_to_json(port) for port in status.port_status.ports])
    out["PortStatus"] = ports
    return out
