"""A store of plain dicts with the rules that control requests rely on, and makers of requests' surroundings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.swarm.control import METHODS, Context, Member, Read, Write
from runtime.swarm.naming import runtime_name, task_name
from runtime.swarm.service_spec import networks, to_timestamp
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.seeded import entropy

UNIQUE_NAMES = (
    objects.Cluster,
    objects.Config,
    objects.Extension,
    objects.Network,
    objects.Resource,
    objects.Secret,
    objects.Service,
    objects.Volume,
)


def name_of(obj: Any) -> str:
    if isinstance(obj, objects.Node):
        return obj.description.hostname
    if isinstance(obj, objects.Task):
        return task_name(obj)
    if isinstance(obj, objects.Resource | objects.Extension):
        return obj.annotations.name
    return str(obj.spec.annotations.name)


def keys_of(obj: Any) -> Iterator[tuple[str, Any]]:
    yield "name", name_of(obj).lower()
    if isinstance(obj, objects.Node):
        yield "role", obj.role
        yield "membership", obj.spec.membership
    elif isinstance(obj, objects.Service):
        yield "runtime", runtime_name(obj.spec.task) or ""
        yield from (("network", each.target) for each in networks(obj.spec))
        yield from (("secret", ref.secret_id) for ref in obj.spec.task.container.secrets)
        yield from (("config", ref.config_id) for ref in obj.spec.task.container.configs)
    elif isinstance(obj, objects.Task):
        yield "runtime", runtime_name(obj.spec) or ""
        yield "service", obj.service_id
        yield "node", obj.node_id
        yield "desired_state", obj.desired_state
        yield from (("network", each.target) for each in obj.spec.networks)
    elif isinstance(obj, objects.Resource):
        yield "kind", obj.kind
    elif isinstance(obj, objects.Volume):
        yield "volume_group", obj.spec.group
        yield "driver", obj.spec.driver.name


class FakeStore:
    """View and transaction in one: writes are seen at once; `write` undoes what a refused function did."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.tables: dict[type, dict[str, Any]] = {}
        self.version = 10
        self.now = now

    def get(self, kind: Any, id: str) -> Any:
        return self.tables.get(kind, {}).get(id)

    def all(self, kind: Any) -> list[Any]:
        table = self.tables.get(kind, {})
        return [table[id] for id in sorted(table)]

    def count(self, kind: Any) -> int:
        return len(self.tables.get(kind, {}))

    def find(self, kind: Any, index: str, key: Any) -> list[Any]:
        return [obj for obj in self.all(kind) if (index, key) in set(keys_of(obj))]

    def prefix(self, kind: Any, field: str, text: str) -> list[Any]:
        if field == "id":
            return [obj for obj in self.all(kind) if obj.id.startswith(text)]
        return [obj for obj in self.all(kind) if name_of(obj).lower().startswith(text.lower())]

    def create(self, obj: Any) -> Any:
        assert obj.id
        if self.get(type(obj), obj.id) is not None:
            raise Refused(Code.ALREADY_EXISTS, "object already exists")
        if isinstance(obj, UNIQUE_NAMES) and self.find(type(obj), "name", name_of(obj).lower()):
            raise Refused(Code.ALREADY_EXISTS, "name conflicts with an existing object")
        return self._put(obj)

    def update(self, obj: Any) -> Any:
        held = self.get(type(obj), obj.id)
        if held is None:
            raise Refused(Code.NOT_FOUND, "object does not exist")
        if held.meta.version.index != obj.meta.version.index:
            raise Refused(Code.UNKNOWN, "update out of sequence")
        return self._put(obj)

    def delete(self, kind: Any, id: str) -> None:
        if self.get(kind, id) is None:
            raise Refused(Code.NOT_FOUND, "object does not exist")
        del self.tables[kind][id]

    def _put(self, obj: Any) -> Any:
        new = type(obj)()
        new.CopyFrom(obj)
        new.meta.version.index = self.version
        new.meta.updated_at.CopyFrom(to_timestamp(self.now))
        if not new.meta.HasField("created_at"):
            new.meta.created_at.CopyFrom(to_timestamp(self.now))
        self.tables.setdefault(type(obj), {})[obj.id] = new
        return new

    def write(self, run: Callable[[Any], Any]) -> Any:
        """One transaction; nothing of a refused one stays."""
        before = {kind: dict(table) for kind, table in self.tables.items()}
        self.version += 1
        try:
            return run(self)
        except Refused:
            self.tables = before
            raise


def refusal(swarm: Swarm, method: str, **fields: Any) -> tuple[Code, str]:
    """Why a call is refused; one that is not refused fails the test."""
    with pytest.raises(Refused) as caught:
        swarm.call(method, **fields)
    return caught.value.code, caught.value.text


def refuse_bad_constraints(expressions: Any) -> tuple[()]:
    for text in expressions:
        if "==" not in text and "!=" not in text:
            raise Refused(Code.UNKNOWN, "constraint expected one operator from ==, !=")
    return ()


def make_context(**changes: Any) -> Context:
    given: dict[str, Any] = {
        "node_id": "node1",
        "entropy": entropy(),
        "rng": random.Random(1),
        "is_dirty": lambda task, service, node: task.spec != service.spec.task,
        "parse_constraints": refuse_bad_constraints,
    }
    return Context(**(given | changes))


class Swarm:
    """A store and a context, driven by the names of methods as the wire has them."""

    def __init__(self, **changes: Any) -> None:
        self.store = FakeStore()
        self.ctx = make_context(**changes)

    def call(self, method: str, **fields: Any) -> Any:
        entry = METHODS[method]
        request = entry.request(**fields)
        before = request.SerializeToString(deterministic=True)
        if isinstance(entry, Read):
            answer = entry.answer(self.store, request, self.ctx)
        else:
            assert isinstance(entry, Write)
            answer = self.store.write(entry.prepare(request, self.ctx))
        assert type(answer) is entry.response
        assert request.SerializeToString(deterministic=True) == before, "a request is not changed by answering it"
        return answer

    def put(self, obj: Any) -> Any:
        """Stores an object directly."""
        return self.store.write(lambda tx: tx.create(obj))


def service_spec(name: str = "web", /, **fields: Any) -> specs.ServiceSpec:
    """A valid spec of a replicated service of nginx; ``fields`` replace whole fields."""
    spec = specs.ServiceSpec(
        annotations=types.Annotations(name=name),
        task=specs.TaskSpec(container=specs.ContainerSpec(image="nginx")),
        replicated=specs.ReplicatedService(replicas=1),
    )
    for key, value in fields.items():
        getattr(spec, key).CopyFrom(value)
    return spec


def port(
    published: int, *, host: bool = False, protocol: types.PortConfig.Protocol = types.PortConfig.TCP
) -> types.PortConfig:
    """A published port of the ingress network, or of the host."""
    return types.PortConfig(
        target_port=80,
        published_port=published,
        protocol=protocol,
        publish_mode=types.PortConfig.HOST if host else types.PortConfig.INGRESS,
    )


def endpoint(*ports: types.PortConfig, dnsrr: bool = False) -> specs.EndpointSpec:
    """An endpoint spec with these ports."""
    return specs.EndpointSpec(mode=specs.EndpointSpec.DNSRR if dnsrr else specs.EndpointSpec.VIP, ports=ports)


def ingress() -> objects.Network:
    """The ingress network as the first leader makes it."""
    spec = specs.NetworkSpec(annotations=types.Annotations(name="ingress"), ingress=True)
    return objects.Network(id="ingressid", spec=spec)


def cluster(**fields: Any) -> objects.Cluster:
    """A cluster object with keys of every sort."""
    root = types.RootCA(
        ca_key=b"root key",
        ca_cert=b"root cert",
        ca_cert_hash="sha256:0",
        join_tokens=types.JoinTokens(worker="SWMTKN-1-w", manager="SWMTKN-1-m"),
        root_rotation=types.RootRotation(ca_cert=b"new cert", ca_key=b"new key", cross_signed_ca_cert=b"crossed"),
    )
    spec = specs.ClusterSpec(
        annotations=types.Annotations(name="default"),
        ca_config=types.CAConfig(signing_ca_cert=b"signing cert", signing_ca_key=b"signing key"),
    )
    keys = [types.EncryptionKey(subsystem="networking:gossip", key=b"gossip key")]
    made = objects.Cluster(
        id="cluster1", spec=spec, root_ca=root, network_bootstrap_keys=keys, encryption_key_lamport_clock=3
    )
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def member(raft_id: int, **fields: Any) -> Member:
    """A reachable raft member."""
    return Member(raft_id, f"10.0.0.{raft_id}:2377", reachability=types.RaftMemberStatus.REACHABLE, **fields)
