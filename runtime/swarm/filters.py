"""The filters that a node has to pass before a task is placed on it, and the explanation when none does.

Rules owned here: the order of the filters, when each of them asks at all, and the texts in which ``docker service ps``
shows why a task waits. A filter is made once for a group of like tasks; those that depend on what was placed before are
asked again after every placement.

One filter is swarmlet's own: a node whose engine carries the label ``swarmlet.executor=process`` runs host processes,
and only the image ``host`` (or ``host:ANY``) is one; the image ``actor/NAME`` needs a node that has registered it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from runtime.errors import Refused
from runtime.swarm import constraints, generic
from runtime.swarm.actor_spec import actor_name, offers
from runtime.swarm.node_info import NodeInfo, host_ports
from runtime.swarm.offered import cluster_mounts, not_offered
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

EXECUTOR_LABEL: Final = "swarmlet.executor"
MISSING_PLUGIN: Final = "missing plugin"
NO_SUITABLE_NODE: Final = "no suitable node"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition: ``passes(node)``, the text when it fails on ``n`` nodes, and whether placements change it."""

    passes: Callable[[NodeInfo], bool]
    explain: Callable[[int], str]
    moving: bool = False


VolumeCheck = Callable[[NodeInfo], bool]
FixedKey = tuple[object, ...]
Maker = Callable[[objects.Task], Filter | None]


def on_nodes(count: int) -> str:
    """``on 1 node`` or ``on N nodes``."""
    return "on 1 node" if count == 1 else f"on {count} nodes"


class Pipeline:
    """All filters that ask something of a task, in order; the first that fails stops the check."""

    __slots__ = ("_filters", "_fixed", "_moving", "key")

    def __init__(self, task: objects.Task, volumes: VolumeCheck | None = None) -> None:
        self.key = fixed_key(task)
        self._filters = [made for made in (maker(task) for maker in FILTERS) if made is not None]
        if mounts := cluster_mounts(task.spec):
            self._filters.append(_on_volumes(mounts, volumes))
        self._moving = [each for each in self._filters if each.moving]
        self._fixed = [each for each in self._filters if not each.moving]

    def passes(self, info: NodeInfo) -> bool:
        """Whether the node can take the task."""
        return self.may_pass(info) and self.still_passes(info)

    def may_pass(self, info: NodeInfo) -> bool:
        """Whether the node can take the task as far as that does not depend on what was placed on it.

        The answer is the same for all pipelines of one ``key``, until the node changes.
        """
        return all(each.passes(info) for each in self._fixed)

    def still_passes(self, info: NodeInfo) -> bool:
        """Whether a node that may pass does, with what is placed on it now."""
        return not self._moving or all(each.passes(info) for each in self._moving)

    def failed(self, info: NodeInfo) -> int | None:
        """The number of the first filter that the node does not pass."""
        return next((index for index, each in enumerate(self._filters) if not each.passes(info)), None)

    def explain(self, infos: Iterable[NodeInfo]) -> str:
        """Why none of the nodes can take the task: most frequent reason first, each with its number of nodes."""
        counts = [0] * len(self._filters)
        for info in infos:
            failed = self.failed(info)
            if failed is not None:
                counts[failed] += 1
        reasons = sorted((-count, index) for index, count in enumerate(counts) if count)
        texts = "; ".join(self._filters[index].explain(-count) for count, index in reasons)
        return f"{NO_SUITABLE_NODE} ({texts})" if texts else NO_SUITABLE_NODE


def fixed_key(task: objects.Task) -> FixedKey:
    """All of a task that the filters ask about which placements do not change."""
    spec = task.spec
    return (
        _needed_executor(spec.container.image) if spec.HasField("container") else None,
        tuple(spec.placement.constraints),
        tuple((each.architecture, each.os) for each in spec.placement.platforms),
        *plugins_of(task),
    )


def _on_volumes(mounts: list[str], volumes: VolumeCheck | None) -> Filter:
    """Without anybody who knows cluster volumes no node passes, and the text says which mounts are in the way."""

    def explain(count: int) -> str:
        text = f"cannot fulfill requested CSI volume mounts {on_nodes(count)}"
        return text if volumes is not None else f"{text}: {not_offered(mounts)}"

    return Filter(volumes or (lambda info: False), explain, moving=True)


def ready(task: objects.Task) -> Filter:
    """Only nodes that are READY and ACTIVE take new tasks."""

    def passes(info: NodeInfo) -> bool:
        node = info.node
        up = node.status.state == types.NodeStatus.READY
        return up and node.spec.availability == specs.NodeSpec.ACTIVE

    def explain(count: int) -> str:
        return f"{count} node{'' if count == 1 else 's'} not available for new tasks"

    return Filter(passes, explain)


def is_host_image(image: str) -> bool:
    """Whether a container image stands for a process of the host itself."""
    return image == "host" or image.startswith("host:")


def _needed_executor(image: str) -> str:
    """All that the executor's filter asks of an image."""
    return "process" if is_host_image(image) else actor_name(image) and image


def executor(task: objects.Task) -> Filter | None:
    """Host processes go to nodes with the process executor, actors to nodes where they are registered, and nothing else
    goes there."""
    if not task.spec.HasField("container"):
        return None
    image = task.spec.container.image
    if actor := actor_name(image):
        return Filter(
            lambda info: offers(info.node, actor),
            lambda count: f'image "{image}" needs the actor {actor}, which is not registered {on_nodes(count)}',
        )
    host = is_host_image(image)
    needed = "the process executor" if host else "a container executor"

    def passes(info: NodeInfo) -> bool:
        kind = info.node.description.engine.labels.get(EXECUTOR_LABEL, "")
        return (kind == "process") == host and kind != "actor"

    return Filter(passes, lambda count: f'image "{image}" needs {needed} {on_nodes(count)}')


def resources(task: objects.Task) -> Filter | None:
    """What the task reserves has to be free."""
    reserved = task.spec.resources.reservations
    cpus, memory, kinds = reserved.nano_cpus, reserved.memory_bytes, list(reserved.generic)
    if not (cpus or memory or kinds):
        return None
    claimable = all(each.HasField("discrete_resource_spec") for each in kinds)

    def passes(info: NodeInfo) -> bool:
        if cpus > info.nano_cpus or memory > info.memory_bytes or not claimable:
            return False
        return not kinds or generic.has_enough(info.generic, kinds)

    return Filter(passes, lambda count: f"insufficient resources {on_nodes(count)}", moving=True)


def plugins(task: objects.Task) -> Filter | None:
    """The drivers of volumes, networks and logs have to be among the engine's plugins."""
    wanted, log = plugins_of(task)
    if not wanted and log in ("", "none"):
        return None
    return Filter(
        lambda info: not missing_plugins(info.node, wanted, log), lambda count: f"{MISSING_PLUGIN} {on_nodes(count)}"
    )


def missing_plugins(node: objects.Node, wanted: Sequence[tuple[str, str]], log: str) -> list[tuple[str, str]]:
    """Those of a task's plugins (``plugins_of``) that the node does not have. An engine that lists no log drivers is
    not asked for one; a node that says nothing of its engine has all of them."""
    if not node.description.HasField("engine"):
        return []
    held = {(each.type, each.name) for each in node.description.engine.plugins}
    lists_logs = any(kind == "Log" for kind, _ in held)
    asked = [*wanted, ("Log", log)] if lists_logs and log not in ("", "none") else wanted
    return [each for each in asked if each not in held and (each[0], f"{each[1]}:latest") not in held]


def plugins_of(task: objects.Task) -> tuple[tuple[tuple[str, str], ...], str]:
    """Type and name of the plugins that a task needs, and the name of its log driver."""
    volumes = [
        ("Volume", mount.volume_options.driver_config.name)
        for mount in task.spec.container.mounts
        if mount.type == types.Mount.VOLUME and mount.volume_options.driver_config.name not in ("", "local")
    ]
    networks = [("Network", each.network.driver_state.name) for each in task.networks]
    log = task.spec.log_driver.name if task.spec.HasField("log_driver") else ""
    return tuple(volumes) + tuple(each for each in networks if each[1]), log


def placement_constraints(task: objects.Task) -> Filter | None:
    """All placement constraints hold; expressions that cannot be read ask nothing."""
    try:
        parsed = constraints.parse(task.spec.placement.constraints)
    except Refused:
        return None
    if not parsed:
        return None
    return Filter(
        lambda info: constraints.matches_all(info.node, parsed),
        lambda count: f"scheduling constraints not satisfied {on_nodes(count)}",
    )


def platforms(task: objects.Task) -> Filter | None:
    """The node's platform is one of those that the image is for."""
    listed = [(_architecture(each.architecture), each.os) for each in task.spec.placement.platforms]
    if not listed:
        return None

    def passes(info: NodeInfo) -> bool:
        if not info.node.description.HasField("platform"):
            return False
        mine = info.node.description.platform
        arch = _architecture(mine.architecture)
        return any((not a or a == arch) and (not os or os == mine.os) for a, os in listed)

    return Filter(passes, lambda count: f"unsupported platform {on_nodes(count)}")


def _architecture(name: str) -> str:
    return _ARCHITECTURES.get(name, name)


def ports(task: objects.Task) -> Filter | None:
    """Ports that the task publishes on its host are free there."""
    wanted = host_ports(task)
    if not wanted:
        return None
    return Filter(
        lambda info: not any(info.ports.get(port) for port in wanted),
        lambda count: f"host-mode port already in use {on_nodes(count)}",
        moving=True,
    )


def max_replicas(task: objects.Task) -> Filter | None:
    """A service may limit how many of its tasks share a node."""
    limit, service_id = task.spec.placement.max_replicas, task.service_id
    if not limit:
        return None
    return Filter(
        lambda info: info.by_service.get(service_id, 0) < limit,
        lambda count: "max replicas per node limit exceed",
        moving=True,
    )


FILTERS: Final[tuple[Maker, ...]] = (
    ready,
    executor,
    resources,
    plugins,
    placement_constraints,
    platforms,
    ports,
    max_replicas,
)
