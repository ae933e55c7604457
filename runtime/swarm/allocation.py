"""What services and tasks need before they can be scheduled: the numbers of published ports, a copy of the endpoint.

Rules owned here (SwarmKit's allocator, without its networks): a task goes from NEW to PENDING once its service's
endpoint is what the spec asks for, and takes a copy of it; a task that nobody wants any more need not wait for that;
one that asks for networks waits, and so does one whose service got no ports, both with the reason in their status.

`Allocator` is told of every service and of every task, decides in `run`, and books ports at once. A port that a
service has in the store stays its own until the store says otherwise, so no two services ever hold the same one,
whatever becomes of the decisions on the way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from runtime.swarm import service_spec
from runtime.swarm.endpoint_ports import PortSpace, assign, ingress_ports, ports_fit
from runtime.swarm.ports import Tx
from runtime.swarm.service_spec import to_timestamp
from runtime.swarm.task_model import wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

PENDING_MESSAGE: Final = "pending task scheduling"
NO_NETWORKS: Final = "network attachments are not offered by this version"
RETRY_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class ServiceAllocation:
    """A service in the version that was decided about gets this endpoint, or none when its spec has none."""

    service_id: str
    version: int
    endpoint: objects.Endpoint | None


@dataclass(frozen=True, slots=True)
class TaskAllocation:
    """A new task may be scheduled, or has to wait for the reason ``err``."""

    task_id: str
    err: str


Allocation = ServiceAllocation | TaskAllocation


def is_allocated(service: objects.Service) -> bool:
    """Whether a service's endpoint is what its spec asks for."""
    if not service.spec.HasField("endpoint"):
        return not service.HasField("endpoint")
    if not service.HasField("endpoint") or service.endpoint.spec != service.spec.endpoint:
        return False
    return ports_fit(service.spec.endpoint.ports, service.endpoint.ports)


class Allocator:
    """All services, and the tasks that are still NEW."""

    __slots__ = (
        "_allocated",
        "_blocked",
        "_decided",
        "_new",
        "_ports",
        "_services",
        "_task_queue",
        "_tasks",
        "_unallocated",
    )

    def __init__(self) -> None:
        self._ports = PortSpace()
        self._services: dict[str, objects.Service] = {}
        self._allocated: dict[str, None] = {}
        self._unallocated: dict[str, None] = {}
        self._blocked: dict[str, str] = {}
        self._decided: dict[str, list[types.PortConfig]] = {}  # kept when it is decided about again
        self._tasks: dict[str, objects.Task] = {}
        self._new: dict[str, dict[str, None]] = {}  # service -> its tasks
        self._task_queue: dict[str, None] = {}

    # What the allocator is told

    def load(self, services: Iterable[objects.Service], tasks: Iterable[objects.Task]) -> None:
        """Begins with what a view holds; ports that are allocated are booked, the rest is up to the first run."""
        for service in services:
            self.put_service(service)
        for task in tasks:
            self.put_task(task)

    def put_service(self, service: objects.Service) -> None:
        """A service appeared or changed."""
        service_id = service.id
        held = self._ports.replace(service_id, ingress_ports(service.endpoint.ports))
        self._services[service_id] = service
        self._blocked.pop(service_id, None)
        if held and is_allocated(service):
            self._unallocated.pop(service_id, None)
            self._decided.pop(service_id, None)
            if service_id not in self._allocated:
                self._allocated[service_id] = None
                self._task_queue.update(self._new.get(service_id, {}))
        else:
            self._allocated.pop(service_id, None)
            self._unallocated[service_id] = None

    def remove_service(self, service_id: str) -> None:
        """A service is gone: its ports are free. Its tasks wait until they are not wanted any more."""
        for known in (self._services, self._allocated, self._unallocated, self._blocked, self._decided):
            known.pop(service_id, None)
        self._ports.replace(service_id, [])

    def put_task(self, task: objects.Task) -> None:
        """A task appeared or changed."""
        if task.status.state > types.NEW:
            self.remove_task(task.id)
            return
        self._tasks[task.id] = task
        self._new.setdefault(task.service_id, {})[task.id] = None
        self._task_queue[task.id] = None

    def remove_task(self, task_id: str) -> None:
        """A task is gone, or not new any more."""
        task = self._tasks.pop(task_id, None)
        self._task_queue.pop(task_id, None)
        if task is not None:
            siblings = self._new[task.service_id]
            del siblings[task_id]
            if not siblings:
                del self._new[task.service_id]

    # What it decides

    @property
    def due(self) -> bool:
        """Whether a run may decide anything."""
        return bool(self._unallocated or self._task_queue or (self._blocked and self._ports.freed))

    @property
    def blocked(self) -> int:
        """How many services wait for ports."""
        return len(self._blocked)

    @property
    def waiting(self) -> int:
        """How many tasks are still NEW."""
        return len(self._tasks)

    def run(self) -> list[Allocation]:
        """Decides about every service and task that is due; a service comes before its tasks."""
        if self._ports.freed:
            self.retry()
        decisions: list[Allocation] = []
        for service_id in list(self._unallocated):
            self._allocate(self._services[service_id], decisions)
        queue, self._task_queue = self._task_queue, {}
        for task_id in queue:
            task = self._tasks[task_id]
            err = self._reason(task)
            if err is not None and (not err or err != task.status.err):
                decisions.append(TaskAllocation(task_id, err))
        return decisions

    def retry(self) -> None:
        """Services that got no ports try again: because some became free, or because time passed."""
        self._ports.freed = False
        self._unallocated.update(dict.fromkeys(self._blocked))

    def commit_failed(self, decisions: Iterable[Allocation]) -> None:
        """Decisions that the store did not take are due again, as far as their object is still there."""
        for decision in decisions:
            if isinstance(decision, TaskAllocation):
                if decision.task_id in self._tasks:
                    self._task_queue[decision.task_id] = None
            elif decision.service_id in self._services and decision.service_id not in self._allocated:
                self._unallocated[decision.service_id] = None

    def _allocate(self, service: objects.Service, decisions: list[Allocation]) -> None:
        del self._unallocated[service.id]
        endpoint: objects.Endpoint | None = None
        if service.spec.HasField("endpoint"):
            before = [*service.endpoint.ports, *self._decided.get(service.id, ())]
            assigned = assign(self._ports, service.id, service.spec.endpoint.ports, before)
            if isinstance(assigned, str):
                self._blocked[service.id] = assigned
                self._task_queue.update(self._new.get(service.id, {}))
                return
            self._decided[service.id] = assigned
            endpoint = objects.Endpoint(spec=service.spec.endpoint, ports=assigned)
        self._blocked.pop(service.id, None)
        self._task_queue.update(self._new.get(service.id, {}))
        decisions.append(ServiceAllocation(service.id, service.meta.version.index, endpoint))

    def _reason(self, task: objects.Task) -> str | None:
        """Why a task waits; empty when it need not, None when its service's next event will tell."""
        if not wanted(task):
            return ""
        service = self._services.get(task.service_id)
        if task.service_id and service is None:
            return None
        if _asks_for_networks(task, service):
            return NO_NETWORKS
        return self._blocked.get(task.service_id, "")


def _asks_for_networks(task: objects.Task, service: objects.Service | None) -> bool:
    asked = task.networks or task.spec.networks
    return bool(asked) or (service is not None and bool(service_spec.networks(service.spec)))


def commit(tx: Tx, decision: Allocation) -> bool:
    """Carries out a decision in a transaction; False when it has to be taken anew. What is gone is no failure."""
    if isinstance(decision, ServiceAllocation):
        return _commit_service(tx, decision)
    task = tx.get(objects.Task, decision.task_id)
    if task is None or task.status.state > types.NEW:
        return True
    new = objects.Task()
    new.CopyFrom(task)
    if decision.err:
        new.status.err = decision.err
    elif not _make_pending(tx, new):
        return False
    if new != task:
        tx.update(new)
    return True


def _commit_service(tx: Tx, decision: ServiceAllocation) -> bool:
    service = tx.get(objects.Service, decision.service_id)
    if service is None:
        return True
    if service.meta.version.index != decision.version:
        return False
    new = objects.Service()
    new.CopyFrom(service)
    new.ClearField("endpoint")
    if decision.endpoint is not None:
        new.endpoint.CopyFrom(decision.endpoint)
    tx.update(new)
    return True


def _make_pending(tx: Tx, task: objects.Task) -> bool:
    service = tx.get(objects.Service, task.service_id) if task.service_id else None
    if wanted(task) and task.service_id and (service is None or not is_allocated(service)):
        return False
    if service is not None and is_allocated(service):
        task.ClearField("endpoint")
        if service.HasField("endpoint"):
            task.endpoint.CopyFrom(service.endpoint)
    task.status.state = types.PENDING
    task.status.message = PENDING_MESSAGE
    task.status.err = ""
    task.status.timestamp.CopyFrom(to_timestamp(tx.now))
    return True
