"""What a container of a task is: what of it is the same on any node (``Config``), and how it is held on this one
(``HostConfig``), in the engine's terms.

Rules owned here: nothing of a spec is left out without a word; limits reach the container and reservations do not;
restarting is the swarm's business, never the engine's; a command replaces the image's entrypoint, arguments alone its
command; the swarm's labels win over the service's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.executor.image_reference import familiar
from runtime.executor.port import Rejected
from runtime.swarm.generic import environment
from runtime.swarm.naming import task_name
from runtime.wire.pb import objects_pb2, specs_pb2, types_pb2

LABEL: Final = "com.docker.swarm."
TASK_LABEL: Final = f"{LABEL}task.id"
ISOLATIONS: Final = {0: "default", 1: "process", 2: "hyperv"}
PROTOCOLS: Final = {number: name.lower() for name, number in types_pb2.PortConfig.Protocol.items()}
HOST_MODE: Final = types_pb2.PortConfig.HOST
SECCOMP, APPARMOR = types_pb2.Privileges.SeccompOpts, types_pb2.Privileges.AppArmorOpts


def labels(task: objects_pb2.Task) -> dict[str, str]:
    """Those of the service's containers, and who it belongs to."""
    return {
        **task.spec.container.labels,
        f"{LABEL}task": "",
        TASK_LABEL: task.id,
        f"{LABEL}task.name": task_name(task),
        f"{LABEL}node.id": task.node_id,
        f"{LABEL}service.id": task.service_id,
        f"{LABEL}service.name": task.service_annotations.name,
    }


def config(task: objects_pb2.Task, spec: specs_pb2.ContainerSpec, own: Mapping[str, str]) -> dict[str, Any]:
    """``Config`` of a task, its spec's templates filled in; ``own`` are labels of ours."""
    out: dict[str, Any] = {
        "Image": familiar(spec.image),
        "Labels": {**labels(task), **own},
        "Env": [*spec.env, *environment(task.assigned_generic_resources)],
        "Hostname": spec.hostname,
        "User": spec.user,
        "WorkingDir": spec.dir,
        "StopSignal": spec.stop_signal,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "ExposedPorts": {_port(each): {} for each in task.endpoint.ports},
    }
    if spec.command:
        out["Entrypoint"] = list(spec.command)
    if spec.command or spec.args:
        out["Cmd"] = list(spec.args)
    if spec.HasField("healthcheck"):
        out["Healthcheck"] = health(spec.healthcheck)
    return out


def health(check: types_pb2.HealthConfig) -> dict[str, Any]:
    """A health check; nanoseconds, 0 is the engine's (or the image's) own."""
    out: dict[str, Any] = {
        "Test": list(check.test) or None,
        "Interval": check.interval.ToNanoseconds(),
        "Timeout": check.timeout.ToNanoseconds(),
        "StartPeriod": check.start_period.ToNanoseconds(),
        "Retries": check.retries,
    }
    if check.HasField("start_interval"):
        out["StartInterval"] = check.start_interval.ToNanoseconds()
    return out


def host_config(
    task: objects_pb2.Task, spec: specs_pb2.ContainerSpec, mounts: Sequence[Mapping[str, Any]], network: str
) -> dict[str, Any]:
    """``HostConfig`` of a task; ``network`` is the one it is made on, empty for the engine's usual one."""
    out: dict[str, Any] = {
        **resources(task.spec, spec),
        "Mounts": list(mounts),
        "PortBindings": port_bindings(task.endpoint.ports),
        "GroupAdd": list(spec.groups) or None,
        "ReadonlyRootfs": spec.read_only,
        "Isolation": ISOLATIONS.get(spec.isolation, "default"),
        "Sysctls": dict(spec.sysctls) or None,
        "CapAdd": list(spec.capability_add) or None,
        "CapDrop": list(spec.capability_drop) or None,
        "OomScoreAdj": spec.oom_score_adj,
        "SecurityOpt": security(spec.privileges) or None,
        "ExtraHosts": hosts(spec.hosts) or None,
    }
    if spec.HasField("init"):
        out["Init"] = spec.init.value
    if spec.HasField("dns_config"):
        dns = spec.dns_config
        out.update(Dns=list(dns.nameservers), DnsSearch=list(dns.search), DnsOptions=list(dns.options))
    driver = task.log_driver if task.HasField("log_driver") else task.spec.log_driver
    if driver.name or driver.options:
        out["LogConfig"] = {"Type": driver.name, "Config": dict(driver.options)}
    if network:
        out["NetworkMode"] = network
    return out


def resources(task: specs_pb2.TaskSpec, spec: specs_pb2.ContainerSpec) -> dict[str, Any]:
    """Limits; reservations are the scheduler's."""
    limits, wanted = task.resources.limits, task.resources
    out: dict[str, Any] = {}
    if limits.nano_cpus > 0:
        out["NanoCpus"] = limits.nano_cpus
    if limits.memory_bytes > 0:
        out["Memory"] = limits.memory_bytes
    if spec.pidsLimit > 0:
        out["PidsLimit"] = spec.pidsLimit
    if spec.ulimits:
        out["Ulimits"] = [{"Name": each.name, "Soft": each.soft, "Hard": each.hard} for each in spec.ulimits]
    if wanted.HasField("swap_bytes"):
        swap = wanted.swap_bytes.value
        out["MemorySwap"] = -1 if swap < 0 else max(0, limits.memory_bytes) + swap
    if wanted.HasField("memory_swappiness"):
        out["MemorySwappiness"] = wanted.memory_swappiness.value
    return out


def security(privileges: types_pb2.Privileges) -> list[str]:
    """Options of the container's security; ``Rejected`` for what no Linux container has."""
    if privileges.HasField("credential_spec"):
        raise Rejected("credential specs are for containers on Windows")
    out = []
    selinux = privileges.selinux_context
    if selinux.disable:
        out.append("label=disable")
    for name in ("user", "role", "type", "level"):
        if getattr(selinux, name):
            out.append(f"label={name}:{getattr(selinux, name)}")
    if privileges.seccomp.mode == SECCOMP.UNCONFINED:
        out.append("seccomp=unconfined")
    elif privileges.seccomp.mode == SECCOMP.CUSTOM:
        out.append(f"seccomp={privileges.seccomp.profile.decode('utf-8', 'replace')}")
    if privileges.apparmor.mode == APPARMOR.DISABLED:
        out.append("apparmor=unconfined")
    if privileges.no_new_privileges:
        out.append("no-new-privileges=true")
    return out


def hosts(entries: Sequence[str]) -> list[str]:
    """``IP host [aliases]`` as the engine's ``host:IP``; aliases and what has no address are dropped as by SwarmKit."""
    words = [entry.split() for entry in entries]
    return [f"{each[1]}:{each[0]}" for each in words if len(each) > 1]


def port_bindings(ports: Sequence[types_pb2.PortConfig]) -> dict[str, list[dict[str, str]]]:
    """Where each target is to be found on the machine: at its own number in host mode, else at one of the engine's
    choice, to which nodes forward what comes in for the service."""
    out: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        at_host = port.publish_mode == HOST_MODE and port.published_port
        out.setdefault(_port(port), []).append({"HostPort": str(port.published_port) if at_host else ""})
    return out


def _port(port: types_pb2.PortConfig) -> str:
    return f"{port.target_port}/{PROTOCOLS.get(port.protocol, 'tcp')}"
