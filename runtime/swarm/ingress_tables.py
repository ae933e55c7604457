"""What nodes of processes must know to take connections for published services: ports, and where tasks answer.

SwarmKit's assignments tell a node its own tasks alone, and its data plane learns of the others by gossip among
container engines. Nodes whose tasks are processes get a *table* of each service that publishes ports in ingress mode
instead, as one more config in their assignments: the wire stays as it is, and whoever does not know such a config has
no use for it. A table's id says that it is one; no task refers to it and no request shows it.

Rules owned here: a task stands in its service's table while it runs and is wanted (a task with a health check runs only
once it is healthy), on a node that is not down and whose address is known, under the port that its node gave it; so
it is taken out before it is told to stop. TCP and UDP ports are told; what stands under ``udp`` is passed over by a
node that forwards TCP alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from runtime.swarm.endpoint_ports import is_ingress
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

PREFIX: Final = "swarmlet.ingress."
EXECUTOR_LABEL: Final = "swarmlet.executor"
FORWARDING: Final = ("process", "container")
TCP, UDP = types.PortConfig.TCP, types.PortConfig.UDP
PROTOCOLS: Final = {TCP: "tcp", UDP: "udp"}


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where a task answers for one of its ports."""

    host: str
    port: int
    task_id: str = ""


class PublishedPort(NamedTuple):
    """A port that nodes publish; ``protocol`` is ``tcp`` or ``udp``."""

    number: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


Routes = Mapping[PublishedPort, tuple[Backend, ...]]
"""The backends of each published port."""
Target = tuple[str, int]
"""A protocol, and a port of a service's tasks."""


def takes_tables(node: objects.Node) -> bool:
    """Whether a node forwards connections by tables."""
    return forwards(node.description)


def forwards(described: types.NodeDescription) -> bool:
    """Whether a node's executor is one of ours, whose nodes forward connections themselves."""
    return described.engine.labels.get(EXECUTOR_LABEL, "") in FORWARDING


def encode(
    ports: Iterable[tuple[PublishedPort, int]], backends: Iterable[tuple[str, str, Mapping[Target, int]]]
) -> bytes:
    """A table: the target of each published port, and (task, host, target to port) of each task."""
    wanted, tasks = sorted(ports), sorted(backends, key=lambda each: each[0])
    table: dict[str, Any] = _encoded("tcp", wanted, tasks)
    if any(published.protocol == "udp" for published, _ in wanted):
        table["udp"] = _encoded("udp", wanted, tasks)
    return json.dumps(table, separators=(",", ":")).encode()


def _encoded(
    protocol: str, ports: Sequence[tuple[PublishedPort, int]], tasks: Sequence[tuple[str, str, Mapping[Target, int]]]
) -> dict[str, Any]:
    return {
        "ports": [(published.number, target) for published, target in ports if published.protocol == protocol],
        "tasks": [
            (id, host, sorted((target, port) for (spoken, target), port in given.items() if spoken == protocol))
            for id, host, given in tasks
        ],
    }


def routes(tables: Iterable[bytes]) -> dict[PublishedPort, tuple[Backend, ...]]:
    """What several tables say together. A table that cannot be read raises ValueError."""
    found: dict[PublishedPort, list[Backend]] = {}
    for data in tables:
        for published, backends in _read(data):
            found.setdefault(published, []).extend(backends)
    return {published: tuple(sorted(backends)) for published, backends in sorted(found.items())}


def _read(data: bytes) -> list[tuple[PublishedPort, list[Backend]]]:
    try:
        table: Any = json.loads(data)
        return _decoded("tcp", table) + (_decoded("udp", table["udp"]) if "udp" in table else [])
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"a malformed ingress table: {error}") from None


def _decoded(protocol: str, table: Any) -> list[tuple[PublishedPort, list[Backend]]]:
    tasks = [(str(id), str(host), {int(key): int(port) for key, port in given}) for id, host, given in table["tasks"]]
    return [
        (
            PublishedPort(int(number), protocol),
            [Backend(host, given[target], id) for id, host, given in tasks if target in given],
        )
        for number, target in table["ports"]
    ]


class IngressTables:
    """All services that publish TCP or UDP ports in ingress mode, and their tasks. ``take`` gives what changed."""

    __slots__ = ("_changed", "_hosts", "_ports", "_tasks", "_where")

    def __init__(self) -> None:
        self._ports: dict[str, tuple[tuple[PublishedPort, int], ...]] = {}
        self._tasks: dict[str, dict[str, tuple[str, Mapping[Target, int]]]] = {}  # service -> task -> node, its ports
        self._where: dict[str, dict[tuple[str, str], None]] = {}  # node -> service and task
        self._hosts: dict[str, str] = {}
        self._changed: dict[str, None] = {}

    @property
    def changed(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._changed)

    def put_service(self, service: objects.Service) -> None:
        """A service appeared or changed."""
        ports = tuple(
            (PublishedPort(each.published_port, PROTOCOLS[each.protocol]), each.target_port)
            for each in service.endpoint.ports
            if is_ingress(each) and each.protocol in PROTOCOLS and each.published_port
        )
        before = self._ports.get(service.id, ())
        if ports:
            self._ports[service.id] = ports
        else:
            self._ports.pop(service.id, None)
        if ports != before:
            self._changed[service.id] = None

    def remove_service(self, service_id: str) -> None:
        """A service is gone."""
        if self._ports.pop(service_id, None) is not None:
            self._changed[service_id] = None

    def put_task(self, task: objects.Task) -> None:
        """A task appeared or changed."""
        given = _ports_of(task) if _serves(task) else {}
        if not given:
            self.remove_task(task)
            return
        mine = self._tasks.setdefault(task.service_id, {})
        if mine.get(task.id) != (task.node_id, given):
            mine[task.id] = task.node_id, given
            self._where.setdefault(task.node_id, {})[task.service_id, task.id] = None
            self._changed[task.service_id] = None

    def remove_task(self, task: objects.Task) -> None:
        """A task is gone, or does not serve any more."""
        mine = self._tasks.get(task.service_id, {})
        place = mine.pop(task.id, None)
        if place is None:
            return
        if not mine:
            del self._tasks[task.service_id]
        here = self._where[place[0]]
        del here[task.service_id, task.id]
        if not here:
            del self._where[place[0]]
        self._changed[task.service_id] = None

    def put_node(self, node: objects.Node) -> None:
        """A node appeared or changed."""
        up = node.status.state not in (types.NodeStatus.DOWN, types.NodeStatus.DISCONNECTED)
        self._set_host(node.id, node.status.addr if up else "")

    def remove_node(self, node_id: str) -> None:
        """A node is gone."""
        self._set_host(node_id, "")

    def _set_host(self, node_id: str, host: str) -> None:
        if self._hosts.get(node_id, "") == host:
            return
        if host:
            self._hosts[node_id] = host
        else:
            self._hosts.pop(node_id, None)
        self._changed.update({service_id: None for service_id, _ in self._where.get(node_id, ())})

    def take(self) -> dict[str, objects.Config | None]:
        """The tables that changed, by their ids; None for one that is no more."""
        changed, self._changed = self._changed, {}
        return {PREFIX + service_id: self._table(service_id) for service_id in changed}

    def all(self) -> list[objects.Config]:
        """Every table."""
        found = (self._table(service_id) for service_id in sorted(self._ports))
        return [table for table in found if table is not None]

    def _table(self, service_id: str) -> objects.Config | None:
        ports = self._ports.get(service_id)
        if ports is None:
            return None
        targets = {(published.protocol, target) for published, target in ports}
        backends = [
            (task_id, self._hosts[node_id], {target: port for target, port in given.items() if target in targets})
            for task_id, (node_id, given) in self._tasks.get(service_id, {}).items()
            if node_id in self._hosts
        ]
        config = objects.Config(id=PREFIX + service_id)
        config.spec.annotations.name = config.id
        config.spec.data = encode(ports, backends)
        return config


def _serves(task: objects.Task) -> bool:
    return bool(task.service_id) and task.status.state == types.RUNNING and task.desired_state == types.RUNNING


def _ports_of(task: objects.Task) -> dict[Target, int]:
    return {
        (PROTOCOLS[each.protocol], each.target_port): each.published_port
        for each in task.status.port_status.ports
        if each.protocol in PROTOCOLS and each.published_port
    }
