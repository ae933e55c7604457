"""Nodes, tasks, services and a small store for tests of placement and allocation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from runtime.store.changes import apply
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm.network_pools import allocated
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

R = TypeVar("R")
GIB = 1 << 30
CPU = 10**9
TCP, UDP, SCTP = types.PortConfig.TCP, types.PortConfig.UDP, types.PortConfig.SCTP
INGRESS, HOST = types.PortConfig.INGRESS, types.PortConfig.HOST


def node(
    id: str,
    *,
    labels: dict[str, str] | None = None,
    engine_labels: dict[str, str] | None = None,
    state: types.NodeStatus.State = types.NodeStatus.READY,
    availability: specs.NodeSpec.Availability = specs.NodeSpec.ACTIVE,
    cpus: float = 4,
    memory: int = 8 * GIB,
    generic: Sequence[types.GenericResource] = (),
) -> objects.Node:
    """A ready node."""
    made = objects.Node(
        id=id,
        spec=specs.NodeSpec(annotations=types.Annotations(labels=labels or {}), availability=availability),
        description=types.NodeDescription(
            hostname=f"host-{id}",
            platform=types.Platform(os="linux", architecture="x86_64"),
            resources=types.Resources(nano_cpus=int(cpus * CPU), memory_bytes=memory, generic=generic),
        ),
        status=types.NodeStatus(state=state, addr="10.0.0.5"),
    )
    for key, value in (engine_labels or {}).items():
        made.description.engine.labels[key] = value
    return made


def port(
    target: int,
    published: int = 0,
    mode: types.PortConfig.PublishMode = INGRESS,
    protocol: types.PortConfig.Protocol = TCP,
    name: str = "",
) -> types.PortConfig:
    """One port of an endpoint."""
    return types.PortConfig(
        name=name, protocol=protocol, target_port=target, published_port=published, publish_mode=mode
    )


def task(
    id: str,
    service: str = "web",
    *,
    version: int | None = 1,
    slot: int = 1,
    node_id: str = "",
    state: types.TaskState = types.PENDING,
    desired: types.TaskState = types.RUNNING,
    image: str = "nginx",
    cpus: float = 0,
    memory: int = 0,
    generic: Sequence[types.GenericResource] = (),
    constraints: Iterable[str] = (),
    spread: Iterable[str] = (),
    max_replicas: int = 0,
    ports: Sequence[types.PortConfig] = (),
) -> objects.Task:
    """A task that waits for a node, unless told otherwise."""
    preferences = [types.PlacementPreference(spread=types.SpreadOver(spread_descriptor=each)) for each in spread]
    made = objects.Task(
        id=id,
        service_id=service,
        slot=slot,
        node_id=node_id,
        status=types.TaskStatus(state=state, message="pending task scheduling"),
        desired_state=desired,
        spec=specs.TaskSpec(
            container=specs.ContainerSpec(image=image),
            placement=types.Placement(
                constraints=list(constraints), preferences=preferences, max_replicas=max_replicas
            ),
        ),
    )
    if cpus or memory or generic:
        made.spec.resources.reservations.CopyFrom(
            types.Resources(nano_cpus=int(cpus * CPU), memory_bytes=memory, generic=generic)
        )
    if version is not None:
        made.spec_version.index = version
    if ports:
        made.endpoint.ports.extend(ports)
    return made


def service(
    id: str = "web", ports: Sequence[types.PortConfig] = (), *, version: int | None = 1, endpoint: bool = True
) -> objects.Service:
    """A service that publishes ports."""
    made = objects.Service(id=id, spec=specs.ServiceSpec(annotations=types.Annotations(name=id)))
    made.spec.replicated.replicas = 1
    if endpoint:
        made.spec.endpoint.mode = specs.EndpointSpec.VIP
        made.spec.endpoint.ports.extend(ports)
    if version is not None:
        made.spec_version.index = version
    return made


def changed(obj: Any, edit: Callable[[Any], object]) -> Any:
    """A copy of an object after an edit."""
    new = type(obj)()
    new.CopyFrom(obj)
    edit(new)
    return new


class Store:
    """Transactions one after the other."""

    def __init__(self, *made: Any, now: float = 1_700_000_000.0) -> None:
        self.view = View()
        self.now = now
        self.put(*made)

    def run(self, step: Callable[[Transaction], R]) -> R:
        """One transaction, committed."""
        transaction = Transaction(self.view, self.view.version + 1, self.now)
        value = step(transaction)
        self.view = apply(self.view, transaction.changes, self.view.version + 1)
        return value

    def put(self, *made: Any) -> None:
        """Creates or replaces objects."""

        def step(tx: Transaction) -> None:
            for obj in made:
                stored = tx.get(type(obj), obj.id)
                if stored is None:
                    tx.create(obj)
                else:
                    tx.update(changed(obj, lambda new, stored=stored: new.meta.CopyFrom(stored.meta)))

        self.run(step)

    def delete(self, obj: Any) -> None:
        """Removes an object."""
        self.run(lambda tx: tx.delete(type(obj), obj.id))

    def task(self, id: str) -> objects.Task:
        """A task that is there."""
        found = self.view.get(objects.Task, id)
        assert found is not None, id
        return found

    def service(self, id: str = "web") -> objects.Service:
        """A service that is there."""
        found = self.view.get(objects.Service, id)
        assert found is not None, id
        return found


def network(id: str, *subnets: str, driver: str = "", ingress: bool = False, range: str = "") -> objects.Network:
    """A network that asks for subnets, or for any; nothing of it is allocated."""
    made = objects.Network(id=id)
    made.spec.annotations.name = id
    made.spec.ingress = ingress
    made.spec.driver_config.name = driver
    for subnet in subnets:
        made.spec.ipam.configs.add(subnet=subnet, range=range)
    return made


def given(made: objects.Network, *others: objects.Network) -> objects.Network:
    """The network with what it is given, beside others."""
    store = Store(*others)
    return allocated(store.view, made)


def ingress(subnet: str = "10.0.0.0/24") -> objects.Network:
    """The ingress network as a new swarm has it."""
    return given(network("ingress", subnet, ingress=True))


def attach(made: Any, *networks: str) -> Any:
    """A service or a task that asks for networks."""
    for each in networks:
        made.spec.task.networks.add(target=each) if isinstance(made, objects.Service) else made.spec.networks.add(
            target=each
        )
    return made
