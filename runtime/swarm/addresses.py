"""Which addresses a node listens on, advertises and sends data from: the engine's rules and texts, over a given
list of interfaces.

Rules kept here:
1. A host may be an interface's name wherever an address is asked for; the name is tried before the address.
2. Only global-unicast addresses are chosen without being named. Links of kind "device" (real network cards) come
   first; when none of them has an address, every other interface that is up and no loopback counts, but for those
   inside subnets that the network side manages.
3. IPv4 wins over IPv6 on one link; two candidates are an error that names both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from runtime.errors import Code, Refused

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_LISTEN_HOST = "0.0.0.0"  # noqa: S104 - the engine's default
DEFAULT_PORT = 2377
DEFAULT_DATA_PATH_PORT = 4789
DEFAULT_SUBNET_SIZE = 24

NO_SUCH_INTERFACE = "no such interface"
NO_IP = "could not find the system's IP address"
MUST_SPECIFY_LISTEN = (
    "must specify a listening address because the address to advertise is not recognized as a system address, "
    "and a system's IP address to use could not be uniquely identified"
)
BAD_NETWORK_IDENTIFIER = "must specify a valid IP address or interface name"
BAD_LISTEN = "listen address must be an IP address or network interface (with optional port number)"
BAD_ADVERTISE = "advertise address must be a non-zero IP address or network interface (with optional port number)"
BAD_DATA_PATH = "data path address must be a non-zero IP address or network interface (without a port number)"
BAD_DEFAULT_ADVERTISE = (
    "default advertise address must be a non-zero IP address or network interface (without a port number)"
)


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface. ``device`` says that it is a real card (no veth, bridge or other virtual kind)."""

    name: str
    addresses: tuple[IPAddress, ...]
    up: bool = True
    loopback: bool = False
    device: bool = True


def config_error(text: str) -> Refused:
    """A refusal of an address, as the engine words it."""
    return Refused(Code.INVALID_ARGUMENT, text)


def parse_tcp_address(text: str, port: int = DEFAULT_PORT) -> str:
    """Fills in what an address leaves out: ``tcp://`` goes, an absent host is 0.0.0.0, an absent port ``port``.

    What cannot be read is kept as it is; resolving it will say what is wrong. Empty is refused.
    """
    if not text:
        raise config_error("invalid empty address")
    rest = text.removeprefix("tcp://")
    try:
        host, given = split_host_port(rest)
    except ValueError:
        return f"{_bracket(rest)}:{port}" if _is_ip(rest) or ":" not in rest else rest
    return f"{_bracket(host or DEFAULT_LISTEN_HOST)}:{given or port}"


def split_host_port(text: str) -> tuple[str, str]:
    """``host:port`` or ``[v6]:port`` in two; ValueError without a port or with too many colons."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not port.startswith(":"):
            raise ValueError(text)
        return host, port[1:]
    host, colon, port = text.rpartition(":")
    if not colon or ":" in host:
        raise ValueError(text)
    return host, port


def join_host_port(host: str, port: str | int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"{_bracket(host)}:{port}"


def resolve_listen(text: str, interfaces: Sequence[Interface]) -> tuple[str, str]:
    """Host and port to listen on; the host may be an interface and may be unspecified."""
    try:
        host, port = split_host_port(text)
    except ValueError:
        raise config_error(f'could not parse listen address "{text}"') from None
    found = _interface_address(host, interfaces)
    if found is not None:
        return str(found), port
    if not _is_ip(host):
        raise config_error(BAD_LISTEN)
    return host, port


def resolve_advertise(
    text: str, listen_port: str, default: str, interfaces: Sequence[Interface], managed: Sequence[IPNetwork] = ()
) -> tuple[str, str]:
    """Host and port to advertise: what the request says, else the daemon's default, else the system's only address."""
    if text:
        return _requested_advertise(text, listen_port, interfaces)
    if default:
        return str(_named(default, interfaces, BAD_DEFAULT_ADVERTISE)), listen_port
    return str(system_address(interfaces, managed)), listen_port


def _requested_advertise(text: str, listen_port: str, interfaces: Sequence[Interface]) -> tuple[str, str]:
    try:
        host, port = split_host_port(text)
    except ValueError:
        host, port = text.strip("[]"), listen_port
    found = _interface_address(host, interfaces)
    if found is None:
        if not _is_ip(host) or ipaddress.ip_address(host).is_unspecified:
            raise config_error(BAD_ADVERTISE)
        found = ipaddress.ip_address(host)
    return str(found), port or listen_port


def resolve_data_path(text: str, interfaces: Sequence[Interface]) -> str:
    """The address that data is sent from; empty stays empty."""
    return str(_named(text, interfaces, BAD_DATA_PATH)) if text else ""


def _named(text: str, interfaces: Sequence[Interface], refusal: str) -> IPAddress:
    found = _interface_address(text, interfaces)
    if found is not None:
        return found
    if not _is_ip(text) or ipaddress.ip_address(text).is_unspecified:
        raise config_error(refusal)
    return ipaddress.ip_address(text)


def local_address(
    listen_host: str, advertise_host: str, interfaces: Sequence[Interface], managed: Sequence[IPNetwork] = ()
) -> str:
    """This node's own address: the listen host if it is a specific one, else the advertised one if it is ours."""
    if not ipaddress.ip_address(listen_host).is_unspecified:
        return listen_host
    advertised = ipaddress.ip_address(advertise_host)
    if any(advertised in interface.addresses for interface in interfaces):
        return advertise_host
    try:
        return str(system_address(interfaces, managed))
    except Refused:
        raise config_error(MUST_SPECIFY_LISTEN) from None


def system_address(interfaces: Sequence[Interface], managed: Sequence[IPNetwork] = ()) -> IPAddress:
    """The one address that this system can be reached at; an error that names the candidates if there are more."""
    devices = [interface for interface in interfaces if interface.up and interface.device and not interface.loopback]
    found = _candidates(devices, ())
    if not found:
        others = [interface for interface in interfaces if interface.up and not interface.loopback]
        found = _candidates(others, managed)
    if not found:
        raise config_error(NO_IP)
    first_name, first = found[0]
    for name, address in found[1:]:
        raise config_error(_ambiguous(first_name, first, name, address))
    return first


def _candidates(interfaces: Sequence[Interface], managed: Sequence[IPNetwork]) -> list[tuple[str, IPAddress]]:
    found: list[tuple[str, IPAddress]] = []
    for interface in interfaces:
        usable = [a for a in interface.addresses if _global_unicast(a) and not any(a in net for net in managed)]
        preferred = [a for a in usable if a.version == 4] or usable
        if len(preferred) > 1:
            raise config_error(_ambiguous(interface.name, preferred[0], interface.name, preferred[1]))
        found += [(interface.name, address) for address in preferred]
    return found


def _ambiguous(first_name: str, first: IPAddress, name: str, address: IPAddress) -> str:
    start = "could not choose an IP address to advertise since this system has multiple addresses"
    if name == first_name:
        return f"{start} on interface {name} ({first} and {address})"
    return f"{start} on different interfaces ({first} on {first_name} and {address} on {name})"


def _interface_address(name: str, interfaces: Sequence[Interface]) -> IPAddress | None:
    interface = next((each for each in interfaces if each.name == name), None)
    if interface is None:
        return None
    v4: list[IPAddress] = [address for address in interface.addresses if address.version == 4]
    by_version = {4: v4, 6: _routable_v6(interface)}
    for version, label in ((4, "IPv4"), (6, "IPv6")):
        if len(by_version[version]) > 1:
            one, two = by_version[version][:2]
            raise config_error(f"interface {name} has more than one {label} address ({one} and {two})")
    for version in (4, 6):
        if by_version[version]:
            return by_version[version][0]
    raise config_error(f"interface {name} has no usable IPv4 or IPv6 address")


def _routable_v6(interface: Interface) -> list[IPAddress]:
    return [address for address in interface.addresses if address.version == 6 and not address.is_link_local]


def _global_unicast(address: IPAddress) -> bool:
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or str(address) == "255.255.255.255"
    )


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def check_address_pool(pools: Sequence[str], size: int) -> int:
    """The subnet size to use. Refusals are plain errors in the engine (status 500), hence UNKNOWN."""
    size = size or DEFAULT_SUBNET_SIZE
    if not pools:
        return size
    if size > 29:
        raise Refused(Code.UNKNOWN, f"subnet size is out of range: {size}")
    for pool in pools:
        try:
            network = ipaddress.ip_network(pool)
        except ValueError as error:
            raise Refused(Code.UNKNOWN, f'invalid CIDR: "{pool}". {error}') from None
        if network.prefixlen > size:
            raise Refused(Code.UNKNOWN, f'invalid CIDR: "{pool}". Subnet size is too small for pool: {size}')
    return size


def check_data_path_port(port: int) -> int:
    """The port for data; 0 is the default."""
    if port == 0:
        return DEFAULT_DATA_PATH_PORT
    if not 1024 <= port <= 49151:
        raise Refused(Code.UNKNOWN, f"Datapath port number is not in valid range (1024-49151) : {port}")
    return port
