"""What a task asks of this machine, checked and put in the keeper's terms before anything runs.

Rules owned here: the image is ``host`` or ``host:ANYTHING``; every field that a plain process can't honour is refused
by its name (``process_spec``), never ignored; environment values are templates. A refusal is final: REJECTED.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import resource
import signal
from collections.abc import Iterable, Mapping
from typing import Any, Final

from runtime.errors import Refused
from runtime.executor.accounts import Account, account_of
from runtime.executor.port import Rejected, TaskContext
from runtime.executor.procfs import TASK_MARK
from runtime.executor.signals import signal_number
from runtime.swarm.process_spec import HOST_MODE, is_elsewhere, runs_processes, unsupported
from runtime.wire.pb import objects_pb2, specs_pb2, types_pb2

GRACE = 10.0
LOG_BYTES, LOG_FILES = 10 << 20, 3
LOG_DRIVERS = ("", "json-file", "local", "none")
ENCRYPTED = "encrypted"  # the overlay driver's option
INHERITED = ("LANG", "LC_ALL", "TZ")
_SIZE = re.compile(r"(\d+)([bkmg]?)b?", re.IGNORECASE)
FORWARDED: Final = (types_pb2.PortConfig.TCP, types_pb2.PortConfig.UDP)


@dataclasses.dataclass(frozen=True, slots=True)
class PlanSettings:
    """What this node allows: who tasks run as, and why limits are not enforced ("" if they are)."""

    task_user: str | None = None
    require_limits: bool = False
    limits_reason: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A task ready for the keeper. ``spec`` is the keeper's, but for the directories of secrets and configs."""

    task_id: str
    container_id: str
    spec: dict[str, Any]
    account: Account
    stop_signal: int
    grace: float
    health: types_pb2.HealthConfig | None
    secrets: tuple[types_pb2.SecretReference, ...]
    configs: tuple[types_pb2.ConfigReference, ...]
    ports: types_pb2.PortStatus
    ingress: tuple[types_pb2.PortConfig, ...] = ()


def make_plan(task: objects_pb2.Task, context: TaskContext, settings: PlanSettings) -> Plan:
    """The plan of a task; ``Rejected`` with a sentence that names what can't be had."""
    if not task.spec.HasField("container"):
        raise Rejected("the process executor runs container tasks with the image host only")
    spec = task.spec.container
    _check_image(task.spec)
    _check_fields(task, spec)
    argv = [*spec.command, *spec.args]
    if not argv:
        raise Rejected('no command: the image "host" has no entrypoint of its own')
    if any("\0" in word for word in argv):
        raise Rejected("a command with a zero byte")
    if spec.dir and not os.path.isabs(spec.dir):
        raise Rejected(f"the working directory has to be an absolute path: {spec.dir}")
    account = account_of(spec.user, list(spec.groups), settings.task_user)
    stop_signal = parse_signal(spec.stop_signal)
    grace = spec.stop_grace_period.ToNanoseconds() / 1e9 if spec.HasField("stop_grace_period") else GRACE
    log_bytes, log_files = log_limits(log_driver(task))
    health = spec.healthcheck if _has_health(spec) else None
    keeper_spec = {
        "id": task.id, "argv": argv, "env": _environment(task, context, account, settings), "cwd": spec.dir or "/",
        "uid": account.uid, "gid": account.gid, "groups": account.groups, "signal": stop_signal, "grace": grace,
        "limits": _limits(task, settings), "rlimits": _rlimits(spec), "oom_score_adj": spec.oom_score_adj,
        "no_new_privileges": spec.privileges.no_new_privileges, "log_bytes": log_bytes, "log_files": log_files,
        "probes": health is not None,
    }  # fmt: skip
    return Plan(
        task.id,
        hashlib.sha256(task.id.encode()).hexdigest(),
        keeper_spec,
        account,
        stop_signal,
        grace,
        health,
        tuple(_checked_file(each) for each in spec.secrets),
        tuple(_checked_file(each) for each in spec.configs if each.HasField("file")),
        _ports(task),
        _ingress(task),
    )


def _check_image(spec: specs_pb2.TaskSpec) -> None:
    image = spec.container.image
    if not runs_processes(spec):
        raise Rejected(
            f'image "{image}" needs a container executor; this node has the process executor, '
            'which runs the image "host" (this machine\'s file system)'
        )


def _check_fields(task: objects_pb2.Task, spec: specs_pb2.ContainerSpec) -> None:
    for name in unsupported(spec):
        raise Rejected(f"the process executor cannot honour {name}")
    resources = task.spec.resources
    for name in ("swap_bytes", "memory_swappiness"):
        if resources.HasField(name):
            raise Rejected(f"the process executor cannot honour {name}")
    for attachment in task.networks:
        check_network(attachment)


def check_network(attachment: objects_pb2.NetworkAttachment, kind: str = "process", one: str = "a process") -> None:
    """A process is on this machine's network, whatever its service asks for. What would promise more is refused."""
    network = attachment.network
    name = network.spec.annotations.name
    if network.spec.internal:
        raise Rejected(f"the {kind} executor cannot keep {one} inside the internal network {name}")
    if ENCRYPTED in network.driver_state.options:
        raise Rejected(f"the {kind} executor cannot encrypt what {one} says on the network {name}")


def _ports(task: objects_pb2.Task) -> types_pb2.PortStatus:
    """The host ports that the task's process itself listens on; others can't be had."""
    status = types_pb2.PortStatus()
    for port in task.endpoint.ports:
        if port.publish_mode != HOST_MODE:
            continue
        protocol = types_pb2.PortConfig.Protocol.Name(port.protocol).lower()
        if is_elsewhere(port):
            raise Rejected(
                f"the process executor cannot publish {port.target_port}/{protocol} as {port.published_port}: "
                "a process listens on the host's own ports, so both have to be equal"
            )
        status.ports.add().CopyFrom(port)
        status.ports[-1].published_port = port.target_port
    return status


def _ingress(task: objects_pb2.Task) -> tuple[types_pb2.PortConfig, ...]:
    """The ports that nodes publish for this task's service: those that can be forwarded."""
    found = tuple(port for port in task.endpoint.ports if port.publish_mode != HOST_MODE)
    for port in found:
        if port.protocol not in FORWARDED:
            protocol = types_pb2.PortConfig.Protocol.Name(port.protocol).lower()
            raise Rejected(
                f"the process executor cannot honour the ingress port {port.published_port}/{protocol}: "
                "tcp and udp alone are forwarded, publish it in host mode"
            )
    return found


def parse_signal(text: str) -> int:
    """A signal by name (with or without SIG, also RTMIN+n) or number; "" is SIGTERM."""
    try:
        return signal_number(text) if text else int(signal.SIGTERM)
    except ValueError:
        raise Rejected(f"invalid stop signal: {text}") from None


def _limits(task: objects_pb2.Task, settings: PlanSettings) -> dict[str, int]:
    wanted = task.spec.resources.limits
    limits = {
        "nano_cpus": wanted.nano_cpus,
        "memory": wanted.memory_bytes,
        "pids": max(0, task.spec.container.pidsLimit),
    }
    limits = {name: value for name, value in limits.items() if value > 0}
    if limits and settings.require_limits and settings.limits_reason:
        raise Rejected(f"this node cannot enforce the limits {', '.join(sorted(limits))}: {settings.limits_reason}")
    return limits


def _rlimits(spec: specs_pb2.ContainerSpec) -> list[tuple[str, int, int]]:
    found = []
    for each in spec.ulimits:
        name = f"RLIMIT_{each.name.upper()}"
        if not hasattr(resource, name):
            raise Rejected(f"the process executor cannot honour the ulimit {each.name}")
        found.append((name, each.soft, each.hard))  # -1 is RLIM_INFINITY
    return found


def log_driver(task: objects_pb2.Task) -> types_pb2.Driver:
    """What the task's log is to be kept by: its own driver, or what the service asks for."""
    return task.log_driver if task.HasField("log_driver") else task.spec.log_driver


def log_limits(driver: types_pb2.Driver, what: str = "process", default: int = LOG_BYTES) -> tuple[int, int]:
    """How large a log file may become, and how many are kept: none with the driver ``none``."""
    if driver.name not in LOG_DRIVERS:
        raise Rejected(f"the {what} executor cannot honour the log driver {driver.name}")
    options = dict(driver.options)
    if driver.name == "none" and not options:
        return default, 0
    size, files = options.pop("max-size", ""), options.pop("max-file", "")
    if options:
        raise Rejected(f"the {what} executor cannot honour the log option {min(options)}")
    match = _SIZE.fullmatch(size) if size else None
    if (size and match is None) or (files and not (files.isdigit() and int(files) > 0)):
        raise Rejected(f"invalid log options: max-size={size} max-file={files}")
    number = int(match[1]) << {"": 0, "b": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()] if match else default
    return max(1, number), int(files) if files else LOG_FILES


def _has_health(spec: specs_pb2.ContainerSpec) -> bool:
    test = list(spec.healthcheck.test) if spec.HasField("healthcheck") else []
    if not test or test[0] == "NONE":
        return False
    if test[0] not in ("CMD", "CMD-SHELL") or len(test) < 2:
        raise Rejected(f"invalid health check: {' '.join(test)}")
    return True


def _checked_file(reference: Any) -> Any:
    """A secret's or config's reference whose file can be put into the task's own directory."""
    name = reference.file.name
    kind = "secret" if hasattr(reference, "secret_id") else "config"
    if not name or os.path.isabs(name) or ".." in name.split("/"):
        raise Rejected(
            f'the process executor cannot put a {kind} at "{name}": it needs a relative path, '
            f"found below the directory that ${'SWARMLET_SECRETS' if kind == 'secret' else 'SWARMLET_CONFIGS'} names"
        )
    return reference


def _environment(
    task: objects_pb2.Task, context: TaskContext, account: Account, settings: PlanSettings
) -> dict[str, str]:
    """A login's minimum, then the spec's entries (expanded), the assigned generic resources, and our mark."""
    host = settings.environment
    env = {name: host[name] for name in INHERITED if name in host}
    env["PATH"] = host.get("PATH", os.defpath)
    env.update(HOME=account.home, USER=account.name, LOGNAME=account.name)
    expand_into(env, task.spec.container.env, context)
    env.update(_generic(task))
    env[TASK_MARK] = task.id
    if "" in env or any("\0" in name + value for name, value in env.items()):
        raise Rejected("an environment variable without a name, or with a zero byte")
    return env


def expand_into(env: dict[str, str], entries: Iterable[str], context: TaskContext) -> None:
    """Adds a spec's entries, whose values are templates; one without a value takes its name away. ``Rejected``."""
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals:
            env.pop(name, None)
            continue
        try:
            env[name] = context.expand(value)
        except (Refused, ValueError) as error:
            raise Rejected(f"expanding env failed: {getattr(error, 'text', str(error))}") from error


def _generic(task: objects_pb2.Task) -> dict[str, str]:
    values: dict[str, list[str]] = {}
    for each in task.assigned_generic_resources:
        named = each.HasField("named_resource_spec")
        kind = each.named_resource_spec.kind if named else each.discrete_resource_spec.kind
        value = each.named_resource_spec.value if named else str(each.discrete_resource_spec.value)
        values.setdefault(kind, []).append(value)
    return {f"DOCKER_RESOURCE_{kind.upper()}": ",".join(each) for kind, each in sorted(values.items())}
