"""A task as a container: what the engine is told, decided before anything is made.

Rules owned here: templates are filled in first; what this executor cannot offer is refused by its name, never left out;
the files of secrets and configs are mounted one by one, read-only, from a directory of this node. A refusal is final:
REJECTED.
"""

from __future__ import annotations

import dataclasses
import os.path
from collections.abc import Callable
from typing import Any, Final

from runtime.errors import Refused
from runtime.executor import container_config, container_mounts
from runtime.executor.container_config import HOST_MODE
from runtime.executor.image_reference import ImageReference, parse
from runtime.executor.local_networks import HOST_NETWORK, LocalNetwork, networks_of
from runtime.executor.port import Rejected, TaskContext
from runtime.swarm.actor_spec import in_no_registry
from runtime.swarm.naming import task_name
from runtime.wire.pb import objects_pb2, specs_pb2, types_pb2

OWNER_LABEL: Final = "swarmlet.owner"
GRACE_S: Final = 10
CHECK_S: Final = 30.0
SECRETS: Final = "/run/secrets"


@dataclasses.dataclass(frozen=True, slots=True)
class PlanSettings:
    """What this node gives: the name of this executor among those of its engine, where it puts files, and whether
    networks of the swarm are each node's own."""

    owner: str
    files: str
    is_root: bool = True
    local_networks: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class PayloadFile:
    """A secret or a config as a file: ``source`` on this machine."""

    kind: str
    id: str
    source: str
    target: str
    uid: int
    gid: int
    mode: int


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A task ready for the engine. ``create`` is the request that makes its container; ``grace`` and ``check_every``
    (its health) in seconds; ``binds`` are the paths of this machine that have to be there."""

    task_id: str
    name: str
    create: dict[str, Any] = dataclasses.field(repr=False)
    image: ImageReference | None
    grace: int
    check_every: float
    binds: tuple[str, ...]
    ports: tuple[types_pb2.PortConfig, ...]
    on_host: bool
    networks: tuple[LocalNetwork, ...]
    files: tuple[PayloadFile, ...]
    directory: str
    registry_auth: str = dataclasses.field(default="", repr=False)

    @property
    def published(self) -> bool:
        """Whether nodes forward to it."""
        return any(port.publish_mode != HOST_MODE for port in self.ports)


def make_plan(task: objects_pb2.Task, context: TaskContext, settings: PlanSettings) -> Plan:
    """The plan of a task; ``Rejected`` with a sentence that names what can't be had."""
    if not task.spec.HasField("container"):
        raise Rejected(f"the container executor runs containers only, not {task.spec.WhichOneof('runtime')}")
    image = task.spec.container.image
    if in_no_registry(image):
        raise Rejected(f'image "{image}" is that of no container; this node has a container executor')
    spec = expanded(task.spec.container, context.expand)
    directory = os.path.join(settings.files, task.id)
    files = payload_files(spec, directory, settings)
    mounts = [container_mounts.to_json(mount) for mount in spec.mounts]
    mounts += [container_mounts.file(each.source, each.target) for each in files]
    network, networks = networks_of(task, settings.owner, settings.local_networks)
    grace = spec.stop_grace_period.ToSeconds() if spec.HasField("stop_grace_period") else GRACE_S
    body = container_config.config(task, spec, {OWNER_LABEL: settings.owner})
    body["StopTimeout"] = max(0, grace)
    network = network or (networks[0].name if networks else "")
    body["HostConfig"] = container_config.host_config(task, spec, mounts, network)
    if networks and network == networks[0].name:
        body["NetworkingConfig"] = {"EndpointsConfig": {network: networks[0].endpoint}}
    return Plan(
        task_id=task.id,
        name=task_name(task),
        create=body,
        image=parse(spec.image),
        grace=max(0, grace),
        check_every=spec.healthcheck.interval.ToNanoseconds() / 1e9 or CHECK_S,
        binds=tuple(each.source for each in spec.mounts if _must_exist(each)),
        ports=tuple(task.endpoint.ports),
        on_host=network == HOST_NETWORK,
        networks=networks,
        files=files,
        directory=directory,
        registry_auth=spec.pull_options.registry_auth,
    )


def _must_exist(mount: types_pb2.Mount) -> bool:
    return mount.type == types_pb2.Mount.BIND and not mount.bind_options.createmountpoint


def expanded(container: specs_pb2.ContainerSpec, expand: Callable[[str], str]) -> specs_pb2.ContainerSpec:
    """A copy with its templates filled in, in the order and the words of SwarmKit's agent."""
    full = specs_pb2.ContainerSpec()
    full.CopyFrom(container)
    for mount in full.mounts:
        mount.source = _fill(expand, mount.source, "mounts", f'mount source "{mount.source}"')
        mount.target = _fill(expand, mount.target, "mounts", f'mount target "{mount.target}"')
        if mount.HasField("volume_options"):
            _fill_map(expand, mount.volume_options.labels, "volume label")
            _fill_map(expand, mount.volume_options.driver_config.options, "volume driver option")
    for number, line in enumerate(full.env):
        name, sign, value = line.partition("=")
        full.env[number] = name + sign + _fill(expand, value, "env", f'env "{line}"')
    full.hostname = _fill(expand, full.hostname, "hostname", "")
    return full


def _fill_map(expand: Callable[[str], str], values: Any, what: str) -> None:
    for key in list(values):
        values[key] = _fill(expand, values[key], "mounts", f'{what} "{key}"')


def _fill(expand: Callable[[str], str], text: str, where: str, which: str) -> str:
    try:
        return expand(text)
    except (Refused, ValueError) as error:
        inner = f"expanding {which}: " if which else ""
        raise Rejected(f"expanding {where} failed: {inner}{getattr(error, 'text', str(error))}") from error


def payload_files(spec: specs_pb2.ContainerSpec, directory: str, settings: PlanSettings) -> tuple[PayloadFile, ...]:
    """Where each secret and each config is, here and in the container."""
    wanted: list[tuple[str, str, types_pb2.FileTarget, str]] = [
        ("secret", each.secret_id, each.file, SECRETS) for each in spec.secrets if each.HasField("file")
    ]
    wanted += [("config", each.config_id, each.file, "/") for each in spec.configs if each.HasField("file")]
    return tuple(_payload_file(number, *each, directory, settings) for number, each in enumerate(wanted))


def _payload_file(
    number: int,
    kind: str,
    identity: str,
    file: types_pb2.FileTarget,
    below: str,
    directory: str,
    settings: PlanSettings,
) -> PayloadFile:
    target = os.path.normpath(os.path.join(below, file.name))
    if not file.name or not target.startswith("/") or target == "/":
        raise Rejected(f'a {kind} needs a file in the container, not "{file.name}"')
    owner = [file.uid or "0", file.gid or "0"]
    if not all(each.isascii() and each.isdecimal() for each in owner):
        raise Rejected(f"the owner of the {kind} {file.name} has to be given by numbers, not {':'.join(owner)}")
    uid, gid = map(int, owner)
    if (uid or gid) and not settings.is_root:
        raise Rejected(f"only root can give the {kind} {file.name} to the user {uid}:{gid}")
    source = os.path.join(directory, f"{kind}-{number}")
    return PayloadFile(kind, identity, source, target, uid, gid, file.mode & 0o7777)
