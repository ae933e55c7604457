"""What becomes of a cluster's root: the order of the decision, cross-signing, who has moved, the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from runtime.errors import Code, Refused
from runtime.pki.certificates import (
    WORKER_ROLE,
    Holder,
    certificate_info,
    create_csr,
    issuer_identity,
    root_certificate,
)
from runtime.pki.join_tokens import check_bundle, parse_join_token
from runtime.pki.keys import dump_key, new_key
from runtime.pki.pem import dump_certificates, load_certificates
from runtime.pki.root import RootCA, describe_root, load_root, root_of_cluster
from runtime.pki.rotation import (
    KEY_WITHOUT_CERT,
    ROTATE_BATCH,
    SAME_KEY,
    CrossSign,
    DecidedRoot,
    Reachable,
    asking,
    decide_root,
    desired_issuer,
    external_urls,
    finishing,
    has_moved,
    same_rotation,
    to_ask,
)
from runtime.wire.pb import objects_pb2, types_pb2
from tests.seeded import entropy
from tests.unit.pki.support import DAY, NOW, a_root

STATUS = types_pb2.IssuanceStatus
URL = "https://ca.example:8888/api/v1/cfssl/sign"


def key_of(root: RootCA) -> bytes:
    assert root.signer is not None
    return dump_key(root.signer.key)


def present(root: RootCA, *, key: bool = True) -> types_pb2.RootCA:
    described = describe_root(root)
    described.join_tokens.worker, described.join_tokens.manager = "w", "m"
    if not key:
        described.ClearField("ca_key")
    return described


def wish(root: RootCA | None = None, *, key: bool = True, force: int = 0, **fields: Any) -> types_pb2.CAConfig:
    config = types_pb2.CAConfig(force_rotate=force, **fields)
    if root is not None:
        config.signing_ca_cert = root.bundle
        if key:
            config.signing_ca_key = key_of(root)
    return config


def external(url: str = URL, root: RootCA | None = None) -> types_pb2.ExternalCA:
    return types_pb2.ExternalCA(url=url, ca_cert=root.bundle if root is not None else b"")


def decide(
    root: types_pb2.RootCA, config: types_pb2.CAConfig, answer: Callable[[Any], Any] | None = None
) -> tuple[types_pb2.RootCA, list[Any]]:
    """The outcome, and what was asked of the world on the way."""
    asked: list[Any] = []
    decision = decide_root(root, config, NOW, entropy(9))
    try:
        question = next(decision)
        while True:
            asked.append(question)
            assert answer is not None, f"nobody expected {question}"
            question = decision.send(answer(question))
    except StopIteration as end:
        return end.value, asked


def refused(root: types_pb2.RootCA, config: types_pb2.CAConfig, answer: Callable[[Any], Any] | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        decide(root, config, answer)
    return caught.value


def a_leaf(root: RootCA) -> bytes:
    key = new_key(entropy(5))
    return root.sign_csr(create_csr(key), Holder("n1", WORKER_ROLE, "c1"), 90 * DAY, NOW, entropy(6))


# The decision


def test_without_a_wish_the_root_stays_as_it_is() -> None:
    root = present(a_root())
    assert decide(root, wish()) == (root, [])


def test_a_force_counter_that_differs_begins_a_rotation_to_a_new_root_under_the_same_trust() -> None:
    old = a_root()
    after, asked = decide(present(old), wish(force=3))
    assert asked == []
    assert (after.ca_cert, after.ca_key, after.last_forced_rotation) == (old.bundle, key_of(old), 3)
    assert (after.join_tokens.worker, after.ca_cert_hash) == ("w", old.digest_text)
    assert after.root_rotation.ca_cert not in (b"", old.bundle)
    assert decide(after, wish(force=3))[0] == after


def test_leaves_of_a_rotation_are_good_under_both_roots() -> None:
    old = a_root()
    after, _ = decide(present(old), wish(force=1))
    leaf = a_leaf(root_of_cluster(after, NOW))
    new = load_root(after.root_rotation.ca_cert, NOW)
    for root in (old, new):
        assert certificate_info(root.verify(leaf, NOW)[0]).node_id == "n1"


def test_the_cross_signed_twin_has_subject_key_and_dates_of_the_new_root() -> None:
    after, _ = decide(present(a_root()), wish(force=1))
    new, twin = (
        load_certificates(pem)[0] for pem in (after.root_rotation.ca_cert, after.root_rotation.cross_signed_ca_cert)
    )
    assert issuer_identity(new) == issuer_identity(twin)
    assert (new.not_valid_before_utc, new.not_valid_after_utc) == (twin.not_valid_before_utc, twin.not_valid_after_utc)
    assert twin != new


def test_a_new_wish_replaces_the_rotation_under_way() -> None:
    first, _ = decide(present(a_root()), wish(force=1))
    second, _ = decide(first, wish(force=2))
    assert second.ca_cert == first.ca_cert
    assert second.root_rotation.ca_cert != b""
    third, _ = decide(second, wish(a_root(4), force=2))
    assert third.root_rotation.ca_cert == a_root(4).bundle
    assert third.root_rotation.ca_key == key_of(a_root(4))


def test_the_present_root_as_a_wish_gives_the_rotation_up() -> None:
    old = a_root()
    rotating, _ = decide(present(old), wish(force=1))
    after, _ = decide(rotating, wish(old, force=2))
    assert not after.HasField("root_rotation")
    assert (after.ca_cert, after.ca_key, after.last_forced_rotation) == (old.bundle, key_of(old), 2)


def test_the_root_that_is_being_rotated_to_only_changes_its_key() -> None:
    old, new = a_root(), a_root(4)
    rotating, _ = decide(present(old), wish(new))
    without, asked = decide(rotating, wish(new, key=False, external_cas=[external(root=new)]), lambda _: True)
    assert asked == [Reachable((URL,), new.bundle)]
    assert without.root_rotation.ca_key == b""
    assert without.root_rotation.cross_signed_ca_cert == rotating.root_rotation.cross_signed_ca_cert
    again, _ = decide(without, wish(new))
    assert again == rotating


def test_a_wish_is_compared_without_blanks_and_headers() -> None:
    old = a_root()
    padded = types_pb2.CAConfig(
        signing_ca_cert=b"\n# mine\n" + old.bundle.replace(b"\n", b"\r\n"), signing_ca_key=key_of(old)
    )
    after, _ = decide(present(old), padded)
    assert after.ca_cert == old.bundle
    assert not after.HasField("root_rotation")


def short_root(days: float) -> RootCA:
    """A root that ends in so many days: an old one of twenty years."""
    return a_root(4, NOW - 7300 * DAY + days * DAY)


BAD_WISHES: list[tuple[types_pb2.CAConfig, str]] = [
    (types_pb2.CAConfig(signing_ca_key=key_of(a_root(4))), KEY_WITHOUT_CERT),
    (types_pb2.CAConfig(signing_ca_cert=b"no pem", signing_ca_key=b"k"), KEY_WITHOUT_CERT),
    (
        types_pb2.CAConfig(signing_ca_cert=a_root(4).bundle + a_root(5).bundle, signing_ca_key=key_of(a_root(4))),
        "the desired CA certificate cannot contain multiple certificates",
    ),
    (wish(short_root(364)), "CA certificate expires too soon"),
    (
        wish(short_root(-2)),
        "certificate is not valid after 2026-09-19T14:09:00Z, and it is currently 2026-09-21T14:13:45Z",
    ),
    (
        types_pb2.CAConfig(signing_ca_cert=a_root(4).bundle, signing_ca_key=key_of(a_root(5))),
        "certificate key mismatch",
    ),
    (
        types_pb2.CAConfig(signing_ca_cert=a_root(4).bundle, signing_ca_key=b"no key"),
        "the private key is malformed, encrypted or of an unknown kind",
    ),
    (
        wish(a_root(4), key=False),
        "there must be at least one valid, reachable external CA corresponding to the desired CA certificate",
    ),
]


@pytest.mark.parametrize(("config", "text"), BAD_WISHES, ids=[text[:40] for _, text in BAD_WISHES])
def test_a_wish_that_cannot_be_is_refused(config: types_pb2.CAConfig, text: str) -> None:
    refusal = refused(present(a_root()), config)
    assert (refusal.code, refusal.text) == (Code.INVALID_ARGUMENT, text)


def test_a_leaf_is_no_root() -> None:
    key = new_key(entropy(5))
    leaf = a_root().sign_csr(create_csr(key), Holder("n1", WORKER_ROLE, "c1"), 800 * DAY, NOW, entropy(6))
    config = types_pb2.CAConfig(signing_ca_cert=leaf, signing_ca_key=dump_key(key))
    assert refused(present(a_root()), config).code is Code.INVALID_ARGUMENT


def test_a_root_that_is_good_for_a_year_will_do() -> None:
    assert decide(present(a_root()), wish(short_root(366)))[0].HasField("root_rotation")


def test_another_certificate_of_the_present_key_is_refused() -> None:
    old = a_root()
    assert old.signer is not None
    assert isinstance(old.signer.key, ec.EllipticCurvePrivateKey)
    renewed = dump_certificates(root_certificate(old.signer.key, "swarm-ca", NOW + 60, entropy(8)))
    config = types_pb2.CAConfig(signing_ca_cert=renewed, signing_ca_key=key_of(old))
    assert refused(present(old), config).text == SAME_KEY


# External authorities


def test_a_root_without_its_key_needs_an_external_ca_that_answers() -> None:
    root = a_root()
    config = wish(external_cas=[external()])
    after, asked = decide(present(root, key=False), config, lambda _: True)
    assert asked == [Reachable((URL,), root.bundle)]
    assert after == present(root, key=False)
    unreachable = refused(present(root, key=False), config, lambda _: False)
    assert "external CA corresponding to the current CA certificate" in unreachable.text
    assert "current" in refused(present(root, key=False), wish()).text


def test_the_key_of_an_external_root_is_adopted_and_a_rotation_given_up() -> None:
    root = a_root()
    rotating = present(root, key=False)
    rotating.root_rotation.ca_cert = a_root(4).bundle
    after, asked = decide(rotating, wish(root, force=5))
    assert asked == []
    assert (after.ca_key, after.last_forced_rotation, after.HasField("root_rotation")) == (key_of(root), 5, False)


def test_a_wrong_key_for_an_external_root_is_not_adopted() -> None:
    root = a_root()
    config = types_pb2.CAConfig(signing_ca_cert=root.bundle, signing_ca_key=key_of(a_root(4)))
    assert refused(present(root, key=False), config).code is Code.INVALID_ARGUMENT


def test_the_old_external_ca_cross_signs_a_new_root() -> None:
    old, new = a_root(), a_root(4)
    config = wish(new, external_cas=[external()])
    twin = old.cross_sign(new.bundle, entropy(3))

    def answer(question: Any) -> Any:
        return True if isinstance(question, Reachable) else twin

    after, asked = decide(present(old, key=False), config, answer)
    assert [type(each) for each in asked] == [Reachable, CrossSign]
    assert asked[1].urls == (URL,)
    assert after.root_rotation.cross_signed_ca_cert == twin


def test_an_external_ca_that_does_not_cross_sign_is_an_internal_error() -> None:
    def answer(question: Any) -> Any:
        return True if isinstance(question, Reachable) else Refused(Code.UNAVAILABLE, "it is asleep")

    refusal = refused(present(a_root(), key=False), wish(a_root(4), external_cas=[external()]), answer)
    assert refusal.code is Code.INTERNAL
    assert "it is asleep" in refusal.text


def test_nobody_rotates_from_one_external_ca_to_another() -> None:
    config = wish(a_root(4), key=False, external_cas=[external(), external("https://other/sign", a_root(4))])
    assert refused(present(a_root(), key=False), config, lambda _: True).code is Code.INVALID_ARGUMENT


def test_a_rotation_to_an_external_root_goes_on_only_while_somebody_signs_for_it() -> None:
    new = a_root(4)
    config = wish(new, key=False, external_cas=[external(root=new)])
    rotating, _ = decide(present(a_root()), config, lambda _: True)
    assert rotating.root_rotation.ca_key == b""
    later = wish(external_cas=[external(root=new)])
    assert decide(rotating, later, lambda _: True)[0] == rotating
    assert "next CA certificate" in refused(rotating, wish()).text


def test_only_https_of_the_right_root_counts_as_an_external_ca() -> None:
    one, other = a_root().bundle, a_root(4).bundle
    listed = [
        types_pb2.ExternalCA(url="http://plain/sign"),
        types_pb2.ExternalCA(url="https://"),
        types_pb2.ExternalCA(url="https://[broken/sign"),
        types_pb2.ExternalCA(url="https://for-the-present/sign"),
        types_pb2.ExternalCA(url="https://named/sign", ca_cert=one + b"\n"),
        types_pb2.ExternalCA(url="https://other/sign", ca_cert=other),
        types_pb2.ExternalCA(url="https://broken-certificate/sign", ca_cert=b"xx"),
    ]
    assert external_urls(listed, one, one) == ("https://for-the-present/sign", "https://named/sign")
    assert external_urls(listed, one, other) == ("https://other/sign",)


# Taking it over


def test_a_decision_is_taken_over_by_the_state_it_was_made_for_alone() -> None:
    root = present(a_root())
    decided = DecidedRoot(root)
    decided.outcome = decide(root, wish(force=1))[0]
    cluster = objects_pb2.Cluster(root_ca=root)
    assert decided(cluster, None) == decided.outcome
    cluster.root_ca.join_tokens.worker = "another"
    with pytest.raises(Refused, match="update out of sequence"):
        decided(cluster, None)


def test_a_refused_decision_refuses_in_its_own_words() -> None:
    decided = DecidedRoot(types_pb2.RootCA())
    decided.outcome = Refused(Code.INVALID_ARGUMENT, "no")
    with pytest.raises(Refused, match="no"):
        decided(objects_pb2.Cluster(), None)


# The way to the end


class Store:
    """One transaction at a time over a few objects."""

    def __init__(self, *made: Any) -> None:
        self.held = {(type(each), each.id): each for each in made}

    def get(self, kind: type[Any], id: str) -> Any:
        return self.held.get((kind, id))

    def update(self, obj: Any) -> None:
        self.held[type(obj), obj.id] = obj


def a_rotation() -> types_pb2.RootCA:
    return decide(present(a_root()), wish(force=1))[0]


def node(id: str, root: types_pb2.RootCA | None = None, state: int = STATUS.ISSUED) -> objects_pb2.Node:
    made = objects_pb2.Node(id=id)
    made.certificate.status.state = state  # type: ignore[assignment]
    if root is not None:
        issuer = desired_issuer(root)
        made.description.tls_info.cert_issuer_subject = issuer.subject
        made.description.tls_info.cert_issuer_public_key = issuer.public_key
    return made


def test_a_node_has_moved_when_it_says_so() -> None:
    rotation = a_rotation()
    issuer = desired_issuer(rotation)
    assert has_moved(node("n1", rotation), issuer)
    assert not has_moved(node("n1"), issuer)
    other = node("n1", rotation)
    other.description.tls_info.cert_issuer_public_key = b"another"
    assert not has_moved(other, issuer)


@pytest.mark.parametrize("state", [STATUS.RENEW, STATUS.PENDING, STATUS.ROTATE])
def test_nobody_is_asked_twice(state: int) -> None:
    issuer = desired_issuer(a_rotation())
    assert to_ask([node("n1", state=state), node("n2"), node("n3", state=STATUS.FAILED)], issuer) == ["n2", "n3"]


def test_thirty_are_asked_at_a_time() -> None:
    nodes = [node(f"n{number:02}") for number in range(40)]
    asked = to_ask(nodes, desired_issuer(a_rotation()))
    assert asked == [f"n{number:02}" for number in range(ROTATE_BATCH)]


def test_asking_sets_the_state_of_those_that_still_have_to_move() -> None:
    rotation = a_rotation()
    store = Store(node("n1"), node("n2", rotation))
    issuer = desired_issuer(rotation)
    assert [asking(id, issuer)(store) for id in ("n1", "n2", "gone")] == [True, False, False]
    assert store.get(objects_pb2.Node, "n1").certificate.status.state == STATUS.ROTATE
    assert store.get(objects_pb2.Node, "n2").certificate.status.state == STATUS.ISSUED


def cluster_of(root: types_pb2.RootCA) -> objects_pb2.Cluster:
    return objects_pb2.Cluster(id="c1", root_ca=root)


def test_at_the_end_the_new_root_is_in_force_with_new_tokens() -> None:
    rotation = a_rotation()
    store = Store(cluster_of(rotation))
    assert finishing("c1", rotation, entropy(2))(store)
    after = store.get(objects_pb2.Cluster, "c1").root_ca
    new = rotation.root_rotation
    assert (after.ca_cert, after.ca_key, after.HasField("root_rotation")) == (new.ca_cert, new.ca_key, False)
    assert (after.last_forced_rotation, after.ca_cert_hash) == (1, load_root(new.ca_cert, NOW).digest_text)
    tokens = [after.join_tokens.worker, after.join_tokens.manager]
    assert tokens[0] != tokens[1]
    for token in tokens:
        check_bundle(parse_join_token(token), after.ca_cert)


def test_the_end_is_the_same_at_every_run_of_its_transaction() -> None:
    rotation = a_rotation()
    step = finishing("c1", rotation, entropy(2))
    one, other = Store(cluster_of(rotation)), Store(cluster_of(rotation))
    assert step(one)
    assert step(other)
    assert one.get(objects_pb2.Cluster, "c1") == other.get(objects_pb2.Cluster, "c1")


def test_a_rotation_that_was_replaced_or_given_up_does_not_end() -> None:
    rotation = a_rotation()
    replaced, _ = decide(rotation, wish(a_root(4), force=1))
    for state in (replaced, present(a_root())):
        store = Store(cluster_of(state))
        assert not finishing("c1", rotation, entropy())(store)
        assert store.get(objects_pb2.Cluster, "c1").root_ca == state
    assert not finishing("c1", rotation, entropy())(Store())


def test_rotated_tokens_do_not_make_another_rotation() -> None:
    rotation = a_rotation()
    rotated = types_pb2.RootCA()
    rotated.CopyFrom(rotation)
    rotated.join_tokens.worker = "fresh"
    assert same_rotation(rotation, rotated)
    assert not same_rotation(rotation, present(a_root()))
