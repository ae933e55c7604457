"""ManagerActor with real servers, store, consensus and control API; one part that counts stands for the leader's."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from google.protobuf.message import Message

from actors import leader_actor
from actors.manager_actor import ManagerActor, advertised
from runtime.disk.data_root import RAFT_DATABASE
from runtime.disk.memory import MemoryDisk
from runtime.pki.root import create_root
from runtime.protocol.cluster import Control
from runtime.protocol.manager import LeaderContext, ManagerReady, ManagerSetup
from runtime.protocol.node import CheckHealth
from runtime.protocol.raft import RaftStatus
from runtime.stage import Actor
from runtime.stage.cell import Cell, Life
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import control_pb2, health_pb2
from runtime.wire.pb import types_pb2 as types
from runtime.wire.services import path
from tests.unit.wire.authority import CLUSTER, authority


class Part(Actor):
    """A part of the leader's subtree."""

    lives: list[LeaderContext]

    def __init__(self, context: LeaderContext) -> None:
        super().__init__()
        self.lives.append(context)


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Part.lives = []
        monkeypatch.setattr(leader_actor, "PARTS", (("part", Part),))
        self.simulator = Simulator(4)
        start = time.time()
        self.network = MemoryNetwork(self.schedule, random.Random(4), clock=lambda: start + self.simulator.time)
        self.disk = MemoryDisk()
        transport = self.network.transport("10.0.0.1")
        self.stage = self.simulator.node("n1", transport=transport, disk=self.disk)
        self.node = Probe(self.simulator, self.stage, "node")
        rng = random.Random(9)
        setup = ManagerSetup(
            "manager1", CLUSTER, authority().manager(), create_root(rng.randbytes, start), (bytes(32),),
            "10.0.0.1:2377", "10.0.0.1:2377", "/run/control.sock",
        )  # fmt: skip
        self.manager = self.stage.mount("manager", ManagerActor, self.node.address, setup)

    def schedule(self, delay: float, call: Any) -> None:
        self.simulator.set(delay, call)

    def cell(self, name: str) -> Cell:
        cell = self.stage.at(f"/manager/{name}").resolve()
        assert cell is not None, name
        return cell

    def fail(self, name: str, error: BaseException | None = None) -> None:
        cell = self.cell(name)
        cell.control(lambda: cell.failed(error or RuntimeError("injected"), None))

    def ready(self) -> ManagerReady:
        return self.node.expect(ManagerReady, within=30)

    def call(self, method: str) -> Any:
        return self.simulator.ask(self.stage.at("/manager/control"), Control(method, _request(method)))


def _request(method: str) -> Message:
    request: Message = getattr(control_pb2, f"{method}Request")()
    return request


def test_a_new_manager_founds_its_cluster_and_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    assert bench.ready() == ManagerReady("10.0.0.1:2377")
    (cluster,) = bench.call("ListClusters").clusters
    assert cluster.id == CLUSTER
    assert cluster.root_ca.join_tokens.worker.startswith("SWMTKN-1-")
    assert not cluster.root_ca.ca_key
    (node,) = bench.call("ListNodes").nodes
    assert (node.id, node.role, node.manager_status.leader) == ("manager1", types.MANAGER, True)
    (context,) = Part.lives
    assert (context.node_id, context.cluster_id) == ("manager1", CLUSTER)


def test_losing_the_leadership_ends_the_subtree_and_regaining_it_starts_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.ready()
    status = bench.cell("raft").instance._status  # type: ignore[union-attr]
    for leading in (False, True, False, True):
        bench.manager.tell(RaftStatus(status.raft_id, 0, leading, 3, status.members))
    bench.simulator.run_for(1)
    assert bench.cell("leader/part").life is Life.RUNNING
    assert len(Part.lives) >= 2
    bench.manager.tell(RaftStatus(status.raft_id, 0, False, 4, status.members))
    bench.simulator.run_for(1)
    assert bench.stage.at("/manager/leader").resolve() is None


@pytest.mark.parametrize("part", ["store", "raft", "raft/log", "control", "wire", "leader", "leader/part"])
def test_a_failed_part_is_back_after_the_reconnect_delay_with_everything_written(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    bench = Bench(monkeypatch)
    bench.ready()
    bench.fail(part)
    bench.simulator.run_for(3)
    assert bench.cell(part).life is Life.RUNNING
    assert len(bench.call("ListNodes").nodes) == 1
    assert bench.simulator.ask(bench.stage.at("/manager/control"), CheckHealth("ControlAPI")) is True


def test_a_disk_that_fails_twice_within_a_minute_keeps_the_manager_down(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.ready()
    for name in ("web", "api"):
        bench.disk.image(RAFT_DATABASE).sync_error_at(0)
        bench.stage.at("/manager/control").ask(Control("CreateService", _service(name)))
        bench.simulator.run_for(5)
    cell = bench.manager.resolve()
    assert cell is not None
    assert cell.life is Life.DOWN
    assert "input/output error" in cell.last_error


def _service(name: str) -> control_pb2.CreateServiceRequest:
    request = control_pb2.CreateServiceRequest()
    request.spec.annotations.name = name
    request.spec.task.container.image = "host"
    request.spec.replicated.replicas = 1
    return request


def test_health_says_what_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.ready()
    transport = bench.stage.world.transport
    assert transport is not None
    channel = transport.connect("unix:/run/control.sock", None)
    found = {}
    for service in ("ControlAPI", "Raft", "Nothing"):
        results: list[Any] = []
        request = health_pb2.HealthCheckRequest(service=service)
        channel.unary(path("Health", "Check"), request, timeout=5.0, done=results.append)
        bench.simulator.run_until(lambda results=results: bool(results))  # type: ignore[misc]
        found[service] = results[0].status
    kinds = health_pb2.HealthCheckResponse
    assert found == {"ControlAPI": kinds.SERVING, "Raft": kinds.SERVING, "Nothing": kinds.UNKNOWN}


@pytest.mark.parametrize(
    ("advertise", "listening", "expected"),
    [
        ("10.0.0.1:2377", "0.0.0.0:2377", "10.0.0.1:2377"),
        ("10.0.0.1:0", "127.0.0.1:4711", "10.0.0.1:4711"),
        ("", "127.0.0.1:4711", "0.0.0.0:4711"),
        ("[fe80::1]:2377", "[::]:2377", "[fe80::1]:2377"),
    ],
)
def test_the_advertised_address(advertise: str, listening: str, expected: str) -> None:
    assert advertised(advertise, listening) == expected
