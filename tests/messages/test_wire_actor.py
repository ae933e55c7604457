"""WireActor: servers that hand calls to actors, by role and with removed nodes refused, on a simulated network."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from google.protobuf.message import Message

from actors.serving import Serving, serves
from actors.wire_actor import SERVED_BY, WireActor, service_routes
from runtime.errors import Code, Refused
from runtime.pki.root import load_root
from runtime.protocol.manager import Listening, ManagerSetup
from runtime.stage import handles
from runtime.stage.simulator import Simulator
from runtime.store.changes import Action, Change, apply
from runtime.store.view import Published
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import control_pb2, dispatcher_pb2, health_pb2, watch_pb2
from runtime.wire.pb import objects_pb2 as pb
from runtime.wire.port import MANAGER, WORKER, Call, Credentials
from runtime.wire.services import METHODS, path
from tests.unit.wire.authority import CLUSTER, authority


class FakeControl(Serving):
    """Answers one call, fails over another."""

    @serves("Control", "ListNodes")
    def list_nodes(self, call: Call) -> Message:
        return control_pb2.ListNodesResponse(nodes=[pb.Node(id=call.identity.node_id)])

    @serves("Control", "GetNode")
    def get_node(self, call: Call) -> Message:
        raise RuntimeError("a secret of the inner state")

    @serves("Control", "RemoveNode")
    def remove_node(self, call: Call) -> Message:
        raise Refused(Code.FAILED_PRECONDITION, "not so")


class Manager(Serving):
    """Stands where the manager does."""

    def __init__(self, setup: ManagerSetup, published: Published, told: list[Listening]) -> None:
        super().__init__()
        self.setup, self.published, self.told = setup, published, told

    def started(self) -> None:
        self.spawn("control", FakeControl)
        self.spawn("wire", WireActor, self.address, self.setup, self.published)

    @handles(Listening)
    def listening(self, message: Listening) -> None:
        self.told.append(message)

    @serves("Health", "Check")
    def health(self, call: Call) -> Message:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class Bench:
    def __init__(self) -> None:
        self.simulator = Simulator(3)
        start = time.time()
        self.network = MemoryNetwork(
            self.schedule,
            random.Random(3),
            clock=lambda: start + self.simulator.time,
        )
        self.stage = self.simulator.node("n1", transport=self.network.transport("10.0.0.1"))
        self.published = Published()
        root = load_root(authority().pem, start)
        setup = ManagerSetup(
            "manager1", CLUSTER, authority().manager(), root, (), "10.0.0.1:2377", control_socket="/run/control.sock"
        )
        self.told: list[Listening] = []
        self.stage.mount("manager", Manager, setup, self.published, self.told)
        self.client = self.network.transport("10.0.0.2")
        self.simulator.run_for(0.1)

    def schedule(self, delay: float, call: Any) -> None:
        self.simulator.set(delay, call)

    def call(
        self, credentials: Credentials | None, service: str, method: str, request: Message, local: bool = False
    ) -> Any:
        transport = self.stage.world.transport if local else self.client
        assert transport is not None
        channel = transport.connect("unix:/run/control.sock" if local else "10.0.0.1:2377", credentials)
        results: list[Any] = []
        channel.unary(path(service, method), request, timeout=5.0, done=results.append)
        self.simulator.run_until(lambda: bool(results))
        return results[0]


def test_the_manager_hears_where_it_listens() -> None:
    bench = Bench()
    assert bench.told == [Listening("10.0.0.1:2377")]


def test_a_managers_call_reaches_the_actor_with_its_identity() -> None:
    answer = Bench().call(authority().manager("m2"), "Control", "ListNodes", control_pb2.ListNodesRequest())
    assert [node.id for node in answer.nodes] == ["m2"]


def test_callers_on_the_control_socket_act_as_the_node_itself() -> None:
    answer = Bench().call(None, "Control", "ListNodes", control_pb2.ListNodesRequest(), local=True)
    assert [node.id for node in answer.nodes] == ["manager1"]


def test_a_worker_is_refused_what_managers_may_do() -> None:
    answer = Bench().call(authority().worker(), "Control", "ListNodes", control_pb2.ListNodesRequest())
    assert isinstance(answer, Refused)
    assert answer.code is Code.PERMISSION_DENIED


def test_a_removed_node_is_refused() -> None:
    bench = Bench()
    cluster = pb.Cluster(id=CLUSTER)
    cluster.blacklisted_certificates["m2"].SetInParent()
    bench.published.view = apply(bench.published.view, [Change(Action.CREATE, pb.Cluster, None, cluster)], 1)
    answer = bench.call(authority().manager("m2"), "Control", "ListNodes", control_pb2.ListNodesRequest())
    assert isinstance(answer, Refused)
    assert answer.code is Code.PERMISSION_DENIED


def test_refusals_travel_and_failures_give_nothing_away() -> None:
    bench = Bench()
    refused = bench.call(authority().manager(), "Control", "RemoveNode", control_pb2.RemoveNodeRequest())
    assert (refused.code, refused.text) == (Code.FAILED_PRECONDITION, "not so")
    failed = bench.call(authority().manager(), "Control", "GetNode", control_pb2.GetNodeRequest())
    assert isinstance(failed, Refused)
    assert "secret" not in failed.text
    bench.simulator.run_for(1)
    again = bench.call(authority().manager("m3"), "Control", "ListNodes", control_pb2.ListNodesRequest())
    assert [node.id for node in again.nodes] == ["m3"]


def test_a_part_that_does_not_run_here_is_unavailable() -> None:
    answer = Bench().call(authority().worker(), "Dispatcher", "Heartbeat", dispatcher_pb2.HeartbeatRequest())
    assert isinstance(answer, Refused)
    assert answer.code is Code.UNAVAILABLE


def test_health_is_served_by_the_manager() -> None:
    answer = Bench().call(authority().manager(), "Health", "Check", health_pb2.HealthCheckRequest(service="Raft"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_an_injected_failure_is_followed_by_servers_at_the_same_address() -> None:
    bench = Bench()
    cell = bench.stage.at("/manager/wire").resolve()
    assert cell is not None
    cell.control(lambda: cell.failed(RuntimeError("injected"), None))
    bench.simulator.run_for(5)
    assert bench.told[-1] == Listening("10.0.0.1:2377")
    answer = bench.call(authority().manager("m2"), "Control", "ListNodes", control_pb2.ListNodesRequest())
    assert [node.id for node in answer.nodes] == ["m2"]


@pytest.mark.parametrize("service", sorted(SERVED_BY))
def test_every_method_of_a_served_service_has_a_route(service: str) -> None:
    bench = Bench()
    table = service_routes(bench.stage.at("/manager"))
    assert {method.path for method in METHODS.values() if method.service == service} <= set(table)


@pytest.mark.parametrize(("role", "code"), [(WORKER, Code.PERMISSION_DENIED), (MANAGER, Code.UNAVAILABLE)])
def test_a_stream_of_a_part_that_is_not_there_ends_for_those_who_may_call_it(role: str, code: Code) -> None:
    bench = Bench()
    channel = bench.client.connect("10.0.0.1:2377", authority().credentials("caller", role))
    ends: list[Refused | None] = []
    channel.stream(path("Watch", "Watch"), watch_pb2.WatchRequest(), on_item=lambda item: None, on_end=ends.append)
    bench.simulator.run_until(lambda: bool(ends))
    assert ends[0] is not None
    assert ends[0].code is code


def test_every_method_has_a_route() -> None:
    bench = Bench()
    assert set(service_routes(bench.stage.at("/manager"))) == set(METHODS)
