"""CertificateActor: founding, joining, loading, renewing, roots, locks and data keys, against a real CA."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from actors.certificate_actor import ROOT_AGAIN
from runtime.disk.data_root import RAFT_DATABASE
from runtime.disk.errors import DiskFailed, ForeignState, StateDamaged
from runtime.disk.state_files import FOUNDING_KEY, NEW_NODE_CERT, NODE_CERT, NODE_KEY, ROOT_CERT, StateFiles
from runtime.errors import Code, Refused
from runtime.failpoints import armed
from runtime.pki.certificates import WORKER_ROLE, Holder, certificate_info
from runtime.pki.errors import InvalidUnlockKey
from runtime.pki.join_tokens import new_join_token
from runtime.pki.key_file import decode_key_file, is_encrypted
from runtime.pki.keys import dump_key
from runtime.pki.node_identity import new_request
from runtime.pki.pem import load_certificates
from runtime.pki.root import create_root, load_root, root_of_cluster
from runtime.pki.unlock_key import UnlockKeyBox
from runtime.protocol.agent import CertificateRenewed, Managers, RootSeen
from runtime.protocol.certificate import CertificateTrouble, DropDataKeys, GetDataKeys, Identified, RootAgreed
from runtime.protocol.cluster import ClusterError
from runtime.protocol.node import NodeLocked, RenewCertificate
from runtime.wire.pb import types_pb2
from runtime.wire.port import MANAGER, WORKER
from tests.messages.certificate_bench import CA_ADDRESS, LOCAL, CaHost, Cluster, Node, NodeHost, World

DAY = 86400.0


def joined(world: World, ca: CaHost, role: str = "worker", **setup: Any) -> tuple[NodeHost, Identified]:
    token = getattr(ca.tokens, role)
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=token, **setup).boot()
    return host, host.expect(Identified)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ca(world: World) -> CaHost:
    return CaHost(world)


def in_force(host: NodeHost) -> Any:
    return certificate_info(load_certificates(host.file("swarm-node.crt"))[0])


# Founding


def test_a_node_without_anything_founds_a_cluster(world: World) -> None:
    host = NodeHost(world).boot()
    told = host.expect(Identified)
    assert told.role == MANAGER
    assert len(told.node_id) == len(told.cluster_id) == 25
    assert told.root.signer is not None
    assert told.credentials.material.certificate == host.file("swarm-node.crt")
    assert told.credentials.material.roots == host.file("swarm-root-ca.crt") == told.root.bundle
    files = [".founding-root-ca.key", "swarm-node.crt", "swarm-node.key", "swarm-root-ca.crt"]
    assert host.disk.files.listdir("certificates") == files
    modes = [host.disk.files.mode(name) for name in (FOUNDING_KEY, NODE_CERT, NODE_KEY, ROOT_CERT)]
    assert modes == [0o600, 0o644, 0o600, 0o644]
    assert decode_key_file(host.file("swarm-node.key"), b"").data_keys is None


def test_the_roots_key_outlasts_a_crash_only_until_the_log_holds_it(world: World) -> None:
    host = NodeHost(world).boot()
    first = host.expect(Identified)
    host.crash()
    again = host.boot().expect(Identified)
    assert again.root.signer is not None
    StateFiles(host.disk.files).drop_founding_key()
    host.crash()
    again = host.boot().expect(Identified)
    assert (again.node_id, again.role, again.cluster_id) == (first.node_id, first.role, first.cluster_id)
    assert again.root.signer is None
    assert again.root.bundle == first.root.bundle


def test_a_roots_key_that_an_operator_put_there_is_used_and_never_rewritten(world: World, ca: CaHost) -> None:
    host = NodeHost(world)
    assert ca.root.signer is not None
    host.disk.files.make_dirs("certificates", 0o755)
    host.disk.files.write_atomic("certificates/swarm-root-ca.crt", ca.root.bundle, 0o644)
    host.disk.files.write_atomic("certificates/swarm-root-ca.key", dump_key(ca.root.signer.key), 0o600)
    told = host.boot().expect(Identified)
    assert told.role == MANAGER
    assert told.root.bundle == ca.root.bundle
    assert told.root.signer is not None
    assert told.cluster_id != ca.cluster_id


def test_no_secret_is_in_a_repr(world: World) -> None:
    host = NodeHost(world, join_addr="a:1", join_token="SWMTKN-1-secret", lock=UnlockKeyBox(b"secretsecret"))
    assert "secret" not in repr(host.setup)
    assert "BEGIN" not in repr(NodeHost(world, ip="10.0.0.3").boot().expect(Identified))


# Joining


@pytest.mark.parametrize(("token", "role"), [("worker", WORKER), ("manager", MANAGER)])
def test_a_node_joins_in_the_role_of_its_token(world: World, ca: CaHost, token: str, role: str) -> None:
    host, told = joined(world, ca, token, availability="drain")
    assert (told.role, told.cluster_id, told.root.signer) == (role, ca.cluster_id, None)
    assert host.file("swarm-root-ca.crt") == ca.root.bundle
    node = ca.node(told.node_id)
    assert node.certificate.status.state == types_pb2.IssuanceStatus.ISSUED
    assert node.spec.availability == 2
    assert in_force(host).node_id == told.node_id
    assert ("GetUnlockKey" in ca.calls) == (role == MANAGER)
    assert world.simulator.time < 2.0


def test_a_malformed_token_fails_at_once_with_the_engines_text(world: World, ca: CaHost) -> None:
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token="SWMTKN-1-nonsense").boot()
    error = host.fails(within=0.1)
    assert isinstance(error, ClusterError)
    assert (str(error), error.kind) == ("invalid join token", "plain")
    assert ca.calls == []


def test_who_joins_without_a_token_hears_what_the_managers_would_say_and_asks_nobody(world: World, ca: CaHost) -> None:
    error = NodeHost(world, join_addr=CA_ADDRESS).boot().fails(within=0.1)
    assert isinstance(error, Refused)
    assert error.rpc_text == (
        "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster"
    )
    assert ca.calls == []


def test_a_cluster_that_demands_fips_is_not_joined(world: World, ca: CaHost) -> None:
    token = ca.tokens.worker.replace("SWMTKN-1-", "SWMTKN-2-1-")
    error = NodeHost(world, join_addr=CA_ADDRESS, join_token=token).boot().fails(within=0.1)
    assert str(error) == "node is not FIPS-enabled but cluster requires FIPS"


def test_a_wrong_secret_fails_after_five_tries_two_seconds_apart(world: World, ca: CaHost) -> None:
    token = ca.tokens.worker[:-25] + "0" * 25
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=token).boot()
    error = host.fails()
    assert isinstance(error, Refused)
    assert not isinstance(error, ClusterError)
    assert error.rpc_text == (
        "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster"
    )
    assert ca.calls.count("IssueNodeCertificate") == 5
    assert 10.0 <= world.simulator.time < 10.5
    assert host.disk.files.listdir("certificates") == ["swarm-root-ca.crt"]


def test_a_root_that_is_not_the_tokens_is_refused_after_five_tries(world: World, ca: CaHost) -> None:
    other = create_root(lambda n: bytes(range(n)), world.now())
    prefix, version, _digest, secret = ca.tokens.worker.split("-")
    wrong = new_join_token(other.bundle, lambda n: b"s" * n).split("-")[2]
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=f"{prefix}-{version}-{wrong}-{secret}").boot()
    error = host.fails()
    assert str(error) == f"remote CA does not match fingerprint. Expected: {other.digest.hex()}"
    assert ca.calls == ["GetRootCACertificate"] * 5
    assert 10.0 <= world.simulator.time < 10.5
    assert host.disk.files.listdir("certificates") == []


def test_a_manager_that_is_there_within_ten_seconds_is_joined(world: World) -> None:
    ca = CaHost(world, serve=False)
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=ca.tokens.worker).boot()
    world.simulator.run_for(7.0)
    assert host.failures == []
    ca.serve()
    host.expect(Identified, within=3.0)


def test_without_any_manager_the_join_ends_with_what_the_last_try_said(world: World) -> None:
    ca = CaHost(world, serve=False)
    error = NodeHost(world, join_addr=CA_ADDRESS, join_token=ca.tokens.worker).boot().fails()
    assert isinstance(error, Refused)
    assert error.code is Code.UNAVAILABLE
    assert 10.0 <= world.simulator.time < 10.5


def test_a_certificate_is_waited_for_while_the_leader_cannot_sign(world: World, ca: CaHost) -> None:
    key = ca.cluster.root_ca.ca_key
    ca.change(Cluster, ca.cluster_id, lambda cluster: cluster.root_ca.ClearField("ca_key"))
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=ca.tokens.worker).boot()
    world.simulator.run_for(40.0)
    assert host.told == []
    assert host.failures == []
    ca.change(Cluster, ca.cluster_id, lambda cluster: setattr(cluster.root_ca, "ca_key", key))
    host.expect(Identified, within=40.0)
    assert len(ca.nodes) == 2


def test_a_node_that_is_removed_while_it_waits_asks_for_another_entry(world: World, ca: CaHost) -> None:
    key = ca.cluster.root_ca.ca_key
    ca.change(Cluster, ca.cluster_id, lambda cluster: cluster.root_ca.ClearField("ca_key"))
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=ca.tokens.worker).boot()
    world.simulator.run_until(lambda: len(ca.nodes) == 2)
    (first,) = [node.id for node in ca.nodes if node.id != ca.node_id]
    ca.write(lambda tx: tx.delete(Node, first))
    ca.change(Cluster, ca.cluster_id, lambda cluster: setattr(cluster.root_ca, "ca_key", key))
    told = host.expect(Identified)
    assert told.node_id != first
    assert ca.node(first) is None


@pytest.mark.parametrize("refusals", [1, 4])
def test_an_unlock_key_is_asked_for_up_to_five_times(world: World, ca: CaHost, refusals: int) -> None:
    ca.refusals["GetUnlockKey"] = [Refused(Code.PERMISSION_DENIED, "no")] * refusals
    _, told = joined(world, ca, "manager")
    assert told.role == MANAGER
    assert world.simulator.time >= 2.0 * refusals


def test_a_refused_unlock_key_ends_a_join(world: World, ca: CaHost) -> None:
    ca.refusals["GetUnlockKey"] = [Refused(Code.PERMISSION_DENIED, "no")] * 5
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=ca.tokens.manager).boot()
    assert str(host.fails()) == "PermissionDenied: no"
    assert not host.disk.files.exists(NODE_CERT)


def test_a_ca_that_knows_no_unlock_keys_means_no_lock(world: World, ca: CaHost) -> None:
    ca.refusals["GetUnlockKey"] = [Refused(Code.UNIMPLEMENTED, "unknown method")]
    host, _ = joined(world, ca, "manager")
    assert not is_encrypted(host.file("swarm-node.key"))


def lock(ca: CaHost, key: bytes) -> None:
    def edit(cluster: Any) -> None:
        cluster.spec.encryption_config.auto_lock_managers = True
        cluster.unlock_keys.add(subsystem="swarm-manager", key=key)

    ca.change(Cluster, ca.cluster_id, edit)


def test_a_manager_of_a_locked_cluster_encrypts_its_key_and_is_locked_after_a_restart(world: World, ca: CaHost) -> None:
    kek = b"k" * 32
    lock(ca, kek)
    host, told = joined(world, ca, "manager")
    content = decode_key_file(host.file("swarm-node.key"), kek)
    assert content.kek_version == ca.cluster.meta.version.index > 0
    host.crash()
    for lock_box in (UnlockKeyBox(), UnlockKeyBox(b"wrong" * 6)):
        host.boot(join_addr="", lock=lock_box).expect(NodeLocked)
        assert host.failures == []
        host.crash()
    assert host.boot(lock=UnlockKeyBox(kek)).expect(Identified).node_id == told.node_id


def test_a_worker_of_a_locked_cluster_encrypts_nothing(world: World, ca: CaHost) -> None:
    lock(ca, b"k" * 32)
    host, _ = joined(world, ca, "worker")
    assert not is_encrypted(host.file("swarm-node.key"))


# Loading


def test_a_root_without_certificate_is_not_downloaded_again_by_a_node_that_joins(world: World, ca: CaHost) -> None:
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=ca.tokens.worker)
    host.disk.files.make_dirs("certificates", 0o755)
    host.disk.files.write_atomic(ROOT_CERT, ca.root.bundle, 0o644)
    host.boot().expect(Identified)
    assert "GetRootCACertificate" not in ca.calls


@pytest.mark.parametrize("missing", [NODE_CERT, NODE_KEY, ROOT_CERT])
def test_half_an_identity_is_damage_and_nothing_is_founded_over_it(world: World, missing: str) -> None:
    host = NodeHost(world).boot()
    host.expect(Identified)
    host.crash()
    host.disk.files.remove(missing)
    before = host.disk.files.listdir("certificates")
    error = host.boot().fails(within=0.1)
    assert isinstance(error, StateDamaged)
    assert missing in str(error)
    assert host.disk.files.listdir("certificates") == before


@pytest.mark.parametrize("joins", [False, True])
def test_a_raft_log_without_certificate_is_never_built_over(world: World, ca: CaHost, joins: bool) -> None:
    setup = {"join_addr": CA_ADDRESS, "join_token": ca.tokens.worker} if joins else {}
    host = NodeHost(world, **setup)
    host.disk.open_database(RAFT_DATABASE).close()
    assert isinstance(host.boot().fails(within=0.1), ForeignState)
    assert host.disk.files.exists(RAFT_DATABASE)
    assert not host.disk.files.exists("certificates")


def test_a_node_starts_with_an_expired_certificate_and_says_so(world: World) -> None:
    host = NodeHost(world).boot()
    first = host.expect(Identified)
    host.crash()
    world.simulator.time += 91 * DAY
    assert host.boot().expect(Identified).node_id == first.node_id
    said = host.expect(CertificateTrouble).text
    assert "expired on 20" in said
    assert "and it is 20" in said


@pytest.mark.parametrize("again", [NODE_KEY, NEW_NODE_CERT])
def test_a_crash_between_key_and_certificate_is_recovered_from(world: World, ca: CaHost, again: str) -> None:
    host, first = joined(world, ca)

    class Crash(BaseException):
        pass

    def crash(name: str) -> None:
        if name == "node.key_written_cert_missing":
            raise Crash

    host.tell(RenewCertificate())
    with armed(crash):
        host.fails()
    assert host.disk.files.exists(NEW_NODE_CERT)
    host.crash()
    told = host.boot(remotes=(("", CA_ADDRESS),)).expect(Identified)
    assert told.node_id == first.node_id
    assert not host.disk.files.exists(NEW_NODE_CERT)
    assert host.file("swarm-node.crt") == ca.node(first.node_id).certificate.certificate


# Renewal


def test_a_certificate_is_renewed_between_half_and_four_fifths_of_its_life(world: World, ca: CaHost) -> None:
    host, first = joined(world, ca)
    before = host.file("swarm-node.crt")
    info = in_force(host)
    life = info.not_after - info.not_before
    assert host.expect(CertificateRenewed, within=90 * DAY) == CertificateRenewed(WORKER)
    age = (world.now() - info.not_before) / life
    assert 0.499 < age < 0.801
    assert host.file("swarm-node.crt") != before
    assert first.credentials.material.certificate == host.file("swarm-node.crt")
    assert first.credentials.version == 3  # nobody, the first certificate, its successor
    assert first.credentials.material.key != b""


def test_a_clock_that_is_set_ahead_is_noticed_within_the_hour(world: World, ca: CaHost) -> None:
    host, _ = joined(world, ca)
    assert host.stage is not None
    host.stage.world.clock.skew = 80 * DAY  # type: ignore[attr-defined]
    world.simulator.run_for(3620)
    assert ca.calls.count("IssueNodeCertificate") == 2
    world.simulator.run_for(600)  # the new one is due at once as well, by this clock: that must not become a storm
    assert 3 <= ca.calls.count("IssueNodeCertificate") <= 13


def test_a_forced_renewal_pauses_half_a_second_and_tells_the_role(world: World, ca: CaHost) -> None:
    host, _ = joined(world, ca)
    asked = ca.calls.count("IssueNodeCertificate")
    host.tell(RenewCertificate())
    world.simulator.run_for(0.45)
    assert ca.calls.count("IssueNodeCertificate") == asked
    assert host.expect(CertificateRenewed, within=1.0) == CertificateRenewed(WORKER)


def test_a_renewal_that_is_asked_for_while_one_runs_is_left_to_do_when_that_one_is_done(
    world: World, ca: CaHost
) -> None:
    host, _ = joined(world, ca)
    host.tell(RenewCertificate())
    world.simulator.run_for(0.501)
    host.tell(RenewCertificate())
    told = [host.expect(CertificateRenewed, within=2.0) for _ in range(2)]
    assert told == [CertificateRenewed(WORKER, settled=False), CertificateRenewed(WORKER)]


def test_a_promotion_goes_on_with_waits_until_the_certificate_says_so(world: World, ca: CaHost) -> None:
    host, told = joined(world, ca)
    host.tell(RenewCertificate(MANAGER))
    world.simulator.run_for(30.0)
    assert host.told == []
    tries = ca.calls.count("IssueNodeCertificate") - 1
    assert 2 <= tries <= 12
    ca.change(Node, told.node_id, lambda node: setattr(node, "role", types_pb2.MANAGER))
    assert host.expect(CertificateRenewed, within=400.0) == CertificateRenewed(MANAGER)
    assert in_force(host).role == MANAGER
    assert "GetUnlockKey" in ca.calls


def test_a_demoted_manager_leaves_the_lock(world: World, ca: CaHost) -> None:
    lock(ca, b"k" * 32)
    host, told = joined(world, ca, "manager")
    keys = host.ask(GetDataKeys())
    ca.change(Node, told.node_id, lambda node: setattr(node, "role", types_pb2.WORKER))
    host.tell(RenewCertificate(WORKER))
    assert host.expect(CertificateRenewed).role == WORKER
    content = decode_key_file(host.file("swarm-node.key"), b"")
    assert content.data_keys == keys
    host.ask(DropDataKeys())
    assert decode_key_file(host.file("swarm-node.key"), b"").data_keys is None


def test_what_is_asked_for_during_a_renewal_follows_it(world: World, ca: CaHost) -> None:
    host, _ = joined(world, ca)
    host.tell(RenewCertificate())
    world.simulator.run_until(lambda: ca.calls.count("IssueNodeCertificate") == 2)
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed)
    host.expect(CertificateRenewed, within=2.0)
    assert ca.calls.count("IssueNodeCertificate") == 3
    world.simulator.run_for(3000.0)
    assert ca.calls.count("IssueNodeCertificate") == 3


def test_a_renewal_that_finds_no_manager_is_tried_again_with_growing_waits(world: World, ca: CaHost) -> None:
    host, _ = joined(world, ca)
    ca.server.close(0.0)
    host.tell(RenewCertificate())
    world.simulator.run_for(120.0)
    assert host.told == []
    assert host.failures == []
    world.network.crash("10.0.0.1")
    ca.stage.world.transport = world.network.transport("10.0.0.1")
    ca.serve()
    assert host.expect(CertificateRenewed, within=400.0).role == WORKER


def test_a_manager_renews_over_its_own_control_socket(world: World, ca: CaHost) -> None:
    """The founder's case: nobody else is there to ask."""
    host = NodeHost(world, ip="10.0.0.5")
    host.transport = ca.stage.world.transport  # type: ignore[assignment]
    host.disk.files.make_dirs("certificates", 0o755)
    for name, data in (
        (ROOT_CERT, ca.root.bundle),
        (NODE_CERT, ca.identity.certificate),
        (NODE_KEY, ca.identity.encode_key(bytes)),
    ):
        host.disk.files.write_atomic(name, data, 0o600)
    told = host.boot().expect(Identified)
    assert told.node_id == ca.node_id
    host.tell(Managers(LOCAL, ((ca.node_id, CA_ADDRESS),)), RenewCertificate())
    host.expect(CertificateRenewed)
    assert ca.node(ca.node_id).certificate.certificate == host.file("swarm-node.crt")


def test_a_removed_node_is_not_renewed(world: World, ca: CaHost) -> None:
    host, told = joined(world, ca)
    ca.write(lambda tx: tx.delete(Node, told.node_id))
    ca.change(Cluster, ca.cluster_id, lambda c: c.blacklisted_certificates[told.node_id].SetInParent())
    host.tell(RenewCertificate())
    world.simulator.run_for(60.0)
    assert host.told == []
    assert len(ca.nodes) == 1


def test_a_life_that_fails_is_followed_by_one_that_fills_the_same_credentials(world: World, ca: CaHost) -> None:
    host, first = joined(world, ca)
    host.restarts = True
    host.disk.files.fail_after = 0
    host.tell(RenewCertificate())
    assert isinstance(host.fails(), DiskFailed)
    host.disk.files.fail_after = None
    again = host.expect(Identified)
    assert again.credentials is first.credentials
    assert again.node_id == first.node_id
    assert first.credentials.material.certificate == host.file("swarm-node.crt")
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed)
    assert first.credentials.material.certificate == host.file("swarm-node.crt")


# Roots


def rotated(ca: CaHost) -> Any:
    """A new root whose cross-signed twin signs from now on."""
    new = create_root(lambda n: bytes(range(7, 7 + n)), ca.world.now())
    crossed = ca.root.cross_sign(new.bundle, lambda n: b"x" * n)
    assert new.signer is not None
    key = dump_key(new.signer.key)

    def edit(cluster: Any) -> None:
        rotation = cluster.root_ca.root_rotation
        rotation.ca_cert, rotation.ca_key, rotation.cross_signed_ca_cert = new.bundle, key, crossed

    ca.change(Cluster, ca.cluster_id, edit)
    return new


def finish_rotation(ca: CaHost, new: Any) -> None:
    """The new root takes over; the manager itself has renewed its certificate before that."""
    request = new_request(lambda n: b"m" * n)
    holder = Holder(ca.node_id, MANAGER, ca.cluster_id)
    leaf = root_of_cluster(ca.cluster.root_ca, ca.world.now()).sign_csr(
        request.csr, holder, 0, ca.world.now(), lambda n: b"f" * n
    )
    ca.credentials.replace(roots=new.bundle, certificate=leaf, key=dump_key(request.key))

    def edit(cluster: Any) -> None:
        rotation = cluster.root_ca.root_rotation
        cluster.root_ca.ca_cert, cluster.root_ca.ca_key = rotation.ca_cert, rotation.ca_key
        cluster.root_ca.ClearField("root_rotation")

    ca.change(Cluster, ca.cluster_id, edit)


def test_a_root_rotation_is_followed(world: World, ca: CaHost) -> None:
    host, told = joined(world, ca)
    new = rotated(ca)
    host.tell(RootSeen(new.bundle))
    world.simulator.run_for(1.0)
    assert host.file("swarm-root-ca.crt") == ca.root.bundle  # the certificate is not yet good under the new one
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed)
    assert len(load_certificates(host.file("swarm-node.crt"))) == 2
    host.tell(RootSeen(new.bundle))
    assert host.expect(CertificateRenewed) == CertificateRenewed(WORKER, settled=False)
    assert host.file("swarm-root-ca.crt") == told.credentials.material.roots == new.bundle
    host.tell(RootSeen(new.bundle))
    world.simulator.run_for(5.0)
    assert host.told == []
    host.crash()
    assert host.boot(remotes=(("", CA_ADDRESS),)).expect(Identified).root.bundle == new.bundle


def test_a_root_that_was_refused_is_tried_again_by_itself(world: World, ca: CaHost) -> None:
    """Whoever tells of it does so once: a clock that was wrong then, or a late certificate, may not matter."""
    host, told = joined(world, ca)
    new = rotated(ca)
    host.tell(RootSeen(new.bundle))
    world.simulator.run_for(1.0)
    assert host.file("swarm-root-ca.crt") == ca.root.bundle
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed)
    assert host.expect(CertificateRenewed, within=ROOT_AGAIN) == CertificateRenewed(WORKER, settled=False)
    assert host.file("swarm-root-ca.crt") == told.credentials.material.roots == new.bundle
    world.simulator.run_for(3 * ROOT_AGAIN)
    assert host.told == []


def test_of_two_roots_that_were_refused_the_newer_is_tried_again(world: World, ca: CaHost) -> None:
    host, told = joined(world, ca)
    new = rotated(ca)
    host.tell(RootSeen(new.bundle))
    host.tell(RootSeen(b"nonsense"))
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed)
    world.simulator.run_for(3 * ROOT_AGAIN)
    assert told.credentials.material.roots == ca.root.bundle
    host.tell(RootSeen(ca.root.bundle))  # given up: the present one is right
    world.simulator.run_for(3 * ROOT_AGAIN)
    assert host.told == []


def test_a_root_that_the_managers_agreed_on_is_taken_where_it_signed_the_certificate(world: World, ca: CaHost) -> None:
    """A manager may be unable to have a session with those that trust the new root alone: its own store says it."""
    host, told = joined(world, ca, "manager")
    new = rotated(ca)
    host.tell(RootAgreed(new.bundle))
    host.tell(RootAgreed(b"nonsense"))
    world.simulator.run_for(3 * ROOT_AGAIN)
    assert host.file("swarm-root-ca.crt") == ca.root.bundle  # its certificate is the old root's
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed)
    host.tell(RootAgreed(ca.root.bundle))
    host.tell(RootAgreed(new.bundle))
    assert host.expect(CertificateRenewed) == CertificateRenewed(MANAGER, settled=False)
    assert host.file("swarm-root-ca.crt") == told.credentials.material.roots == new.bundle


def test_a_store_that_lags_behind_takes_nobody_back_to_an_older_root(world: World, ca: CaHost) -> None:
    host, told = joined(world, ca, "manager")
    new = rotated(ca)
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed)
    host.tell(RootSeen(new.bundle))
    host.expect(CertificateRenewed)
    host.tell(RootAgreed(ca.root.bundle))
    world.simulator.run_for(3 * ROOT_AGAIN)
    assert host.told == []
    assert host.file("swarm-root-ca.crt") == told.credentials.material.roots == new.bundle


NO_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("bundle", [b"", b"nonsense", NO_CERTIFICATE])
def test_a_root_that_makes_no_sense_is_dropped(world: World, ca: CaHost, bundle: bytes) -> None:
    host, _ = joined(world, ca)
    host.tell(RootSeen(bundle))
    world.simulator.run_for(1.0)
    assert host.failures == []
    assert host.file("swarm-root-ca.crt") == ca.root.bundle


def test_a_worker_that_missed_the_end_of_a_rotation_fetches_the_new_root(world: World, ca: CaHost) -> None:
    host, told = joined(world, ca)
    new = rotated(ca)
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed)
    finish_rotation(ca, new)
    host.tell(RenewCertificate())
    assert host.expect(CertificateRenewed, within=30.0).role == WORKER
    assert host.file("swarm-root-ca.crt") == new.bundle
    assert load_root(new.bundle, world.now()).verify(host.file("swarm-node.crt"), world.now())
    assert told.credentials.material.roots == new.bundle


def test_a_root_under_which_the_present_certificate_is_not_good_is_not_fetched(world: World, ca: CaHost) -> None:
    host, _ = joined(world, ca)
    finish_rotation(ca, rotated(ca))
    host.tell(RenewCertificate())
    world.simulator.run_for(20.0)
    assert host.told == []
    assert host.failures == []
    assert host.file("swarm-root-ca.crt") == ca.root.bundle


# Data keys


def test_data_keys_are_made_once_and_are_on_disk_before_they_are_told(world: World) -> None:
    host = NodeHost(world).boot()
    host.expect(Identified)
    keys = host.ask(GetDataKeys())
    assert len(keys.current) == 32
    assert decode_key_file(host.file("swarm-node.key"), b"").data_keys == keys
    assert host.ask(GetDataKeys()) == keys
    host.crash()
    host.boot().expect(Identified)
    assert host.ask(GetDataKeys()) == keys


def test_data_keys_that_could_not_be_written_are_not_told(world: World) -> None:
    host = NodeHost(world).boot()
    host.expect(Identified)
    host.disk.files.fail_after = 0
    with pytest.raises(Exception, match="no space left"):
        host.ask(GetDataKeys())
    host.disk.files.fail_after = None
    assert decode_key_file(host.file("swarm-node.key"), b"").data_keys is None


def test_a_renewal_keeps_data_keys_made_while_it_ran(world: World, ca: CaHost) -> None:
    host, _ = joined(world, ca, "manager")
    host.tell(RenewCertificate())
    world.simulator.run_until(lambda: ca.calls.count("IssueNodeCertificate") == 2)
    keys = host.ask(GetDataKeys())
    host.expect(CertificateRenewed)
    assert decode_key_file(host.file("swarm-node.key"), b"").data_keys == keys
    assert host.ask(GetDataKeys()) == keys


def test_locking_what_was_unlocked_asks_for_a_new_data_key(world: World, ca: CaHost) -> None:
    host, _ = joined(world, ca, "manager")
    keys = host.ask(GetDataKeys())
    lock(ca, b"k" * 32)
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed)
    with pytest.raises(InvalidUnlockKey):
        decode_key_file(host.file("swarm-node.key"), b"")
    found = decode_key_file(host.file("swarm-node.key"), b"k" * 32).data_keys
    assert found == dataclasses.replace(keys, needs_rotation=True)


def test_questions_before_there_is_a_certificate_are_refused(world: World) -> None:
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=CaHost(world, serve=False).tokens.worker).boot()
    world.simulator.settle()
    with pytest.raises(Refused, match="no certificate yet"):
        host.ask(GetDataKeys())


def test_a_certificate_for_another_key_is_not_taken(world: World, ca: CaHost) -> None:
    host, told = joined(world, ca)
    other = new_request(lambda n: b"o" * n)
    holder = Holder(told.node_id, WORKER_ROLE, ca.cluster_id)
    forged = ca.root.sign_csr(other.csr, holder, 7200, world.now(), lambda n: b"e" * n)
    ca.held = []
    host.tell(RenewCertificate())
    world.simulator.run_until(lambda: bool(ca.held))
    before = host.file("swarm-node.crt")
    ca.release()

    def edit(node: Any) -> None:
        node.certificate.certificate = forged

    ca.change(Node, told.node_id, edit)
    world.simulator.run_for(3.0)
    assert host.file("swarm-node.crt") in (before, ca.node(told.node_id).certificate.certificate)
    assert host.file("swarm-node.crt") != forged


@pytest.mark.parametrize("seed", range(12))
def test_lost_and_repeated_calls_and_crashes_leave_one_node_with_a_pair_that_fits(seed: int) -> None:
    world = World(seed)
    ca = CaHost(world)
    link = world.network.link("10.0.0.1", "10.0.0.2")
    link.drop = link.duplicate = 0.25
    link.jitter = 0.5
    host = NodeHost(world, join_addr=CA_ADDRESS, join_token=ca.tokens.manager).boot()
    node_id = host.expect(Identified, within=300.0).node_id
    rng = world.simulator.random
    for _ in range(4):
        host.tell(RenewCertificate())
        world.simulator.run_for(rng.uniform(0.4, 4.0))
        host.crash()
        host.boot(remotes=(("", CA_ADDRESS),))
        assert host.expect(Identified).node_id == node_id
        assert not host.failures
    host.tell(RenewCertificate())
    host.expect(CertificateRenewed, within=600.0)
    info = in_force(host)
    assert (info.node_id, info.role) == (node_id, MANAGER)
    # A call that was lost on its way back, or sent twice, may have left entries that nobody holds a certificate of.
    assert ca.node(node_id).certificate.status.state == types_pb2.IssuanceStatus.ISSUED
    keys = [
        load_certificates(pem)[0].public_key()
        for pem in (ca.node(node_id).certificate.certificate, host.file("swarm-node.crt"))
    ]
    assert keys[0] == keys[1]
