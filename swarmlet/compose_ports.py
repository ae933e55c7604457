"""Ports of compose files, short and long: published on the host of each task unless ``mode: ingress`` asks otherwise.

Rules it owns: a process opens its ports itself, so on a host a published port equals its target. In ingress mode every
node takes TCP and UDP and hands it to tasks, and a task listens where ``PORT`` says; the short form, which
elsewhere means that mode, does not suit programs that know nothing of it: it means the host, with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from runtime.swarm.ingress_tables import PROTOCOLS
from runtime.wire.pb import types_pb2
from swarmlet.compose_values import Place

_PROTOCOLS: Final = {
    "tcp": types_pb2.PortConfig.TCP,
    "udp": types_pb2.PortConfig.UDP,
    "sctp": types_pb2.PortConfig.SCTP,
}
_SHORT: Final = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|\d+\.\d+\.\d+\.\d+):)?(?:(?P<published>\d+(?:-\d+)?)?:)?(?P<target>\d+(?:-\d+)?)(?:/(?P<protocol>\w+))?"
)
MESH: Final = "is published on the host of each task; for all nodes to take connections say mode: ingress (long form)"
INGRESS, HOST = types_pb2.PortConfig.INGRESS, types_pb2.PortConfig.HOST
PORT_MAX: Final = 65535


def ports(place: Place, process: bool) -> Iterator[types_pb2.PortConfig]:
    """The ports of one service; ``process`` says that its image is this machine's file system."""
    for item in place.items():
        found = _long(item) if isinstance(item.value, dict) else _short(item)
        for port in found:
            if process and port.publish_mode == HOST and port.published_port != port.target_port:
                item.fault(
                    f"a process opens its ports itself: published {port.published_port} and target {port.target_port} "
                    "must be the same"
                )
            if process and port.publish_mode == INGRESS and port.protocol not in PROTOCOLS:
                item.fault("tcp and udp alone are forwarded to processes; use mode: host")
            yield port


def _long(item: Place) -> list[types_pb2.PortConfig]:
    item.known("target", "published", "protocol", "mode", "name", "host_ip", "app_protocol")
    if item.at("target").value is None:
        item.fault("needs a target")
        return []
    mode = item.at("mode").value
    if mode is None:
        item.warn(MESH)
    elif mode not in ("host", "ingress"):
        item.at("mode").fault(f"must be host or ingress, not {mode!r}")
    _ignore_address(item, item.at("host_ip").text())
    target = item.at("target").number(1, PORT_MAX)
    published = item.at("published")
    return [
        types_pb2.PortConfig(
            name=item.at("name").text(),
            protocol=_protocol(item, item.at("protocol").text()),
            target_port=target,
            published_port=published.number(1, PORT_MAX) if published.value is not None else target,
            publish_mode=INGRESS if mode == "ingress" else HOST,
        )
    ]


def _short(item: Place) -> list[types_pb2.PortConfig]:
    text = item.text()
    match = _SHORT.fullmatch(text)
    if match is None:
        item.fault(f"{text!r} is no port, such as 8080:8080 or 8080:8080/udp")
        return []
    targets = _range(item, match["target"])
    published = _range(item, match["published"]) if match["published"] else targets
    if len(targets) != len(published):
        item.fault("published and target ports are ranges of different lengths")
        return []
    item.warn(MESH)
    _ignore_address(item, match["ip"] or "")
    protocol = _protocol(item, match["protocol"] or "")
    return [
        types_pb2.PortConfig(
            protocol=protocol,
            target_port=target,
            published_port=outside,
            publish_mode=HOST,
        )
        for target, outside in zip(targets, published, strict=True)
    ]


def _range(item: Place, text: str) -> range:
    first, _, last = text.partition("-")
    begin, end = int(first), int(last or first)
    if not 1 <= begin <= end <= PORT_MAX:
        item.fault(f"{text} is no port or range of ports between 1 and {PORT_MAX}")
        return range(0)
    return range(begin, end + 1)


def _protocol(item: Place, text: str) -> types_pb2.PortConfig.Protocol:
    if text and text.lower() not in _PROTOCOLS:
        item.fault(f"protocol must be one of {', '.join(_PROTOCOLS)}, not {text!r}")
    return _PROTOCOLS.get(text.lower(), types_pb2.PortConfig.TCP)


def _ignore_address(item: Place, address: str) -> None:
    if address:
        item.warn(f"the address {address} is left out: a process binds its ports itself")
