"""Services: their spec, and what is shown of them.

Rules: exactly one mode, the default is one replica; an absent endpoint spec stays absent and an empty one is VIP;
an update config's delay is always stored, its monitor only if it is not zero; unknown protocols and publish modes
are silently tcp and ingress, as the engine reads them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api.convert import common, fields, task_spec
from runtime.engine_api.errors import bad
from runtime.wire.pb import specs_pb2, types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.control_pb2 import ListServiceStatusesResponse
    from runtime.wire.pb.objects_pb2 import Endpoint, Service

ACTIONS: Final[dict[str, Any]] = {"": 0, "pause": 0, "continue": 1, "rollback": 2}
ACTION_NAMES: Final = {0: "pause", 1: "continue", 2: "rollback"}
ORDERS: Final[dict[str, Any]] = {"": 0, "stop-first": 0, "start-first": 1}
ORDER_NAMES: Final = {0: "stop-first", 1: "start-first"}
RESOLUTIONS: Final[dict[str, Any]] = {"": 0, "vip": 0, "dnsrr": 1}
RESOLUTION_NAMES: Final = {0: "vip", 1: "dnsrr"}
PROTOCOLS: Final[dict[str, Any]] = {name.lower(): n for name, n in types_pb2.PortConfig.Protocol.items()}
PROTOCOL_NAMES: Final = {number: name for name, number in PROTOCOLS.items()}
PUBLISH_MODES: Final[dict[str, Any]] = {"ingress": 0, "host": 1}
PUBLISH_NAMES: Final = {0: "ingress", 1: "host"}
UPDATE_STATES: Final = {n: name.lower() for name, n in types_pb2.UpdateStatus.UpdateState.items() if n}
MODES: Final = ("Replicated", "Global", "ReplicatedJob", "GlobalJob")


def spec_from_json(obj: JsonObject) -> specs_pb2.ServiceSpec:
    """A service spec from a request's body. Raises ApiError 400 in the engine's words for what cannot be converted."""
    spec = specs_pb2.ServiceSpec()
    common.set_annotations(spec.annotations, obj, "")
    task_spec.task_from_json(spec.task, fields.child(obj, "TaskTemplate", "") or {}, "TaskTemplate.")
    if (update := fields.child(obj, "UpdateConfig", "")) is not None:
        update_from_json(spec.update, update, "UpdateConfig.")
    if (rollback := fields.child(obj, "RollbackConfig", "")) is not None:
        update_from_json(spec.rollback, rollback, "RollbackConfig.")
    if (endpoint := fields.child(obj, "EndpointSpec", "")) is not None:
        endpoint_from_json(spec.endpoint, endpoint, "EndpointSpec.")
    mode_from_json(spec, fields.child(obj, "Mode", "") or {}, "Mode.")
    return spec


def mode_from_json(spec: specs_pb2.ServiceSpec, obj: JsonObject, path: str) -> None:
    """The service's mode: one replica where nothing is said; a job's completions default to its concurrency."""
    given = [(name, mode) for name in MODES if (mode := fields.child(obj, name, path)) is not None]
    if len(given) > 1:
        raise bad("must specify only one service mode")
    name, mode = given[0] if given else ("Replicated", {})
    inner = f"{path}{name}."
    if name == "Replicated":
        replicas = fields.maybe_integer(mode, "Replicas", inner, 0, fields.U64_MAX)
        spec.replicated.replicas = 1 if replicas is None else replicas
        spec.replicated.SetInParent()
    elif name == "ReplicatedJob":
        concurrent = fields.maybe_integer(mode, "MaxConcurrent", inner, 0, fields.U64_MAX)
        total = fields.maybe_integer(mode, "TotalCompletions", inner, 0, fields.U64_MAX)
        spec.replicated_job.max_concurrent = 1 if concurrent is None else concurrent
        spec.replicated_job.total_completions = spec.replicated_job.max_concurrent if total is None else total
        spec.replicated_job.SetInParent()
    elif name == "Global":
        spec.SetInParent()
        getattr(spec, "global").SetInParent()
    else:
        spec.global_job.SetInParent()


def update_from_json(target: types_pb2.UpdateConfig, obj: JsonObject, path: str) -> None:
    """How an update or a rollback goes. Parallelism 0 means all at once."""
    action, order = fields.text(obj, "FailureAction", path), fields.text(obj, "Order", path)
    if action not in ACTIONS:
        raise bad(f"unrecognized update failure action {action}")
    if order not in ORDERS:
        raise bad(f"unrecognized update order {order}")
    target.parallelism = fields.unsigned(obj, "Parallelism", path)
    target.failure_action = ACTIONS[action]
    target.order = ORDERS[order]
    target.max_failure_ratio = fields.number(obj, "MaxFailureRatio", path)
    common.set_duration(target.delay, fields.integer(obj, "Delay", path))
    monitor = fields.integer(obj, "Monitor", path)
    if monitor:
        common.set_duration(target.monitor, monitor)


def endpoint_from_json(target: specs_pb2.EndpointSpec, obj: JsonObject, path: str) -> None:
    """How the service is reached: resolution mode and published ports."""
    asked = fields.text(obj, "Mode", path)
    if asked not in RESOLUTIONS:
        raise bad(f'invalid resolution mode: "{asked}"')
    target.mode = RESOLUTIONS[asked]
    target.SetInParent()
    for index, port in enumerate(fields.children(obj, "Ports", path)):
        inner = f"{path}Ports[{index}]."
        target.ports.add(
            name=fields.text(port, "Name", inner),
            protocol=PROTOCOLS.get(fields.text(port, "Protocol", inner).lower(), 0),
            target_port=fields.u32(port, "TargetPort", inner),
            published_port=fields.u32(port, "PublishedPort", inner),
            publish_mode=PUBLISH_MODES.get(fields.text(port, "PublishMode", inner).lower(), 0),
        )


def service_to_json(service: Service) -> JsonObject:
    """A service as the engine shows it, without its counts of tasks (see ``status_to_json``)."""
    out = common.meta_to_json(service.id, service.meta)
    out["Spec"] = spec_to_json(service.spec)
    if service.HasField("previous_spec"):
        out["PreviousSpec"] = spec_to_json(service.previous_spec)
    out["Endpoint"] = endpoint_to_json(service.endpoint)
    if service.HasField("update_status"):
        out["UpdateStatus"] = update_status_to_json(service.update_status)
    if service.HasField("job_status"):
        out["JobStatus"] = job_status_to_json(service.job_status)
    return out


def spec_to_json(spec: specs_pb2.ServiceSpec) -> JsonObject:
    """A service spec."""
    out = common.annotations_to_json(spec.annotations)
    out["TaskTemplate"] = task_spec.task_to_json(spec.task, in_service=True)
    out["Mode"] = mode_to_json(spec)
    if spec.HasField("update"):
        out["UpdateConfig"] = update_to_json(spec.update)
    if spec.HasField("rollback"):
        out["RollbackConfig"] = update_to_json(spec.rollback)
    if spec.networks:
        out["Networks"] = [task_spec.network_to_json(network) for network in spec.networks]
    if spec.HasField("endpoint"):
        out["EndpointSpec"] = endpoint_spec_to_json(spec.endpoint)
    return out


def mode_to_json(spec: specs_pb2.ServiceSpec) -> JsonObject:
    """The service's mode; its numbers are always there, because clients read them without looking."""
    mode = spec.WhichOneof("mode")
    if mode == "replicated":
        return {"Replicated": {"Replicas": spec.replicated.replicas}}
    if mode == "replicated_job":
        job = spec.replicated_job
        return {"ReplicatedJob": {"MaxConcurrent": job.max_concurrent, "TotalCompletions": job.total_completions}}
    if mode == "global":
        return {"Global": {}}
    return {"GlobalJob": {}} if mode == "global_job" else {}


def update_to_json(config: types_pb2.UpdateConfig) -> JsonObject:
    """How an update goes; Parallelism, MaxFailureRatio and Order are always there."""
    out: JsonObject = {"Parallelism": config.parallelism}
    common.keep(out, Delay=common.duration_to_json(config.delay))
    out["FailureAction"] = ACTION_NAMES.get(config.failure_action, "")
    common.keep(out, Monitor=common.duration_to_json(config.monitor))
    out["MaxFailureRatio"] = float32_to_json(config.max_failure_ratio)
    out["Order"] = ORDER_NAMES.get(config.order, "")
    return out


def float32_to_json(value: float) -> float | int:
    """The shortest number that a 32 bit float reads back as the same: 0.1, not 0.10000000149011612."""
    if value == int(value):
        return int(value)
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if struct.unpack("<f", struct.pack("<f", short))[0] == value:
            return short
    return value


def endpoint_spec_to_json(spec: specs_pb2.EndpointSpec) -> JsonObject:
    """The asked resolution mode and ports."""
    out: JsonObject = {"Mode": RESOLUTION_NAMES.get(spec.mode, "")}
    common.keep(out, Ports=[port_to_json(port) for port in spec.ports])
    return out


def port_to_json(port: types_pb2.PortConfig) -> JsonObject:
    """One published port, asked or given."""
    out: JsonObject = {}
    common.keep(out, Name=port.name)
    out["Protocol"] = PROTOCOL_NAMES.get(port.protocol, "tcp")
    common.keep(out, TargetPort=port.target_port, PublishedPort=port.published_port)
    out["PublishMode"] = PUBLISH_NAMES.get(port.publish_mode, "ingress")
    return out


def endpoint_to_json(endpoint: Endpoint) -> JsonObject:
    """What the service was given: ports and virtual addresses. ``Spec`` is there even before it was given anything."""
    out: JsonObject = {"Spec": endpoint_spec_to_json(endpoint.spec) if endpoint.HasField("spec") else {}}
    addresses: list[JsonObject] = []
    for virtual_ip in endpoint.virtual_ips:
        item: JsonObject = {}
        common.keep(item, NetworkID=virtual_ip.network_id, Addr=virtual_ip.addr)
        addresses.append(item)
    common.keep(out, Ports=[port_to_json(port) for port in endpoint.ports], VirtualIPs=addresses)
    return out


def update_status_to_json(status: types_pb2.UpdateStatus) -> JsonObject:
    """Where an update stands; its times are left out while they are zero or the epoch."""
    out: JsonObject = {}
    common.keep(out, State=UPDATE_STATES.get(status.state, ""))
    if status.started_at.seconds > 0:
        out["StartedAt"] = common.time_to_json(status.started_at)
    if status.completed_at.seconds > 0:
        out["CompletedAt"] = common.time_to_json(status.completed_at)
    common.keep(out, Message=status.message)
    return out


def job_status_to_json(status: types_pb2.JobStatus) -> JsonObject:
    """Which run of a job this is, and when it began."""
    executed = status.HasField("last_execution")
    return {
        "JobIteration": version_to_json(status.job_iteration),
        "LastExecution": common.time_to_json(status.last_execution) if executed else common.ZERO_TIME,
    }


def version_to_json(version: types_pb2.Version) -> JsonObject:
    """A version; the first iteration of a job is an empty one."""
    return {"Index": version.index} if version.index else {}


def status_to_json(status: ListServiceStatusesResponse.ServiceStatus) -> JsonObject:
    """How many tasks a service should have, has running, and has completed."""
    return {
        "RunningTasks": status.running_tasks,
        "DesiredTasks": status.desired_tasks,
        "CompletedTasks": status.completed_tasks,
    }
