"""CertificateAuthorityActor: admission, renewal, the long poll, signing, what is kept waiting and what fails."""

from __future__ import annotations

from typing import Any

import pytest

from actors.certificate_authority_actor import MAX_WAITING, CertificateAuthorityActor
from runtime.errors import Code, Refused
from runtime.pki.certificates import ROOT_BACKDATE, Holder, certificate_info, issuer_identity, key_matches
from runtime.pki.keys import dump_key
from runtime.pki.node_identity import new_request
from runtime.pki.pem import load_certificates
from runtime.pki.root import create_root, describe_root, root_of_cluster
from runtime.pki.signing import STOPPED
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Leading, Write
from runtime.wire.pb import ca_pb2, objects_pb2, specs_pb2, types_pb2
from runtime.wire.port import MANAGER, WORKER, Credentials
from tests.messages.certificate_bench import CaHost, Client, Cluster, Node, World

STATUS = types_pb2.IssuanceStatus
Issue, Status = ca_pb2.IssueNodeCertificateRequest, ca_pb2.NodeCertificateStatusRequest


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ca(world: World) -> CaHost:
    return CaHost(world)


@pytest.fixture
def client(ca: CaHost) -> Client:
    return Client(ca)


def csr(seed: int = 1) -> bytes:
    return new_request(lambda n: bytes([seed]) * n).csr


def issue(client: Client, token: str = "", credentials: Credentials | None = None, **fields: Any) -> Any:
    request = Issue(**{"csr": csr(), "token": token, **fields})
    return client.call("NodeCA", "IssueNodeCertificate", request, credentials)


def status(client: Client, node_id: str) -> Any:
    return client.call("NodeCA", "NodeCertificateStatus", Status(node_id=node_id))


def member(ca: CaHost, node_id: str, role: str = WORKER) -> Credentials:
    """Credentials of this cluster, whether or not there is such a node."""
    request = new_request(lambda n: b"m" * n)
    holder = Holder(node_id, role, ca.cluster_id)
    leaf = ca.root.sign_csr(request.csr, holder, 0, ca.world.now(), lambda n: b"e" * n)
    return Credentials(ca.root.bundle, leaf, dump_key(request.key))


def without_signer(ca: CaHost) -> bytes:
    key: bytes = ca.cluster.root_ca.ca_key
    ca.change(Cluster, ca.cluster_id, lambda cluster: cluster.root_ca.ClearField("ca_key"))
    return key


def with_signer(ca: CaHost, key: bytes) -> None:
    ca.change(Cluster, ca.cluster_id, lambda cluster: setattr(cluster.root_ca, "ca_key", key))


# Admission


@pytest.mark.parametrize(("token", "role"), [("worker", types_pb2.WORKER), ("manager", types_pb2.MANAGER)])
def test_a_token_admits_in_its_role(ca: CaHost, client: Client, token: str, role: int) -> None:
    answer = issue(client, getattr(ca.tokens, token), availability=specs_pb2.NodeSpec.PAUSE)
    assert answer.node_membership == specs_pb2.NodeSpec.ACCEPTED
    node = ca.node(answer.node_id)
    assert (node.role, node.spec.desired_role, node.certificate.role) == (role, role, role)
    assert (node.spec.membership, node.spec.availability) == (specs_pb2.NodeSpec.ACCEPTED, specs_pb2.NodeSpec.PAUSE)
    assert (node.certificate.csr, node.certificate.cn, node.VXLANUDPPort) == (csr(), node.id, 4789)
    assert len(node.id) == 25


@pytest.mark.parametrize("token", ["", "nonsense", "SWMTKN-1-x-y"])
def test_without_a_token_that_fits_nobody_is_admitted_and_nothing_is_written(
    ca: CaHost, client: Client, token: str
) -> None:
    before = ca.index
    answer = issue(client, token)
    assert (answer.code, answer.text) == (
        Code.INVALID_ARGUMENT,
        "A valid join token is necessary to join this cluster",
    )
    assert ca.index == before


def test_a_rotated_token_is_worth_nothing(ca: CaHost, client: Client) -> None:
    old = ca.tokens.worker
    ca.change(Cluster, ca.cluster_id, lambda c: setattr(c.root_ca.join_tokens, "worker", old[:-1] + "#"))
    assert issue(client, old).code is Code.INVALID_ARGUMENT


def test_a_token_that_is_rotated_while_a_node_is_admitted_admits_no_more(ca: CaHost, client: Client) -> None:
    old = ca.tokens.worker
    ca.held = []
    # In flight, and seen by transactions, but not committed: the view still shows the old token.
    client.ca.store.ask(_write(lambda c: setattr(c.root_ca.join_tokens, "worker", "other"), ca))
    ca.world.simulator.settle()
    answers = client.start("NodeCA", "IssueNodeCertificate", Issue(csr=csr(), token=old))
    ca.world.simulator.run_for(0.1)
    ca.release()
    ca.world.simulator.run_until(lambda: bool(answers))
    assert answers[0].code is Code.INVALID_ARGUMENT


def _write(edit: Any, ca: CaHost) -> Any:
    def run(tx: Any) -> None:
        cluster = Cluster()
        cluster.CopyFrom(tx.get(Cluster, ca.cluster_id))
        edit(cluster)
        tx.update(cluster)

    return Write(run)


def test_a_request_without_csr_is_refused(ca: CaHost, client: Client) -> None:
    answer = issue(client, ca.tokens.worker, csr=b"")
    assert (answer.code, answer.text) == (Code.INVALID_ARGUMENT, "InvalidArgument")


def test_before_there_is_a_cluster_everything_is_aborted(world: World) -> None:
    ca = CaHost(world, found=False)
    client = Client(ca)
    for answer in (
        issue(client, "token"),
        client.call("CA", "GetRootCACertificate", ca_pb2.GetRootCACertificateRequest()),
    ):
        assert (answer.code, answer.text) == (Code.ABORTED, STOPPED)


def test_many_nodes_at_once_get_ids_and_certificates_of_their_own(ca: CaHost, client: Client) -> None:
    token = ca.tokens.worker
    answers = [
        client.start("NodeCA", "IssueNodeCertificate", Issue(csr=csr(seed), token=token)) for seed in range(1, 41)
    ]
    ca.world.simulator.run_for(1.0)
    ids = {answer[0].node_id for answer in answers}
    assert len(ids) == 40
    assert all(ca.node(id).certificate.status.state == STATUS.ISSUED for id in ids)
    assert len({ca.node(id).certificate.certificate for id in ids}) == 40


# Certificates


def test_an_admitted_nodes_certificate_is_what_its_entry_says(ca: CaHost, client: Client) -> None:
    node_id = issue(client, ca.tokens.manager).node_id
    answer = status(client, node_id)
    assert answer.status.state == STATUS.ISSUED
    assert answer.certificate.csr == csr()
    leaf = ca.root.verify(answer.certificate.certificate, ca.world.now())[0]
    info = certificate_info(leaf)
    assert (info.node_id, info.role, info.organization) == (node_id, MANAGER, ca.cluster_id)
    assert round((info.not_after - info.not_before) / 3600) == 2161


def test_the_clusters_expiry_counts_from_the_next_certificate_on(ca: CaHost, client: Client) -> None:
    ca.change(Cluster, ca.cluster_id, lambda c: c.spec.ca_config.node_cert_expiry.FromSeconds(7200))
    node_id = issue(client, ca.tokens.worker).node_id
    info = certificate_info(load_certificates(status(client, node_id).certificate.certificate)[0])
    assert info.not_after - info.not_before == 3 * 3600


def test_a_request_that_cannot_be_signed_is_marked_failed_with_the_reason(ca: CaHost, client: Client) -> None:
    node_id = issue(client, ca.tokens.worker, csr=b"nonsense").node_id
    answer = status(client, node_id)
    assert answer.status.state == STATUS.FAILED
    assert "certificate signing request" in answer.status.err
    assert ca.node(node_id).certificate.certificate == b""


def test_a_node_that_is_not_accepted_is_not_signed(ca: CaHost, client: Client) -> None:
    node = Node(id="waiting")
    node.certificate.csr, node.certificate.cn, node.certificate.status.state = csr(), "waiting", STATUS.PENDING
    ca.write(lambda tx: tx.create(node))
    ca.world.simulator.run_for(15.0)
    assert ca.node("waiting").certificate.status.state == STATUS.PENDING
    ca.change(Node, "waiting", lambda each: setattr(each.spec, "membership", specs_pb2.NodeSpec.ACCEPTED))
    assert ca.node("waiting").certificate.status.state == STATUS.ISSUED


def test_what_waits_at_the_start_is_signed(ca: CaHost, client: Client) -> None:
    key = without_signer(ca)
    node_id = issue(client, ca.tokens.worker).node_id
    ca.stage.at("/ca").resolve().request_stop()  # type: ignore[union-attr]
    ca.world.simulator.settle()
    with_signer(ca, key)
    assert ca.node(node_id).certificate.status.state == STATUS.PENDING
    context = LeaderContext(ca.node_id, ca.cluster_id, ca.store, ca.published, ca.credentials)
    ca.stage.mount("ca", CertificateAuthorityActor, context)
    ca.world.simulator.settle()
    assert ca.node(node_id).certificate.status.state == STATUS.ISSUED


def test_without_a_signer_nodes_wait_and_are_signed_when_there_is_one(ca: CaHost, client: Client) -> None:
    key = without_signer(ca)
    ids = [issue(client, ca.tokens.worker, csr=csr(seed)).node_id for seed in (1, 2, 3)]
    ca.world.simulator.run_for(25.0)
    assert {ca.node(id).certificate.status.state for id in ids} == {STATUS.PENDING}
    with_signer(ca, key)
    assert {ca.node(id).certificate.status.state for id in ids} == {STATUS.ISSUED}


def test_a_cluster_with_an_external_ca_is_not_signed_for_locally(ca: CaHost, client: Client) -> None:
    ca.change(Cluster, ca.cluster_id, lambda c: c.spec.ca_config.external_cas.add(url="https://ca.example"))
    node_id = issue(client, ca.tokens.worker).node_id
    ca.world.simulator.run_for(15.0)
    assert ca.node(node_id).certificate.status.state == STATUS.PENDING
    ca.change(Cluster, ca.cluster_id, lambda c: c.spec.ca_config.ClearField("external_cas"))
    assert ca.node(node_id).certificate.status.state == STATUS.ISSUED


def test_a_root_that_cannot_be_used_makes_nodes_wait_and_fails_nobody(ca: CaHost, client: Client) -> None:
    good = ca.cluster.root_ca.ca_cert
    ca.change(Cluster, ca.cluster_id, lambda c: setattr(c.root_ca, "ca_cert", b"nonsense"))
    node_id = issue(client, ca.tokens.worker).node_id
    ca.world.simulator.run_for(15.0)
    assert ca.node(node_id).certificate.status.state == STATUS.PENDING
    ca.change(Cluster, ca.cluster_id, lambda c: setattr(c.root_ca, "ca_cert", good))
    assert ca.node(node_id).certificate.status.state == STATUS.ISSUED


def test_a_root_that_is_not_valid_yet_signs_as_soon_as_it_is(ca: CaHost, client: Client) -> None:
    """It was made by a manager whose clock goes ahead, or this one's went back."""
    early = create_root(lambda n: b"r" * n, ca.world.now() + ROOT_BACKDATE + 60.0)
    told = describe_root(early)

    def take(cluster: Any) -> None:
        cluster.root_ca.ca_cert, cluster.root_ca.ca_key = told.ca_cert, told.ca_key

    ca.change(Cluster, ca.cluster_id, take)
    node_id = issue(client, ca.tokens.worker).node_id
    ca.world.simulator.run_for(10.0)
    assert ca.node(node_id).certificate.status.state == STATUS.PENDING
    ca.world.simulator.run_for(115.0)
    assert ca.node(node_id).certificate.status.state == STATUS.ISSUED


def test_during_a_rotation_leaves_are_of_the_new_root_and_good_under_both(ca: CaHost, client: Client) -> None:
    new = create_root(lambda n: bytes(range(9, 9 + n)), ca.world.now())
    assert new.signer is not None
    key, crossed = dump_key(new.signer.key), ca.root.cross_sign(new.bundle, lambda n: b"x" * n)

    def edit(cluster: Any) -> None:
        rotation = cluster.root_ca.root_rotation
        rotation.ca_cert, rotation.ca_key, rotation.cross_signed_ca_cert = new.bundle, key, crossed

    ca.change(Cluster, ca.cluster_id, edit)
    issued = status(client, issue(client, ca.tokens.worker).node_id).certificate.certificate
    for root in (ca.root, new, root_of_cluster(ca.cluster.root_ca, ca.world.now())):
        chain = root.verify(issued, ca.world.now())
    assert issuer_identity(new.certificates[0]) == issuer_identity(load_certificates(issued)[1])
    assert len(chain) == 3
    answer = client.call("CA", "GetRootCACertificate", ca_pb2.GetRootCACertificateRequest())
    assert answer.certificate == ca.root.bundle


# Renewal


def test_a_member_renews_as_itself_whatever_token_it_sends(ca: CaHost, client: Client) -> None:
    node_id = issue(client, ca.tokens.worker).node_id
    ca.change(Node, node_id, lambda node: setattr(node, "role", types_pb2.MANAGER))
    answer = issue(client, ca.tokens.worker, member(ca, node_id), csr=csr(5))
    assert answer.node_id == node_id
    node = ca.node(node_id)
    ca.world.simulator.run_for(0.1)
    certificate = ca.node(node_id).certificate
    assert (certificate.status.state, certificate.csr, certificate.role) == (STATUS.ISSUED, csr(5), types_pb2.MANAGER)
    assert certificate_info(load_certificates(certificate.certificate)[0]).role == MANAGER
    assert len(ca.nodes) == 2
    assert node.spec.desired_role == types_pb2.WORKER


def test_a_renewal_by_somebody_who_is_not_there_is_not_found(ca: CaHost, client: Client) -> None:
    answer = issue(client, "", member(ca, "ghost"))
    assert (answer.code, answer.text) == (
        Code.NOT_FOUND,
        "node ghost not found when attempting to renew certificate",
    )


def test_a_removed_nodes_certificate_renews_nothing(ca: CaHost, client: Client) -> None:
    node_id = issue(client, ca.tokens.worker).node_id
    ca.change(Cluster, ca.cluster_id, lambda c: c.blacklisted_certificates[node_id].SetInParent())
    assert issue(client, "", member(ca, node_id)).code is Code.INVALID_ARGUMENT


def test_a_request_that_was_replaced_while_it_was_signed_is_answered_for_the_newest(ca: CaHost, client: Client) -> None:
    node_id = issue(client, ca.tokens.worker).node_id
    credentials = member(ca, node_id)
    ca.world.simulator.run_for(0.1)
    ca.held = []
    first = client.start("NodeCA", "IssueNodeCertificate", Issue(csr=csr(5)), credentials)
    second = client.start("NodeCA", "IssueNodeCertificate", Issue(csr=csr(6)), credentials)
    ca.world.simulator.run_for(0.5)
    ca.release()
    ca.world.simulator.run_for(0.5)
    assert first[0].node_id == second[0].node_id == node_id
    certificate = ca.node(node_id).certificate
    assert certificate.status.state == STATUS.ISSUED
    asked = {csr(seed): new_request(lambda n, seed=seed: bytes([seed]) * n).key for seed in (5, 6)}  # type: ignore[misc]
    assert key_matches(load_certificates(certificate.certificate)[0], asked[certificate.csr])


# The long poll


def test_a_status_that_is_not_final_is_waited_for(ca: CaHost, client: Client) -> None:
    key = without_signer(ca)
    node_id = issue(client, ca.tokens.worker).node_id
    answers = client.start("NodeCA", "NodeCertificateStatus", Status(node_id=node_id))
    ca.world.simulator.run_for(2.0)
    assert answers == []
    with_signer(ca, key)
    ca.world.simulator.run_until(lambda: bool(answers), 1.0)
    assert answers[0].status.state == STATUS.ISSUED


@pytest.mark.parametrize("state", [STATUS.ISSUED, STATUS.FAILED, STATUS.ROTATE])
def test_a_final_status_is_told_at_once(ca: CaHost, client: Client, state: int) -> None:
    ca.change(Node, ca.node_id, lambda node: setattr(node.certificate.status, "state", state))
    assert status(client, ca.node_id).status.state == state
    assert ca.node(ca.node_id).certificate.status.state == state


@pytest.mark.parametrize(("node_id", "code"), [("", Code.INVALID_ARGUMENT), ("ghost", Code.NOT_FOUND)])
def test_a_status_of_nobody_is_refused(client: Client, node_id: str, code: Code) -> None:
    answer = status(client, node_id)
    assert (answer.code, answer.text) == (code, code.title)


def waiting(ca: CaHost) -> int:
    cell = ca.ca.resolve()
    assert cell is not None
    assert cell.instance is not None
    return int(cell.instance.snapshot()["callers waiting"])


def test_callers_who_went_away_are_forgotten(ca: CaHost, client: Client) -> None:
    without_signer(ca)
    node_id = issue(client, ca.tokens.worker).node_id
    for _ in range(3):
        client.start("NodeCA", "NodeCertificateStatus", Status(node_id=node_id))
    ca.world.simulator.run_for(1.0)
    assert waiting(ca) == 3
    ca.world.simulator.run_for(5.0)
    assert waiting(ca) == 0


def test_a_patient_caller_is_sent_away_after_a_minute(ca: CaHost, client: Client) -> None:
    without_signer(ca)
    node_id = issue(client, ca.tokens.worker).node_id
    answers = client.start("NodeCA", "NodeCertificateStatus", Status(node_id=node_id), timeout=1000.0)
    ca.world.simulator.run_for(59.0)
    assert answers == []
    ca.world.simulator.run_for(12.0)
    assert answers[0].code is Code.DEADLINE_EXCEEDED
    assert waiting(ca) == 0


def test_whoever_waits_for_a_node_that_is_removed_hears_so(ca: CaHost, client: Client) -> None:
    without_signer(ca)
    node_id = issue(client, ca.tokens.worker).node_id
    answers = client.start("NodeCA", "NodeCertificateStatus", Status(node_id=node_id))
    ca.world.simulator.run_for(0.5)
    ca.write(lambda tx: tx.delete(Node, node_id))
    ca.world.simulator.run_for(0.5)
    assert answers[0].code is Code.NOT_FOUND
    assert waiting(ca) == 0


def test_the_number_of_callers_who_wait_is_bounded(ca: CaHost, client: Client) -> None:
    without_signer(ca)
    node_id = issue(client, ca.tokens.worker).node_id
    cell = ca.ca.resolve()
    assert cell is not None
    cell.instance._waiting = MAX_WAITING  # type: ignore[union-attr]
    assert status(client, node_id).code is Code.RESOURCE_EXHAUSTED


def test_whoever_waits_when_the_leadership_ends_hears_aborted(ca: CaHost, client: Client) -> None:
    without_signer(ca)
    node_id = issue(client, ca.tokens.worker).node_id
    answers = client.start("NodeCA", "NodeCertificateStatus", Status(node_id=node_id))
    ca.world.simulator.run_for(0.5)
    ca.ca.resolve().request_stop()  # type: ignore[union-attr]
    ca.world.simulator.run_for(0.5)
    assert isinstance(answers[0], Refused)
    assert (answers[0].code, answers[0].text) == (Code.ABORTED, STOPPED)


def test_a_certificate_that_could_not_be_written_is_signed_again(ca: CaHost, client: Client) -> None:
    node_id = issue(client, ca.tokens.worker).node_id
    ca.world.simulator.run_for(0.1)
    ca.world.simulator.ask(ca.store, _renew_step(node_id))
    ca.held = []  # what is signed for the renewal is proposed and never committed
    ca.world.simulator.settle()
    assert len(ca.held) == 1
    ca.lose()
    ca.held = None
    assert ca.node(node_id).certificate.status.state == STATUS.RENEW
    ca.store.tell(Leading(3, ca.index))
    ca.world.simulator.run_for(11.0)
    certificate = ca.node(node_id).certificate
    assert (certificate.status.state, certificate.csr) == (STATUS.ISSUED, csr(77))


def _renew_step(node_id: str) -> Any:
    def run(tx: Any) -> None:
        node = Node()
        node.CopyFrom(tx.get(Node, node_id))
        node.certificate.csr = csr(77)
        node.certificate.status.state = STATUS.RENEW
        tx.update(node)

    return Write(run)


# Root and unlock key


def test_anybody_may_have_the_root(ca: CaHost, client: Client) -> None:
    answer = client.call("CA", "GetRootCACertificate", ca_pb2.GetRootCACertificateRequest())
    assert answer.certificate == ca.root.bundle


def test_managers_are_told_the_unlock_key_while_they_lock_themselves(ca: CaHost, client: Client) -> None:
    request = ca_pb2.GetUnlockKeyRequest()
    manager = member(ca, ca.node_id, MANAGER)
    answer = client.call("CA", "GetUnlockKey", request, manager)
    assert (answer.unlock_key, answer.version.index) == (b"", ca.cluster.meta.version.index)

    def lock(cluster: Any) -> None:
        cluster.spec.encryption_config.auto_lock_managers = True
        cluster.unlock_keys.add(subsystem="other", key=b"o" * 32)
        cluster.unlock_keys.add(subsystem="swarm-manager", key=b"k" * 32)

    ca.change(Cluster, ca.cluster_id, lock)
    answer = client.call("CA", "GetUnlockKey", request, manager)
    assert (answer.unlock_key, answer.version) == (b"k" * 32, ca.cluster.meta.version)


@pytest.mark.parametrize("role", [WORKER, ""])
def test_nobody_else_is_told_the_unlock_key(ca: CaHost, client: Client, role: str) -> None:
    credentials = member(ca, "w1", role) if role else None
    answer = client.call("CA", "GetUnlockKey", ca_pb2.GetUnlockKeyRequest(), credentials)
    assert answer.code is Code.PERMISSION_DENIED


def test_other_clusters_objects_do_not_matter(ca: CaHost, client: Client) -> None:
    ca.write(lambda tx: tx.create(objects_pb2.Cluster(id="other")))
    ca.world.simulator.settle()
    node_id = issue(client, ca.tokens.worker).node_id
    assert status(client, node_id).status.state == STATUS.ISSUED
