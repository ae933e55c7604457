"""What a service may ask for that a process of the machine cannot be given: refused where its tasks are to run, and
told to who creates the service.

Rules owned here: the image of processes is ``host`` or ``host:ANYTHING``; which fields of a container no process has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

PROCESS_IMAGE: Final = "host"
HOST_MODE: Final = types.PortConfig.PublishMode.Value("HOST")

Check = Callable[[specs.ContainerSpec], object]
UNSUPPORTED: Final[Mapping[str, Check]] = {
    "hostname": lambda spec: spec.hostname,
    "tty": lambda spec: spec.tty,
    "open_stdin": lambda spec: spec.open_stdin,
    "read_only": lambda spec: spec.read_only,
    "mounts": lambda spec: spec.mounts,
    "hosts": lambda spec: spec.hosts,
    "dns_config": lambda spec: (
        spec.HasField("dns_config")
        and (spec.dns_config.nameservers or spec.dns_config.search or spec.dns_config.options)
    ),
    "isolation": lambda spec: spec.isolation,
    "sysctls": lambda spec: spec.sysctls,
    "capability_add": lambda spec: spec.capability_add,
    "capability_drop": lambda spec: spec.capability_drop,
    "privileges.credential_spec": lambda spec: spec.privileges.HasField("credential_spec"),
    "privileges.selinux_context": lambda spec: spec.privileges.HasField("selinux_context"),
    "privileges.seccomp": lambda spec: spec.privileges.HasField("seccomp") and spec.privileges.seccomp.mode,
    "privileges.apparmor": lambda spec: spec.privileges.HasField("apparmor") and spec.privileges.apparmor.mode,
}


def is_process_image(image: str) -> bool:
    """Whether an image, with or without a tag, is that of processes."""
    return image.partition(":")[0] == PROCESS_IMAGE


def runs_processes(spec: specs.TaskSpec) -> bool:
    """Whether the image is that of processes."""
    return spec.HasField("container") and is_process_image(spec.container.image)


def unsupported(container: specs.ContainerSpec) -> list[str]:
    """The names of the fields that are set and cannot be honoured."""
    return [name for name, check in UNSUPPORTED.items() if check(container)]


def is_elsewhere(port: types.PortConfig) -> bool:
    """Whether a port in host mode is published under another number: a process listens on the machine's own ports."""
    return port.publish_mode == HOST_MODE and port.published_port not in (0, port.target_port)


def warnings(spec: specs.ServiceSpec, of_nodes: Collection[str] = ()) -> list[str]:
    """What a user has to know of a service of processes: its networks give nothing (but for those ``of_nodes``, by
    their ids, where processes are), and its tasks are going to be rejected for what a process cannot have."""
    if not runs_processes(spec.task):
        return []
    told, container = [], spec.task.container
    if any(each.target not in of_nodes for each in spec.task.networks):
        told.append(
            f"tasks of the image {PROCESS_IMAGE} are processes on their node's own network: the networks of this "
            "service give them no addresses, no names and no isolation"
        )
    elsewhere = [each for each in spec.endpoint.ports if is_elsewhere(each)]
    refused = unsupported(container) + [f"port {each.target_port} as {each.published_port}" for each in elsewhere]
    if not container.command and not container.args:
        refused.append("an image's own command")
    if refused:
        told.append(
            f"tasks of the image {PROCESS_IMAGE} are processes of the machine and will be rejected: "
            f"they cannot have {', '.join(refused)}"
        )
    return told
