"""The addresses of nodes: a node has one on the ingress network, and one on every network that its tasks use.

They are the load balancers' ends on that node (SwarmKit's node attachments). An address is given with the first task
of a network on a node, and taken back when the last one has ended there.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.swarm.address_space import AddressSpace, Owner
from runtime.swarm.network_pools import is_allocated, is_ingress, is_node_local
from runtime.swarm.ports import Tx
from runtime.swarm.task_model import ended
from runtime.wire.pb import objects_pb2 as objects


@dataclass(frozen=True, slots=True)
class NodeAllocation:
    """A node has these addresses, as (network, address), and no others."""

    node_id: str
    addresses: tuple[tuple[str, str], ...]


def owner_of(node_id: str) -> Owner:
    """How a node is called in the address space."""
    return ("node", node_id)


class NodeAttachments:
    """All nodes, and where tasks with networks are."""

    __slots__ = ("_addresses", "_due", "_ingress", "_networks", "_nodes", "_places", "_used", "starved")

    def __init__(self, addresses: AddressSpace) -> None:
        self._addresses = addresses
        self._networks: dict[str, None] = {}  # those that give nodes addresses
        self._ingress = ""
        self._nodes: dict[str, objects.Node] = {}
        self._places: dict[str, tuple[str, tuple[str, ...]]] = {}  # task -> its node and networks
        self._used: dict[str, dict[str, int]] = {}  # node -> network -> how many tasks
        self._due: dict[str, None] = {}
        self.starved: dict[str, None] = {}  # nodes that lack an address

    # What it is told

    def put_network(self, network: objects.Network) -> None:
        """A network appeared or changed."""
        if network.id in self._networks or not is_allocated(network) or is_node_local(network):
            return
        self._networks[network.id] = None
        if is_ingress(network):
            self._ingress = network.id
            self._due.update(dict.fromkeys(self._nodes))

    def remove_network(self, network_id: str) -> None:
        """A network is gone, and every address on it."""
        self._networks.pop(network_id, None)
        if self._ingress == network_id:
            self._ingress = ""
        for node in self._nodes.values():
            if any(held == network_id for held, _ in _addresses_of(node)):
                self._due[node.id] = None

    def put_node(self, node: objects.Node) -> None:
        """A node appeared or changed."""
        self._nodes[node.id] = node
        complete = self._addresses.replace(owner_of(node.id), _addresses_of(node))
        if not complete or not self._fits(node):
            self._due[node.id] = None

    def remove_node(self, node_id: str) -> None:
        """A node is gone."""
        for known in (self._nodes, self._due, self.starved):
            known.pop(node_id, None)
        self._addresses.replace(owner_of(node_id), ())

    def put_task(self, task: objects.Task) -> None:
        """A task that has networks appeared or changed."""
        networks = tuple(each.network.id for each in task.networks)
        place = (task.node_id, networks) if task.node_id and not ended(task) else None
        if self._places.get(task.id) == place:
            return
        self.remove_task(task.id)
        if place is not None:
            self._places[task.id] = place
            self._count(place, 1)

    def remove_task(self, task_id: str) -> None:
        """A task is gone, or has ended."""
        place = self._places.pop(task_id, None)
        if place is not None:
            self._count(place, -1)

    def _count(self, place: tuple[str, tuple[str, ...]], step: int) -> None:
        node_id, networks = place
        used = self._used.setdefault(node_id, {})
        for network_id in networks:
            before = used.get(network_id, 0)
            used[network_id] = before + step
            if not used[network_id]:
                del used[network_id]
            if not before or network_id not in used:
                self._note(node_id)
        if not used:
            del self._used[node_id]

    def _note(self, node_id: str) -> None:
        if node_id in self._nodes:
            self._due[node_id] = None

    # What it decides

    @property
    def due(self) -> bool:
        """Whether a run may decide anything."""
        return bool(self._due)

    def retry(self) -> None:
        """Nodes that lack an address try again."""
        self._due.update(self.starved)
        self.starved.clear()

    def commit_failed(self, decision: NodeAllocation) -> None:
        """A decision that the store did not take is due again."""
        self._note(decision.node_id)

    def run(self) -> list[NodeAllocation]:
        """Decides about every node that is due."""
        due, self._due = self._due, {}
        return [decision for node_id in due if (decision := self._decide(self._nodes[node_id])) is not None]

    def _decide(self, node: objects.Node) -> NodeAllocation | None:
        owner, wanted = owner_of(node.id), self._wanted(node.id)
        kept = {network_id: address for network_id, address in _addresses_of(node) if network_id in wanted}
        self._addresses.replace(owner, kept.items())
        booked = dict(self._addresses.held(owner))
        self.starved.pop(node.id, None)
        for network_id in wanted:
            address = booked.get(network_id) or self._addresses.take(owner, network_id)
            if address is None:
                self.starved[node.id] = None
            else:
                booked[network_id] = address
        chosen = tuple((network_id, booked[network_id]) for network_id in wanted if network_id in booked)
        return None if chosen == tuple(_addresses_of(node)) else NodeAllocation(node.id, chosen)

    def _wanted(self, node_id: str) -> list[str]:
        used = sorted(each for each in self._used.get(node_id, ()) if each in self._networks and each != self._ingress)
        return [self._ingress, *used] if self._ingress else used

    def _fits(self, node: objects.Node) -> bool:
        return [network_id for network_id, _ in _addresses_of(node)] == self._wanted(node.id)


def _addresses_of(node: objects.Node) -> list[tuple[str, str]]:
    return [(each.network.id, each.addresses[0] if each.addresses else "") for each in node.attachments]


def commit_node(tx: Tx, decision: NodeAllocation) -> bool:
    """Writes a node's addresses; nothing else of it. False when a network is gone meanwhile."""
    node = tx.get(objects.Node, decision.node_id)
    if node is None:
        return True
    networks = [tx.get(objects.Network, network_id) for network_id, _ in decision.addresses]
    if any(network is None for network in networks):
        return False
    new = objects.Node()
    new.CopyFrom(node)
    del new.attachments[:]
    for network, (_, address) in zip(networks, decision.addresses, strict=True):
        new.attachments.add(network=network, addresses=[address])
    if new.attachments != node.attachments:
        tx.update(new)
    return True
