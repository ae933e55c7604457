"""The allocator's decisions, and how each is carried out in a transaction.

Rules owned here: a decision is checked again where it is written, against what the store holds by then; one that does
not fit any more is taken anew, and what is gone is no failure. Of objects that others write too, only the allocator's
own fields are set.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from runtime.errors import Refused
from runtime.swarm.endpoint_ports import ports_fit
from runtime.swarm.network_pools import IPNetwork, allocated, is_allocated
from runtime.swarm.node_attachments import NodeAllocation, commit_node
from runtime.swarm.ports import Tx
from runtime.swarm.service_spec import to_timestamp
from runtime.swarm.task_model import wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

PENDING_MESSAGE: Final = "pending task scheduling"


@dataclass(frozen=True, slots=True)
class NetworkAllocation:
    """A network gets its subnets; which ones is seen where that is written. ``avoid`` as for `allocated`."""

    network_id: str
    avoid: Collection[IPNetwork] = ()


@dataclass(frozen=True, slots=True)
class ServiceAllocation:
    """A service in the version that was decided about gets this endpoint, or none when its spec has none."""

    service_id: str
    version: int
    endpoint: objects.Endpoint | None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A task's place on a network. ``address`` is empty on networks that belong to nodes."""

    network_id: str
    address: str
    config: types.NetworkAttachmentConfig


@dataclass(frozen=True, slots=True)
class TaskAllocation:
    """A new task may be scheduled, or has to wait for the reason ``err``.

    ``endpoint`` is its service's, on which the decision rests; ``attachments`` are its places on networks.
    """

    task_id: str
    err: str
    endpoint: objects.Endpoint | None = None
    attachments: tuple[Attachment, ...] = ()


Allocation = NetworkAllocation | ServiceAllocation | TaskAllocation | NodeAllocation


def id_of(decision: Allocation) -> str:
    """What it is about."""
    match decision:
        case NetworkAllocation():
            return decision.network_id
        case ServiceAllocation():
            return decision.service_id
        case NodeAllocation():
            return decision.node_id
    return decision.task_id


def commit(tx: Tx, decision: Allocation) -> bool:
    """Carries out a decision in a transaction; False when it has to be taken anew."""
    match decision:
        case NetworkAllocation():
            return _commit_network(tx, decision)
        case ServiceAllocation():
            return _commit_service(tx, decision)
        case NodeAllocation():
            return commit_node(tx, decision)
    return _commit_task(tx, decision)


def _commit_network(tx: Tx, decision: NetworkAllocation) -> bool:
    network = tx.get(objects.Network, decision.network_id)
    if network is None or is_allocated(network):
        return True
    try:
        new = allocated(tx, network, decision.avoid)
    except Refused:
        return True  # it stays as it is, and is tried again later
    tx.update(new)
    return True


def _commit_service(tx: Tx, decision: ServiceAllocation) -> bool:
    service = tx.get(objects.Service, decision.service_id)
    if service is None:
        return True
    if service.meta.version.index != decision.version:
        return False
    virtual = decision.endpoint.virtual_ips if decision.endpoint is not None else ()
    if any(tx.get(objects.Network, each.network_id) is None for each in virtual):
        return False
    new = objects.Service()
    new.CopyFrom(service)
    new.ClearField("endpoint")
    if decision.endpoint is not None:
        new.endpoint.CopyFrom(decision.endpoint)
    tx.update(new)
    return True


def _commit_task(tx: Tx, decision: TaskAllocation) -> bool:
    task = tx.get(objects.Task, decision.task_id)
    if task is None or task.status.state > types.NEW:
        return True
    new = objects.Task()
    new.CopyFrom(task)
    if decision.err:
        new.status.err = decision.err
    elif not _make_pending(tx, new, decision):
        return False
    if new != task:
        tx.update(new)
    return True


def _make_pending(tx: Tx, task: objects.Task, decision: TaskAllocation) -> bool:
    service = tx.get(objects.Service, task.service_id) if task.service_id else None
    if wanted(task) and not _still_fits(service, task, decision):
        return False
    if service is not None and service.HasField("endpoint"):
        task.endpoint.CopyFrom(service.endpoint)
    elif service is not None:
        task.ClearField("endpoint")
    if decision.attachments:
        del task.networks[:]
    for each in decision.attachments:
        network = tx.get(objects.Network, each.network_id)
        if network is None:
            return False
        _attach(task, network, each)
    task.status.state = types.PENDING
    task.status.message = PENDING_MESSAGE
    task.status.err = ""
    task.status.timestamp.CopyFrom(to_timestamp(tx.now))
    return True


def ports_are_allocated(service: objects.Service) -> bool:
    """Whether the endpoint of a service is what its spec asks for, virtual addresses aside."""
    if not service.spec.HasField("endpoint"):
        return not service.endpoint.HasField("spec") and not service.endpoint.ports
    if not service.HasField("endpoint") or service.endpoint.spec != service.spec.endpoint:
        return False
    return ports_fit(service.spec.endpoint.ports, service.endpoint.ports)


def _still_fits(service: objects.Service | None, task: objects.Task, decision: TaskAllocation) -> bool:
    if not task.service_id:
        return True
    if service is None or service.HasField("endpoint") != (decision.endpoint is not None):
        return False
    if not ports_are_allocated(service):
        return False
    return decision.endpoint is None or service.endpoint == decision.endpoint


def _attach(task: objects.Task, network: objects.Network, attachment: Attachment) -> None:
    config = attachment.config
    task.networks.add(
        network=network,
        addresses=[attachment.address] if attachment.address else [],
        aliases=config.aliases,
        driver_attachment_opts=config.driver_attachment_opts,
    )
