"""LeaderActor over a real store: founds what is missing, then starts its parts, and keeps the dispatcher informed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from actors import leader_actor
from actors.leader_actor import LeaderActor
from actors.store_watcher import StoreWatcher
from runtime.pki.root import create_root
from runtime.protocol.manager import LeaderContext, LeaderReady, ManagerSetup, MembersChanged
from runtime.protocol.raft import MemberStatus
from runtime.stage import Actor, handles
from runtime.stage.cell import Cell, Life
from runtime.stage.probe import Probe
from runtime.stage.simulator import EPOCH
from runtime.swarm.founding import first_networks
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Credentials
from tests.messages.part_bench import PartBench
from tests.seeded import entropy

CLUSTER = "cluster0000000000000000000"
MEMBERS = MembersChanged({7: MemberStatus(7, "manager1", "10.0.0.1:2377", leader=True, reachable=True)})
ROOT = create_root(entropy(9), EPOCH)


class Part(Actor):
    """A part that keeps what it was made with and what it is told."""

    contexts: list[LeaderContext]
    told: list[MembersChanged]

    def __init__(self, context: LeaderContext) -> None:
        super().__init__()
        self.contexts.append(context)

    @handles(MembersChanged)
    def members(self, message: MembersChanged) -> None:
        self.told.append(message)


class Bench(PartBench):
    """The leader at /leader, over the store of the bench."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *made: Any, signer: bool = True, held: bool = False) -> None:
        Part.contexts, Part.told = [], []
        monkeypatch.setattr(leader_actor, "PARTS", (("dispatcher", Part), ("other", Part)))
        super().__init__(StoreWatcher, *made)
        self.held = held
        self.manager = Probe(self.simulator, self.stage, "manager")
        root = ROOT if signer else dataclasses.replace(ROOT, signer=None)
        setup = ManagerSetup("manager1", CLUSTER, Credentials(b""), root, (bytes(32),), subnet_size=25)
        raft = self.stage.at("/raft")
        self.leader = self.stage.mount(
            "leader", LeaderActor, self.manager.address, setup, self.store, self.published, raft
        )

    def cell(self, path: str) -> Cell:
        cell = self.stage.at(path).resolve()
        assert cell is not None, path
        return cell


def test_a_first_leader_writes_cluster_and_own_entry_and_only_then_starts_its_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, held=True)
    bench.manager.expect_none(LeaderReady, during=1)
    assert Part.contexts == []
    bench.release()
    bench.manager.expect(LeaderReady)
    (cluster,) = bench.published.view.all(objects.Cluster)
    assert (cluster.id, cluster.subnetSize) == (CLUSTER, 25)
    assert cluster.root_ca.ca_cert == ROOT.bundle
    assert cluster.root_ca.join_tokens.worker != cluster.root_ca.join_tokens.manager
    (node,) = bench.published.view.all(objects.Node)
    assert (node.id, node.role, node.certificate.status.state) == (
        "manager1", types.MANAGER, types.IssuanceStatus.ISSUED,
    )  # fmt: skip
    assert len(Part.contexts) == 2
    assert Part.contexts[0].raft == bench.stage.at("/raft")


def test_a_later_leader_leaves_the_cluster_object_alone_and_adds_its_own_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = objects.Cluster(id=CLUSTER)
    cluster.spec.annotations.name = "default"
    bench = Bench(monkeypatch, cluster, signer=False)
    bench.manager.expect(LeaderReady)
    (found,) = bench.published.view.all(objects.Cluster)
    assert found.meta.version.index < bench.published.view.version
    assert not found.root_ca.ca_cert
    assert [node.id for node in bench.published.view.all(objects.Node)] == ["manager1"]


def test_a_first_leader_makes_the_ingress_network_and_the_predefined_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.manager.expect(LeaderReady)
    found = {each.spec.annotations.name: each for each in bench.published.view.all(objects.Network)}
    assert sorted(found) == ["bridge", "host", "ingress"]
    ingress = found["ingress"]
    assert (ingress.spec.ingress, ingress.ipam.configs[0].subnet) == (True, "10.0.0.0/25")
    assert ingress.driver_state.options["com.docker.network.driver.overlay.vxlanid_list"] == "4096"
    assert found["host"].spec.annotations.labels == {"com.docker.swarm.predefined": "true"}
    assert found["host"].driver_state.name == "host"


def test_a_later_leader_makes_predefined_networks_and_no_ingress_network(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, host = objects.Cluster(id=CLUSTER), objects.Network(id="kept")
    cluster.spec.annotations.name = "default"
    host.spec.annotations.name = "host"
    bench = Bench(monkeypatch, cluster, host, signer=False)
    bench.manager.expect(LeaderReady)
    found = {each.spec.annotations.name: each.id for each in bench.published.view.all(objects.Network)}
    assert sorted(found) == ["bridge", "host"]
    assert found["host"] == "kept"


def test_a_leader_that_finds_nothing_to_write_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, node = objects.Cluster(id=CLUSTER), objects.Node(id="manager1")
    cluster.spec.annotations.name = "default"
    bench = Bench(monkeypatch, cluster, node, *first_networks(entropy(1)).predefined, signer=False)
    before = bench.index
    bench.manager.expect(LeaderReady)
    assert bench.index == before


def test_without_the_root_key_no_cluster_is_made_and_no_part_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, signer=False)
    bench.manager.expect_none(LeaderReady, during=5)
    assert Part.contexts == []
    assert "no root key" in bench.cell("/leader").last_error


def test_the_dispatcher_alone_hears_who_the_managers_are_in_every_life(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.manager.expect(LeaderReady)
    bench.leader.tell(MEMBERS)
    bench.simulator.settle()
    assert Part.told[-1] == MEMBERS
    assert Part.told.count(MEMBERS) == 1  # the other part heard nothing
    cell = bench.cell("/leader/dispatcher")
    cell.control(lambda: cell.failed(ValueError("a fault of the test"), None))
    bench.simulator.run_for(1)
    assert Part.told.count(MEMBERS) == 2
    assert len(Part.contexts) == 3


def test_a_part_that_fails_is_restarted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.manager.expect(LeaderReady)
    cell = bench.cell("/leader/other")
    cell.control(lambda: cell.failed(ValueError("a fault of the test"), None))
    bench.simulator.run_for(1)
    assert bench.cell("/leader/other").life is Life.RUNNING
    assert bench.cell("/leader/dispatcher").failures.total == 0
    assert len(Part.contexts) == 3
    bench.manager.expect_none(LeaderReady, during=1)
