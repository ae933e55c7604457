"""ControlActor over a real store and a consensus of one: reads from the view, writes through the store, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.control_actor import SETTLED_WAIT, ControlActor
from runtime.errors import Code, Refused
from runtime.protocol.cluster import Control, GetWarnings, Standing
from runtime.protocol.manager import AuthorityTrouble, LeaderIs, MembersChanged, Serve
from runtime.protocol.node import CheckHealth
from runtime.protocol.raft import MemberStatus
from runtime.protocol.store import Write
from runtime.stage import Address, Answer, Reply
from runtime.store.transaction import Transaction
from runtime.swarm.founding import found_cluster, own_entry
from runtime.swarm.membership import NO_LEADER_MAX, NO_QUORUM
from runtime.swarm.raft_pace import PACE_LABEL, PACE_VALUE
from runtime.wire.pb import control_pb2, specs_pb2
from runtime.wire.pb import objects_pb2 as pb
from runtime.wire.pb import types_pb2 as types
from tests.messages.raft_bench import Bench
from tests.unit.swarm_orchestration.placing import ingress

MEMBER = MemberStatus(7, "node-1", "10.0.0.1:2377", True, True)


class ControlBench(Bench):
    """A control API beside the store."""

    def boot(self) -> None:
        super().boot()
        self.lead()
        self.control: Address = self.stage.mount("control", ControlActor, "node-1", self.store, self.published)
        self.control.tell(MembersChanged({7: MEMBER}))
        self.simulator.settle()

    def call(self, method: str, request: Any) -> Any:
        return self.simulator.ask(self.control, Control(method, request))


def service(name: str = "web") -> specs_pb2.ServiceSpec:
    spec = specs_pb2.ServiceSpec()
    spec.annotations.name = name
    spec.task.container.image = "host"
    spec.replicated.replicas = 2
    return spec


def test_a_write_is_visible_to_reads_once_it_is_answered() -> None:
    bench = ControlBench()
    made = bench.call("CreateService", control_pb2.CreateServiceRequest(spec=service())).service
    found = bench.call("GetService", control_pb2.GetServiceRequest(service_id=made.id)).service
    assert found == made
    assert [each.id for each in bench.call("ListServices", control_pb2.ListServicesRequest()).services] == [made.id]


def test_a_refusal_reaches_the_caller_and_nothing_is_written() -> None:
    bench = ControlBench()
    bench.call("CreateService", control_pb2.CreateServiceRequest(spec=service()))
    before = bench.published.view.version
    with pytest.raises(Refused) as refused:
        bench.call("CreateService", control_pb2.CreateServiceRequest(spec=service()))
    assert refused.value.code is Code.ALREADY_EXISTS
    assert bench.published.view.version == before


def test_a_paused_update_is_a_warning_until_the_service_is_updated() -> None:
    bench = ControlBench()
    made = bench.call("CreateService", control_pb2.CreateServiceRequest(spec=service())).service

    def pause(tx: Transaction) -> None:
        new = pb.Service()
        new.CopyFrom(tx.get(pb.Service, made.id))
        new.update_status.state = types.UpdateStatus.PAUSED
        new.update_status.message = "update paused due to failure or early termination of task t"
        tx.update(new)

    assert bench.simulator.ask(bench.control, GetWarnings()) == Standing()
    bench.simulator.ask(bench.store, Write(pause))
    text = "WARNING: Service web: update paused due to failure or early termination of task t"
    assert bench.simulator.ask(bench.control, GetWarnings()) == Standing((text,))
    stored = bench.call("GetService", control_pb2.GetServiceRequest(service_id=made.id)).service
    again = control_pb2.UpdateServiceRequest(service_id=made.id, service_version=stored.meta.version, spec=stored.spec)
    bench.call("UpdateService", again)
    assert bench.simulator.ask(bench.control, GetWarnings()) == Standing()


def test_an_external_ca_that_does_not_sign_is_a_warning_of_the_manager_that_leads() -> None:
    bench = ControlBench()
    reason = "https://ca.example cannot be asked: connection refused"
    bench.control.tell(LeaderIs("", True))
    for waiting, nodes in ((1, "1 node waits"), (3, "3 nodes wait")):
        bench.control.tell(AuthorityTrouble(reason, waiting))
        text = f"WARNING: {nodes} for a certificate: {reason}"
        assert bench.simulator.ask(bench.control, GetWarnings()) == Standing((text,))
    bench.control.tell(AuthorityTrouble(""))
    assert bench.simulator.ask(bench.control, GetWarnings()) == Standing()
    bench.control.tell(AuthorityTrouble(reason, 1))
    bench.control.tell(LeaderIs("10.0.0.2:2377", False))
    assert bench.simulator.ask(bench.control, GetWarnings()) == Standing(), "another manager leads"
    bench.control.tell(AuthorityTrouble(reason, 1))
    assert bench.simulator.ask(bench.control, GetWarnings()) == Standing(), "it came late"


def test_a_swarm_that_nobody_has_led_for_ten_seconds_says_so_until_somebody_does() -> None:
    bench = ControlBench()
    bench.control.tell(LeaderIs("10.0.0.2:2377", False))
    bench.control.tell(LeaderIs("", False))
    bench.simulator.run_for(NO_LEADER_MAX - 1)
    assert bench.simulator.ask(bench.control, GetWarnings()).error == ""
    bench.simulator.run_for(1)
    told = f"rpc error: code = Unknown desc = {NO_QUORUM}"
    assert bench.simulator.ask(bench.control, GetWarnings()).error == told
    bench.control.tell(LeaderIs("10.0.0.2:2377", False))
    assert bench.simulator.ask(bench.control, GetWarnings()) == Standing()


def test_a_manager_that_keeps_the_others_from_ticking_fast_is_named_in_a_warning() -> None:
    bench = ControlBench()

    def join(tx: Transaction) -> None:
        for name, label in (("node-1", PACE_VALUE), ("node-2", "")):
            node = pb.Node(id=name)
            node.description.hostname = name
            if label:
                node.description.engine.labels[PACE_LABEL] = label
            tx.create(node)

    bench.simulator.ask(bench.store, Write(join))
    assert bench.simulator.ask(bench.control, GetWarnings()) == Standing()
    other = MemberStatus(8, "node-2", "10.0.0.2:2377", False, True)
    bench.control.tell(MembersChanged({7: MEMBER, 8: other}))
    (told,) = bench.simulator.ask(bench.control, GetWarnings()).warnings
    assert told.endswith("since these tick but once a second: node-2")


def test_labels_that_whoever_leads_does_not_follow_are_a_warning() -> None:
    bench = ControlBench()

    def join(tx: Transaction) -> None:
        node = pb.Node(id="node-2")
        node.description.hostname = "dockerd"
        tx.create(node)

    bench.simulator.ask(bench.store, Write(join))
    spec = service()
    spec.annotations.labels["swarmlet.start-after"] = "db"
    bench.call("CreateService", control_pb2.CreateServiceRequest(spec=spec))
    other = MemberStatus(8, "node-2", "10.0.0.2:2377", True, True)
    bench.control.tell(MembersChanged({7: replace(MEMBER, leader=False), 8: other}))
    (told,) = bench.simulator.ask(bench.control, GetWarnings()).warnings
    assert told == "WARNING: dockerd leads and does nothing about the labels swarmlet.* of service web"
    bench.control.tell(MembersChanged({7: MEMBER, 8: replace(other, leader=False)}))
    assert not any("labels" in each for each in bench.simulator.ask(bench.control, GetWarnings()).warnings)


@pytest.mark.parametrize("method", ["CreateVolume", "UpdateVolume"])
def test_kinds_that_are_not_offered_are_refused_as_unimplemented(method: str) -> None:
    bench = ControlBench()
    with pytest.raises(Refused) as refused:
        bench.call(method, getattr(control_pb2, f"{method}Request")())
    assert refused.value.code is Code.UNIMPLEMENTED


def test_a_secret_is_kept_until_no_service_names_it_and_its_data_is_never_shown() -> None:
    bench = ControlBench()
    made = specs_pb2.SecretSpec(data=b"top-secret")
    made.annotations.name = "key"
    secret = bench.call("CreateSecret", control_pb2.CreateSecretRequest(spec=made)).secret
    assert bench.call("GetSecret", control_pb2.GetSecretRequest(secret_id=secret.id)).secret.spec.data == b""
    spec = service()
    reference = spec.task.container.secrets.add(secret_id=secret.id, secret_name="key")
    reference.file.name = "key"
    web = bench.call("CreateService", control_pb2.CreateServiceRequest(spec=spec)).service
    with pytest.raises(Refused) as refused:
        bench.call("RemoveSecret", control_pb2.RemoveSecretRequest(secret_id=secret.id))
    assert (refused.value.code, refused.value.text) == (
        Code.INVALID_ARGUMENT,
        "secret 'key' is in use by the following service: web",
    )
    bench.call("RemoveService", control_pb2.RemoveServiceRequest(service_id=web.id))
    bench.call("RemoveSecret", control_pb2.RemoveSecretRequest(secret_id=secret.id))
    assert bench.published.view.all(pb.Secret) == []


def test_a_network_has_its_subnet_when_it_is_answered_and_goes_when_no_service_names_it() -> None:
    bench = ControlBench()
    made = specs_pb2.NetworkSpec()
    made.annotations.name = "back"
    network = bench.call("CreateNetwork", control_pb2.CreateNetworkRequest(spec=made)).network
    assert [each.subnet for each in network.ipam.configs] == ["10.0.0.0/24"]
    before = bench.published.view.version
    made.annotations.name = "other"
    made.ipam.configs.add(subnet="10.0.0.0/16")
    with pytest.raises(Refused, match="Pool overlaps"):
        bench.call("CreateNetwork", control_pb2.CreateNetworkRequest(spec=made))
    assert bench.published.view.version == before
    spec = service()
    spec.task.networks.add(target=network.id)
    web = bench.call("CreateService", control_pb2.CreateServiceRequest(spec=spec)).service
    with pytest.raises(Refused, match=f"network {network.id} is in use by service {web.id}"):
        bench.call("RemoveNetwork", control_pb2.RemoveNetworkRequest(network_id=network.id))
    bench.call("RemoveService", control_pb2.RemoveServiceRequest(service_id=web.id))
    bench.call("RemoveNetwork", control_pb2.RemoveNetworkRequest(network_id=network.id))


def test_a_plain_service_has_its_endpoint_from_the_first() -> None:
    bench = ControlBench()
    spec = service()
    spec.endpoint.ports.add(target_port=80, published_port=8080, publish_mode=types.PortConfig.HOST)
    made = bench.call("CreateService", control_pb2.CreateServiceRequest(spec=spec)).service
    assert made.endpoint.spec == made.spec.endpoint
    assert list(made.endpoint.ports) == list(made.spec.endpoint.ports)


def test_a_service_with_a_secret_that_is_not_there_is_refused() -> None:
    bench = ControlBench()
    spec = service()
    spec.task.container.secrets.add(secret_id="gone", secret_name="key").file.name = "key"
    with pytest.raises(Refused) as refused:
        bench.call("CreateService", control_pb2.CreateServiceRequest(spec=spec))
    assert (refused.value.code, refused.value.text) == (Code.INVALID_ARGUMENT, "secret not found: key")


def test_a_promotion_and_another_availability_are_written_as_wishes() -> None:
    bench = ControlBench()

    def worker(tx: Transaction) -> None:
        node = own_entry("node-2", "active")
        node.role = types.WORKER
        node.spec.desired_role = types.WORKER
        tx.create(node)

    bench.simulator.ask(bench.store, Write(worker))
    node = bench.call("GetNode", control_pb2.GetNodeRequest(node_id="node-2")).node
    request = control_pb2.UpdateNodeRequest(node_id=node.id, node_version=node.meta.version, spec=node.spec)
    request.spec.desired_role = types.MANAGER
    request.spec.availability = specs_pb2.NodeSpec.DRAIN
    node = bench.call("UpdateNode", request).node
    assert (node.spec.availability, node.spec.desired_role) == (specs_pb2.NodeSpec.DRAIN, types.MANAGER)
    assert node.role == types.WORKER


def test_nodes_are_shown_with_their_place_in_the_consensus_group() -> None:
    bench = ControlBench()
    cluster = pb.Cluster(id="c")
    cluster.spec.annotations.name = "default"
    bench.simulator.ask(bench.store, Write(found_cluster(cluster, "node-1", "drain")))
    (node,) = bench.call("ListNodes", control_pb2.ListNodesRequest()).nodes
    assert (node.manager_status.raft_id, node.manager_status.addr, node.manager_status.leader) == (
        7,
        "10.0.0.1:2377",
        True,
    )
    assert node.spec.availability == specs_pb2.NodeSpec.DRAIN


def test_founding_again_changes_nothing_and_without_a_root_key_no_cluster_is_made() -> None:
    bench = ControlBench()
    cluster = pb.Cluster(id="c")
    cluster.spec.annotations.name = "default"
    with pytest.raises(Refused, match="no root key"):
        bench.simulator.ask(bench.store, Write(found_cluster(None, "node-1", "")))
    bench.simulator.ask(bench.store, Write(found_cluster(cluster, "node-1", "")))
    before = bench.published.view.version
    bench.simulator.ask(bench.store, Write(found_cluster(None, "node-1", "")))
    assert bench.published.view.version == before


def test_health_is_answered_when_it_serves() -> None:
    bench = ControlBench()
    health = bench.control.ask(CheckHealth("ControlAPI"))
    bench.simulator.run_for(1)
    assert not health.done
    bench.control.tell(Serve(True))
    bench.simulator.settle()
    assert health.result(0) is True
    assert bench.simulator.ask(bench.control, CheckHealth("ControlAPI")) is True
    assert bench.simulator.ask(bench.control, CheckHealth("Raft")) is False


def test_an_unknown_method_is_refused() -> None:
    bench = ControlBench()
    with pytest.raises(Refused) as refused:
        bench.call("DoEverything", control_pb2.ListNodesRequest())
    assert refused.value.code is Code.UNIMPLEMENTED


def test_a_write_without_a_leader_is_refused_with_the_reason() -> None:
    bench = ControlBench()
    bench.raft._withdraw()
    bench.simulator.settle()
    with pytest.raises(Refused, match="does not have a leader"):
        bench.call("CreateService", control_pb2.CreateServiceRequest(spec=service("other")))


def published_service(*ports: types.PortConfig) -> specs_pb2.ServiceSpec:
    spec = service()
    spec.endpoint.ports.extend(ports or [types.PortConfig(target_port=80, published_port=8080)])
    return spec


class Asked:
    """A create of a service where there is an ingress network, and what came of it."""

    def __init__(self, bench: ControlBench, spec: specs_pb2.ServiceSpec) -> None:
        self.bench = bench
        self.answers: list[Answer] = []
        bench.simulator.ask(bench.store, Write(lambda tx: tx.create(ingress())))
        request = control_pb2.CreateServiceRequest(spec=spec)
        bench.control.send(Control("CreateService", request), bench.control, Reply(self.answers.append), 0)
        bench.simulator.settle()

    @property
    def service(self) -> pb.Service:
        (found,) = self.bench.published.view.all(pb.Service)
        return found


def test_a_service_is_answered_once_it_has_its_ports_and_addresses() -> None:
    bench = ControlBench()
    asked = Asked(bench, published_service())
    assert asked.answers == []

    def allocate(tx: Transaction) -> None:
        made = pb.Service()
        made.CopyFrom(asked.service)
        made.endpoint.spec.CopyFrom(made.spec.endpoint)
        made.endpoint.ports.extend(made.spec.endpoint.ports)
        made.endpoint.virtual_ips.add(network_id="ingress", addr="10.0.0.5/24")
        tx.update(made)

    bench.simulator.ask(bench.store, Write(allocate))
    bench.simulator.settle()
    assert [each.value.service.id for each in asked.answers] == [asked.service.id]
    spec = asked.service.spec
    spec.annotations.labels["a"] = "b"
    update = control_pb2.UpdateServiceRequest(
        service_id=asked.service.id, service_version=asked.service.meta.version, spec=spec
    )
    began = bench.simulator.time
    bench.call("UpdateService", update)
    assert bench.simulator.time - began < SETTLED_WAIT, "it has all that it needs already"


def test_a_service_that_there_is_no_address_for_is_answered_a_moment_later() -> None:
    bench = ControlBench()
    asked = Asked(bench, published_service())
    bench.simulator.run_for(SETTLED_WAIT * 0.9)
    assert asked.answers == []
    bench.simulator.run_for(SETTLED_WAIT * 0.2)
    assert [each.value.service.id for each in asked.answers] == [asked.service.id]


def test_a_service_that_is_removed_meanwhile_is_answered_then() -> None:
    bench = ControlBench()
    asked = Asked(bench, published_service())
    bench.call("RemoveService", control_pb2.RemoveServiceRequest(service_id=asked.service.id))
    bench.simulator.settle()
    assert [each.error for each in asked.answers] == [None]


def test_a_service_that_was_written_is_answered_although_its_control_service_ends() -> None:
    bench = ControlBench()
    asked = Asked(bench, published_service())
    assert asked.answers == []
    bench.stage.end("/control", 0)
    bench.simulator.settle()
    assert [each.value.service.id for each in asked.answers] == [asked.service.id]


def test_a_service_that_needs_nothing_is_answered_with_its_write() -> None:
    bench = ControlBench()
    host = types.PortConfig(target_port=80, published_port=8080, publish_mode=types.PortConfig.HOST)
    assert len(Asked(bench, published_service(host)).answers) == 1
