"""Networks of a stack in its swarm: made before its services, removed when the file has them no more.

Rules it owns: only what a service is on is made; a network that is there is taken as it is if it is as the file says,
and refused if not, for a network never changes; one that is still in use stays until the next deployment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from runtime.errors import Code, Refused, not_found
from runtime.wire.pb import control_pb2 as pb
from runtime.wire.pb import objects_pb2, specs_pb2
from swarmlet.compose_networks import NAMESPACE, Network

if TYPE_CHECKING:
    from swarmlet.node import Node

Ids = Mapping[str, str]
"""Of networks, by their keys in the file."""


def ensure(node: Node, wanted: Sequence[Network]) -> tuple[Ids, list[str]]:
    """Has them all there, and says what was done. Raises Refused with the reason."""
    ids: dict[str, str] = {}
    done: list[str] = []
    for each in wanted:
        found = _named(node, each.name)
        if found is None and each.spec is None:
            raise not_found(f"network {each.name} is external, and there is none")
        if found is None:
            made = node.control("CreateNetwork", pb.CreateNetworkRequest(spec=each.spec), pb.CreateNetworkResponse)
            found = made.network
            done.append(f"created network {each.name}")
        elif each.spec is not None and not _as_asked(found, each.spec):
            text = f"network {each.name} is there and is not as the file says: remove it first"
            raise Refused(Code.FAILED_PRECONDITION, text)
        ids[each.key] = found.id
    return ids, done


def resolved(spec: specs_pb2.ServiceSpec, ids: Ids) -> specs_pb2.ServiceSpec:
    """The spec with the ids of its networks."""
    new = specs_pb2.ServiceSpec()
    new.CopyFrom(spec)
    for attachment in new.task.networks:
        attachment.target = ids[attachment.target]
    return new


def clear(node: Node, stack: str, ids: Ids) -> list[str]:
    """Removes those of the stack that its file does not use any longer."""
    done = []
    for old in _networks(node, pb.ListNetworksRequest.Filters(labels={NAMESPACE: stack})):
        if old.id in ids.values():
            continue
        try:
            node.control("RemoveNetwork", pb.RemoveNetworkRequest(network_id=old.id), pb.RemoveNetworkResponse)
        except Refused as refused:
            if refused.code is not Code.FAILED_PRECONDITION:
                raise
            done.append(f"network {old.spec.annotations.name} is still in use and stays until the next run")
        else:
            done.append(f"removed network {old.spec.annotations.name}")
    return done


def _named(node: Node, name: str) -> objects_pb2.Network | None:
    return next(iter(_networks(node, pb.ListNetworksRequest.Filters(names=[name]))), None)


def _networks(node: Node, filters: pb.ListNetworksRequest.Filters) -> Iterable[objects_pb2.Network]:
    request = pb.ListNetworksRequest(filters=filters)
    return list(node.control("ListNetworks", request, pb.ListNetworksResponse).networks)


def _as_asked(found: objects_pb2.Network, asked: specs_pb2.NetworkSpec) -> bool:
    have = found.spec
    same = (have.internal, have.attachable, have.driver_config.name) == (
        asked.internal, asked.attachable, asked.driver_config.name,
    )  # fmt: skip
    return same and have.annotations.labels == asked.annotations.labels
