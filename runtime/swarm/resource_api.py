"""Attachments that nodes ask for: a place on an attachable network for a container of theirs (SwarmKit's resource API).

Rules owned here: the network is named by its id, or by its name; it has to be attachable. An attachment is a task
without a service, on the node that asks, wanted RUNNING; it gets its address as any task, and the node hears of it
among its assignments. Only the node that has it may give it up.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.errors import Code, Refused, invalid, not_found
from runtime.swarm.network_pools import network_name
from runtime.swarm.ports import Tx
from runtime.swarm.service_spec import to_timestamp
from runtime.swarm.task_model import CREATED
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import resource_pb2 as resource
from runtime.wire.pb import types_pb2 as types


def attach_network(
    request: resource.AttachNetworkRequest, node_id: str, task_id: str
) -> Callable[[Tx], resource.AttachNetworkResponse]:
    """Makes an attachment with that id for a node."""
    if not request.config.target:
        raise invalid("invalid argument")

    def run(tx: Tx) -> resource.AttachNetworkResponse:
        network = _network(tx, request.config.target)
        if not network.spec.attachable:
            raise Refused(Code.PERMISSION_DENIED, f"network {network_name(network)} not attachable")
        task = objects.Task(id=task_id, node_id=node_id, desired_state=types.RUNNING)
        task.spec.attachment.container_id = request.container_id
        task.spec.networks.add(target=network.id, addresses=request.config.addresses)
        task.status.state = types.NEW
        task.status.message = CREATED
        task.status.timestamp.CopyFrom(to_timestamp(tx.now))
        tx.create(task)
        return resource.AttachNetworkResponse(attachment_id=task_id)

    return run


def _network(tx: Tx, target: str) -> objects.Network:
    found = tx.get(objects.Network, target)
    named = () if found is not None else tx.find(objects.Network, "name", target)
    if found is None and len(named) != 1:
        raise not_found(f"network {target} not found")
    return found if found is not None else named[0]


def detach_network(
    request: resource.DetachNetworkRequest, node_id: str
) -> Callable[[Tx], resource.DetachNetworkResponse]:
    """Takes an attachment of a node back."""
    if not request.attachment_id:
        raise invalid("invalid argument")

    def run(tx: Tx) -> resource.DetachNetworkResponse:
        task = tx.get(objects.Task, request.attachment_id)
        if task is None or task.spec.WhichOneof("runtime") != "attachment":
            raise not_found(f"attachment {request.attachment_id} not found")
        if task.node_id != node_id:
            raise Refused(
                Code.PERMISSION_DENIED, f"attachment {request.attachment_id} cannot be removed from node {node_id}"
            )
        tx.delete(objects.Task, task.id)
        return resource.DetachNetworkResponse()

    return run
