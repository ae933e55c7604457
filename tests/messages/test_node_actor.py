"""NodeActor: what starts in which order, when it is ready, and what it passes on; fakes stand for its children."""

from __future__ import annotations

from typing import Any

import pytest

from actors import node_actor
from actors.node_actor import NodeActor
from runtime.disk.errors import LogDamaged
from runtime.disk.memory import MemoryDisk
from runtime.disk.state_files import Remote, StateFiles
from runtime.errors import Code, Refused
from runtime.pki.key_file import DataKeys
from runtime.pki.root import RootCA
from runtime.protocol.agent import (
    CertificateRenewed,
    DropTasks,
    Managers,
    ManagersSeen,
    RootSeen,
    SessionDown,
    SessionUp,
)
from runtime.protocol.certificate import GetDataKeys, Identified
from runtime.protocol.manager import EndManager, ManagerReady, ManagerRemoved
from runtime.protocol.node import (
    GetNodeStatus,
    LeaveNode,
    ManagersKnown,
    NodeChanged,
    NodeIdentified,
    NodeMended,
    NodeReady,
    NodeTrouble,
    RenewCertificate,
    StartConfig,
    StartManager,
    StopManager,
)
from runtime.stage import Actor, Address, Policy, handles
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.wire.port import Credentials

MANAGER, WORKER = "swarm-manager", "swarm-worker"


class Told:
    """What the fakes were started with and told, and how they behave."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.started: list[str] = []
        self.messages: dict[str, list[Any]] = {"certificate": [], "agent": [], "manager": []}
        self.setups: dict[str, Any] = {}
        self.no_certificate: BaseException | None = None


def fake(name: str, told: Told) -> type[Actor]:
    """A child that keeps what it is told."""

    class Fake(Actor):
        def __init__(self, node: Address, setup: Any) -> None:
            super().__init__()
            self.node = node
            told.started.append(name)
            told.setups[name] = setup

        def started(self) -> None:
            if name == "certificate":
                if told.no_certificate is not None:
                    raise told.no_certificate
                root = RootCA(b"", ())
                self.tell(self.node, Identified("node-1", told.role, "cluster-1", Credentials(b""), root))

        @handles(GetDataKeys)
        def keys(self, message: GetDataKeys) -> DataKeys:
            return DataKeys(bytes(32))

        @handles(DropTasks)
        def drop(self, message: DropTasks) -> bool:
            told.messages[name].append(message)
            return True

        def unhandled(self, message: Any) -> Any:
            told.messages[name].append(message)

    return Fake


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, role: str = MANAGER, config: StartConfig | None = None) -> None:
        self.told = Told(role)
        monkeypatch.setattr(node_actor, "CertificateActor", fake("certificate", self.told))
        monkeypatch.setattr(node_actor, "AgentActor", fake("agent", self.told))
        monkeypatch.setattr(node_actor, "ManagerActor", fake("manager", self.told))
        self.simulator = Simulator(2)
        self.disk = MemoryDisk()
        settings = {"hostname": "host-1", "control_socket": "/run/control.sock"}
        self.stage = self.simulator.node("n1", disk=self.disk, settings=settings)
        self.cluster = Probe(self.simulator, self.stage, "cluster")
        self.config = config or StartConfig(listen_addr="10.0.0.1:2377", advertise_addr="10.0.0.1:2377")

    def start(self) -> None:
        self.node = self.stage.mount("node", NodeActor, self.cluster.address, self.config)
        self.simulator.settle()

    def last(self, name: str, kind: type[Any]) -> Any:
        return [each for each in self.told.messages[name] if isinstance(each, kind)][-1]


def test_a_manager_is_ready_with_a_session_and_a_control_api(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.start()
    assert bench.told.started == ["certificate", "agent", "manager"]
    bench.node.tell(SessionUp("node-1"))
    bench.cluster.expect_none(NodeReady)
    bench.node.tell(ManagerReady("10.0.0.1:2377"))
    assert bench.cluster.expect(NodeReady) == NodeReady("node-1", MANAGER)
    status = bench.simulator.ask(bench.node, GetNodeStatus())
    assert status.ready
    assert status.manager


def test_a_worker_is_ready_with_a_session_and_starts_no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, WORKER)
    bench.start()
    bench.node.tell(SessionUp("node-1"))
    assert bench.cluster.expect(NodeReady) == NodeReady("node-1", WORKER)
    assert bench.told.started == ["certificate", "agent"]


def test_the_agent_prefers_the_own_manager_while_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.start()
    assert bench.last("agent", Managers).local is None
    bench.node.tell(ManagerReady("10.0.0.1:2377"))
    bench.simulator.settle()
    assert bench.last("agent", Managers).local == "unix:/run/control.sock"
    bench.node.tell(SessionUp("node-1"))
    bench.simulator.settle()
    cell = bench.stage.at("/node/manager").resolve()
    assert cell is not None
    cell.control(lambda: cell.failed(RuntimeError("injected"), None))
    bench.simulator.settle()
    assert bench.last("agent", Managers).local is None


def test_a_manager_that_cannot_start_leaves_the_agent_of_a_known_node_and_its_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.start()
    cell, node = bench.stage.at("/node/manager").resolve(), bench.node.resolve()
    assert cell is not None
    assert node is not None
    damage = LogDamaged("entry 7 is missing")
    cell.control(lambda: cell.failed(damage, None))
    bench.simulator.settle()
    assert node.failures.total == 0
    assert bench.cluster.expect(NodeTrouble) == NodeTrouble(damage)
    bench.simulator.run_for(1)
    assert bench.told.started == ["certificate", "agent", "manager", "manager"]


def test_a_manager_that_a_join_asked_for_and_cannot_start_fails_the_node_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, config=StartConfig(listen_addr="10.0.0.1:2377", join_addr="10.0.0.2:2377"))
    bench.start()
    cell, node = bench.stage.at("/node/manager").resolve(), bench.node.resolve()
    assert cell is not None
    assert node is not None
    cell.control(lambda: cell.failed(Refused(Code.UNAVAILABLE, "address already in use"), None))
    bench.simulator.settle()
    assert "address already in use" in node.last_error
    bench.simulator.run_for(1)
    assert node.failures.total == 1


def test_a_node_that_has_joined_begins_anew_with_all_managers_and_whatever_its_manager_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one that it joined by may be gone, and nobody waits for this start."""
    bench = Bench(monkeypatch, config=StartConfig(listen_addr="10.0.0.1:2377", join_addr="10.9.9.9:2377"))
    bench.start()
    bench.node.tell(ManagersSeen((("m2", "10.0.0.2:2377", 10), ("m3", "10.0.0.3:2377", 10))))
    bench.simulator.settle()
    node = bench.node.resolve()
    assert node is not None
    node.control(lambda: node.failed(RuntimeError("injected"), None))
    bench.simulator.run_for(1)
    assert set(bench.told.setups["certificate"].remotes) == {("m2", "10.0.0.2:2377"), ("m3", "10.0.0.3:2377")}
    cell = bench.stage.at("/node/manager").resolve()
    assert cell is not None
    cell.control(lambda: cell.failed(Refused(Code.UNAVAILABLE, "address already in use"), None))
    bench.simulator.run_for(1)
    assert node.failures.total == 1, "the one that was injected"


def test_a_manager_that_stays_down_is_told_to_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.start()
    bench.node.tell(SessionUp("node-1"))
    bench.node.tell(ManagerReady("10.0.0.1:2377"))
    cell = bench.stage.at("/node/manager").resolve()
    assert cell is not None
    bench.simulator.settle()
    cell.policy = Policy(down_after_two=(OSError,))
    for _ in range(2):
        cell.control(lambda: cell.failed(OSError("disk"), None))
        bench.simulator.run_for(1)
    assert str(bench.cluster.expect(NodeTrouble).error) == "disk"


@pytest.mark.parametrize(
    ("role", "leave"), [(WORKER, '"docker swarm leave" '), (MANAGER, '"docker swarm leave --force" ')]
)
def test_a_node_that_was_removed_says_so_once_and_how_to_come_back_and_no_more_once_it_has_a_session(
    monkeypatch: pytest.MonkeyPatch, role: str, leave: str
) -> None:
    bench = Bench(monkeypatch, role)
    bench.start()
    bench.node.tell(SessionDown("unavailable"))
    bench.simulator.settle()
    assert not any(isinstance(each, NodeTrouble) for each in bench.cluster.messages)
    bench.node.tell(SessionDown("denied", removed=True))
    bench.node.tell(SessionDown("denied", removed=True))
    error = bench.cluster.expect(NodeTrouble).error
    assert "node-1 was removed from the swarm" in str(error)
    assert leave in str(error)
    bench.simulator.settle()
    assert not any(isinstance(each, NodeTrouble) for each in bench.cluster.messages)
    bench.node.tell(SessionUp("node-1"))
    bench.cluster.expect(NodeMended)


def test_no_first_certificate_fails_the_node_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.told.no_certificate = Refused(Code.INVALID_ARGUMENT, "invalid join token")
    bench.start()
    cell = bench.node.resolve()
    assert cell is not None
    assert cell.failures.total == 1
    assert cell.last_error == "Refused: InvalidArgument: invalid join token"


def test_known_managers_are_kept_for_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, WORKER)
    bench.start()
    bench.node.tell(ManagersSeen((("m2", "10.0.0.2:2377", 10), ("m1", "10.0.0.1:2377", 10))))
    bench.simulator.settle()
    assert StateFiles(bench.disk.files).remotes() == [Remote("m1", "10.0.0.1:2377"), Remote("m2", "10.0.0.2:2377")]
    told = bench.last("agent", Managers).remotes
    assert set(told) == {("m1", "10.0.0.1:2377"), ("m2", "10.0.0.2:2377")}
    assert set(bench.last("certificate", Managers).remotes) == set(told)
    assert [set(bench.cluster.expect(ManagersKnown).remotes) for _ in range(2)] == [set(), set(told)]


def test_saved_managers_are_used_again_but_not_by_a_new_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, WORKER)
    StateFiles(bench.disk.files).save_remotes([Remote("m1", "10.0.0.1:2377")])
    bench.start()
    assert bench.told.setups["certificate"].remotes == (("m1", "10.0.0.1:2377"),)
    other = Bench(monkeypatch, WORKER, StartConfig(join_addr="10.9.9.9:2377", join_token="SWMTKN-1-x"))
    other.start()
    assert bench.cluster.expect(ManagersKnown).remotes == (("m1", "10.0.0.1:2377"),)
    assert other.cluster.expect(ManagersKnown).remotes == (("", "10.9.9.9:2377"),)
    assert other.told.setups["certificate"].remotes == (("", "10.9.9.9:2377"),)
    assert "SWMTKN" not in repr(other.told.setups["certificate"])
    forced = Bench(monkeypatch, MANAGER, StartConfig(force_new_cluster="order"))
    StateFiles(forced.disk.files).save_remotes([Remote("m1", "10.0.0.1:2377")])
    forced.start()
    assert forced.told.setups["certificate"].remotes == ()


def test_a_renewal_reaches_agent_and_roles_and_a_role_asks_for_a_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, WORKER)
    bench.start()
    bench.node.tell(NodeChanged(MANAGER))
    bench.simulator.settle()
    assert bench.last("certificate", RenewCertificate) == RenewCertificate(MANAGER)
    bench.node.tell(CertificateRenewed(MANAGER))
    bench.simulator.settle()
    assert bench.last("agent", CertificateRenewed) == CertificateRenewed(MANAGER)
    assert bench.told.started[-1] == "manager"
    bench.node.tell(RootSeen(b"pem"))
    bench.simulator.settle()
    assert bench.last("certificate", RootSeen) == RootSeen(b"pem")


def asked(bench: Bench) -> list[Any]:
    told = bench.told.messages["certificate"]
    return [each for each in told if isinstance(each, (RenewCertificate, RootSeen))]


def test_a_new_life_of_the_keeper_is_asked_again_for_what_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """It failed between the request and the renewal: whoever asked does so once, and a root CA that is being replaced
    would wait for this node for ever."""
    bench = Bench(monkeypatch, WORKER)
    bench.start()
    keeper = bench.stage.cells["/node/certificate"]

    def lives_again() -> list[Any]:
        bench.simulator.settle()
        bench.told.messages["certificate"].clear()
        keeper.control(lambda: keeper.failed(RuntimeError("as a defect would"), None))
        bench.simulator.run_for(5)
        return asked(bench)

    assert lives_again() == []
    bench.node.tell(NodeChanged(WORKER, rotate=True))
    assert lives_again() == [RenewCertificate()]
    bench.node.tell(RenewCertificate(MANAGER))
    bench.node.tell(RenewCertificate())
    bench.node.tell(RootSeen(b"pem"))
    assert lives_again() == [RootSeen(b"pem"), RenewCertificate(MANAGER)]
    bench.node.tell(CertificateRenewed(WORKER, settled=False))
    assert lives_again() == [RootSeen(b"pem"), RenewCertificate(MANAGER)], "the root was replaced, no more"
    bench.node.tell(CertificateRenewed(MANAGER))
    assert lives_again() == [RootSeen(b"pem")]


def test_leaving_ends_the_tasks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, WORKER)
    bench.start()
    assert bench.simulator.ask(bench.node, LeaveNode()) is True
    assert bench.last("agent", DropTasks) == DropTasks()


def test_a_manager_that_leaves_lets_another_one_lead_while_its_tasks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.start()
    assert bench.simulator.ask(bench.node, LeaveNode()) is True
    assert bench.last("manager", EndManager) == EndManager(discard=False)
    assert bench.last("agent", DropTasks) == DropTasks()


def test_a_manager_that_never_came_up_is_told_to_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, WORKER)
    bench.start()
    for role in (MANAGER, WORKER, MANAGER, WORKER):
        bench.node.tell(CertificateRenewed(role))
    bench.simulator.settle()
    assert bench.told.started.count("manager") <= 1
    status = bench.simulator.ask(bench.node, GetNodeStatus())
    assert status.role == WORKER
    bench.node.tell(CertificateRenewed(MANAGER))
    bench.simulator.settle()
    assert bench.told.started[-1] == "manager"


def test_a_manager_that_the_others_let_go_of_takes_part_as_a_worker_until_it_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.start()
    bench.node.tell(SessionUp("node-1"))
    bench.node.tell(ManagerReady("10.0.0.1:2377"))
    bench.cluster.expect(NodeReady)
    bench.node.tell(ManagerRemoved())
    bench.simulator.run_for(1)
    assert bench.cluster.messages[-1] == NodeIdentified("node-1", WORKER)
    status = bench.simulator.ask(bench.node, GetNodeStatus())
    assert (status.role, status.manager, status.ready) == (WORKER, False, True)
    bench.node.tell(CertificateRenewed(WORKER))
    bench.node.tell(CertificateRenewed(MANAGER))
    bench.simulator.run_for(1)
    assert bench.cluster.messages[-1] == NodeIdentified("node-1", MANAGER)
    assert bench.simulator.ask(bench.node, GetNodeStatus()).manager


def test_a_role_that_goes_while_the_keys_are_fetched_starts_no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, WORKER)
    bench.start()
    bench.node.tell(StartManager())
    bench.node.tell(StopManager())
    bench.simulator.settle()
    assert "manager" not in bench.told.started


def test_data_keys_appear_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.start()
    assert "data_keys" not in repr(bench.told.setups["manager"])
