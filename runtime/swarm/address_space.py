"""Who holds which address of which network.

Rules owned here: an address belongs to at most one owner; addresses are given serially, the next one after the last,
going round; gateways and reserved addresses are nobody's. Whatever an owner holds can be replaced as a whole by what
the store says of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from runtime.swarm.network_pools import IPAddress, IPNetwork, is_allocated, is_node_local, usable_bounds
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

Owner = tuple[Literal["service", "task", "node", ""], str]
Held = tuple[str, str]
"""A network's id and an address on it as stored: ``10.0.1.2/24``."""

_NOBODY: Final[Owner] = ("", "")


class _Subnet:
    """The addresses of one subnet. Numbers are those of the addresses."""

    __slots__ = ("_cursor", "_first", "_last", "_owners", "subnet")

    def __init__(self, config: types.IPAMConfig) -> None:
        self.subnet: IPNetwork = ipaddress.ip_network(config.subnet)
        room = ipaddress.ip_network(config.range, strict=False) if config.range else self.subnet
        self._first, self._last = usable_bounds(room, self.subnet)
        self._cursor = self._first
        self._owners: dict[int, Owner] = {}
        for text in (config.gateway, *config.reserved.values()):
            if text:
                self._owners[int(ipaddress.ip_address(text))] = _NOBODY

    def owner(self, number: int) -> Owner | None:
        return self._owners.get(number)

    def book(self, owner: Owner, number: int) -> bool:
        return self._owners.setdefault(number, owner) == owner

    def free(self, number: int) -> None:
        del self._owners[number]

    def take(self, owner: Owner) -> int | None:
        size = self._last - self._first + 1
        for step in range(min(size, len(self._owners) + 1)):
            number = self._first + (self._cursor - self._first + step) % size
            if number not in self._owners:
                self._owners[number] = owner
                self._cursor = number + 1
                return number
        return None

    def text(self, number: int) -> str:
        kind = ipaddress.IPv4Address if self.subnet.version == 4 else ipaddress.IPv6Address
        return f"{kind(number)}/{self.subnet.prefixlen}"


class AddressSpace:
    """``freed``: how many addresses of each network became free since whoever acts on it took note."""

    __slots__ = ("_held", "_networks", "freed")

    def __init__(self) -> None:
        self._networks: dict[str, list[_Subnet]] = {}
        self._held: dict[Owner, dict[Held, tuple[_Subnet, int]]] = {}
        self.freed: dict[str, int] = {}

    def put_network(self, network: objects.Network) -> bool:
        """A network is known from here on; True if its addresses may be given now and could not before."""
        if network.id in self._networks or not is_allocated(network) or is_node_local(network):
            return False
        self._networks[network.id] = [_Subnet(config) for config in network.ipam.configs]
        return True

    def remove_network(self, network_id: str) -> None:
        """A network is gone with all of its addresses."""
        self._networks.pop(network_id, None)
        self.freed.pop(network_id, None)

    def holds(self, owner: Owner) -> bool:
        """Whether an owner holds any address."""
        return owner in self._held

    def held(self, owner: Owner) -> list[Held]:
        """What an owner holds."""
        return list(self._held.get(owner, ()))

    def replace(self, owner: Owner, addresses: Iterable[Held], *, quietly: bool = False) -> bool:
        """The owner holds exactly these from now on. False if one is another's, or none of its network's.

        ``quietly``: what becomes free does not count as such, for it was taken only just now.
        """
        kept = dict.fromkeys(addresses)
        mine = self._held.get(owner, {})
        for held in [held for held in mine if held not in kept]:
            subnet, number = mine.pop(held)
            subnet.free(number)
            if held[0] in self._networks and not quietly:
                self.freed[held[0]] = self.freed.get(held[0], 0) + 1
        lost = [held for held in kept if held not in mine and not self._book(owner, held)]
        if not self._held.get(owner, True):
            del self._held[owner]
        return not lost

    def _book(self, owner: Owner, held: Held) -> bool:
        network_id, text = held
        address = _address(text)
        for subnet in self._networks.get(network_id, ()):
            if address is not None and address in subnet.subnet and subnet.book(owner, int(address)):
                self._held.setdefault(owner, {})[held] = subnet, int(address)
                return True
        return False

    def take(self, owner: Owner, network_id: str, wanted: Sequence[str] = ()) -> str | None:
        """Gives the owner one address of a network: the first of those ``wanted`` that is free, without any the next
        free one. None if there is none."""
        for subnet in self._networks.get(network_id, ()):
            numbers = [int(each) for each in map(_address, wanted) if each is not None and each in subnet.subnet]
            number = next((number for number in numbers if subnet.owner(number) is None), None)
            if number is not None:
                subnet.book(owner, number)
            elif not wanted:
                number = subnet.take(owner)
            if number is not None:
                text = subnet.text(number)
                self._held.setdefault(owner, {})[network_id, text] = subnet, number
                return text
        return None


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_interface(text).ip
    except ValueError:
        return None
