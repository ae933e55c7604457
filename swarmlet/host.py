"""What this machine says of itself to ``docker info`` and ``docker version``."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path
from typing import Final

from runtime.engine_api.backend import SystemInfo
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


def system_info(name: str, root_dir: Path, executor: str) -> SystemInfo:
    """The host and this node, as the Engine API shows them."""
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
    )
