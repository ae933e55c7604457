"""A node's side of certificates (identity, issuance, renewal) and the authority's (signing): rules without actors."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.pki.certificates import MANAGER_ROLE, WORKER_ROLE, Holder, certificate_info
from runtime.pki.chain import verify_chain
from runtime.pki.errors import CertificateOutOfDate, InvalidCertificate, InvalidUnlockKey, UnknownAuthority
from runtime.pki.issuance import JOIN_INTERVAL, RENEWAL_INTERVAL, TRIES, GaveUp, Issuance, Issued, Retry, Tries
from runtime.pki.key_file import DataKeys
from runtime.pki.node_identity import (
    MANDATORY_FIPS,
    NodeIdentity,
    SigningRequest,
    Start,
    accept_issued,
    first_step,
    found_identity,
    new_request,
    pair_fits,
    read_identity,
    root_for,
    under_unlock_key,
)
from runtime.pki.pem import load_certificates
from runtime.pki.renewal import FORCED_PAUSE, FRESH_PAUSE, Renewal
from runtime.pki.root import RootCA, create_root, describe_root
from runtime.pki.signing import (
    Authority,
    NotNow,
    granted_role,
    has_external_authority,
    is_final,
    is_waiting,
    issuing,
    node_lifetime,
    recording,
)
from runtime.wire.pb import ca_pb2, objects_pb2, specs_pb2, types_pb2
from tests.seeded import entropy
from tests.unit.pki.support import DAY, NOW, a_root

STATUS = types_pb2.IssuanceStatus
UNREACHABLE = Refused(Code.UNAVAILABLE, "nobody there")
KEK = b"k" * 32


def founded(root: RootCA | None = None) -> tuple[NodeIdentity, RootCA]:
    return found_identity(root, entropy(3), NOW)


def issued(
    root: RootCA, request: SigningRequest, node_id: str = "node1", role: str = WORKER_ROLE, cluster: str = "cluster1"
) -> bytes:
    return root.sign_csr(request.csr, Holder(node_id, role, cluster), 0, NOW, entropy(4))


def a_worker(root: RootCA) -> NodeIdentity:
    request = new_request(entropy(5))
    return accept_issued(issued(root, request), request, root, NOW)


# Identity


@pytest.mark.parametrize(
    ("root", "pair", "joins", "step"),
    [
        (True, True, False, Start.READY),
        (True, True, True, Start.READY),
        (True, False, True, Start.REQUEST),
        (False, False, True, Start.DOWNLOAD_ROOT),
        (False, True, True, Start.DOWNLOAD_ROOT),
        (False, False, False, Start.FOUND),
        (True, False, False, Start.FOUND),
        (False, True, False, Start.DAMAGED),
    ],
)
def test_what_a_node_does_first(root: bool, pair: bool, joins: bool, step: Start) -> None:
    assert first_step(has_root=root, has_certificate=pair, joins=joins) is step


def test_a_founder_is_a_manager_under_its_own_root_and_does_not_keep_the_signer() -> None:
    identity, root = founded()
    assert root.signer is not None
    assert identity.root.signer is None
    assert identity.info.role == MANAGER_ROLE
    assert identity.info.node_id != identity.info.organization
    assert identity.info.not_after - NOW == pytest.approx(90 * DAY, abs=60)


def test_a_founder_uses_the_root_that_it_was_given_only_with_its_signer() -> None:
    given_root = a_root()
    assert founded(given_root)[1] is given_root
    bare = RootCA(given_root.bundle, given_root.certificates)
    assert founded(bare)[1].bundle != given_root.bundle


@pytest.mark.parametrize("kek", [b"", KEK])
def test_an_identity_comes_back_as_it_was_written(kek: bytes) -> None:
    first, root = founded()
    identity = under_unlock_key(first.with_data_keys(DataKeys(b"d" * 32)), kek, 5)
    key = identity.encode_key(entropy(6))
    again = read_identity(root, identity.certificate, key, kek, NOW)
    assert (again.info, again.kek, again.key_file.data_keys) == (first.info, kek, identity.key_file.data_keys)
    assert again.key_file.kek_version == 5
    assert again.private_key == identity.private_key
    assert pair_fits(identity.certificate, key, kek)


def test_a_locked_key_file_opens_with_its_key_alone() -> None:
    identity, root = founded()
    key = under_unlock_key(identity, KEK, 5).encode_key(entropy(6))
    for wrong in (b"", b"x" * 32):
        with pytest.raises(InvalidUnlockKey):
            read_identity(root, identity.certificate, key, wrong, NOW)
        with pytest.raises(InvalidUnlockKey):
            pair_fits(identity.certificate, key, wrong)


def test_a_key_for_a_file_without_lock_is_not_put_into_use() -> None:
    identity, root = founded()
    assert read_identity(root, identity.certificate, identity.encode_key(bytes), KEK, NOW).kek == b""


@pytest.mark.parametrize("certificate", [b"", b"nonsense"])
def test_a_certificate_that_cannot_be_read_fits_no_key(certificate: bytes) -> None:
    assert not pair_fits(certificate, founded()[0].encode_key(bytes), b"")


def test_an_expired_certificate_is_read_only_when_allowed() -> None:
    identity, root = founded()
    key, late = identity.encode_key(bytes), NOW + 91 * DAY
    with pytest.raises(CertificateOutOfDate):
        read_identity(root, identity.certificate, key, b"", late)
    assert read_identity(root, identity.certificate, key, b"", late, allow_expired=True).info == identity.info


def test_a_cluster_that_demands_fips_is_refused() -> None:
    root, request = a_root(), new_request(entropy(5))
    with pytest.raises(Refused, match=MANDATORY_FIPS):
        accept_issued(issued(root, request, cluster="FIPS.cluster1"), request, root, NOW)


def test_a_certificate_under_another_root_for_another_key_or_another_node_is_not_taken() -> None:
    root, request = a_root(), new_request(entropy(5))
    with pytest.raises(UnknownAuthority):
        accept_issued(issued(a_root(2), request), request, root, NOW)
    with pytest.raises(InvalidCertificate, match="another key"):
        accept_issued(issued(root, new_request(entropy(8))), request, root, NOW)
    with pytest.raises(InvalidCertificate, match="issued a certificate for node node2"):
        accept_issued(issued(root, request, "node2"), request, root, NOW, a_worker(root))


def test_a_renewed_identity_keeps_data_keys_and_lock() -> None:
    root, request = a_root(), new_request(entropy(5))
    before = under_unlock_key(a_manager(root).with_data_keys(DataKeys(b"d" * 32)), KEK, 7)
    after = accept_issued(issued(root, request, role=MANAGER_ROLE), request, root, NOW, before)
    assert (after.kek, after.key_file.kek_version, after.key_file.data_keys) == (KEK, 7, before.key_file.data_keys)
    assert after.private_key != before.private_key


def a_manager(root: RootCA) -> NodeIdentity:
    request = new_request(entropy(6))
    return accept_issued(issued(root, request, role=MANAGER_ROLE), request, root, NOW)


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([b"", KEK]), st.sampled_from([b"", KEK, b"n" * 32]))
def test_only_an_older_unlock_key_is_passed_over(present: int, told: int, old: bytes, new: bytes) -> None:
    locked = under_unlock_key(MANAGER.with_data_keys(DataKeys(b"d" * 32)), old, present)
    after = under_unlock_key(locked, new, told)
    if told < present:
        assert after == locked
    else:
        assert (after.kek, after.key_file.kek_version) == (new, told)
        keys = after.key_file.data_keys
        assert keys is not None
        assert keys.needs_rotation or not (new and not old)


MANAGER = a_manager(a_root())


def test_a_workers_key_file_is_never_under_a_lock() -> None:
    root, request = a_root(), new_request(entropy(5))
    demoted = accept_issued(issued(root, request), request, root, NOW, under_unlock_key(MANAGER, KEK, 7))
    assert under_unlock_key(demoted, KEK, 8).kek == b""
    assert under_unlock_key(demoted, KEK, 8).key_file.kek_version == 0


# Roots


def rotating() -> tuple[RootCA, RootCA, bytes]:
    """Old root, new root, and the new one's twin signed by the old."""
    old, new = a_root(1), create_root(entropy(2), NOW)
    return old, new, old.cross_sign(new.bundle, entropy(9))


def test_a_leaf_with_the_cross_signed_twin_is_good_under_either_root() -> None:
    old, new, crossed = rotating()
    request = new_request(entropy(5))
    certificate = issued(new, request) + crossed
    for root, length in ((old, 3), (new, 2)):
        assert len(root.verify(certificate, NOW)) == length
    with pytest.raises(UnknownAuthority):
        a_root(3).verify(certificate, NOW)


def test_every_certificate_of_the_file_must_be_in_date_also_one_that_a_root_makes_needless() -> None:
    _, new, crossed = rotating()
    request = new_request(entropy(5))
    later = NOW + 60 * DAY
    leaf = new.sign_csr(request.csr, Holder("n", WORKER_ROLE, "c"), 0, later, entropy(4))
    assert verify_chain(load_certificates(leaf + crossed), new.certificates, later)
    stale = load_certificates(crossed)[0].not_valid_after_utc.timestamp() + 1
    with pytest.raises(CertificateOutOfDate):
        verify_chain(load_certificates(leaf + crossed), new.certificates, stale)


def test_a_root_is_replaced_only_by_one_under_which_the_present_certificate_is_good() -> None:
    old, new, crossed = rotating()
    identity = a_worker(old)
    with pytest.raises(UnknownAuthority):
        root_for(identity, new.bundle, NOW)
    request = new_request(entropy(5))
    renewed = accept_issued(issued(new, request) + crossed, request, old, NOW, identity)
    assert root_for(renewed, new.bundle, NOW).bundle == new.bundle


# Tries


def test_five_tries_with_the_wait_after_each_and_after_the_last() -> None:
    tries = Tries(2.0)
    denied = Refused(Code.PERMISSION_DENIED, "no")
    outcomes: list[Any] = []
    for number in range(TRIES):
        tries.begin(number * 10.0)
        outcomes.append(tries.refused(denied, number * 10.0))
    assert outcomes == [Retry(2.0, reconnect=True)] * 4 + [GaveUp(2.0, denied)]


@pytest.mark.parametrize(("interval", "calls", "seconds"), [(JOIN_INTERVAL, 5, 10.0), (RENEWAL_INTERVAL, 25, 20.0)])
def test_an_unreachable_manager_is_waited_for_in_a_renewal_and_fails_a_try_of_a_join(
    interval: float, calls: int, seconds: float
) -> None:
    tries, now, attempts = Tries(interval), 0.0, 0
    while True:
        tries.begin(now)
        outcome = tries.refused(UNREACHABLE, now)
        attempts += 1
        now += outcome.wait
        if isinstance(outcome, GaveUp):
            break
    assert (attempts, now) == (calls, pytest.approx(seconds))


# Issuance


def an_issuance(interval: float = 2.0) -> Issuance:
    return Issuance(b"csr", random.Random(1), interval, token="token", availability="pause")


def status(state: int, csr: bytes = b"csr", pem: bytes = b"", err: str = "") -> ca_pb2.NodeCertificateStatusResponse:
    response = ca_pb2.NodeCertificateStatusResponse()
    response.status.state, response.status.err = state, err  # type: ignore[assignment]
    response.certificate.csr, response.certificate.certificate = csr, pem
    return response


def admitted(issuance: Issuance) -> Issuance:
    issuance.call(0.0)
    assert issuance.answered(ca_pb2.IssueNodeCertificateResponse(node_id="n1"), 0.0) == Retry(0.0)
    return issuance


def test_the_request_carries_token_and_availability_then_the_status_is_asked_for() -> None:
    issuance = an_issuance()
    call = issuance.call(0.0)
    assert (call.service, call.method) == ("NodeCA", "IssueNodeCertificate")
    assert call.request == ca_pb2.IssueNodeCertificateRequest(
        csr=b"csr", token="token", availability=specs_pb2.NodeSpec.PAUSE
    )
    assert "token" not in repr(call)
    call = admitted(issuance).call(0.0)
    assert (call.method, call.request) == (
        "NodeCertificateStatus",
        ca_pb2.NodeCertificateStatusRequest(node_id="n1"),
    )


@pytest.mark.parametrize("state", [STATUS.ISSUED, STATUS.ROTATE])
def test_a_certificate_of_our_request_is_taken(state: int) -> None:
    assert admitted(an_issuance()).answered(status(state, pem=b"pem"), 0.0) == Issued(b"pem")


@pytest.mark.parametrize(
    "answer",
    [
        status(STATUS.ISSUED, csr=b"an older one", pem=b"pem"),
        status(STATUS.ISSUED),
        status(STATUS.PENDING),
        status(STATUS.RENEW),
        status(STATUS.FAILED, csr=b"an older one"),
        Refused(Code.DEADLINE_EXCEEDED, "late"),
        UNREACHABLE,
    ],
)
def test_anything_else_is_asked_again_with_a_wait_below_its_bound(answer: Any) -> None:
    issuance = admitted(an_issuance())
    for polls in range(1, 12):
        outcome = issuance.answered(answer, 0.0)
        assert isinstance(outcome, Retry)
        assert 0.0 <= outcome.wait <= min(30.0, 1.0 + 2.0 ** (polls - 1))
        assert outcome.reconnect == (answer is UNREACHABLE)
        assert issuance.call(0.0).method == "NodeCertificateStatus"


@pytest.mark.parametrize("answer", [status(STATUS.FAILED, err="bad csr"), Refused(Code.NOT_FOUND, "bad csr")])
def test_a_failed_certificate_costs_a_try_and_asks_anew(answer: Any) -> None:
    issuance = an_issuance()
    for number in range(TRIES):
        outcome = admitted(issuance).answered(answer, 0.0)
        assert isinstance(outcome, Retry if number < TRIES - 1 else GaveUp)
        assert issuance.call(0.0).method == "IssueNodeCertificate"
    assert isinstance(outcome, GaveUp)
    assert outcome.error.text == "bad csr"


def test_an_answer_without_a_node_id_costs_a_try() -> None:
    issuance = an_issuance()
    issuance.call(0.0)
    assert issuance.answered(ca_pb2.IssueNodeCertificateResponse(), 0.0) == Retry(2.0, reconnect=True)


# Renewal

LIFE = (NOW, NOW + 100 * DAY)


def test_a_scheduled_renewal_lies_in_its_window() -> None:
    waits = [Renewal().wait(*LIFE, NOW, random.Random(seed)) for seed in range(50)]
    assert min(waits) >= 50 * DAY
    assert max(waits) < 80 * DAY
    assert max(waits) - min(waits) > 10 * DAY


def test_a_scheduled_renewal_that_fails_is_not_repeated_at_once() -> None:
    renewal, waits = Renewal(), []
    for _ in range(12):
        renewal.begin()
        renewal.failed()
        waits.append(renewal.wait(*LIFE, NOW + 90 * DAY, random.Random(7)))
    assert waits == sorted(waits)
    assert 0.0 < waits[0] < 10.0
    assert waits[-1] > 600.0


def test_after_a_success_the_next_is_a_minute_away_at_least() -> None:
    renewal = Renewal()
    assert renewal.wait(*LIFE, NOW + 90 * DAY, random.Random(1)) == 0.0
    renewal.begin()
    assert renewal.succeeded(WORKER_ROLE)
    assert renewal.wait(*LIFE, NOW + 90 * DAY, random.Random(1)) == FRESH_PAUSE


def test_an_expired_certificate_is_renewed_at_once_then_with_waits() -> None:
    renewal = Renewal()
    assert renewal.wait(*LIFE, NOW + 101 * DAY, random.Random(1)) == 0.0
    renewal.begin()
    renewal.failed()
    assert 0.0 < renewal.wait(*LIFE, NOW + 101 * DAY, random.Random(1)) < 10.0


def test_a_role_is_waited_for_and_a_demand_without_one_does_not_forget_it() -> None:
    renewal = Renewal()
    assert renewal.ask(MANAGER_ROLE)
    renewal.begin()
    assert not renewal.ask("")
    assert not renewal.succeeded(WORKER_ROLE)
    assert renewal.wait(*LIFE, NOW, random.Random(1)) == FORCED_PAUSE
    renewal.begin()
    assert not renewal.succeeded(WORKER_ROLE)
    assert renewal.failures == 2
    renewal.begin()
    assert renewal.succeeded(MANAGER_ROLE)
    assert (renewal.failures, renewal.forced) == (0, False)


def test_a_demand_during_a_renewal_is_met_by_another() -> None:
    renewal = Renewal()
    renewal.begin()
    assert not renewal.ask("")
    assert renewal.succeeded(WORKER_ROLE)
    assert renewal.forced
    assert renewal.wait(*LIFE, NOW, random.Random(1)) == FORCED_PAUSE


# Signing


class FakeTx:
    """Nodes and clusters in a dict."""

    def __init__(self, *objects: Any) -> None:
        self.objects = {(type(each), each.id): each for each in objects}

    def get(self, kind: Any, id: str) -> Any:
        return self.objects.get((kind, id))

    def create(self, obj: Any) -> None:
        assert (type(obj), obj.id) not in self.objects
        self.objects[type(obj), obj.id] = obj

    def update(self, obj: Any) -> None:
        assert self.objects[type(obj), obj.id] is not obj
        self.objects[type(obj), obj.id] = obj

    def node(self, id: str) -> Any:
        return self.get(objects_pb2.Node, id)


def a_cluster() -> objects_pb2.Cluster:

    cluster = objects_pb2.Cluster(id="c1", root_ca=describe_root(a_root()), VXLANUDPPort=4789)
    cluster.root_ca.join_tokens.worker, cluster.root_ca.join_tokens.manager = "W", "M"
    return cluster


def request(token: str = "W") -> ca_pb2.IssueNodeCertificateRequest:
    return ca_pb2.IssueNodeCertificateRequest(csr=b"csr", token=token)


def test_the_first_free_id_is_taken_and_none_left_is_refused() -> None:
    tx = FakeTx(a_cluster(), objects_pb2.Node(id="a"), objects_pb2.Node(id="b"))
    assert issuing("c1", request(), "", ["a", "b", "c"])(tx).node_id == "c"
    with pytest.raises(Refused) as refused:
        issuing("c1", request(), "", ["a", "b", "c"])(tx)
    assert refused.value.code is Code.ALREADY_EXISTS


def test_before_there_are_tokens_nobody_is_admitted() -> None:
    bare = objects_pb2.Cluster(id="c1")
    for cluster in (None, bare):
        with pytest.raises(Refused) as refused:
            granted_role(cluster, "")
        assert refused.value.code is Code.ABORTED


def test_an_empty_token_is_no_token_even_where_none_is_set() -> None:
    cluster = a_cluster()
    cluster.root_ca.join_tokens.worker = ""
    with pytest.raises(Refused, match="valid join token"):
        granted_role(cluster, "")


def test_a_renewal_takes_the_observed_role_and_forgets_the_old_certificate() -> None:
    node = objects_pb2.Node(id="n1", role=types_pb2.MANAGER)
    node.certificate.certificate, node.certificate.role = b"old", types_pb2.WORKER
    tx = FakeTx(a_cluster(), node)
    issuing("c1", request("nonsense"), "n1", [])(tx)
    certificate = tx.node("n1").certificate
    assert (certificate.certificate, certificate.role, certificate.cn) == (b"", types_pb2.MANAGER, "n1")
    assert certificate.status.state == STATUS.RENEW


ACCEPTED, NOT_YET = specs_pb2.NodeSpec.ACCEPTED, specs_pb2.NodeSpec.Membership.PENDING


@pytest.mark.parametrize(
    ("state", "membership", "waits", "final"),
    [
        (STATUS.PENDING, ACCEPTED, True, False),
        (STATUS.PENDING, NOT_YET, False, False),
        (STATUS.RENEW, ACCEPTED, True, False),
        (STATUS.RENEW, NOT_YET, True, False),
        (STATUS.ISSUED, ACCEPTED, False, True),
        (STATUS.ROTATE, ACCEPTED, False, True),
        (STATUS.FAILED, ACCEPTED, False, True),
        (STATUS.UNKNOWN, ACCEPTED, False, False),
    ],
)
def test_who_is_signed_for_and_who_is_answered(state: int, membership: int, waits: bool, final: bool) -> None:
    node = objects_pb2.Node(id="n1")
    node.certificate.status.state, node.spec.membership = state, membership  # type: ignore[assignment]
    assert (is_waiting(node), is_final(node)) == (waits, final)


def waiting_node(csr: bytes | None = None) -> objects_pb2.Node:
    node = objects_pb2.Node(id="n1")
    node.spec.membership = ACCEPTED
    node.certificate.csr = new_request(entropy(5)).csr if csr is None else csr
    node.certificate.cn, node.certificate.status.state = "n1", STATUS.PENDING
    return node


def test_an_authority_signs_from_the_nodes_entry_and_rebuilds_only_for_another_root() -> None:
    authority, cluster = Authority("c1"), a_cluster()
    assert authority.learn(cluster, NOW)
    leaf = load_certificates(authority.sign(waiting_node(), NOW, entropy(4)))[0]
    info = certificate_info(leaf)
    assert (info.node_id, info.role, info.organization) == ("n1", WORKER_ROLE, "c1")
    cluster.root_ca.join_tokens.worker = "rotated"
    assert not authority.learn(cluster, NOW)
    cluster.root_ca.CopyFrom(objects_pb2.Cluster().root_ca)
    assert authority.learn(cluster, NOW)
    assert "cannot be used" in authority.trouble
    with pytest.raises(NotNow):
        authority.sign(waiting_node(), NOW, entropy(4))


def test_an_authority_tries_a_root_again_that_was_not_valid_when_it_was_shown() -> None:
    authority, cluster = Authority("c1"), a_cluster()
    authority.learn(cluster, NOW - 3600.0)
    assert "not valid before" in authority.trouble
    for ask in (authority.external_request, lambda node, now: authority.sign(node, now, entropy(4))):
        with pytest.raises(NotNow, match="not valid before"):
            ask(waiting_node(), NOW - 3500.0)
    assert load_certificates(authority.sign(waiting_node(), NOW, entropy(4)))
    assert authority.trouble == ""
    assert authority.external_request(waiting_node(), NOW)


def test_before_it_knows_the_cluster_and_without_a_key_an_authority_lets_nodes_wait() -> None:
    authority, cluster = Authority("c1"), a_cluster()
    with pytest.raises(NotNow):
        authority.sign(waiting_node(), NOW, entropy(4))
    cluster.root_ca.ca_key = b""
    authority.learn(cluster, NOW)
    with pytest.raises(NotNow, match="no valid signer found"):
        authority.sign(waiting_node(), NOW, entropy(4))


@pytest.mark.parametrize("role", [2, 77])
def test_a_role_that_does_not_exist_is_not_signed(role: int) -> None:
    authority, node = Authority("c1"), waiting_node()
    authority.learn(a_cluster(), NOW)
    node.certificate.role = role  # type: ignore[assignment]
    with pytest.raises(InvalidCertificate, match="unknown role"):
        authority.sign(node, NOW, entropy(4))


@pytest.mark.parametrize(("wish", "lifetime"), [(0, 7776000), (3599, 7776000), (3600, 3600), (86400, 86400)])
def test_the_lifetime_is_the_clusters_wish_of_an_hour_or_more(wish: int, lifetime: int) -> None:
    cluster = a_cluster()
    cluster.spec.ca_config.node_cert_expiry.FromSeconds(wish)
    assert node_lifetime(cluster) == lifetime


def test_an_external_ca_counts_for_the_root_that_leaves_are_of() -> None:
    old, new, crossed = rotating()
    cluster = a_cluster()
    assert not has_external_authority(cluster)
    cluster.spec.ca_config.external_cas.add(url="https://ca")
    assert has_external_authority(cluster)
    cluster.root_ca.root_rotation.ca_cert = new.bundle
    cluster.root_ca.root_rotation.cross_signed_ca_cert = crossed
    assert not has_external_authority(cluster)
    cluster.spec.ca_config.external_cas.add(url="https://new", ca_cert=new.bundle.replace(b"\n", b"\r\n"))
    assert has_external_authority(cluster)
    for each in cluster.spec.ca_config.external_cas:
        each.url = ""
    assert not has_external_authority(cluster)
    cluster.spec.ca_config.external_cas.add(url="https://x", ca_cert=b"-----BEGIN A-----\n#\n-----END A-----")
    assert not has_external_authority(cluster)
    assert old.bundle != new.bundle


def test_what_was_signed_is_written_only_to_the_request_that_it_is_for() -> None:
    tx = FakeTx(waiting_node(b"csr"))
    assert not recording("n1", b"another", b"pem")(tx)
    assert not recording("ghost", b"csr", b"pem")(tx)
    assert recording("n1", b"csr", b"pem")(tx)
    assert (tx.node("n1").certificate.certificate, tx.node("n1").certificate.status.state) == (b"pem", STATUS.ISSUED)
    assert not recording("n1", b"csr", b"again")(tx)
    tx = FakeTx(waiting_node(b"csr"))
    assert recording("n1", b"csr", b"", "why")(tx)
    assert (tx.node("n1").certificate.status.err, tx.node("n1").certificate.status.state) == ("why", STATUS.FAILED)
