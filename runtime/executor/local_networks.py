"""Networks of the swarm as networks of one engine: on each node its own, for whoever chose that.

Rules owned here: a network of the swarm is a bridge of the engine under a name of its own; a service's tasks on it are
found under the service's name, its aliases and ``tasks.SERVICE``, in turn; tasks on other nodes are not. The engine's
own ``host`` and ``bridge`` stand for themselves, and a container on ``host`` is on nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from runtime.executor.port import Rejected
from runtime.wire.pb import objects_pb2

PREDEFINED: Final = "com.docker.swarm.predefined"
HOST_NETWORK: Final = "host"
NETWORK_LABEL: Final = "swarmlet.network"


@dataclasses.dataclass(frozen=True, slots=True)
class LocalNetwork:
    """A network that this node makes at its engine; ``aliases`` are a task's names on it."""

    name: str
    id: str
    title: str
    internal: bool
    aliases: tuple[str, ...]

    def create(self, label: str, owner: str) -> dict[str, Any]:
        """The request that makes it."""
        return {
            "Name": self.name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Internal": self.internal,
            "Labels": {label: owner, NETWORK_LABEL: self.title},
        }

    @property
    def endpoint(self) -> dict[str, Any]:
        """How a container is on it."""
        return {"Aliases": list(self.aliases)}


def networks_of(task: objects_pb2.Task, owner: str, allowed: bool) -> tuple[str, tuple[LocalNetwork, ...]]:
    """The engine's own network that a task is made on (empty for the usual one), and those that this node makes for it.
    ``Rejected`` for one that spans nodes, unless that is ``allowed`` to be each node's own."""
    own, made = "", []
    for each in task.networks:
        spec = each.network.spec
        if spec.ingress:
            continue
        if PREDEFINED in spec.annotations.labels:
            own = own or spec.annotations.name
        elif allowed:
            made.append(_local(task, each, owner))
        else:
            raise Rejected(
                f"the container executor cannot attach a container to the network {spec.annotations.name}: "
                "traffic of overlay networks between nodes is not offered by this node "
                "(with --local-networks each node has a network of its own under that name)"
            )
    if own == HOST_NETWORK and made:
        raise Rejected(f"a container on the network host cannot be on the network {made[0].title} too")
    return own, tuple(made)


def _local(task: objects_pb2.Task, attachment: objects_pb2.NetworkAttachment, owner: str) -> LocalNetwork:
    network, service = attachment.network, task.service_annotations.name
    names: Sequence[str] = [service, f"tasks.{service}"] if service else []
    return LocalNetwork(
        name=f"swarmlet-{owner[:12]}-{network.id}",
        id=network.id,
        title=network.spec.annotations.name,
        internal=network.spec.internal,
        aliases=tuple(dict.fromkeys([*names, *attachment.aliases])),
    )
