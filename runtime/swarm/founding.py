"""What a node writes when it begins to lead: the cluster object and its own entry, where they are missing.

Rules owned here (SwarmKit's order of becoming leader, step 1): an existing cluster object is left alone; the node's own
entry is an accepted manager with an issued certificate. Until there is a role manager the observed role is that of the
certificate at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from runtime.errors import Code, Refused
from runtime.swarm.defaults import INGRESS_NETWORK_NAME, cluster_spec, initial_cluster
from runtime.swarm.identity import Entropy, new_id, new_join_token
from runtime.swarm.network_pools import PREDEFINED_LABEL, PREDEFINED_NETWORKS, IPNetwork, allocated
from runtime.swarm.ports import Tx
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

AVAILABILITY = {
    "": specs.NodeSpec.ACTIVE,
    "active": specs.NodeSpec.ACTIVE,
    "pause": specs.NodeSpec.PAUSE,
    "drain": specs.NodeSpec.DRAIN,
}


@dataclass(frozen=True, slots=True)
class FirstNetworks:
    """The networks of a new swarm: ``ingress`` is made with the cluster object alone, so one that was removed stays
    away; the ``predefined`` are made again by each leader that misses them."""

    ingress: objects.Network
    predefined: tuple[objects.Network, ...]
    avoid: Collection[IPNetwork] = ()


def first_networks(entropy: Entropy, avoid: Collection[IPNetwork] = ()) -> FirstNetworks:
    """Those networks with fresh ids; the ingress network's subnet overlaps nothing in ``avoid``."""
    ingress = objects.Network(id=new_id(entropy))
    ingress.spec.annotations.name = INGRESS_NETWORK_NAME
    ingress.spec.ingress = True
    ingress.spec.driver_config.SetInParent()
    ingress.spec.ipam.driver.SetInParent()
    predefined = []
    for name in PREDEFINED_NETWORKS:
        network = objects.Network(id=new_id(entropy))
        network.spec.annotations.name = network.spec.driver_config.name = name
        network.spec.annotations.labels[PREDEFINED_LABEL] = "true"
        predefined.append(network)
    return FirstNetworks(ingress, tuple(predefined), avoid)


def _create_network(tx: Tx, network: objects.Network, avoid: Collection[IPNetwork]) -> None:
    try:
        tx.create(allocated(tx, network, avoid))
    except Refused:  # no room now: the allocator tries again, and says so to whoever needs it
        tx.create(network)


def with_join_tokens(root: types.RootCA, entropy: Entropy) -> types.RootCA:
    """The root with fresh tokens for both roles."""
    complete = types.RootCA()
    complete.CopyFrom(root)
    complete.join_tokens.worker = new_join_token(root.ca_cert, entropy)
    complete.join_tokens.manager = new_join_token(root.ca_cert, entropy)
    return complete


def found_cluster(
    cluster: objects.Cluster | None,
    node_id: str,
    availability: str,
    networks: FirstNetworks | None = None,
) -> Callable[[Tx], None]:
    """The transaction of becoming leader. ``cluster`` is what to create if there is none; None on a node that does not
    hold the root's key, which cannot make a cluster (``Refused``). ``networks``: what of them may be missing."""

    def run(tx: Tx) -> None:
        if not tx.all(objects.Cluster):
            if cluster is None:
                raise Refused(
                    Code.FAILED_PRECONDITION,
                    "the log holds no cluster object and this node has no root key to make one with; "
                    "leave the swarm with force and initialise it again",
                )
            tx.create(cluster)
            if networks is not None:
                _create_network(tx, networks.ingress, networks.avoid)
        for network in networks.predefined if networks is not None else ():
            if not tx.find(objects.Network, "name", network.spec.annotations.name):
                _create_network(tx, network, ())
        if tx.get(objects.Node, node_id) is None:
            tx.create(own_entry(node_id, availability))

    return run


def first_cluster(
    cluster_id: str,
    root: types.RootCA,
    heartbeat_tick: int,
    election_tick: int,
    address_pool: tuple[str, ...],
    subnet_size: int,
    vxlan_port: int,
) -> objects.Cluster:
    """The cluster object of a new swarm; ``root`` carries key and join tokens."""
    spec = cluster_spec(heartbeat_tick=heartbeat_tick, election_tick=election_tick)
    return initial_cluster(
        cluster_id, root, spec, address_pool=address_pool, subnet_size=subnet_size, vxlan_port=vxlan_port
    )


def own_entry(node_id: str, availability: str) -> objects.Node:
    """The entry of the manager that founds the cluster."""
    node = objects.Node(id=node_id, role=types.MANAGER)
    node.spec.desired_role = types.MANAGER
    node.spec.membership = specs.NodeSpec.ACCEPTED
    node.spec.availability = AVAILABILITY[availability]
    node.certificate.cn = node_id
    node.certificate.role = types.MANAGER
    node.certificate.status.state = types.IssuanceStatus.ISSUED
    return node
