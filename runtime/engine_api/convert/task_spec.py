"""Task templates: the part of a service spec that its tasks carry.

Rules: which runtime a template has is decided before anything else of it; Limits.Pids lives in the container spec;
preferences other than Spread are dropped; a restart policy always shows its condition and its attempts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api.convert import common, container, fields
from runtime.engine_api.errors import ApiError, bad
from runtime.wire.pb import specs_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.engine_api.jsonio import JsonObject

CONDITIONS: Final[dict[str, Any]] = {"": 2, "none": 0, "on-failure": 1, "any": 2}
CONDITION_NAMES: Final = {0: "none", 1: "on-failure", 2: "any"}


def task_from_json(spec: specs_pb2.TaskSpec, obj: JsonObject, path: str) -> None:
    """Fill ``spec`` from a TaskTemplate. Raises ApiError for a runtime that services cannot have."""
    _runtime_from_json(spec, obj, path)
    if (resources := fields.child(obj, "Resources", path)) is not None:
        _resources_from_json(spec, resources, path + "Resources.")
    if (restart := fields.child(obj, "RestartPolicy", path)) is not None:
        restart_from_json(spec.restart, restart, path + "RestartPolicy.")
    if (placement := fields.child(obj, "Placement", path)) is not None:
        placement_from_json(spec.placement, placement, path + "Placement.")
    if (driver := fields.child(obj, "LogDriver", path)) is not None:
        spec.log_driver.CopyFrom(common.driver_from_json(driver, path + "LogDriver."))
    for index, network in enumerate(fields.children(obj, "Networks", path)):
        inner = f"{path}Networks[{index}]."
        spec.networks.add(
            target=fields.text(network, "Target", inner),
            aliases=fields.texts(network, "Aliases", inner),
            driver_attachment_opts=fields.mapping(network, "DriverOpts", inner),
        )
    spec.force_update = fields.unsigned(obj, "ForceUpdate", path)


def _runtime_from_json(spec: specs_pb2.TaskSpec, obj: JsonObject, path: str) -> None:
    """As the engine: the runtime's name decides which spec must be there, and others are not looked at."""
    runtime = fields.text(obj, "Runtime", path)
    if runtime == "plugin":
        if fields.child(obj, "PluginSpec", path) is None:
            raise bad("mismatched Runtime and *Spec fields")
        raise ApiError(500, 'runtime type "plugin" only supported in experimental')
    if runtime not in ("", "container"):
        raise bad("unsupported runtime")
    inner = fields.child(obj, "ContainerSpec", path)
    if inner is None:
        raise bad("mismatched Runtime and *Spec fields")
    spec.container.CopyFrom(container.container_from_json(inner, path + "ContainerSpec."))


def _resources_from_json(spec: specs_pb2.TaskSpec, obj: JsonObject, path: str) -> None:
    target = spec.resources
    target.SetInParent()
    limits = fields.child(obj, "Limits", path)
    if limits is not None:
        _amounts_from_json(target.limits, limits, path + "Limits.")
        spec.container.pidsLimit = fields.integer(limits, "Pids", path + "Limits.")
    reservations = fields.child(obj, "Reservations", path)
    if reservations is not None:
        inner = path + "Reservations."
        _amounts_from_json(target.reservations, reservations, inner)
        target.reservations.generic.extend(generic_from_json(reservations, "GenericResources", inner))
    swap = fields.maybe_integer(obj, "SwapBytes", path)
    if swap is not None:
        if not target.limits.memory_bytes:
            raise bad("memory swap provided, but no memory-limit was set")
        target.swap_bytes.value = swap
    swappiness = fields.maybe_integer(obj, "MemorySwappiness", path)
    if swappiness is not None:
        target.memory_swappiness.value = swappiness


def _amounts_from_json(target: types_pb2.Resources, obj: JsonObject, path: str) -> None:
    target.SetInParent()
    target.nano_cpus = fields.integer(obj, "NanoCPUs", path)
    target.memory_bytes = fields.integer(obj, "MemoryBytes", path)


def generic_from_json(obj: JsonObject, key: str, path: str) -> Iterable[types_pb2.GenericResource]:
    """Generic resources, named or counted; an entry that is neither is dropped."""
    for index, item in enumerate(fields.children(obj, key, path)):
        inner = f"{path}{key}[{index}]."
        named = fields.child(item, "NamedResourceSpec", inner)
        counted = fields.child(item, "DiscreteResourceSpec", inner)
        if named is not None:
            at = inner + "NamedResourceSpec."
            yield types_pb2.GenericResource(
                named_resource_spec=types_pb2.NamedGenericResource(
                    kind=fields.text(named, "Kind", at), value=fields.text(named, "Value", at)
                )
            )
        elif counted is not None:
            at = inner + "DiscreteResourceSpec."
            yield types_pb2.GenericResource(
                discrete_resource_spec=types_pb2.DiscreteGenericResource(
                    kind=fields.text(counted, "Kind", at), value=fields.integer(counted, "Value", at)
                )
            )


def restart_from_json(target: types_pb2.RestartPolicy, obj: JsonObject, path: str) -> None:
    """A restart policy; an absent condition is any."""
    asked = fields.text(obj, "Condition", path)
    condition = CONDITIONS.get(asked)
    if condition is None:
        raise bad(f'invalid RestartCondition: "{asked}"')
    target.condition = condition
    target.max_attempts = fields.unsigned(obj, "MaxAttempts", path)
    delay, window = fields.maybe_integer(obj, "Delay", path), fields.maybe_integer(obj, "Window", path)
    if delay is not None:
        common.set_duration(target.delay, delay)
    if window is not None:
        common.set_duration(target.window, window)
    target.SetInParent()


def placement_from_json(target: types_pb2.Placement, obj: JsonObject, path: str) -> None:
    """Where tasks may go; an empty object is kept as one."""
    target.SetInParent()
    target.constraints.extend(fields.texts(obj, "Constraints", path))
    target.max_replicas = fields.unsigned(obj, "MaxReplicas", path)
    for index, preference in enumerate(fields.children(obj, "Preferences", path)):
        inner = f"{path}Preferences[{index}]."
        spread = fields.child(preference, "Spread", inner)
        if spread is not None:
            descriptor = fields.text(spread, "SpreadDescriptor", inner + "Spread.")
            target.preferences.add(spread=types_pb2.SpreadOver(spread_descriptor=descriptor))
    for index, platform in enumerate(fields.children(obj, "Platforms", path)):
        inner = f"{path}Platforms[{index}]."
        target.platforms.add(
            architecture=fields.text(platform, "Architecture", inner), os=fields.text(platform, "OS", inner)
        )


def task_to_json(spec: specs_pb2.TaskSpec, in_service: bool) -> JsonObject:
    """A task spec; only services say which runtime theirs is, tasks don't."""
    out: JsonObject = {}
    runtime = spec.WhichOneof("runtime")
    if runtime == "container":
        out["ContainerSpec"] = container.container_to_json(spec.container)
    elif runtime == "attachment":
        out["NetworkAttachmentSpec"] = {"ContainerID": spec.attachment.container_id}
    if spec.HasField("resources"):
        out["Resources"] = resources_to_json(spec)
    if spec.HasField("restart"):
        out["RestartPolicy"] = restart_to_json(spec.restart)
    if spec.HasField("placement"):
        out["Placement"] = placement_to_json(spec.placement)
    if spec.networks:
        out["Networks"] = [network_to_json(network) for network in spec.networks]
    if spec.HasField("log_driver"):
        out["LogDriver"] = common.driver_to_json(spec.log_driver)
    out["ForceUpdate"] = spec.force_update
    if in_service and runtime:
        out["Runtime"] = spec.generic.kind if runtime == "generic" else runtime
    return out


def resources_to_json(spec: specs_pb2.TaskSpec) -> JsonObject:
    """Limits and reservations, each if it was given, the pids limit among the limits again."""
    resources = spec.resources
    out: JsonObject = {}
    if resources.HasField("limits"):
        limits: JsonObject = {}
        out["Limits"] = limits
        common.keep(limits, NanoCPUs=resources.limits.nano_cpus, MemoryBytes=resources.limits.memory_bytes)
        common.keep(limits, Pids=spec.container.pidsLimit)
    if resources.HasField("reservations"):
        out["Reservations"] = amounts_to_json(resources.reservations)
    if resources.HasField("swap_bytes"):
        out["SwapBytes"] = resources.swap_bytes.value
    if resources.HasField("memory_swappiness"):
        out["MemorySwappiness"] = resources.memory_swappiness.value
    return out


def amounts_to_json(resources: types_pb2.Resources) -> JsonObject:
    """An amount of each resource, as reservations and node descriptions show it."""
    out: JsonObject = {}
    common.keep(out, NanoCPUs=resources.nano_cpus, MemoryBytes=resources.memory_bytes)
    common.keep(out, GenericResources=generic_to_json(resources.generic))
    return out


def generic_to_json(resources: Iterable[types_pb2.GenericResource]) -> list[JsonObject]:
    """Generic resources, named or counted."""
    out: list[JsonObject] = []
    for resource in resources:
        kind = resource.WhichOneof("resource")
        if kind is not None:
            spec = getattr(resource, kind)
            name = "NamedResourceSpec" if kind == "named_resource_spec" else "DiscreteResourceSpec"
            item: JsonObject = {}
            common.keep(item, Kind=spec.kind, Value=spec.value)
            out.append({name: item})
    return out


def restart_to_json(policy: types_pb2.RestartPolicy) -> JsonObject:
    """A restart policy; its times only if they were given."""
    out: JsonObject = {"Condition": CONDITION_NAMES.get(policy.condition, "")}
    if policy.HasField("delay"):
        out["Delay"] = common.duration_to_json(policy.delay)
    out["MaxAttempts"] = policy.max_attempts
    if policy.HasField("window"):
        out["Window"] = common.duration_to_json(policy.window)
    return out


def placement_to_json(placement: types_pb2.Placement) -> JsonObject:
    """Placement, empty parts left out."""
    out: JsonObject = {}
    common.keep_list(out, "Constraints", placement.constraints)
    preferences = [
        {"Spread": {"SpreadDescriptor": preference.spread.spread_descriptor}}
        for preference in placement.preferences
        if preference.HasField("spread")
    ]
    platforms = [platform_to_json(platform) for platform in placement.platforms]
    common.keep(out, Preferences=preferences, MaxReplicas=placement.max_replicas, Platforms=platforms)
    return out


def platform_to_json(platform: types_pb2.Platform) -> JsonObject:
    """An architecture and an operating system, each if known."""
    out: JsonObject = {}
    common.keep(out, Architecture=platform.architecture, OS=platform.os)
    return out


def network_to_json(network: types_pb2.NetworkAttachmentConfig) -> JsonObject:
    """One network that a task is attached to."""
    out: JsonObject = {}
    common.keep(out, Target=network.target)
    common.keep_list(out, "Aliases", network.aliases)
    common.keep(out, DriverOpts=common.map_to_json(network.driver_attachment_opts))
    return out
