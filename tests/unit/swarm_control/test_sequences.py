"""Any sequence of requests, fresh or stale, leaves a swarm in which the rules between objects hold."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runtime.errors import Code, Refused
from runtime.swarm import service_spec as reading
from runtime.swarm.control.networks import is_ingress
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_control.fakes import endpoint, port, service_spec
from tests.unit.swarm_control.test_methods import Cluster

NAMES = st.sampled_from(["web", "Web", "api", "db"])
PORTS = st.lists(st.builds(port, st.sampled_from([0, 80, 81]), host=st.booleans()), max_size=2)
EXPECTED = {
    Code.INVALID_ARGUMENT,
    Code.ALREADY_EXISTS,
    Code.NOT_FOUND,
    Code.FAILED_PRECONDITION,
    Code.UNIMPLEMENTED,
    Code.UNKNOWN,
}


class Requests(RuleBasedStateMachine):
    """Services, secrets and networks that refer to one another, changed in any order."""

    @initialize()
    def start(self) -> None:
        self.swarm = Cluster()
        self.known: dict[str, types.Version] = {}
        self.refused: set[Code] = set()

    def attempt(self, method: str, **fields: Any) -> Any:
        """A request that may be refused; a refused one changes nothing."""
        before = self.swarm.view
        try:
            return self.swarm.call(method, **fields)
        except Refused as refused:
            self.refused.add(refused.code)
            assert self.swarm.view is before
            return None

    def pick(self, kind: Any, data: st.DataObject) -> Any:
        held = self.swarm.view.all(kind)
        return data.draw(st.sampled_from(held)) if held else None

    def spec(self, name: str, ports: list[types.PortConfig], data: st.DataObject) -> specs.ServiceSpec:
        spec = service_spec(name, endpoint=endpoint(*ports))
        secret, network = self.pick(objects.Secret, data), self.pick(objects.Network, data)
        if secret is not None and data.draw(st.booleans()):
            target = types.FileTarget(name="f")
            spec.task.container.secrets.add(secret_id=secret.id, secret_name=secret.spec.annotations.name, file=target)
        if network is not None and data.draw(st.booleans()):
            spec.task.networks.add(target=network.id)
        return spec

    @rule(name=NAMES, ports=PORTS, data=st.data())
    def create_service(self, name: str, ports: list[types.PortConfig], data: st.DataObject) -> None:
        made = self.attempt("CreateService", spec=self.spec(name, ports, data))
        if made is not None:
            self.known[made.service.id] = made.service.meta.version

    @rule(ports=PORTS, data=st.data(), stale=st.booleans(), back=st.booleans())
    def update_service(self, ports: list[types.PortConfig], data: st.DataObject, stale: bool, back: bool) -> None:
        service = self.pick(objects.Service, data)
        if service is None:
            return
        spec = self.spec(service.spec.annotations.name, ports, data)
        version = self.known[service.id] if stale else service.meta.version
        rollback = control.UpdateServiceRequest.PREVIOUS if back else control.UpdateServiceRequest.NONE
        fields = {"service_id": service.id, "service_version": version, "spec": spec, "rollback": rollback}
        answer = self.attempt("UpdateService", **fields)
        if answer is not None:
            assert version == service.meta.version, "only the newest version may be built on"
            assert answer.service.previous_spec == service.spec
            assert answer.service.meta.version.index > service.meta.version.index

    @rule(name=NAMES)
    def create_secret(self, name: str) -> None:
        self.attempt("CreateSecret", spec={"annotations": {"name": name}, "data": b"x"})

    @rule(name=NAMES, ingress=st.booleans())
    def create_network(self, name: str, ingress: bool) -> None:
        self.attempt("CreateNetwork", spec={"annotations": {"name": name}, "ingress": ingress})

    @rule(data=st.data(), kind=st.sampled_from(["Service", "Secret", "Network"]))
    def remove(self, data: st.DataObject, kind: str) -> None:
        held = self.pick(getattr(objects, kind), data)
        if held is not None:
            self.attempt(f"Remove{kind}", **{f"{kind.lower()}_id": held.id})

    @invariant()
    def names_are_unique(self) -> None:
        kinds: tuple[Any, ...] = (objects.Service, objects.Secret, objects.Network)
        for kind in kinds:
            names = [held.spec.annotations.name.lower() for held in self.swarm.view.all(kind)]
            assert len(names) == len(set(names))

    @invariant()
    def refusals_have_a_known_code(self) -> None:
        assert self.refused <= EXPECTED

    @invariant()
    def secrets_in_use_are_there(self) -> None:
        for service in self.swarm.view.all(objects.Service):
            for ref in reading.secret_references(service.spec):
                assert self.swarm.view.get(objects.Secret, ref.secret_id) is not None

    @invariant()
    def networks_in_use_are_there_and_no_ingress(self) -> None:
        for service in self.swarm.view.all(objects.Service):
            for attachment in reading.networks(service.spec):
                network = self.swarm.view.get(objects.Network, attachment.target)
                assert network is not None
                assert not is_ingress(network)

    @invariant()
    def one_ingress_network_at_most_and_there_when_needed(self) -> None:
        found = [network for network in self.swarm.view.all(objects.Network) if is_ingress(network)]
        assert len(found) <= 1
        if any(reading.needs_ingress(service.spec) for service in self.swarm.view.all(objects.Service)):
            assert found

    @invariant()
    def an_ingress_port_has_one_service(self) -> None:
        holders: dict[tuple[int, int], list[tuple[str, bool]]] = {}
        for service in self.swarm.view.all(objects.Service):
            for number, protocol, ingress in reading.published(service.spec.endpoint.ports):
                holders.setdefault((number, protocol), []).append((service.id, ingress))
        for found in holders.values():
            assert len(found) == 1 or not any(ingress for _, ingress in found)


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=60, stateful_step_count=25)
