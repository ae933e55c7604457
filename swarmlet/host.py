"""What this machine says of itself to ``docker info`` and ``docker version``."""

from __future__ import annotations

import ipaddress
import os
import platform
import socket
from pathlib import Path
from typing import Final

from runtime.engine_api.backend import SystemInfo
from runtime.wire.pb.types_pb2 import NodeDescription
from swarmlet import __version__

_RELEASE_FILES: Final = ("/etc/os-release", "/usr/lib/os-release")


def hostname() -> str:
    """The machine's name, as nodes are called unless told otherwise."""
    return socket.gethostname()


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """The machine's memory; 0 where the kernel does not say."""
    try:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            name, _, amount = line.partition(":")
            if name == "MemTotal":
                return int(amount.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    return 0


def operating_system() -> str:
    """The distribution's name for people; the kernel's where there is none."""
    for path in _RELEASE_FILES:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition("=")
            if name == "PRETTY_NAME":
                return value.strip().strip("\"'")
    return platform.system()


_LIMITS: Final = ("MemoryLimit", "CpuCfsPeriod", "CpuCfsQuota", "PidsLimit")
_KERNEL_SWITCHES: Final = {
    "IPv4Forwarding": Path("/proc/sys/net/ipv4/ip_forward"),
    "BridgeNfIptables": Path("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    "BridgeNfIp6tables": Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
}


def features(limits_enforced: bool) -> frozenset[str]:
    """What ``docker info`` says this machine can do: limits where the executor enforces them, switches as they are."""
    found = set(_LIMITS) if limits_enforced else set()
    for name, path in _KERNEL_SWITCHES.items():
        try:
            if path.read_text(encoding="ascii").strip() == "1":
                found.add(name)
        except OSError:
            continue
    return frozenset(found)


def system_info(
    name: str,
    root_dir: Path,
    executor: str,
    described: NodeDescription | None = None,
    image_names: tuple[str, ...] = (),
) -> SystemInfo:
    """The host and this node, as the Engine API shows them; ``described`` is what the executor says of it."""
    engine = (described or NodeDescription()).engine
    return SystemInfo(
        name=name,
        ncpu=cpus(),
        mem_total=memory_bytes(),
        server_version=__version__,
        root_dir=str(root_dir),
        executor=executor,
        operating_system=operating_system(),
        architecture=platform.machine(),
        kernel_version=platform.release(),
        features=features(engine.labels.get("swarmlet.limits") == "enforced"),
        image_names=image_names,
        plugins=tuple((plugin.type, plugin.name) for plugin in engine.plugins),
    )


def free_port(address: str) -> int:
    """A TCP port at which nobody listens now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def source_address(remote: str) -> str:
    """The address that this machine speaks from when it speaks to ``remote`` (an IP address); empty if it cannot.
    Nothing is sent."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(remote).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((remote, 1))
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return ""
