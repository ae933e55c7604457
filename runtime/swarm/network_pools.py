"""What a network is given: its driver, its subnets with their gateways, its VXLAN numbers.

Rules owned here (SwarmKit's network allocator with libnetwork's default drivers): the driver is ``overlay`` unless the
spec names another; ``bridge``, ``host``, ``ipvlan`` and ``macvlan`` belong to single nodes: of those only the name is
kept. A network without IPAM configurations gets one subnet from the cluster's default pools, the lowest that overlaps
neither another network's nor one of this machine; a gateway that is not asked for is the first address. Each
IPv4 subnet has a VXLAN number, the lowest free one from 4096 unless the network's options list them.

All is computed from the networks that there are, in the transaction that writes it; so no two networks share anything,
and nothing has to be given back but the network itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from runtime.errors import invalid, precondition
from runtime.swarm.defaults import ADDRESS_POOL, INGRESS_NETWORK_NAME, SUBNET_SIZE
from runtime.swarm.ports import View
from runtime.swarm.task_model import the_cluster
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_DRIVER: Final = "overlay"
DEFAULT_IPAM: Final = "default"
NODE_LOCAL: Final = ("bridge", "host", "ipvlan", "macvlan")
PREDEFINED_LABEL: Final = "com.docker.swarm.predefined"
PREDEFINED_NETWORKS: Final = ("bridge", "host")
INTERNAL_LABEL: Final = "com.docker.swarm.internal"
VXLAN_IDS: Final = "com.docker.network.driver.overlay.vxlanid_list"
VXLAN_MIN: Final = 4096
VXLAN_MAX: Final = (1 << 24) - 1
OVERLAP: Final = "invalid pool request: Pool overlaps with other one on this address space"
EXHAUSTED: Final = (
    "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
)


def network_name(network: objects.Network) -> str:
    """The name in a network's spec."""
    return network.spec.annotations.name


def is_ingress(network: objects.Network) -> bool:
    """Whether this is the ingress network, marked so or (in old swarms) by its name and an internal label."""
    old_style = network_name(network) == INGRESS_NETWORK_NAME and INTERNAL_LABEL in network.spec.annotations.labels
    return network.spec.ingress or old_style


def driver_of(network: objects.Network) -> str:
    """The driver that makes a network."""
    return network.driver_state.name or network.spec.driver_config.name or DEFAULT_DRIVER


def is_node_local(network: objects.Network) -> bool:
    """Whether each node has a network of its own by this name: nothing of it is allocated."""
    return driver_of(network) in NODE_LOCAL


def is_allocated(network: objects.Network) -> bool:
    """Whether a network has what it is given."""
    if not network.driver_state.name or not network.HasField("ipam"):
        return False
    return is_node_local(network) or bool(network.ipam.configs)


def allocated(view: View, network: objects.Network, avoid: Collection[IPNetwork] = ()) -> objects.Network:
    """A copy of a network with what it is given, beside the other networks of a view.

    ``avoid`` are subnets that default ones stay away from. Refused when there is no room, or what
    is asked for is taken.
    """
    new = objects.Network()
    new.CopyFrom(network)
    new.driver_state.name = driver_of(network)
    new.driver_state.options.update(network.spec.driver_config.options)
    new.ClearField("ipam")
    new.ipam.SetInParent()
    if is_node_local(network):
        return new
    others = [other for other in view.all(objects.Network) if other.id != network.id]
    new.ipam.driver.name = network.spec.ipam.driver.name or DEFAULT_IPAM
    new.ipam.driver.options.update(network.spec.ipam.driver.options)
    asked = network.spec.ipam.configs or [types.IPAMConfig(family=types.IPAMConfig.IPV4)]
    taken = [subnet for other in others for subnet in subnets_of(other)]
    for config in asked:
        subnet = _subnet(view, config, taken, avoid)
        taken.append(subnet)
        _fill(new.ipam.configs.add(), config, subnet)
    new.driver_state.options[VXLAN_IDS] = _vxlan_ids(new, others)
    return new


def subnets_of(network: objects.Network) -> list[IPNetwork]:
    """The subnets that a network was given."""
    return [ipaddress.ip_network(config.subnet) for config in network.ipam.configs if config.subnet]


def _subnet(
    view: View, config: types.IPAMConfig, taken: Sequence[IPNetwork], avoid: Collection[IPNetwork]
) -> IPNetwork:
    if config.subnet:
        asked = ipaddress.ip_network(config.subnet, strict=False)
        if any(asked.version == each.version and asked.overlaps(each) for each in taken):
            raise precondition(OVERLAP)
        return asked
    cluster = the_cluster(view)
    pools = list(cluster.defaultAddressPool) if cluster is not None else []
    size = (cluster.subnetSize if cluster is not None else 0) or SUBNET_SIZE
    found = free_subnet(pools or ADDRESS_POOL, size, taken, avoid)
    if found is None:
        raise precondition(EXHAUSTED)
    return found


def free_subnet(
    pools: Sequence[str], size: int, taken: Iterable[IPNetwork], avoid: Collection[IPNetwork] = ()
) -> IPNetwork | None:
    """The lowest subnet of a size, of the first pool that has room. Its cost is that of sorting what is taken."""
    spans = sorted((int(each[0]), int(each[-1]), each.version) for each in [*taken, *avoid])
    for text in pools:
        pool = ipaddress.ip_network(text, strict=False)
        step = 1 << (pool.max_prefixlen - size)
        at = int(pool.network_address)
        for first, last, version in spans:
            if version != pool.version or last < at:
                continue
            if first >= at + step:
                break
            at = (last // step + 1) * step
        if at + step <= int(pool[-1]) + 1:
            return ipaddress.ip_network((at, size)) if pool.version == 4 else ipaddress.IPv6Network((at, size))
    return None


def _fill(target: types.IPAMConfig, config: types.IPAMConfig, subnet: IPNetwork) -> None:
    target.CopyFrom(config)
    target.subnet = str(subnet)
    target.family = types.IPAMConfig.IPV4 if subnet.version == 4 else types.IPAMConfig.IPV6
    reserved = {name: _inside(text, subnet, "auxiliary address") for name, text in sorted(config.reserved.items())}
    if config.gateway:
        target.gateway = str(_inside(config.gateway, subnet, "gateway"))
        return
    room = ipaddress.ip_network(config.range, strict=False) if config.range else subnet
    free = (address for address in usable(room, subnet) if address not in reserved.values())
    first = next(free, None)
    if first is None:
        raise precondition(f"no address for a gateway is left in {room}")
    target.gateway = str(first)


def _inside(text: str, subnet: IPNetwork, what: str) -> IPAddress:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise invalid(f"ipam configuration: invalid {what} {text}") from None
    if address not in subnet:
        raise invalid(f"ipam configuration: {what} {text} is not in subnet {subnet}")
    return address


def usable(room: IPNetwork, subnet: IPNetwork) -> Iterator[IPAddress]:
    """The addresses of a part of a subnet that somebody may have, lowest first."""
    first, last = usable_bounds(room, subnet)
    kind = ipaddress.IPv4Address if subnet.version == 4 else ipaddress.IPv6Address
    return (kind(number) for number in range(first, last + 1))


def usable_bounds(room: IPNetwork, subnet: IPNetwork) -> tuple[int, int]:
    """Lowest and highest of them as numbers: not the subnet's own address, nor (IPv4) its broadcast address."""
    first, last = int(room[0]), int(room[-1])
    if subnet.num_addresses > 2:
        first = max(first, int(subnet[0]) + 1)
        last = min(last, int(subnet[-1]) - 1) if subnet.version == 4 else last
    return first, last


def vxlan_ids(network: objects.Network) -> list[int]:
    """The VXLAN numbers that a network was given, or asks for."""
    for options in (network.driver_state.options, network.spec.driver_config.options):
        if VXLAN_IDS in options:
            return [_vxlan_id(text) for text in options[VXLAN_IDS].split(",") if text.strip()]
    return []


def _vxlan_id(text: str) -> int:
    number = int(text) if text.strip().isdigit() else -1
    if not 0 <= number <= VXLAN_MAX:
        raise invalid(f"invalid vxlan id value {text.strip()!r} passed: it has to be from 0 to {VXLAN_MAX}")
    return number


def _vxlan_ids(network: objects.Network, others: Sequence[objects.Network]) -> str:
    taken = {number for other in others for number in vxlan_ids(other)}
    given = vxlan_ids(network)
    for number in given:
        if number in taken:
            raise precondition(f"vxlan id {number} is already in use by another network")
    taken.update(given)
    ids = list(given)
    free = VXLAN_MIN
    for config in network.ipam.configs[len(given) :]:
        if config.family != types.IPAMConfig.IPV4:
            continue
        while free in taken:
            free += 1
        if free > VXLAN_MAX:
            raise precondition("no vxlan id is left")
        taken.add(free)
        ids.append(free)
    return ",".join(map(str, ids))
