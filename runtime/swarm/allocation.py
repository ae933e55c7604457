"""What services, tasks and nodes need before tasks can be scheduled: published ports, addresses on networks.

Rules owned here (SwarmKit's allocator): a service has the numbers of its ports and, unless it asks for DNS alone, one
virtual address on each of its networks, first on the ingress network if it publishes ports there. A task goes from NEW
to PENDING once its service has all that, takes a copy of the endpoint, and has one address on each network: all or
none. A task that nobody wants any more need not wait. What cannot be had is waited for, with the reason in the tasks'
status. Addresses of a task are free as soon as it has ended.

`Allocator` is told of every network, node, service and task, decides in `run`, and books ports and addresses at once.
What an object has in the store stays its own until the store says otherwise, so no two ever hold the same one,
whatever becomes of the decisions on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from runtime.swarm import service_spec
from runtime.swarm.address_space import AddressSpace, Held, Owner
from runtime.swarm.allocation_steps import (
    PENDING_MESSAGE,
    Allocation,
    Attachment,
    NetworkAllocation,
    ServiceAllocation,
    TaskAllocation,
    commit,
    ports_are_allocated,
)
from runtime.swarm.endpoint_ports import PortSpace, assign, ingress_ports
from runtime.swarm.network_pools import IPNetwork, is_allocated, is_ingress, is_node_local, network_name
from runtime.swarm.node_attachments import NodeAllocation, NodeAttachments
from runtime.swarm.task_model import ended, wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

__all__ = [
    "PENDING_MESSAGE",
    "RETRY_S",
    "Allocation",
    "Allocator",
    "NetworkAllocation",
    "NodeAllocation",
    "ServiceAllocation",
    "TaskAllocation",
    "commit",
    "ports_are_allocated",
]

RETRY_S: Final = 300.0
NO_INGRESS: Final = "service needs ingress network, but no ingress network is present"
_INGRESS: Final = ""  # stands for the ingress network, whichever it is


class Allocator:
    """All networks and services, the tasks that are still NEW, and what everybody holds.

    ``avoid()``: what this machine has of networks, from which new subnets stay away.
    """

    def __init__(self, avoid: Callable[[], Collection[IPNetwork]] = tuple) -> None:
        self._avoid = avoid
        self._ports = PortSpace()
        self._addresses = AddressSpace()
        self._nodes = NodeAttachments(self._addresses)
        self._networks: dict[str, objects.Network] = {}
        self._ingress = ""
        self._unallocated_networks: dict[str, None] = {}
        self._blocked_networks: dict[str, None] = {}
        self._services: dict[str, objects.Service] = {}
        self._users: dict[str, dict[str, None]] = {}  # network -> services that ask for it
        self._allocated: dict[str, None] = {}
        self._unallocated: dict[str, None] = {}
        self._blocked: dict[str, str] = {}
        self._decided: dict[str, objects.Endpoint] = {}  # kept when it is decided about again
        self._tasks: dict[str, objects.Task] = {}
        self._new: dict[str, dict[str, None]] = {}  # service -> its tasks
        self._task_queue: dict[str, None] = {}
        self._starved: dict[str, dict[str, None]] = {}  # network -> tasks that found it or an address on it missing

    # What the allocator is told

    def load(
        self,
        services: Iterable[objects.Service],
        tasks: Iterable[objects.Task],
        networks: Iterable[objects.Network] = (),
        nodes: Iterable[objects.Node] = (),
    ) -> None:
        """Begins with what a view holds: what is allocated is booked, the rest is up to the first run."""
        for network in networks:
            self.put_network(network)
        for node in nodes:
            self.put_node(node)
        for service in services:
            self.put_service(service)
        for task in tasks:
            self.put_task(task)

    def put_network(self, network: objects.Network) -> None:
        """A network appeared or changed."""
        self._networks[network.id] = network
        self._blocked_networks.pop(network.id, None)
        if not is_allocated(network):
            self._unallocated_networks[network.id] = None
            return
        self._unallocated_networks.pop(network.id, None)
        if is_ingress(network) and not self._ingress:
            self._ingress = network.id
        self._nodes.put_network(network)
        self._addresses.put_network(network)
        self._task_queue.update(self._starved.pop(network.id, {}))
        self._look_at_users(network.id, network.id == self._ingress)

    def remove_network(self, network_id: str) -> None:
        """A network is gone, with all that was held of it."""
        network = self._networks.pop(network_id, None)
        self._unallocated_networks.pop(network_id, None)
        self._unallocated_networks.update(self._blocked_networks)
        self._addresses.remove_network(network_id)
        self._nodes.remove_network(network_id)
        self._task_queue.update(self._starved.pop(network_id, {}))
        was_ingress = self._ingress == network_id
        if was_ingress:
            self._ingress = next((id for id, each in self._networks.items() if _usable_ingress(each)), "")
        if network is not None:
            self._look_at_users(network_id, was_ingress)

    def _look_at_users(self, network_id: str, ingress: bool) -> None:
        """The services that ask for a network may get what they lacked, or lose what they had."""
        keys = (network_id, _INGRESS) if ingress else (network_id,)
        for service_id in [id for key in keys for id in self._users.get(key, ())]:
            self.put_service(self._services[service_id])

    def put_node(self, node: objects.Node) -> None:
        """A node appeared or changed."""
        self._nodes.put_node(node)

    def remove_node(self, node_id: str) -> None:
        """A node is gone."""
        self._nodes.remove_node(node_id)

    def put_service(self, service: objects.Service) -> None:
        """A service appeared or changed."""
        service_id = service.id
        held = self._ports.replace(service_id, ingress_ports(service.endpoint.ports))
        held &= self._addresses.replace(("service", service_id), _virtual(service.endpoint))
        before = self._services.get(service_id)
        if before is None or before.spec != service.spec:
            self._note_uses(before, service)
        self._services[service_id] = service
        self._blocked.pop(service_id, None)
        if held and self._is_allocated(service):
            self._unallocated.pop(service_id, None)
            self._decided.pop(service_id, None)
            if service_id not in self._allocated:
                self._allocated[service_id] = None
                self._task_queue.update(self._new.get(service_id, {}))
        else:
            self._allocated.pop(service_id, None)
            self._unallocated[service_id] = None

    def _note_uses(self, before: objects.Service | None, after: objects.Service | None) -> None:
        for key in _uses(before):
            self._users[key].pop(before.id, None)  # type: ignore[union-attr]
            if not self._users[key]:
                del self._users[key]
        for key in _uses(after):
            self._users.setdefault(key, {})[after.id] = None  # type: ignore[union-attr]

    def remove_service(self, service_id: str) -> None:
        """A service is gone: its ports are free. Its tasks wait until they are not wanted any more."""
        self._note_uses(self._services.get(service_id), None)
        for known in (self._services, self._allocated, self._unallocated, self._blocked, self._decided):
            known.pop(service_id, None)
        self._ports.replace(service_id, [])
        self._addresses.replace(("service", service_id), ())

    def put_task(self, task: objects.Task) -> None:
        """A task appeared or changed."""
        owner = _owner(task.id)
        if task.networks or self._addresses.holds(owner):
            self._addresses.replace(owner, () if ended(task) else _attached(task))
            self._nodes.put_task(task)
        if task.status.state > types.NEW:
            self._not_new(task.id)
            return
        self._tasks[task.id] = task
        self._new.setdefault(task.service_id, {})[task.id] = None
        self._task_queue[task.id] = None

    def remove_task(self, task_id: str) -> None:
        """A task is gone."""
        self._addresses.replace(_owner(task_id), ())
        self._nodes.remove_task(task_id)
        self._not_new(task_id)

    def _not_new(self, task_id: str) -> None:
        task = self._tasks.pop(task_id, None)
        self._task_queue.pop(task_id, None)
        if task is not None:
            siblings = self._new[task.service_id]
            del siblings[task_id]
            if not siblings:
                del self._new[task.service_id]
            for starved in self._starved.values():
                starved.pop(task_id, None)

    # What it decides

    @property
    def due(self) -> bool:
        """Whether a run may decide anything."""
        freed = self._ports.freed or self._addresses.freed
        waits = self._blocked or self._nodes.starved
        fed = any(self._starved.get(network_id) for network_id in self._addresses.freed)
        more = self._unallocated or self._task_queue or self._nodes.due or self._unallocated_networks
        return bool(more or (waits and freed) or fed)

    @property
    def blocked(self) -> int:
        """How many networks, services, tasks and nodes wait for ports, subnets or addresses."""
        starved = sum(map(len, self._starved.values()))
        return len(self._blocked) + len(self._blocked_networks) + starved + len(self._nodes.starved)

    @property
    def waiting(self) -> int:
        """How many tasks are still NEW."""
        return len(self._tasks)

    def blocked_by(self, service_id: str) -> str:
        """Why a service's ports and addresses cannot be given now; empty when nothing stands in the way."""
        return self._blocked.get(service_id, "")

    def run(self) -> list[Allocation]:
        """Decides about everything that is due: networks, then services, tasks, and nodes."""
        self._feed()
        decisions: list[Allocation] = [NetworkAllocation(id, self._avoid()) for id in self._unallocated_networks]
        self._blocked_networks.update(self._unallocated_networks)
        self._unallocated_networks.clear()
        for service_id in list(self._unallocated):
            self._allocate(self._services[service_id], decisions)
        queue, self._task_queue = self._task_queue, {}
        for task_id in queue:
            decision = self._decide(self._tasks[task_id])
            if decision is not None and (not decision.err or decision.err != self._tasks[task_id].status.err):
                decisions.append(decision)
        decisions += self._nodes.run()
        return decisions

    def _feed(self) -> None:
        """What became free goes to those who wait for it: as many tasks of a network as addresses of it."""
        freed, self._addresses.freed = self._addresses.freed, {}
        if freed or self._ports.freed:
            self._ports.freed = False
            self._unallocated.update(dict.fromkeys(self._blocked))
            self._nodes.retry()
        for network_id, count in freed.items():
            starved = self._starved.get(network_id, {})
            for task_id in list(starved)[:count]:
                del starved[task_id]
                self._task_queue[task_id] = None

    def retry(self) -> None:
        """Whatever waits tries again: because time passed."""
        self._unallocated_networks.update(self._blocked_networks)
        self._unallocated.update(dict.fromkeys(self._blocked))
        for starved in self._starved.values():
            self._task_queue.update(starved)
            starved.clear()
        self._nodes.retry()

    def commit_failed(self, decisions: Iterable[Allocation]) -> None:
        """Decisions that the store did not take are due again, as far as their object is still there."""
        for decision in decisions:
            match decision:
                case TaskAllocation(task_id) if task_id in self._tasks:
                    self._task_queue[task_id] = None
                case NetworkAllocation(network_id) if network_id in self._blocked_networks:
                    self._unallocated_networks[network_id] = None
                case NodeAllocation():
                    self._nodes.commit_failed(decision)
                case ServiceAllocation(service_id):
                    if service_id in self._services and service_id not in self._allocated:
                        self._unallocated[service_id] = None

    # Services

    def _virtual_networks(self, spec: specs.ServiceSpec) -> list[str] | str:
        """The networks on which a service has a virtual address, or why they cannot be had."""
        found: dict[str, None] = {}
        if service_spec.needs_ingress(spec):
            if not self._ingress:
                return NO_INGRESS
            found[self._ingress] = None
        for each in service_spec.networks(spec):
            reason = self._missing(each.target)
            if reason:
                return reason
            if not is_node_local(self._networks[each.target]):
                found[each.target] = None
        return [] if spec.endpoint.mode == specs.EndpointSpec.DNSRR else list(found)

    def _missing(self, network_id: str) -> str:
        network = self._networks.get(network_id)
        if network is None:
            return f"network {network_id} not found"
        return "" if is_allocated(network) else f"network {network_name(network)} has no subnet yet"

    def _is_allocated(self, service: objects.Service) -> bool:
        wanted_networks = self._virtual_networks(service.spec)
        present = [each.network_id for each in service.endpoint.virtual_ips]
        return ports_are_allocated(service) and present == wanted_networks

    def _allocate(self, service: objects.Service, decisions: list[Allocation]) -> None:
        del self._unallocated[service.id]
        endpoint = self._endpoint(service)
        self._task_queue.update(self._new.get(service.id, {}))
        if isinstance(endpoint, str):
            self._blocked[service.id] = endpoint
            return
        self._blocked.pop(service.id, None)
        if endpoint is None:
            self._decided.pop(service.id, None)
        else:
            self._decided[service.id] = endpoint
        decisions.append(ServiceAllocation(service.id, service.meta.version.index, endpoint))

    def _endpoint(self, service: objects.Service) -> objects.Endpoint | str | None:
        """The endpoint of a service, with all that belongs to it booked; or the reason why it has to wait."""
        networks = self._virtual_networks(service.spec)
        if isinstance(networks, str):
            return networks
        if not service.spec.HasField("endpoint") and not networks:
            return None
        decided = self._decided.get(service.id, objects.Endpoint())
        virtual = self._take_virtual(service, networks, decided)
        if isinstance(virtual, str):
            return virtual
        before = [*service.endpoint.ports, *decided.ports]
        ports = assign(self._ports, service.id, service.spec.endpoint.ports, before)
        if isinstance(ports, str):
            self._addresses.replace(("service", service.id), _virtual(service.endpoint), quietly=True)
            return ports
        endpoint = objects.Endpoint(ports=ports, virtual_ips=virtual)
        if service.spec.HasField("endpoint"):
            endpoint.spec.CopyFrom(service.spec.endpoint)
        return endpoint

    def _take_virtual(
        self, service: objects.Service, networks: Sequence[str], decided: objects.Endpoint
    ) -> list[objects.Endpoint.VirtualIP] | str:
        owner: Owner = ("service", service.id)
        known = dict(_virtual(decided)) | dict(_virtual(service.endpoint))
        found = []
        for network_id in networks:
            mine = dict(self._addresses.held(owner)).get(network_id)
            address = mine or self._take_known(owner, network_id, known.get(network_id))
            if address is None:
                self._addresses.replace(owner, _virtual(service.endpoint), quietly=True)
                return self._no_address(network_id)
            found.append(objects.Endpoint.VirtualIP(network_id=network_id, addr=address))
        return found

    def _take_known(self, owner: Owner, network_id: str, known: str | None) -> str | None:
        again = self._addresses.take(owner, network_id, [known]) if known else None
        return again or self._addresses.take(owner, network_id)

    def _no_address(self, network_id: str) -> str:
        network = self._networks[network_id]
        subnets = ", ".join(config.subnet for config in network.ipam.configs)
        return f"no address is free on network {network_name(network)} ({subnets})"

    # Tasks

    def _decide(self, task: objects.Task) -> TaskAllocation | None:
        """What becomes of a new task; None when its service's next event will tell."""
        if not wanted(task):
            return TaskAllocation(task.id, "")
        service = self._services.get(task.service_id)
        if task.service_id and service is None:
            return None
        if task.service_id in self._blocked:
            return TaskAllocation(task.id, self._blocked[task.service_id])
        attachments = self._attach(task, service)
        if isinstance(attachments, str):
            return TaskAllocation(task.id, attachments)
        return TaskAllocation(task.id, "", self._endpoint_of(service), attachments)

    def _endpoint_of(self, service: objects.Service | None) -> objects.Endpoint | None:
        if service is None:
            return None
        if service.id not in self._allocated:
            return self._decided.get(service.id)
        return service.endpoint if service.HasField("endpoint") else None

    def _attach(self, task: objects.Task, service: objects.Service | None) -> tuple[Attachment, ...] | str:
        owner = _owner(task.id)
        configs = self._configs(task, service)
        self._addresses.replace(owner, ())
        found = []
        for config in configs:
            reason = self._missing(config.target)
            network = self._networks.get(config.target)
            if reason or network is None:
                self._starved.setdefault(config.target, {})[task.id] = None
                return reason
            address = "" if is_node_local(network) else self._addresses.take(owner, config.target, config.addresses)
            if address is None:
                self._addresses.replace(owner, (), quietly=True)
                self._starved.setdefault(config.target, {})[task.id] = None
                return self._no_address(config.target)
            found.append(Attachment(config.target, address, config))
        return tuple(found)

    def _configs(self, task: objects.Task, service: objects.Service | None) -> list[types.NetworkAttachmentConfig]:
        """The networks that a task is put on: ingress first if its service publishes ports there, each once."""
        own = task.spec.networks or (service_spec.networks(service.spec) if service is not None else ())
        found = {config.target: config for config in own}
        if service is not None and service_spec.needs_ingress(service.spec):
            return [types.NetworkAttachmentConfig(target=self._ingress), *found.values()]
        return list(found.values())


def _owner(task_id: str) -> Owner:
    return ("task", task_id)


def _attached(task: objects.Task) -> list[Held]:
    return [(each.network.id, address) for each in task.networks for address in each.addresses]


def _virtual(endpoint: objects.Endpoint) -> list[Held]:
    return [(each.network_id, each.addr) for each in endpoint.virtual_ips]


def _usable_ingress(network: objects.Network) -> bool:
    return is_ingress(network) and is_allocated(network)


def _uses(service: objects.Service | None) -> list[str]:
    """The networks that a service asks for; `_INGRESS` for that one."""
    if service is None:
        return []
    own = [each.target for each in service_spec.networks(service.spec)]
    return list(dict.fromkeys([_INGRESS, *own] if service_spec.needs_ingress(service.spec) else own))
