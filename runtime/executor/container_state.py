"""A container as the engine shows it: how it stands, and what that means for its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runtime.executor.container_config import HOST_MODE, PROTOCOLS
from runtime.wire.pb import types_pb2

NEVER: Final = "0001-01-01T00:00:00Z"
ENDED: Final = ("exited", "dead", "stopped")
FRESH: Final = ("created", "configured", "initialized")


@dataclass(frozen=True, slots=True)
class ContainerState:
    """The part of an inspection that decides."""

    id: str
    status: str
    pid: int
    exit_code: int
    error: str
    health: str
    tty: bool
    labels: Mapping[str, str]
    bindings: Mapping[str, Sequence[Mapping[str, str]]]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> ContainerState:
        """From the engine's JSON."""
        state, config = found.get("State") or {}, found.get("Config") or {}
        ports = (found.get("NetworkSettings") or {}).get("Ports") or {}
        return cls(
            id=str(found.get("Id", "")),
            status=str(state.get("Status", "")),
            pid=int(state.get("Pid") or 0),
            exit_code=int(state.get("ExitCode") or 0),
            error=str(state.get("Error") or ""),
            health=str((state.get("Health") or {}).get("Status") or ""),
            tty=bool(config.get("Tty")),
            labels=config.get("Labels") or {},
            bindings={key: value or () for key, value in ports.items()},
        )

    @property
    def fresh(self) -> bool:
        """Whether it was made and never started."""
        return self.status in FRESH

    @property
    def ended(self) -> bool:
        """Whether it ran and does no more."""
        return self.status in ENDED

    @property
    def running(self) -> bool:
        """Whether it runs, or holds still."""
        return not self.fresh and not self.ended

    @property
    def container_status(self) -> types_pb2.ContainerStatus:
        """As a task's status shows it."""
        pid = self.pid if self.running else 0
        return types_pb2.ContainerStatus(container_id=self.id, pid=pid, exit_code=0 if self.running else self.exit_code)

    def port_status(self, ports: Sequence[types_pb2.PortConfig], on_host: bool) -> types_pb2.PortStatus:
        """Where each port of the service is to be found on this machine: those published here, and those that nodes
        forward to. On the machine's own network (``on_host``) a container listens there itself."""
        status = types_pb2.PortStatus()
        free = {key: numbers(bound) for key, bound in self.bindings.items()}
        for port in sorted(ports, key=lambda each: not (each.publish_mode == HOST_MODE and each.published_port)):
            left = free.get(f"{port.target_port}/{PROTOCOLS.get(port.protocol, 'tcp')}", [])
            number = port.target_port if on_host else _taken(port, left)
            if number:
                added = status.ports.add(protocol=port.protocol, target_port=port.target_port, name=port.name)
                added.published_port, added.publish_mode = number, HOST_MODE
        return status


def numbers(bound: Sequence[Mapping[str, str]]) -> list[int]:
    """The machine's ports of one target, those of IPv4 first, each once."""
    ordered = sorted(bound, key=lambda each: ":" in each.get("HostIp", ""))
    found = [int(each["HostPort"]) for each in ordered if each.get("HostPort", "").isdecimal()]
    return list(dict.fromkeys(found))


def _taken(port: types_pb2.PortConfig, left: list[int]) -> int:
    """The number of a port among those that are left, and takes it."""
    wanted = port.published_port if port.publish_mode == HOST_MODE else 0
    number = wanted if wanted in left else left[0] if left and not wanted else 0
    if number:
        left.remove(number)
    return number
