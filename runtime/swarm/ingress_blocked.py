"""Published ports that a node cannot listen on: told as an engine label of it, read by whoever asks what is wrong.

The wire has no place for it, and a label goes wherever a node's description goes: it shows in ``docker node inspect``,
constraints may ask for it, and a manager that is not swarmlet keeps it as it is.

Rules owned here: the label is there only while ports are blocked, and names each port with the system's reason: at most
``PORTS_MAX`` of them and the number of the rest, for it is written into the cluster's log with each change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from runtime.swarm.endpoint_ports import is_ingress
from runtime.swarm.ports import View
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

LABEL: Final = "swarmlet.ingress.blocked"
BETWEEN, BEHIND_PORT = "; ", ": "
PORTS_MAX: Final = 50
REASON_MAX: Final = 80
REST: Final = "others"
"""Stands for a port, in front of how many are left out."""


def to_label(blocked: Mapping[str, str]) -> str:
    """``8080/tcp: Address already in use; 53/udp: Permission denied``, from the ports' reasons."""
    named = sorted(blocked.items())
    told = [f"{port}{BEHIND_PORT}{reason[:REASON_MAX]}" for port, reason in named[:PORTS_MAX]]
    left = len(named) - len(told)
    return BETWEEN.join([*told, f"{REST}{BEHIND_PORT}{left} more"] if left else told)


def blocked_on(node: objects.Node) -> dict[str, str]:
    """The reasons by port (``8080/tcp``)."""
    label = node.description.engine.labels.get(LABEL, "")
    pairs = (each.partition(BEHIND_PORT) for each in label.split(BETWEEN) if each)
    return {port: reason for port, _, reason in pairs}


def node_waits(node: objects.Node) -> list[Wait]:
    """What a node tries again and again."""
    return [Wait(node.id, "ingress", sentence(port, reason)) for port, reason in sorted(blocked_on(node).items())]


def service_waits(view: View, service: objects.Service) -> Iterator[Wait]:
    """The nodes that take no connections for a service at a port that it publishes."""
    names = types.PortConfig.Protocol.Name
    published = [each for each in service.endpoint.ports if is_ingress(each)]
    ports = [f"{each.published_port}/{names(each.protocol).lower()}" for each in published]
    for node in view.all(objects.Node) if ports else ():
        blocked = blocked_on(node)
        yield from (Wait(node.id, "ingress", sentence(port, blocked[port])) for port in ports if port in blocked)


def sentence(port: str, reason: str) -> str:
    """Of one port, without the node."""
    if port == REST:
        return f"{reason} published ports cannot be listened on there; they are tried again every 5 s"
    return f"published port {port} cannot be listened on there ({reason}); it is tried again every 5 s"


def warnings(view: View) -> list[str]:
    """One sentence for each node with such ports, by name."""
    labels = [(node.description.hostname or node.id, to_label(blocked_on(node))) for node in view.all(objects.Node)]
    return [f"WARNING: Node {name} cannot listen on published ports: {text}" for name, text in sorted(labels) if text]
