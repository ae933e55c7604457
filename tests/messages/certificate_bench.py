"""What stands around certificates in message tests: a leader's store and CA on one host, nodes on others."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from actors.certificate_actor import CertificateActor
from actors.certificate_authority_actor import CertificateAuthorityActor
from actors.store_actor import StoreActor
from runtime.disk.memory import MemoryDisk
from runtime.errors import Refused
from runtime.pki.node_identity import found_identity
from runtime.pki.root import describe_root
from runtime.protocol.agent import CertificateRenewed
from runtime.protocol.certificate import CertificateSetup, CertificateTrouble, Identified
from runtime.protocol.manager import LeaderContext
from runtime.protocol.node import NodeLocked
from runtime.protocol.store import Entries, Leading, NotLeading, Propose, Write
from runtime.stage import Actor, ActorDown, Address, Stage, handles
from runtime.stage.simulator import EPOCH, Simulator
from runtime.store.view import Published
from runtime.swarm.founding import first_cluster, found_cluster, with_join_tokens
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import objects_pb2
from runtime.wire.port import CA_NAME, MANAGER, Access, Credentials, Identity
from runtime.wire.services import METHODS, path, routes
from runtime.wire.to_actor import to_actor

Cluster, Node = objects_pb2.Cluster, objects_pb2.Node
CA_ADDRESS = "10.0.0.1:2377"
LOCAL = "unix:/run/control.sock"


class Consensus(Actor):
    """Commits whatever is proposed, at once, unless it is held."""

    def __init__(self, holder: CaHost) -> None:
        super().__init__()
        self.holder = holder

    @handles(Propose)
    def propose(self, message: Propose) -> None:
        holder = self.holder
        if holder.held is not None:
            holder.held.append(message)
        else:
            holder.commit(message)


class World:
    """One network under one simulator."""

    def __init__(self, seed: int = 7) -> None:
        self.simulator = Simulator(seed)
        self.network = MemoryNetwork(
            lambda delay, call: (self.simulator.set(delay, call), None)[1],
            random.Random(seed),
            clock=lambda: EPOCH + self.simulator.time,
        )

    def now(self) -> float:
        return EPOCH + self.simulator.time


class CaHost:
    """A leader at 10.0.0.1 with its store and CA; ``identity`` is its own, ``root`` signs."""

    def __init__(self, world: World, *, found: bool = True, serve: bool = True) -> None:
        self.world = world
        simulator = world.simulator
        entropy = random.Random("ca").randbytes
        self.identity, self.root = found_identity(None, entropy, world.now())
        self.node_id, self.cluster_id = self.identity.info.node_id, self.identity.info.organization
        self.stage = simulator.node("m1", transport=world.network.transport("10.0.0.1"))
        self.published = Published()
        self.held: list[Propose] | None = None
        self.index = 8
        consensus = self.stage.mount("raft", Consensus, self)
        self.store = self.stage.mount("store", StoreActor, consensus, self.published)
        self.store.tell(Leading(2, 8))
        simulator.settle()
        if found:
            described = with_join_tokens(describe_root(self.root), entropy)
            cluster = first_cluster(self.cluster_id, described, 1, 10, (), 24, 4789)
            self.write(found_cluster(cluster, self.node_id, "active"))
        self.credentials = Credentials(self.root.bundle, self.identity.certificate, self.identity.private_key)
        self.manager = self.stage.probe("manager")
        context = LeaderContext(
            self.node_id, self.cluster_id, self.store, self.published, self.credentials, manager=self.manager.address
        )
        self.ca: Address = self.stage.mount("ca", CertificateAuthorityActor, context)
        self.calls: list[str] = []
        self.refusals: dict[str, list[Refused]] = {}
        self.server: Any = None
        if serve:
            self.serve()
        simulator.settle()

    def serve(self) -> None:
        """Opens the remote port and the control socket."""
        table = routes(
            {m.path: self._handler(m.path, m.name) for m in METHODS.values() if m.service in ("CA", "NodeCA")}
        )
        transport = self.stage.world.transport
        assert transport is not None
        access = lambda: Access(  # noqa: E731
            self.cluster_id,
            self.cluster.blacklisted_certificates,
            Identity(self.node_id, MANAGER, self.cluster_id, local=True),
        )
        self.server = transport.serve(CA_ADDRESS, table, access=access, credentials=self.credentials)
        transport.serve(LOCAL, table, access=access)

    def _handler(self, name: str, method: str) -> Callable[[Any], None]:
        ask = to_actor(self.ca)

        def handle(call: Any) -> None:
            self.calls.append(method)
            refusals = self.refusals.get(method)
            if refusals:
                call.fail(refusals.pop(0))
            else:
                ask(call)

        return handle

    def commit(self, message: Propose) -> None:
        self.index += 1
        self.store.tell(Entries(((self.index, message.number, message.data),)))

    def release(self) -> None:
        """Commits what was held, and everything from now on."""
        held, self.held = self.held or [], None
        for message in held:
            self.commit(message)
        self.world.simulator.settle()

    def lose(self) -> None:
        """The store stops leading."""
        self.store.tell(NotLeading())
        self.world.simulator.settle()

    def write(self, step: Any) -> Any:
        return self.world.simulator.ask(self.store, Write(step))

    def change(self, kind: type[Any], id: str, edit: Callable[[Any], None]) -> None:
        """Edits one object."""

        def run(tx: Any) -> None:
            obj = kind()
            obj.CopyFrom(tx.get(kind, id))
            edit(obj)
            tx.update(obj)

        self.write(run)
        self.world.simulator.settle()

    @property
    def cluster(self) -> Any:
        found = self.published.view.get(Cluster, self.cluster_id)
        return found if found is not None else Cluster()

    def node(self, id: str) -> Any:
        return self.published.view.get(Node, id)

    @property
    def nodes(self) -> list[Any]:
        return self.published.view.all(Node)

    @property
    def tokens(self) -> Any:
        return self.cluster.root_ca.join_tokens


class Client:
    """Calls a CA from a host of its own."""

    def __init__(self, ca: CaHost, host: str = "10.0.0.9") -> None:
        self.ca = ca
        self.transport = ca.world.network.transport(host)

    def start(
        self, service: str, method: str, request: Message, credentials: Credentials | None = None, timeout: float = 5.0
    ) -> list[Any]:
        """Sends a call; its answer comes into the list."""
        answers: list[Any] = []
        channel = self.transport.connect(
            CA_ADDRESS, credentials or Credentials(self.ca.root.bundle), server_name=CA_NAME
        )
        channel.unary(path(service, method), request, timeout=timeout, done=answers.append)
        return answers

    def call(self, service: str, method: str, request: Message, credentials: Credentials | None = None) -> Any:
        answers = self.start(service, method, request, credentials)
        self.ca.world.simulator.run_until(lambda: bool(answers), 30.0)
        return answers[0]


class Parent(Actor):
    """Stands where the node does: keeps what it is told, and ends the keeper when it fails."""

    def __init__(self, host: NodeHost, setup: CertificateSetup) -> None:
        super().__init__()
        self.host = host
        self.setup = setup

    def started(self) -> None:
        self.watch(self.spawn("certificate", CertificateActor, self.address, self.setup))

    @handles(Identified, CertificateRenewed, CertificateTrouble, NodeLocked)
    def keep(self, message: Any) -> None:
        self.host.told.append(message)

    @handles(ActorDown)
    def down(self, message: ActorDown) -> None:
        self.host.failures.append(message.error)
        child = self.child("certificate")
        if child is not None and not self.host.restarts:
            self.stop(child)


class NodeHost:
    """A node's keeper over a disk that outlasts it."""

    def __init__(self, world: World, name: str = "w1", ip: str = "10.0.0.2", **setup: Any) -> None:
        self.world = world
        self.name, self.ip = name, ip
        self.disk = MemoryDisk()
        self.told: list[Any] = []
        self.failures: list[BaseException | None] = []
        self.restarts = False
        self.stage: Stage | None = None
        self.setup = CertificateSetup(**setup)
        self.transport = world.network.transport(ip)

    def boot(self, **setup: Any) -> NodeHost:
        """A process starts, with another setup if one is given."""
        if setup:
            self.setup = CertificateSetup(**setup)
        self.told, self.failures = [], []
        self.stage = self.world.simulator.node(self.name, transport=self.transport, disk=self.disk)
        self.stage.mount("node", Parent, self, self.setup)
        return self

    def crash(self) -> None:
        assert self.stage is not None
        self.world.simulator.crash(self.stage)
        self.disk.kill()

    @property
    def keeper(self) -> Address:
        assert self.stage is not None
        return self.stage.at("/node/certificate")

    def tell(self, *messages: Any) -> None:
        for message in messages:
            self.keeper.tell(message)

    def ask(self, message: Any) -> Any:
        return self.world.simulator.ask(self.keeper, message)

    def expect(self, kind: type[Any], within: float = 60.0) -> Any:
        """The next of this kind that the node is told."""
        self.world.simulator.run_until(lambda: any(isinstance(each, kind) for each in self.told), within)
        found = next(each for each in self.told if isinstance(each, kind))
        self.told.remove(found)
        return found

    def fails(self, within: float = 60.0) -> BaseException:
        """The error that the keeper ends with."""
        self.world.simulator.run_until(lambda: bool(self.failures), within)
        error = self.failures[0]
        assert error is not None
        return error

    def file(self, name: str) -> bytes:
        found = self.disk.files.read(f"certificates/{name}")
        assert found is not None, f"{name} is missing"
        return found
