"""The ``deploy`` section of a compose file's service: replicas, restarts, resources, placement, updates."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from runtime.wire.pb import specs_pb2, types_pb2
from swarmlet.compose_values import Place

UINT64_MAX: Final = 2**64 - 1
INT32_MAX: Final = 2**31 - 1

_CONDITIONS: Final = {
    "any": types_pb2.RestartPolicy.ANY,
    "on-failure": types_pb2.RestartPolicy.ON_FAILURE,
    "none": types_pb2.RestartPolicy.NONE,
}
_ACTIONS: Final = {
    "pause": types_pb2.UpdateConfig.PAUSE,
    "continue": types_pb2.UpdateConfig.CONTINUE,
    "rollback": types_pb2.UpdateConfig.ROLLBACK,
}
_ORDERS: Final = {
    "stop-first": types_pb2.UpdateConfig.STOP_FIRST,
    "start-first": types_pb2.UpdateConfig.START_FIRST,
}
_MODES: Final = {"": "replicated", **{mode: mode for mode in ("replicated", "global", "replicated-job", "global-job")}}
_KEYS: Final = (
    "mode", "replicas", "labels", "restart_policy", "resources", "placement", "update_config", "rollback_config",
    "endpoint_mode",
)  # fmt: skip


def deploy(place: Place, spec: specs_pb2.ServiceSpec) -> None:
    """Writes what the section says into ``spec``."""
    place.known(*_KEYS)
    _mode(place, spec)
    for key, value in place.at("labels").pairs().items():
        spec.annotations.labels[key] = value or ""
    if place.at("restart_policy").value is not None:
        _restart(place.at("restart_policy"), spec.task.restart)
    resources = place.at("resources")
    resources.known("limits", "reservations")
    _limits(resources.at("limits"), spec)
    _reservations(resources.at("reservations"), spec)
    _placement(place.at("placement"), spec.task)
    for key, target in (("update_config", spec.update), ("rollback_config", spec.rollback)):
        if place.at(key).value is not None:
            _update(place.at(key), target)
    endpoint = place.at("endpoint_mode")
    if endpoint.value is not None:
        spec.endpoint.mode = endpoint.choice({"vip": specs_pb2.EndpointSpec.VIP, "dnsrr": specs_pb2.EndpointSpec.DNSRR})


def set_duration(target: Duration, place: Place) -> None:
    """Writes a duration that the file gives; leaves the field absent when it gives none."""
    if place.value is not None:
        seconds, nanos = divmod(place.duration_ns(), 1_000_000_000)
        target.SetInParent()
        target.seconds, target.nanos = seconds, nanos


def restart_of_containers(place: Place, restart: types_pb2.RestartPolicy) -> None:
    """``restart`` as plain compose has it, for a service whose ``deploy`` says nothing of restarts."""
    text = {False: "no", True: ""}.get(place.value, place.value) if isinstance(place.value, bool) else place.text()
    kind, _, attempts = str(text).partition(":")
    conditions = {"no": "none", "always": "any", "unless-stopped": "any", "on-failure": "on-failure"}
    if kind not in conditions or (attempts and (kind != "on-failure" or not attempts.isdigit())):
        place.fault(f"must be no, always, unless-stopped or on-failure[:N], not {text!r}")
        return
    restart.condition = _CONDITIONS[conditions[kind]]
    restart.max_attempts = int(attempts or 0)


def _mode(place: Place, spec: specs_pb2.ServiceSpec) -> None:
    mode = place.at("mode")
    kind = mode.choice(_MODES)
    replicas = place.at("replicas")
    number = replicas.number(0, UINT64_MAX) if replicas.value is not None else 1
    if kind in ("global", "global-job"):
        # "global" is a keyword, so not to be written as an attribute.
        getattr(spec, kind.replace("-", "_")).SetInParent()
        if replicas.value is not None:
            replicas.fault(f"there is no number of replicas in the mode {kind}: it runs on every node")
    elif kind == "replicated-job":
        spec.replicated_job.SetInParent()
        spec.replicated_job.max_concurrent = spec.replicated_job.total_completions = number
    else:
        spec.replicated.SetInParent()
        spec.replicated.replicas = number
    if kind.endswith("-job") and place.at("update_config").value is not None:
        place.at("update_config").fault("a job is not updated task by task: each change runs it anew")


def _restart(place: Place, restart: types_pb2.RestartPolicy) -> None:
    place.known("condition", "delay", "max_attempts", "window")
    condition = place.at("condition")
    restart.condition = condition.choice(_CONDITIONS) if condition.value is not None else types_pb2.RestartPolicy.ANY
    set_duration(restart.delay, place.at("delay"))
    restart.max_attempts = place.at("max_attempts").number()
    set_duration(restart.window, place.at("window"))


def _limits(place: Place, spec: specs_pb2.ServiceSpec) -> None:
    place.known("cpus", "memory", "pids")
    _amounts(place, spec.task.resources.limits)
    if place.at("pids").value is not None:
        spec.task.container.pidsLimit = place.at("pids").number()


def _reservations(place: Place, spec: specs_pb2.ServiceSpec) -> None:
    place.known("cpus", "memory", "generic_resources", "devices")
    if place.at("devices").value is not None:
        place.at("devices").fault("devices cannot be reserved for a process; use generic_resources")
    _amounts(place, spec.task.resources.reservations)
    for item in place.at("generic_resources").items():
        item.known("discrete_resource_spec")
        discrete = item.at("discrete_resource_spec")
        discrete.known("kind", "value")
        if not discrete.at("kind").text():
            discrete.fault("needs a kind")
        generic = spec.task.resources.reservations.generic.add()
        generic.discrete_resource_spec.kind = discrete.at("kind").text()
        generic.discrete_resource_spec.value = discrete.at("value").number()


def _amounts(place: Place, resources: types_pb2.Resources) -> None:
    if place.value is None:
        return
    resources.SetInParent()
    if place.at("cpus").value is not None:
        resources.nano_cpus = place.at("cpus").nano_cpus()
    if place.at("memory").value is not None:
        resources.memory_bytes = place.at("memory").size()


def _placement(place: Place, task: specs_pb2.TaskSpec) -> None:
    if place.value is None:
        return
    place.known("constraints", "preferences", "max_replicas_per_node")
    task.placement.constraints.extend(place.at("constraints").texts())
    for item in place.at("preferences").items():
        item.known("spread")
        task.placement.preferences.add().spread.spread_descriptor = item.at("spread").text()
    if place.at("max_replicas_per_node").value is not None:
        task.placement.max_replicas = place.at("max_replicas_per_node").number()


def _update(place: Place, update: types_pb2.UpdateConfig) -> None:
    place.known("parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order")
    readers: dict[str, Any] = {
        "failure_action": lambda value: value.choice(_ACTIONS),
        "max_failure_ratio": Place.fraction,
        "order": lambda value: value.choice(_ORDERS),
    }
    parallelism = place.at("parallelism")
    update.parallelism = parallelism.number() if parallelism.value is not None else 1
    set_duration(update.delay, place.at("delay"))
    set_duration(update.monitor, place.at("monitor"))
    for key, read in readers.items():
        if place.at(key).value is not None:
            setattr(update, key, read(place.at(key)))
