"""A container engine as a node: what it says of its machine, its plugins and itself.

Rule owned here: what is shown of an engine is what it says of itself, and what this executor adds
(``swarmlet.executor``, ``swarmlet.engine``, ``swarmlet.limits``); what it does not say is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.executor.engine_client import EngineClient, EngineRefused
from runtime.wire.pb import types_pb2

EXECUTOR_LABEL: Final = "swarmlet.executor"
ENGINE_LABEL: Final = "swarmlet.engine"
LIMITS_LABEL: Final = "swarmlet.limits"
CONTAINER: Final = "container"
PLUGIN_KINDS: Final = ("Authorization", "Log", "Network", "Volume")
OVERLAY: Final = ("Network", "overlay")
HOST: Final = ("Network", "host")
PODMAN: Final = "podman"


async def read(client: EngineClient) -> tuple[Mapping[str, Any], Mapping[str, Any], Sequence[Any]]:
    """What the engine says: of the machine, of its version, and its managed plugins."""
    info = await client.call("GET", "/info")
    version = await client.call("GET", "/version")
    try:
        plugins = await client.call("GET", "/plugins")
    except EngineRefused:  # an engine without any
        plugins = []
    return info, version, plugins or []


def describe(
    info: Mapping[str, Any],
    version: Mapping[str, Any],
    managed: Sequence[Any],
    generic: Sequence[types_pb2.GenericResource],
) -> types_pb2.NodeDescription:
    """The node; ``generic`` are the resources that it was told to offer."""
    labels = dict(label.partition("=")[::2] for label in info.get("Labels") or ())
    labels.update({EXECUTOR_LABEL: CONTAINER, ENGINE_LABEL: engine_name(version), LIMITS_LABEL: "enforced"})
    return types_pb2.NodeDescription(
        platform=types_pb2.Platform(
            architecture=str(info.get("Architecture") or ""), os=str(info.get("OSType") or "linux")
        ),
        resources=types_pb2.Resources(
            nano_cpus=int(info.get("NCPU") or 0) * 1_000_000_000,
            memory_bytes=int(info.get("MemTotal") or 0),
            generic=[*engine_resources(info.get("GenericResources") or ()), *generic],
        ),
        engine=types_pb2.EngineDescription(
            engine_version=str(version.get("Version") or info.get("ServerVersion") or ""),
            labels=labels,
            plugins=[types_pb2.PluginDescription(type=kind, name=name) for kind, name in plugins(info, managed)],
        ),
    )


def engine_name(version: Mapping[str, Any]) -> str:
    """``podman`` or ``docker``."""
    names = [str(each.get("Name", "")) for each in version.get("Components") or ()]
    return PODMAN if any(PODMAN in name.lower() for name in names) else "docker"


def plugins(info: Mapping[str, Any], managed: Sequence[Any]) -> list[tuple[str, str]]:
    """Type and name of each plugin, sorted. ``overlay`` is always among them, as SwarmKit's executor has it: services
    that publish ports are on one; and ``host``, which Podman has without saying so."""
    found = {OVERLAY, HOST}
    for kind in PLUGIN_KINDS:
        found.update((kind, str(name)) for name in (info.get("Plugins") or {}).get(kind) or ())
    for plugin in managed:
        types = ((plugin.get("Config") or {}).get("Interface") or {}).get("Types") or ()
        if plugin.get("Enabled"):
            found.update((_kind(each), str(plugin.get("Name", ""))) for each in types)
    return sorted(each for each in found if all(each))


def _kind(interface: Any) -> str:
    """The kind of plugin that an interface (``docker.volumedriver/1.0``) makes; empty if no node needs to know."""
    name = str(interface.get("Capability") or "") if isinstance(interface, dict) else str(interface)
    name = name.partition("/")[0].removeprefix("docker.")
    return {
        "volumedriver": "Volume", "networkdriver": "Network", "logdriver": "Log", "authz": "Authorization",
    }.get(name, "")  # fmt: skip


def engine_resources(entries: Sequence[Any]) -> list[types_pb2.GenericResource]:
    """The generic resources of the engine's own configuration."""
    out = []
    for entry in entries:
        made = types_pb2.GenericResource()
        if named := entry.get("NamedResourceSpec"):
            made.named_resource_spec.kind, made.named_resource_spec.value = named["Kind"], named["Value"]
        elif counted := entry.get("DiscreteResourceSpec"):
            made.discrete_resource_spec.kind, made.discrete_resource_spec.value = counted["Kind"], counted["Value"]
        else:
            continue
        out.append(made)
    return out
