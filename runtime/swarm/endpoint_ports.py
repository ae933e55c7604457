"""The numbers under which services publish ports by the ingress network.

Rules owned here (SwarmKit's port allocator): a number belongs to at most one service for each protocol; a port without
a number keeps the one that it had (same name, protocol and target port), else gets the next free one from 30000 to
32767, in turn; numbers that a spec names come first. Ports published on hosts are copied as they are: nodes number
those themselves. A service gets all of its ports or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from runtime.wire.pb import types_pb2 as types

DYNAMIC_MIN: Final = 30000
DYNAMIC_MAX: Final = 32767

PortKey = tuple[types.PortConfig.Protocol, int]


def is_ingress(port: types.PortConfig) -> bool:
    """Whether the port is published by the ingress network."""
    return port.publish_mode == types.PortConfig.INGRESS


def ingress_ports(ports: Iterable[types.PortConfig]) -> list[PortKey]:
    """Protocol and number of each port that takes up a number on all nodes."""
    return [(port.protocol, port.published_port) for port in ports if is_ingress(port) and port.published_port]


class PortSpace:
    """Which service holds which port. ``freed`` is set when one became free, and reset by whoever acts on it."""

    __slots__ = ("_cursors", "_held", "_owners", "freed")

    def __init__(self) -> None:
        self._owners: dict[PortKey, str] = {}
        self._held: dict[str, dict[PortKey, None]] = {}
        self._cursors: dict[types.PortConfig.Protocol, int] = {}
        self.freed = False

    def owner(self, port: PortKey) -> str | None:
        """The service that holds a port."""
        return self._owners.get(port)

    def is_free(self, port: PortKey, owner: str) -> bool:
        """Whether ``owner`` may have the port: nobody has it, or it has it already."""
        return self._owners.get(port, owner) == owner

    def add(self, owner: str, ports: Iterable[PortKey]) -> bool:
        """Books ports for a service beside those it holds; False if some are another's (those are left out)."""
        complete = True
        for port in ports:
            if self.is_free(port, owner):
                self._owners[port] = owner
                self._held.setdefault(owner, {})[port] = None
            else:
                complete = False
        return complete

    def replace(self, owner: str, ports: Iterable[PortKey]) -> bool:
        """The service holds exactly these ports from now on; False if some are another's."""
        kept = dict.fromkeys(ports)
        for port in [port for port in self._held.get(owner, {}) if port not in kept]:
            del self._held[owner][port]
            del self._owners[port]
            self.freed = True
        if not self._held.get(owner, True):
            del self._held[owner]
        return self.add(owner, kept)

    def next_dynamic(self, protocol: types.PortConfig.Protocol, taken: Iterable[PortKey] = ()) -> int | None:
        """The next free number of the dynamic range, going round; None when all are held or in ``taken``."""
        size = DYNAMIC_MAX - DYNAMIC_MIN + 1
        begin = self._cursors.get(protocol, 0)
        for step in range(size):
            offset = (begin + step) % size
            port = (protocol, DYNAMIC_MIN + offset)
            if port not in self._owners and port not in taken:
                self._cursors[protocol] = offset + 1
                return port[1]
        return None


def assign(
    space: PortSpace, owner: str, wanted: Sequence[types.PortConfig], before: Sequence[types.PortConfig]
) -> list[types.PortConfig] | str:
    """The ports of a service, in the order of its spec, booked for it; or the reason why it gets none.

    ``before`` are the ports that it has now.
    """
    ports = [_copy(port) for port in wanted]
    taken: dict[PortKey, None] = {}
    for port in ports:
        key = (port.protocol, port.published_port)
        if not is_ingress(port) or not port.published_port:
            continue
        if key in taken or not space.is_free(key, owner):
            return f"port {_text(key)} is already published"
        taken[key] = None
    unset = [port for port in ports if is_ingress(port) and not port.published_port]
    _keep_numbers(space, owner, unset, before, taken)
    for port in unset:
        number = port.published_port or space.next_dynamic(port.protocol, taken)
        if number is None:
            return f"no free {_name(port.protocol)} port from {DYNAMIC_MIN} to {DYNAMIC_MAX}"
        port.published_port = number
        taken[port.protocol, number] = None
    space.add(owner, taken)
    return ports


def _keep_numbers(
    space: PortSpace,
    owner: str,
    unset: Iterable[types.PortConfig],
    before: Iterable[types.PortConfig],
    taken: dict[PortKey, None],
) -> None:
    known: dict[tuple[str, int, int], list[int]] = {}
    for port in before:
        if is_ingress(port) and port.published_port:
            known.setdefault(_identity(port), []).append(port.published_port)
    for port in unset:
        numbers = [number for number in known.get(_identity(port), []) if (port.protocol, number) not in taken]
        if numbers and space.is_free((port.protocol, numbers[0]), owner):
            port.published_port = numbers[0]
            taken[port.protocol, numbers[0]] = None


def ports_fit(wanted: Sequence[types.PortConfig], ports: Sequence[types.PortConfig]) -> bool:
    """Whether ports are what a spec asks for: each with its number, or with any where the spec leaves it open."""
    return len(wanted) == len(ports) and all(_fits(want, port) for want, port in zip(wanted, ports, strict=True))


def _fits(want: types.PortConfig, port: types.PortConfig) -> bool:
    if want.publish_mode != port.publish_mode or _identity(want) != _identity(port):
        return False
    if is_ingress(want) and not want.published_port:
        return port.published_port != 0
    return want.published_port == port.published_port


def _identity(port: types.PortConfig) -> tuple[str, int, int]:
    return port.name, port.protocol, port.target_port


def _copy(port: types.PortConfig) -> types.PortConfig:
    new = types.PortConfig()
    new.CopyFrom(port)
    return new


def _name(protocol: types.PortConfig.Protocol) -> str:
    return types.PortConfig.Protocol.Name(protocol).lower()


def _text(port: PortKey) -> str:
    return f"{port[1]}/{_name(port[0])}"
