"""What the scheduler keeps of a node: its tasks, what they take, and what is left.

Rules owned here: reservations and assigned generic resources are taken from what the node describes; a task counts as
active while its desired state is at most COMPLETE; failures of a service's version are remembered for five minutes,
and five of them make a node the last choice. A node's books never depend on the order in which tasks came.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runtime.swarm import generic
from runtime.swarm.task_model import version_of
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

FAILURE_WINDOW_S: Final = 300.0
FAILURES_MAX: Final = 5

HostPort = tuple[types.PortConfig.Protocol, int]
FailureKey = tuple[str, int | None]


def host_ports(task: objects.Task) -> tuple[HostPort, ...]:
    """Protocol and number of each port that the task publishes on its own host."""
    return tuple(
        (port.protocol, port.published_port)
        for port in task.endpoint.ports or task.endpoint.spec.ports
        if port.publish_mode == types.PortConfig.HOST and port.published_port
    )


@dataclass(frozen=True, slots=True)
class Held:
    """What one task takes of its node."""

    service_id: str
    active: bool
    nano_cpus: int
    memory_bytes: int
    generic: tuple[types.GenericResource, ...]
    ports: tuple[HostPort, ...]

    @classmethod
    def of(cls, task: objects.Task, assigned: Sequence[types.GenericResource] | None = None) -> Held:
        """The share of a task; ``assigned`` are its generic resources when the task does not carry them yet."""
        reserved = task.spec.resources.reservations
        return cls(
            task.service_id,
            task.desired_state <= types.COMPLETE,
            reserved.nano_cpus,
            reserved.memory_bytes,
            tuple(task.assigned_generic_resources if assigned is None else assigned),
            host_ports(task),
        )


class Whereabouts:
    """Which nodes hold active tasks of a service, and on which some task failed of late; kept by the nodes' books."""

    __slots__ = ("failing", "holders")

    def __init__(self) -> None:
        self.holders: dict[str, dict[str, NodeInfo]] = {}
        self.failing: dict[str, NodeInfo] = {}

    def remove(self, info: NodeInfo) -> None:
        """A node is gone."""
        self.failing.pop(info.id, None)
        for service_id in info.by_service:
            self.left(service_id, info)

    def came(self, service_id: str, info: NodeInfo) -> None:
        """A node holds the first task of a service."""
        self.holders.setdefault(service_id, {})[info.id] = info

    def left(self, service_id: str, info: NodeInfo) -> None:
        """A node holds no task of a service any more."""
        holders = self.holders.get(service_id)
        if holders is not None:
            holders.pop(info.id, None)
            if not holders:
                del self.holders[service_id]

    def special(self, service_id: str) -> dict[str, NodeInfo]:
        """The nodes whose rank for a service may say more than how many tasks they have."""
        return {**self.holders.get(service_id, {}), **self.failing}


class NodeInfo:
    """One node's books; ``whereabouts`` are shared with other nodes'."""

    __slots__ = (
        "active",
        "by_service",
        "failures",
        "generic",
        "held",
        "id",
        "memory_bytes",
        "nano_cpus",
        "node",
        "ports",
        "whereabouts",
    )

    def __init__(self, node: objects.Node, whereabouts: Whereabouts | None = None) -> None:
        self.id = node.id
        self.whereabouts = whereabouts if whereabouts is not None else Whereabouts()
        self.node = node
        self.held: dict[str, Held] = {}
        self.active = 0
        self.by_service: Counter[str] = Counter()
        self.ports: Counter[HostPort] = Counter()
        self.failures: dict[FailureKey, deque[float]] = {}
        self.nano_cpus = node.description.resources.nano_cpus
        self.memory_bytes = node.description.resources.memory_bytes
        self.generic: Sequence[types.GenericResource] = list(node.description.resources.generic)

    def replace(self, node: objects.Node) -> None:
        """The node object changed; what is free is counted anew from what it describes now."""
        offered = node.description.resources
        self.node = node
        self.nano_cpus = offered.nano_cpus - sum(held.nano_cpus for held in self.held.values())
        self.memory_bytes = offered.memory_bytes - sum(held.memory_bytes for held in self.held.values())
        self._count_generic()

    def add(self, task_id: str, held: Held) -> None:
        """A task is placed here, or what it takes changed (it stopped counting as active)."""
        before = self.held.get(task_id)
        if before == held:
            return
        if before is not None:
            self.remove(task_id)
        self.held[task_id] = held
        self._book(held, 1)
        if held.generic:
            self.generic = _without(self.generic, held.generic)

    def remove(self, task_id: str) -> bool:
        """A task is gone or ended; gives whether it was here."""
        held = self.held.pop(task_id, None)
        if held is None:
            return False
        self._book(held, -1)
        if held.generic:
            self._count_generic()
        return True

    def _count_generic(self) -> None:
        # Counted from the offer and not given back one by one: a node may have come to offer less than is in use,
        # and then what one task returns is still owed to the others.
        self.generic = list(self.node.description.resources.generic)
        for task_id in sorted(self.held):
            if self.held[task_id].generic:
                self.generic = _without(self.generic, self.held[task_id].generic)

    def claim(self, task: objects.Task) -> tuple[types.GenericResource, ...]:
        """Places a task that passed the filters; gives the generic resources that it got."""
        requests = task.spec.resources.reservations.generic
        assigned = tuple(generic.claim(self.generic, requests)[0]) if requests else ()
        self.add(task.id, Held.of(task, assigned))
        return assigned

    def _book(self, held: Held, sign: int) -> None:
        self.nano_cpus -= sign * held.nano_cpus
        self.memory_bytes -= sign * held.memory_bytes
        for port in held.ports:
            self.ports[port] += sign
        if held.active:
            self.active += sign
            self._count(held.service_id, sign)

    def _count(self, service_id: str, sign: int) -> None:
        count = self.by_service[service_id] = self.by_service[service_id] + sign
        if not count:
            del self.by_service[service_id]
            self.whereabouts.left(service_id, self)
        elif count == sign:
            self.whereabouts.came(service_id, self)

    def failed(self, task: objects.Task, now: float) -> None:
        """A task of this service's version failed here at ``now``."""
        self.whereabouts.failing[self.id] = self
        self.failures.setdefault((task.service_id, version_of(task)), deque(maxlen=FAILURES_MAX * 4)).append(now)

    def recent_failures(self, key: FailureKey, now: float) -> int:
        """How often this version failed here within the window; forgets what is older."""
        times = self.failures.get(key)
        if times is None:
            return 0
        while times and times[0] <= now - FAILURE_WINDOW_S:
            times.popleft()
        if not times:
            del self.failures[key]
        return len(times)

    def prune(self, now: float) -> None:
        """Forgets the failures that are too old to count, of services that nobody asks about any more."""
        for key in list(self.failures):
            self.recent_failures(key, now)
        if not self.failures:
            self.whereabouts.failing.pop(self.id, None)

    def rank(self, key: FailureKey, now: float) -> tuple[int, int, int]:
        """How good the node is for one more task of a service, best first: failures if many, own tasks, all tasks."""
        failures = self.recent_failures(key, now) if self.failures else 0
        return (failures if failures >= FAILURES_MAX else 0, self.by_service.get(key[0], 0), self.active)


def _without(
    free: Sequence[types.GenericResource], taken: Sequence[types.GenericResource]
) -> list[types.GenericResource]:
    """What remains of free resources; what is taken but not offered any more takes nothing."""
    names = {(generic.kind_of(one), one.named_resource_spec.value) for one in taken if generic.is_named(one)}
    numbers: Counter[str] = Counter()
    for one in taken:
        if not generic.is_named(one):
            numbers[generic.kind_of(one)] += one.discrete_resource_spec.value
    left: list[types.GenericResource] = []
    for one in free:
        kind = generic.kind_of(one)
        if generic.is_named(one):
            left.extend([] if (kind, one.named_resource_spec.value) in names else [one])
            continue
        count = min(numbers[kind], one.discrete_resource_spec.value)
        numbers[kind] -= count
        if one.discrete_resource_spec.value > count:
            left.append(generic.discrete(kind, one.discrete_resource_spec.value - count))
    return left
