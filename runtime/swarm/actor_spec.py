"""Services whose tasks are actors of the program that a node runs in: their images, and what an actor cannot be given.

Rules owned here: the image ``actor/NAME`` (also ``actor/NAME:TAG``; the tag ``latest`` is none) stands for the actor
that nodes have registered under NAME or NAME:TAG; such a node's engine carries the label ``swarmlet.actors`` with the
names; health is asked for by ``ping``. A field that an actor cannot honour is refused by its name, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from runtime.swarm.process_spec import UNSUPPORTED, is_process_image
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs

PREFIX: Final = "actor/"
ACTORS_LABEL: Final = "swarmlet.actors"
PING: Final = "ping"
_NAME: Final = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?")

Check = Callable[[specs.TaskSpec], object]
_OF_PROCESSES: Final[Mapping[str, Check]] = {
    "command": lambda spec: spec.container.command,
    "user": lambda spec: spec.container.user,
    "groups": lambda spec: spec.container.groups,
    "dir": lambda spec: spec.container.dir,
    "stop_signal": lambda spec: spec.container.stop_signal,
    "init": lambda spec: spec.container.init.value,
    "ulimits": lambda spec: spec.container.ulimits,
    "pidsLimit": lambda spec: spec.container.pidsLimit > 0,
    "oom_score_adj": lambda spec: spec.container.oom_score_adj,
    "privileges.no_new_privileges": lambda spec: spec.container.privileges.no_new_privileges,
    "resources.limits.nano_cpus": lambda spec: spec.resources.limits.nano_cpus,
    "resources.limits.memory_bytes": lambda spec: spec.resources.limits.memory_bytes,
    "swap_bytes": lambda spec: spec.resources.HasField("swap_bytes"),
    "memory_swappiness": lambda spec: spec.resources.HasField("memory_swappiness"),
    "healthcheck": lambda spec: not _pings(spec.container),
}
"""What processes have and actors have not."""


def actor_name(image: str) -> str:
    """Which registered actor an image stands for; empty if it is not one's image."""
    if not image.startswith(PREFIX):
        return ""
    return image.removeprefix(PREFIX).removesuffix(":latest")


def in_no_registry(image: str) -> bool:
    """Whether an image is one that no registry could have: a process's or an actor's."""
    return is_process_image(image) or bool(actor_name(image))


def runs_actor(spec: specs.TaskSpec) -> bool:
    """Whether the image is that of an actor."""
    return spec.HasField("container") and bool(actor_name(spec.container.image))


def check_name(name: str) -> None:
    """ValueError for what no image can name: lower case words, perhaps a tag, but not ``latest``, which is none."""
    if not _NAME.fullmatch(name) or name.endswith(":latest"):
        raise ValueError(
            f"{name!r} cannot be the name of an image, actor/{name}: it is to be like counter or counter:v2"
        )


def offers(node: objects.Node, name: str) -> bool:
    """Whether an actor of that name is registered at a node."""
    return name in node.description.engine.labels.get(ACTORS_LABEL, "").split(",")


def offers_any(node: objects.Node) -> bool:
    """Whether a node runs actors at all."""
    return bool(node.description.engine.labels.get(ACTORS_LABEL, ""))


def label_of(names: Iterable[str]) -> str:
    """The engine label of a node that has registered these."""
    return ",".join(sorted(names))


def wants_health(container: specs.ContainerSpec) -> bool:
    """Whether a health check is asked for."""
    test = list(container.healthcheck.test) if container.HasField("healthcheck") else []
    return bool(test) and test[0] != "NONE"


def _pings(container: specs.ContainerSpec) -> bool:
    """Whether health is asked for in the one way that an actor can be asked, or not at all."""
    test = list(container.healthcheck.test)
    return not wants_health(container) or (test[0] in ("CMD", "CMD-SHELL") and test[1:] == [PING])


def unsupported(spec: specs.TaskSpec) -> list[str]:
    """The names of the fields that are set and cannot be honoured."""
    found = [name for name, check in UNSUPPORTED.items() if check(spec.container)]
    return found + [name for name, check in _OF_PROCESSES.items() if check(spec)]


def warnings(spec: specs.ServiceSpec) -> list[str]:
    """What a user has to know of a service of actors: its networks give nothing, and its tasks are going to be rejected
    for what an actor cannot have."""
    if not runs_actor(spec.task):
        return []
    told = []
    if spec.task.networks:
        told.append("actors live in the program of their node: the networks of this service give them nothing")
    refused = unsupported(spec.task) + [f"port {port.target_port}" for port in spec.endpoint.ports]
    if refused:
        told.append(
            f"tasks of the image {spec.task.container.image} are actors and will be rejected: "
            f"they cannot have {', '.join(refused)}"
        )
    return told
