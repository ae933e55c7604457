"""Tasks as the containers that clients of an engine look for, and what they run as images.

Rules: a task is shown once something of it has an identity here (a container id); what a process does not have
(layers, a network of its own) is empty, never made up. A time is that of the task's present state: since when it
runs, or when it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api.convert import common
from runtime.engine_api.convert.container import health_to_json
from runtime.store.kinds import task_name
from runtime.swarm.actor_spec import in_no_registry
from runtime.swarm.generic import environment
from runtime.swarm.templates import TemplateContext, TemplateError, expand
from runtime.wire.pb import specs_pb2, types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.filters import Filters
    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Task
    from runtime.wire.pb.specs_pb2 import ContainerSpec
    from runtime.wire.pb.types_pb2 import NodeDescription, TaskStatus

LABEL: Final = "com.docker.swarm."
FILTERS: Final = ("ancestor", "exited", "id", "is-task", "label", "name", "status")
UNHEALTHY: Final = "unhealthy container"
UNITS: Final = (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


@dataclass(frozen=True, slots=True)
class Container:
    """A task that has come so far as to be something, of this node or (``remote``) of another one of the swarm."""

    task: Task
    status: TaskStatus
    remote: bool = False

    @property
    def id(self) -> str:
        """Its container id, 64 hexadecimal digits from the process executor."""
        return self.status.container.container_id

    @property
    def name(self) -> str:
        """As the engine calls the container of a task."""
        return task_name(self.task)

    @property
    def state(self) -> str:
        """created, running or exited; it runs while its health is still to be found out."""
        starting = self.status.state == types_pb2.STARTING and bool(self.status.container.pid) and self.is_checked
        if self.status.state == types_pb2.RUNNING or starting:
            return "running"
        return "created" if self.status.state < types_pb2.RUNNING else "exited"

    @property
    def network_mode(self) -> str:
        """Processes and actors are on the machine's network; of a container's the engine knows more."""
        return "host" if in_no_registry(self.task.spec.container.image) else "default"

    @property
    def labels(self) -> dict[str, str]:
        """Those of the service's containers, and who it belongs to."""
        task = self.task
        system = {
            "node.id": task.node_id,
            "service.id": task.service_id,
            "service.name": task.service_annotations.name,
            "task": "",
            "task.id": task.id,
            "task.name": self.name,
        }
        return {**task.spec.container.labels, **{LABEL + key: value for key, value in system.items()}}

    @property
    def words(self) -> list[str]:
        """What it runs."""
        return [*self.task.spec.container.command, *self.task.spec.container.args]

    @property
    def is_checked(self) -> bool:
        """Whether a health check of the service's own looks after it."""
        test = self.task.spec.container.healthcheck.test
        return bool(test) and test[0] != "NONE"

    @property
    def health(self) -> str:
        """starting, healthy or unhealthy; empty without a check. A task with one runs once it is healthy, and ends when
        it is so no more."""
        if not self.is_checked:
            return ""
        if self.status.state < types_pb2.RUNNING:
            return "starting"
        ill = self.state == "exited" and UNHEALTHY in self.status.err
        return "unhealthy" if ill else "healthy"

    def described(self, now: float) -> str:
        """Its state for people."""
        ago = _ago(now - self.status.timestamp.seconds)
        health = f" ({'health: ' if self.health == 'starting' else ''}{self.health})" if self.is_checked else ""
        exited = f"Exited ({self.status.container.exit_code}) {ago} ago"
        return {"running": f"Up {ago}{health}", "created": "Created", "exited": exited}[self.state]


def _ago(seconds: float) -> str:
    for unit, length in UNITS:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "Less than a second"


def image_id(name: str) -> str:
    """What names an image that is no set of layers: the digest of its name."""
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def chosen(containers: list[Container], given: Filters) -> list[Container]:
    """Those that pass all keys of a filter."""
    return [each for each in containers if all(_holds(each, key, values) for key, values in given.items())]


def _holds(container: Container, key: str, values: list[str]) -> bool:
    if key == "label":
        return all(_labelled(container.labels, value) for value in values)
    tests: dict[str, Any] = {
        "id": container.id.startswith,
        "name": lambda value: value.strip("^$/") in container.name,
        "status": lambda value: value == container.state,
        "is-task": lambda value: value.lower() in ("true", "1"),
        "ancestor": lambda value: container.task.spec.container.image in (value, f"{value}:latest"),
        "exited": lambda value: container.state == "exited" and value == str(container.status.container.exit_code),
    }
    return any(tests[key](value) for value in values)


def _labelled(labels: dict[str, str], value: str) -> bool:
    key, equals, wanted = value.partition("=")
    return key in labels and (not equals or labels[key] == wanted)


def listed_to_json(container: Container, now: float) -> JsonObject:
    """A container in a list."""
    image = container.task.spec.container.image
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": image,
        "ImageID": image_id(image),
        "Command": " ".join(container.words),
        "Created": container.status.timestamp.seconds,
        "Ports": ports_to_json(container.status),
        "Labels": dict(sorted(container.labels.items())),
        "State": container.state,
        "Status": container.described(now),
        "HostConfig": {"NetworkMode": container.network_mode},
        "NetworkSettings": {"Networks": {}},
        "Mounts": [],
    }


def ports_to_json(status: TaskStatus) -> list[JsonObject]:
    """Ports that the task has on this node."""
    names = {number: name.lower() for name, number in types_pb2.PortConfig.Protocol.items()}
    return [
        {
            "IP": "0.0.0.0",  # noqa: S104 - shown, never listened on
            "PrivatePort": port.target_port,
            "PublicPort": port.published_port,
            "Type": names.get(port.protocol, "tcp"),
        }
        for port in status.port_status.ports
    ]


def ports_by_target(status: TaskStatus) -> JsonObject:
    """The same ports as a container shows them: by target port, with where they are on this node."""
    out: JsonObject = {}
    for port in ports_to_json(status):
        bound = {"HostIp": port["IP"], "HostPort": str(port["PublicPort"])}
        out.setdefault(f"{port['PrivatePort']}/{port['Type']}", []).append(bound)
    return out


def expanded(task: Task, node: NodeDescription) -> ContainerSpec:
    """What the task was started with: its templates filled in, and what it was given of generic resources beside its
    environment. A template that fails starts nothing, and is shown as it was written."""
    full = specs_pb2.ContainerSpec()
    full.CopyFrom(task.spec.container)
    with contextlib.suppress(TemplateError):
        full = expand(task.spec.container, TemplateContext.of(task, node))
    full.env.extend(environment(task.assigned_generic_resources))
    return full


def container_to_json(container: Container, node: NodeDescription) -> JsonObject:
    """A container whole, on this node."""
    spec, status = expanded(container.task, node), container.status
    words = container.words
    since = common.time_to_json(status.timestamp)
    return {
        "Id": container.id,
        "Created": since,
        "Path": words[0] if words else "",
        "Args": words[1:],
        "State": _state_to_json(container, since),
        "Image": image_id(spec.image),
        "Name": f"/{container.name}",
        "RestartCount": 0,
        "Platform": "linux",
        "HostConfig": {
            "NetworkMode": container.network_mode,
            "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
            "AutoRemove": False,
            "NanoCpus": container.task.spec.resources.limits.nano_cpus,
            "Memory": container.task.spec.resources.limits.memory_bytes,
            "ReadonlyRootfs": spec.read_only,
        },
        "Mounts": [],
        "Config": _config_to_json(container, spec),
        "NetworkSettings": {"Ports": ports_by_target(status), "Networks": {}},
    }


def _state_to_json(container: Container, since: str) -> JsonObject:
    status, state = container.status, container.state
    out: JsonObject = {
        "Status": state,
        "Running": state == "running",
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": status.container.pid if state == "running" else 0,
        "ExitCode": status.container.exit_code,
        "Error": status.err,
        "StartedAt": since if state == "running" else common.ZERO_TIME,
        "FinishedAt": since if state == "exited" else common.ZERO_TIME,
    }
    if container.is_checked:
        out["Health"] = {"Status": container.health, "FailingStreak": 0, "Log": None}
    return out


def _config_to_json(container: Container, spec: ContainerSpec) -> JsonObject:
    out: JsonObject = {
        "Hostname": spec.hostname,
        "User": spec.user,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "Env": list(spec.env) or None,
        "Cmd": list(spec.args) or None,
        "Entrypoint": list(spec.command) or None,
        "Image": spec.image,
        "WorkingDir": spec.dir,
        "Labels": dict(sorted(container.labels.items())),
    }
    if container.is_checked:
        out["Healthcheck"] = health_to_json(spec.healthcheck)
    return out


def image_to_json(name: str, containers: int, listed: bool) -> JsonObject:
    """An image of this node, which takes no room of its own."""
    tag = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    out: JsonObject = {"Id": image_id(tag), "RepoTags": [tag], "RepoDigests": [], "Size": 0}
    if listed:
        return {**out, "ParentId": "", "Created": 0, "Labels": None, "SharedSize": 0, "Containers": containers}
    return {**out, "Parent": "", "Created": common.ZERO_TIME, "Os": "linux", "Config": {}, "RootFS": {"Type": "layers"}}
