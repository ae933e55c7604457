"""AdmissionActor against a real CA, and ClusterActor above it: a node whose certificate expired joins again."""

from __future__ import annotations

from typing import Any

import pytest

from actors.admission_actor import AdmissionActor
from runtime.disk.memory import MemoryDisk
from runtime.errors import Refused
from runtime.pki.key_file import is_encrypted
from runtime.pki.node_identity import NodeIdentity
from runtime.pki.unlock_key import UnlockKeyBox
from runtime.protocol import cluster as say
from runtime.protocol.certificate import CertificateSetup, GetAdmitted, Identified
from runtime.protocol.cluster import CertificateExpired
from runtime.protocol.node import NodeMended, NodeTrouble
from runtime.stage.simulator import EPOCH
from runtime.wire.port import MANAGER, WORKER
from tests.messages.certificate_bench import CA_ADDRESS, CaHost, Cluster, NodeHost, World
from tests.messages.cluster_fakes import Become, ClusterBench, join_request

KEY = b"unlock-key-of-the-managers-32-b."


class Applicant:
    """A host that asks, and what it has on disk."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.disk = MemoryDisk()
        self.stage = world.simulator.node("w1", transport=world.network.transport("10.0.0.2"), disk=self.disk)
        self.admission = self.stage.mount("admission", AdmissionActor)

    def ask(self, token: str, within: float = 20.0, addr: str = CA_ADDRESS) -> Any:
        return self.admission.ask(GetAdmitted(CertificateSetup(addr, token), within))

    def outcome(self, token: str, within: float = 20.0, addr: str = CA_ADDRESS) -> Any:
        future = self.ask(token, within, addr)
        self.world.simulator.run_until(lambda: future.done, 60.0)
        return future.result(0)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ca(world: World) -> CaHost:
    return CaHost(world)


@pytest.mark.parametrize(("token", "role"), [("worker", WORKER), ("manager", MANAGER)])
def test_who_is_admitted_has_an_identity_and_nothing_on_its_disk(
    world: World, ca: CaHost, token: str, role: str
) -> None:
    applicant = Applicant(world)
    identity = applicant.outcome(getattr(ca.tokens, token))
    assert isinstance(identity, NodeIdentity)
    assert (identity.info.role, identity.info.organization) == (role, ca.cluster_id)
    assert ca.node(identity.info.node_id) is not None
    assert applicant.disk.files.listdir("") == []
    again = applicant.outcome(getattr(ca.tokens, token))
    assert again.info.node_id != identity.info.node_id


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda token: "bogus", "invalid join token"),
        (lambda token: token.replace("SWMTKN-1-", "SWMTKN-2-1-"), "requires FIPS"),
        (lambda token: token[:-25] + "0" * 25, "A valid join token is necessary"),
        (lambda token: "SWMTKN-1-" + "0" * 50 + token[-26:], "does not match fingerprint"),
    ],
)
def test_a_token_that_is_wrong_is_refused_and_the_next_question_is_answered(
    world: World, ca: CaHost, spoil: Any, said: str
) -> None:
    applicant = Applicant(world)
    with pytest.raises(Refused, match=said):
        applicant.outcome(spoil(ca.tokens.worker))
    assert applicant.outcome(ca.tokens.worker).info.role == WORKER


def test_nobody_waits_longer_than_asked_and_what_comes_later_is_nobodys(world: World, ca: CaHost) -> None:
    applicant = Applicant(world)
    ca.held = []
    begun = world.simulator.time
    with pytest.raises(Refused, match="Nothing was changed: this node is what it was"):
        applicant.outcome(ca.tokens.worker, within=3.0)
    assert world.simulator.time - begun == pytest.approx(3.0, abs=0.01)
    ca.release()
    world.simulator.run_for(60.0)
    assert applicant.outcome(ca.tokens.worker).info.role == WORKER


def test_without_a_manager_there_the_refusal_says_so(world: World, ca: CaHost) -> None:
    with pytest.raises(Refused) as refused:
        Applicant(world).outcome(ca.tokens.worker, addr="10.9.9.9:2377")
    assert refused.value.code.name == "UNAVAILABLE"


def test_a_newer_question_takes_the_place_of_one_whose_asker_is_gone(world: World, ca: CaHost) -> None:
    applicant = Applicant(world)
    ca.held = []
    first = applicant.ask(ca.tokens.worker)
    world.simulator.run_for(1.0)
    second = applicant.ask(ca.tokens.manager)
    ca.release()
    world.simulator.run_until(lambda: second.done, 60.0)
    assert second.result(0).info.role == MANAGER
    assert not first.done


def test_a_managers_new_identity_is_written_under_its_swarms_lock(world: World, ca: CaHost) -> None:
    def lock(cluster: Any) -> None:
        cluster.spec.encryption_config.auto_lock_managers = True
        cluster.unlock_keys.add(subsystem="swarm-manager", key=KEY)

    ca.change(Cluster, ca.cluster_id, lock)
    identity = Applicant(world).outcome(ca.tokens.manager)
    assert identity.kek == KEY
    host = NodeHost(world, name="w2", ip="10.0.0.3", join_addr=CA_ADDRESS, admitted=identity, lock=UnlockKeyBox(KEY))
    told = host.boot().expect(Identified)
    assert (told.node_id, told.role) == (identity.info.node_id, MANAGER)
    assert is_encrypted(host.file("swarm-node.key"))
    assert host.file("swarm-root-ca.crt") == ca.root.bundle
    assert "BEGIN" not in repr(host.setup)


def test_what_is_on_disk_already_is_not_written_over_by_the_identity_of_the_start(world: World, ca: CaHost) -> None:
    applicant = Applicant(world)
    identity, other = applicant.outcome(ca.tokens.worker), applicant.outcome(ca.tokens.worker)
    host = NodeHost(world, name="w2", ip="10.0.0.3", join_addr=CA_ADDRESS, admitted=identity).boot()
    host.expect(Identified)
    written = host.file("swarm-node.crt")
    host.crash()
    assert host.boot(join_addr=CA_ADDRESS, admitted=other).expect(Identified).node_id == identity.info.node_id
    assert host.file("swarm-node.crt") == written


# The cluster layer


class Expired(ClusterBench):
    """A worker that says that its certificate expired, with a CA on its network."""

    def __init__(self, world: World) -> None:
        stage = world.simulator.node("w1", transport=world.network.transport("10.0.0.2"))
        super().__init__(stage=stage)
        self.simulator = world.simulator
        self.behaviour.manager = False
        self.mount()
        self.ask(say.Join(join_request()))
        self.cluster.tell(NodeTrouble(CertificateExpired("expired on some day")))
        self.simulator.settle()
        self.state.log.clear()

    def join(self, token: str) -> Any:
        return self.cluster.ask(say.Join(join_request(remote_addrs=(CA_ADDRESS,), join_token=token)))


def test_a_refused_join_touches_neither_node_nor_state(world: World, ca: CaHost) -> None:
    bench = Expired(world)
    future = bench.join(ca.tokens.worker[:-25] + "0" * 25)
    bench.simulator.run_until(lambda: future.done, 60.0)
    with pytest.raises(Refused, match="A valid join token is necessary"):
        future.result(0)
    assert (bench.state.log, bench.behaviour.left, len(bench.behaviour.configs)) == ([], 0, 1)
    assert (bench.info().local_node_state, bench.info().error) == ("error", "expired on some day")


def test_a_join_that_is_granted_ends_the_old_node_and_starts_one_with_the_identity(world: World, ca: CaHost) -> None:
    bench = Expired(world)
    future = bench.join(ca.tokens.worker)
    bench.simulator.run_until(lambda: future.done, 60.0)
    future.result(0)
    config = bench.behaviour.configs[-1]
    assert config.admitted is not None
    assert (config.admitted.info.role, config.join_token, bench.behaviour.left) == (WORKER, "", 1)
    assert bench.state.log == ["clear", "save", "save"]
    assert bench.info().local_node_state == "active"


def test_a_node_that_fails_while_a_new_identity_is_asked_for_is_started_again_with_its_old_one(
    world: World, ca: CaHost
) -> None:
    bench = Expired(world)
    future = bench.join(ca.tokens.worker[:-25] + "0" * 25)
    bench.simulator.run_for(1.0)
    bench.stage.at("/cluster/node").tell(Become(error=ValueError("bug")))
    bench.simulator.run_until(lambda: future.done, 60.0)
    with pytest.raises(Refused, match="A valid join token is necessary"):
        future.result(0)
    bench.simulator.run_for(1.0)
    assert (bench.state.log, bench.info().local_node_state) == ([], "active")


def test_a_node_whose_certificate_holds_again_meanwhile_keeps_it(world: World, ca: CaHost) -> None:
    bench = Expired(world)
    ca.held = []
    future = bench.join(ca.tokens.worker)
    bench.simulator.run_for(1.0)
    bench.cluster.tell(NodeMended())
    ca.release()
    bench.simulator.run_until(lambda: future.done, 60.0)
    with pytest.raises(Refused, match="already part of a swarm"):
        future.result(0)
    assert (bench.state.log, bench.info().local_node_state) == ([], "active")
    assert world.now() > EPOCH
