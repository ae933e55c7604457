"""The machine's network interfaces, read from the kernel over rtnetlink.

Only what the choice of addresses needs: name, whether it is up, loopback or virtual, and its addresses. Two dumps
(links, then addresses); no name is resolved and nothing is sent to the network.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator

from runtime.swarm.addresses import Interface, IPAddress

_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 18, 20, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8


def interfaces() -> tuple[Interface, ...]:
    """All interfaces of this network namespace in the kernel's order. OSError if the kernel refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.bind((0, 0))
        links = dict(_link(body) for kind, body in _dump(kernel, _RTM_GETLINK, 16) if kind == _RTM_NEWLINK)
        addresses: dict[int, list[IPAddress]] = {index: [] for index in links}
        for kind, body in _dump(kernel, _RTM_GETADDR, 8):
            if kind == _RTM_NEWADDR:
                index, address = _address(body)
                if address is not None and index in addresses:
                    addresses[index].append(address)
    return tuple(
        Interface(name, tuple(addresses[index]), bool(flags & _IFF_UP), bool(flags & _IFF_LOOPBACK), not virtual)
        for index, (name, flags, virtual) in links.items()
    )


def _dump(kernel: socket.socket, request: int, family_size: int) -> Iterator[tuple[int, bytes]]:
    header = struct.pack("=IHHII", 16 + family_size, request, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    kernel.send(header + bytes(family_size))
    while True:
        data = kernel.recv(1 << 18)
        while len(data) >= 16:
            length, kind, _flags, _sequence, _pid = struct.unpack_from("=IHHII", data)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", data, 16)[0]
                raise OSError(code, os.strerror(code))
            yield kind, data[16:length]
            data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _link(body: bytes) -> tuple[int, tuple[str, int, bool]]:
    _family, _type, index, flags, _change = struct.unpack_from("=BxHiII", body)
    name, virtual = "", False
    for kind, value in _attributes(body[16:]):
        if kind == _IFLA_IFNAME:
            name = value.rstrip(b"\0").decode()
        elif kind == _IFLA_LINKINFO:
            virtual = any(inner == _IFLA_INFO_KIND for inner, _ in _attributes(value))
    return index, (name, flags, virtual)


def _address(body: bytes) -> tuple[int, IPAddress | None]:
    _family, _prefix, _flags, _scope, index = struct.unpack_from("=BBBBI", body)
    found: dict[int, bytes] = dict(_attributes(body[8:]))
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    return index, ipaddress.ip_address(raw) if raw is not None else None
