"""Validation of service specs that needs no state: everything that can be wrong with a spec by itself.

Rules owned here: the checks of SwarmKit's CreateService and UpdateService in their order, with the texts that clients
know. All refuse with InvalidArgument, except unreadable constraints (Unknown) and foreign runtimes (Unimplemented).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from google.protobuf import duration_pb2 as duration

from runtime.errors import invalid
from runtime.swarm import naming, templates
from runtime.swarm.control.checks import unimplemented
from runtime.swarm.control.image import is_image
from runtime.swarm.defaults import nanoseconds
from runtime.swarm.labels import check_service_labels
from runtime.swarm.schedules import check_schedule
from runtime.swarm.service_spec import is_job
from runtime.swarm.template_eval import quoted
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

CPU_MIN_NANO: Final = 1_000_000
MEMORY_MIN_BYTES: Final = 4 << 20
HEALTH_DURATION_MIN_NS: Final = 1_000_000
KIND_LENGTH_MIN: Final = 3
SIGNED_64_MAX: Final = (1 << 63) - 1

ParseConstraints = Callable[[Sequence[str]], object]


def check_service_spec(spec: specs.ServiceSpec, parse_constraints: ParseConstraints) -> None:
    """Refuses a service spec that can never be right."""
    naming.check_name(spec.annotations.name)
    check_service_labels(spec.annotations.labels)
    check_schedule(spec)
    check_task_spec(spec.task, parse_constraints)
    _check_mode(spec)
    if spec.HasField("update"):
        if is_job(spec):
            raise invalid("Jobs may not have an update config")
        _check_update(spec.update, "update")
    if spec.HasField("rollback"):
        _check_update(spec.rollback, "rollback")
    _check_endpoint(spec.endpoint)


def check_task_spec(task: specs.TaskSpec, parse_constraints: ParseConstraints) -> None:
    """Refuses a task spec: resources, restart policy, placement, references, then the runtime."""
    _check_resources(task.resources)
    _not_negative(task.restart.delay, "TaskSpec: restart-delay cannot be negative")
    _not_negative(task.restart.window, "TaskSpec: restart-window cannot be negative")
    parse_constraints(task.placement.constraints)
    _check_secrets(task.container.secrets)
    _check_configs(task.container)
    runtime = task.WhichOneof("runtime")
    if runtime is None:
        raise invalid("TaskSpec: missing runtime")
    if runtime == "container":
        _check_container(task.container)
    elif runtime == "generic":
        _check_generic(task.generic)
    else:
        raise unimplemented("RuntimeSpec: unimplemented runtime in service spec")


def _check_resources(requirements: types.ResourceRequirements) -> None:
    for resources in (requirements.limits, requirements.reservations):
        if resources.nano_cpus and resources.nano_cpus < CPU_MIN_NANO:
            raise invalid(f"invalid cpu value {resources.nano_cpus / 1e9:g}: Must be at least {CPU_MIN_NANO / 1e9:g}")
        if resources.memory_bytes and resources.memory_bytes < MEMORY_MIN_BYTES:
            raise invalid(f"invalid memory value {resources.memory_bytes}: Must be at least 4MiB")


def _not_negative(value: duration.Duration, text: str) -> None:
    if nanoseconds(value) < 0:
        raise invalid(text)


def _check_update(config: types.UpdateConfig, what: str) -> None:
    _not_negative(config.delay, f"TaskSpec: {what}-delay cannot be negative")
    _not_negative(config.monitor, f"TaskSpec: {what}-monitor cannot be negative")
    if not 0 <= config.max_failure_ratio <= 1:
        raise invalid(f"TaskSpec: {what}-maxfailureratio cannot be less than 0 or bigger than 1")


def _check_secrets(references: Sequence[types.SecretReference]) -> None:
    targets: dict[str, str] = {}
    for ref in references:
        if not ref.secret_id or not ref.secret_name:
            raise invalid("malformed secret reference")
        if ref.WhichOneof("target") is None:
            raise invalid("malformed secret reference, no target provided")
        _check_file_target("secret", ref.secret_name, ref.file.name, targets)


def _check_file_target(kind: str, name: str, file_name: str, targets: dict[str, str]) -> None:
    if not file_name:
        raise invalid(f"malformed file {kind} reference, invalid target file name provided")
    if file_name in targets:
        other = targets[file_name]
        raise invalid(f"{kind} references '{other}' and '{name}' have a conflicting target: '{file_name}'")
    targets[file_name] = name


def _check_configs(container: specs.ContainerSpec) -> None:
    targets: dict[str, str] = {}
    for ref in container.configs:
        if not ref.config_id or not ref.config_name:
            raise invalid("malformed config reference")
        target = ref.WhichOneof("target")
        if target is None:
            raise invalid("malformed config reference, no target provided")
        if target == "file":
            _check_file_target("config", ref.config_name, ref.file.name, targets)
    wanted = container.privileges.credential_spec.config
    if wanted and not any(ref.config_id == wanted and ref.HasField("runtime") for ref in container.configs):
        raise invalid(f"CredentialSpec: config {wanted} is not among the configs with a runtime target")


def _check_container(container: specs.ContainerSpec) -> None:
    try:
        expanded = templates.expand(container, templates.DUMMY)
    except templates.TemplateError as error:
        raise invalid(str(error)) from None
    _check_image(expanded.image)
    _check_mounts(expanded.mounts)
    if expanded.HasField("healthcheck"):
        _check_health(expanded.healthcheck)


def _check_image(image: str) -> None:
    if not image:
        raise invalid("ContainerSpec: image reference must be provided")
    if not is_image(image):
        raise invalid(f"ContainerSpec: {quoted(image)} is not a valid repository/tag")


def _check_mounts(mounts: Sequence[types.Mount]) -> None:
    targets: set[str] = set()
    for mount in mounts:
        if mount.target in targets:
            raise invalid(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)


def _check_health(health: types.HealthConfig) -> None:
    durations: Mapping[str, duration.Duration] = {
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
    }
    for name, value in durations.items():
        if nanoseconds(value) and nanoseconds(value) < HEALTH_DURATION_MIN_NS:
            raise invalid(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if health.retries < 0:
        raise invalid("ContainerSpec: Retries in HealthConfig cannot be negative")


def _check_generic(runtime: specs.GenericRuntimeSpec) -> None:
    if len(runtime.kind) < KIND_LENGTH_MIN:
        raise invalid(f"Generic runtime: Invalid name {quoted(runtime.kind)}")
    if runtime.kind.lower() in ("container", "attachment"):
        raise invalid(f"Generic runtime: {runtime.kind} is a reserved name")
    if not runtime.payload.type_url:
        raise invalid("Generic runtime: TypeUrl is required in the payload")
    if not runtime.payload.value:
        raise invalid("Generic runtime: Payload must not be empty")


def _check_mode(spec: specs.ServiceSpec) -> None:
    mode = spec.WhichOneof("mode")
    if mode is None:
        raise invalid("Unrecognized service mode")
    if mode == "replicated" and spec.replicated.replicas > SIGNED_64_MAX:
        raise invalid("Number of replicas must be non-negative")
    if spec.replicated_job.max_concurrent > SIGNED_64_MAX:
        raise invalid("Maximum concurrent jobs must not be negative")
    if spec.replicated_job.total_completions > SIGNED_64_MAX:
        raise invalid("Total completed jobs must not be negative")


def _check_endpoint(endpoint: specs.EndpointSpec) -> None:
    published: set[tuple[int, int]] = set()
    for port in endpoint.ports:
        by_ingress = port.publish_mode == types.PortConfig.INGRESS
        if endpoint.mode == specs.EndpointSpec.DNSRR and by_ingress:
            raise invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
        # Port 0 asks for any free one, as often as it likes.
        if not port.published_port:
            continue
        key = (port.published_port, port.protocol)
        if key in published:
            raise invalid("EndpointSpec: duplicate published ports provided")
        published.add(key)
