"""One service of a compose file as a ServiceSpec.

Rules it owns: which fields of compose are honoured, which are named and refused because the service would mean
something else without them (``REFUSED``), and which are named and left out (``LEFT_OUT``). Names and labels are those
of ``docker stack deploy``, so that the docker command line shows a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runtime.wire.pb import specs_pb2
from swarmlet import compose_containers, compose_mounts, compose_networks
from swarmlet.compose_deploy import INT32_MAX, deploy, restart_of_containers, set_duration
from swarmlet.compose_payloads import SECTIONS, Surroundings, references
from swarmlet.compose_ports import ports
from swarmlet.compose_values import Place
from swarmlet.compose_variables import parse_env_file

NAMESPACE: Final = "com.docker.stack.namespace"
STACK_IMAGE: Final = "com.docker.stack.image"

_NO_NAMESPACE: Final = "a process shares this machine's {0}"
REFUSED: Final[Mapping[str, str]] = {
    "build": "nothing is built here; name an image, such as host",
    "cap_add": "capabilities of a process cannot be chosen",
    "cap_drop": "capabilities of a process cannot be chosen",
    "cgroup_parent": "the control group of a process is chosen by its executor",
    "credential_spec": "credential specs are for Windows containers",
    "device_cgroup_rules": "devices of a process cannot be restricted",
    "devices": "a process sees this machine's devices",
    "dns": _NO_NAMESPACE.format("name service"),
    "dns_opt": _NO_NAMESPACE.format("name service"),
    "dns_search": _NO_NAMESPACE.format("name service"),
    "domainname": _NO_NAMESPACE.format("names"),
    "extra_hosts": _NO_NAMESPACE.format("/etc/hosts"),
    "gpus": "devices cannot be reserved for a process; use deploy.resources.reservations.generic_resources",
    "hostname": _NO_NAMESPACE.format("host name"),
    "mac_address": _NO_NAMESPACE.format("network"),
    "privileged": "the rights of a process are those of its user",
    "read_only": "a process sees this machine's file system as it is",
    "runtime": "a process has no container runtime",
    "stdin_open": "a task of a swarm has no terminal to read from",
    "sysctls": _NO_NAMESPACE.format("kernel settings"),
    "tmpfs": "a process sees this machine's file system as it is",
    "tty": "output of processes is kept as lines; there is no terminal",
    "volumes": "a process sees this machine's file system as it is; name the paths in its command or environment",
    "volumes_from": "a process sees this machine's file system as it is",
}
LEFT_OUT: Final[Mapping[str, str]] = {
    "cgroup": "has no meaning for a process",
    "container_name": "tasks are named service.slot.id",
    "expose": "a process opens its ports itself",
    "external_links": "other services are reached by this machine's network",
    "isolation": "has no meaning for a process",
    "links": "other services are reached by this machine's network",
    "platform": "a process runs on this machine's platform",
    "profiles": "every service of the file is deployed",
    "pull_policy": "nothing is pulled",
    "shm_size": "a process shares this machine's memory files",
    "userns_mode": "a process shares this machine's users",
}
_LOG_DRIVERS: Final = ("", "json-file", "local")
_SHARED: Final = ("ipc", "network_mode", "pid", "uts", "cgroupns_mode")
_HONOURED: Final = (
    "command", "configs", "depends_on", "deploy", "entrypoint", "env_file", "environment", "group_add", "healthcheck",
    "image", "init", "labels", "logging", "networks", "ports", "restart", "secrets", "security_opt",
    "stop_grace_period", "stop_signal", "ulimits", "user", "working_dir",
)  # fmt: skip


def is_process(image: str) -> bool:
    """Whether an image means this machine's file system."""
    return image == "host" or image.startswith("host:")


def service(name: str, place: Place, around: Surroundings) -> specs_pb2.ServiceSpec:
    """The spec of the service ``name``; what is wrong with it is noted."""
    process = is_process(place.at("image").text())
    _check_fields(place, process)
    spec = specs_pb2.ServiceSpec()
    spec.annotations.name = f"{around.stack}_{name}"
    _container(place, spec.task.container, around)
    _logging(place.at("logging"), spec.task, is_process(spec.task.container.image))
    deploy(place.at("deploy"), spec)
    restart = place.at("restart")
    if restart.value is not None and place.at("deploy").at("restart_policy").value is None:
        restart_of_containers(restart, spec.task.restart)
    spec.endpoint.ports.extend(ports(place.at("ports"), is_process(spec.task.container.image)))
    if process or around.networks is None:
        _no_networks(place.at("networks"), process)
    else:
        compose_networks.attach(name, place, spec, around.networks)
    spec.annotations.labels[NAMESPACE] = around.stack
    spec.annotations.labels[STACK_IMAGE] = spec.task.container.image
    spec.task.container.labels[NAMESPACE] = around.stack
    return spec


def _check_fields(place: Place, process: bool) -> None:
    for key, value in place.entries():
        if key in _HONOURED or value.value is None or (key in compose_containers.HONOURED and not process):
            continue
        if key in REFUSED:
            if value.value not in (False, [], {}):
                value.fault(REFUSED[key] if process else compose_containers.NOT_HERE)
        elif key in LEFT_OUT:
            value.warn(f"is left out: {LEFT_OUT[key]}" if process else "is left out: services of a swarm have it not")
        elif key in _SHARED:
            if not process:
                value.fault(compose_containers.NOT_HERE)
            elif value.value != "host":
                value.fault("a process shares this machine's namespaces; only host is possible")
        else:
            value.fault("is no field that compose files have here")


def _no_networks(place: Place, process: bool) -> None:
    for key, network in compose_networks.named(place):
        if key != compose_networks.DEFAULT:
            text = "processes are on this machine's network; networks of their own cannot be given"
            network.fault(text if process else compose_networks.NOT_CHOSEN)


def _container(place: Place, container: specs_pb2.ContainerSpec, around: Surroundings) -> None:
    container.image = place.at("image").text()
    if not container.image and place.at("build").value is None:
        place.fault("needs an image; host means this machine's file system")
    container.command.extend(place.at("entrypoint").command())
    container.args.extend(place.at("command").command())
    container.env.extend(_environment(place, around))
    container.dir = place.at("working_dir").text()
    container.user = place.at("user").text()
    container.groups.extend(place.at("group_add").texts())
    container.stop_signal = place.at("stop_signal").text()
    set_duration(container.stop_grace_period, place.at("stop_grace_period"))
    if place.at("init").value is not None:
        container.init.value = place.at("init").flag()
    for key, value in place.at("labels").pairs().items():
        container.labels[key] = value or ""
    process = is_process(container.image)
    if process:
        _check_process(place, container)
    else:
        compose_containers.add(place, container)
        compose_mounts.add(place, container, around)
    for kind, section in SECTIONS.items():
        references(place.at(section), kind, container, process, around)
    _security(place.at("security_opt"), container)
    _ulimits(place.at("ulimits"), container)
    _health(place.at("healthcheck"), container)


def _check_process(place: Place, container: specs_pb2.ContainerSpec) -> None:
    """What an image would say where the file does not."""
    if not container.command and not container.args:
        place.fault("needs a command: the image host has none of its own")
    if container.dir and not container.dir.startswith("/"):
        place.at("working_dir").fault(f"must be an absolute path, not {container.dir!r}")


def _security(place: Place, container: specs_pb2.ContainerSpec) -> None:
    for item in place.items():
        if item.text() in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
            container.privileges.no_new_privileges = True
        else:
            item.fault("security options of containers do not apply to a process, but for no-new-privileges")


def _logging(place: Place, task: specs_pb2.TaskSpec, process: bool) -> None:
    """Sizes and numbers of log files are honoured; where the output goes is not for a process to choose."""
    if place.value is None:
        return
    place.known("driver", "options")
    driver = place.at("driver").text()
    if process and driver not in _LOG_DRIVERS:
        place.warn("is left out: output of processes is kept by swarmlet and shown by docker service logs")
        return
    task.log_driver.name = driver
    for key, value in place.at("options").pairs().items():
        task.log_driver.options[key] = value or ""


def _environment(place: Place, around: Surroundings) -> list[str]:
    """``NAME=value`` by name. A name without value is taken from the environment, and left out where that has none."""
    values: dict[str, str | None] = {}
    files = place.at("env_file")
    for item in [files] if isinstance(files.value, str) else list(files.items()):
        values.update(_env_file(item, around))
    values.update(place.at("environment").pairs())
    for name, value in values.items():
        if value is None and name in around.environ:
            values[name] = around.environ[name]
    return [f"{name}={value}" for name, value in sorted(values.items()) if value is not None]


def _env_file(item: Place, around: Surroundings) -> dict[str, str | None]:
    path, required = item, True
    if isinstance(item.value, dict):
        item.known("path", "required")
        path = item.at("path")
        required = item.at("required").value is None or item.at("required").flag()
    try:
        return parse_env_file(around.read(path.text()).decode())
    except FileNotFoundError:
        if required:
            path.fault(f"there is no file {path.text()!r}")
    except (OSError, ValueError) as error:
        path.fault(f"{path.text()!r} cannot be read: {error}")
    return {}


def _ulimits(place: Place, container: specs_pb2.ContainerSpec) -> None:
    for name, limit in place.entries():
        if isinstance(limit.value, dict):
            limit.known("soft", "hard")
            soft, hard = limit.at("soft").number(-1), limit.at("hard").number(-1)
        else:
            soft = hard = limit.number(-1)
        container.ulimits.add(name=name, soft=soft, hard=hard)


def _health(place: Place, container: specs_pb2.ContainerSpec) -> None:
    if place.value is None:
        return
    place.known("test", "interval", "timeout", "retries", "start_period", "start_interval", "disable")
    health = container.healthcheck
    health.SetInParent()
    test = place.at("test")
    if place.at("disable").flag():
        if test.value is not None:
            test.fault("is given although the check is disabled")
        health.test.append("NONE")
        return
    if isinstance(test.value, str):
        health.test.extend(["CMD-SHELL", test.value])
    elif test.value is not None:
        words = test.texts()
        if not words or words[0] not in ("NONE", "CMD", "CMD-SHELL"):
            test.fault("must begin with NONE, CMD or CMD-SHELL")
        health.test.extend(words)
    health.retries = place.at("retries").number(0, INT32_MAX)
    for key in ("interval", "timeout", "start_period", "start_interval"):
        set_duration(getattr(health, key), place.at(key))
