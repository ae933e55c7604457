"""Roots, node certificates and chains: exact fields, and everything that must be refused."""

from __future__ import annotations

import random
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from runtime.pki.certificates import (
    MANAGER_ROLE,
    WORKER_ROLE,
    Holder,
    certificate_info,
    create_csr,
    csr_public_key,
    issuer_identity,
    key_matches,
)
from runtime.pki.errors import CertificateOutOfDate, InvalidCertificate, InvalidKey, UnknownAuthority
from runtime.pki.keys import check_public_key, dump_key, load_key, new_key
from runtime.pki.pem import dump_certificates, load_certificates, normalize
from runtime.pki.renewal import ISSUANCE_BACKOFF, RENEWAL_BACKOFF, is_expired, renewal_wait
from runtime.pki.root import NoSigner, RootCA, describe_root, load_root, root_of_cluster
from runtime.wire.pb import types_pb2
from tests.seeded import entropy

from .support import DAY, NOW, a_node, a_root


def stamp(moment: datetime) -> float:
    return moment.timestamp()


def minute(now: float = NOW) -> float:
    return (now + 30) // 60 * 60


def test_a_root_has_the_fields_that_swarmkit_gives_it() -> None:
    root = a_root()
    (certificate,) = root.certificates
    assert certificate.subject.rfc4514_string() == "CN=swarm-ca" == certificate.issuer.rfc4514_string()
    assert stamp(certificate.not_valid_before_utc) == minute() - 300
    assert stamp(certificate.not_valid_after_utc) == minute() - 300 + 630_720_000
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=None)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
    assert certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert 0 < certificate.serial_number < 2**159
    assert len(root.bundle) == 550


def test_a_node_certificate_has_the_fields_that_swarmkit_gives_it() -> None:
    root = a_root()
    (leaf,) = load_certificates(a_node(root))
    names = [(attribute.oid, attribute.value) for attribute in leaf.subject]
    assert names == [
        (NameOID.ORGANIZATION_NAME, "cluster1"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "swarm-manager"),
        (NameOID.COMMON_NAME, "node1"),
    ]
    assert stamp(leaf.not_valid_before_utc) == minute() - 3600
    assert stamp(leaf.not_valid_after_utc) == minute() + 90 * DAY
    names_for = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names_for.get_values_for_type(x509.DNSName) == ["swarm-manager", "node1", "swarm-ca"]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.digital_signature, usage.value.key_encipherment, usage.value.key_cert_sign) == (
        True,
        True,
        False,
    )
    extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = root.certificates[0].extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == own.digest


def test_a_worker_is_not_named_as_the_ca() -> None:
    (leaf,) = load_certificates(a_node(a_root(), WORKER_ROLE))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["swarm-worker", "node1"]
    assert not certificate_info(leaf).is_manager


@pytest.mark.parametrize(("asked", "given_seconds"), [(3600, 3600), (7200, 7200), (3599, 90 * DAY), (0, 90 * DAY)])
def test_a_lifetime_under_an_hour_becomes_the_default(asked: float, given_seconds: float) -> None:
    (leaf,) = load_certificates(a_node(a_root(), lifetime=asked))
    assert certificate_info(leaf).not_after == minute() + given_seconds


def test_the_same_inputs_give_the_same_bytes() -> None:
    assert a_root(3).bundle == a_root(3).bundle != a_root(4).bundle
    assert a_node(a_root(3)) == a_node(a_root(3))


def test_only_the_key_of_a_request_is_taken() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, MANAGER_ROLE)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    csr = request.public_bytes(Encoding.PEM)
    chain = a_root().sign_csr(csr, Holder("n", WORKER_ROLE, "c"), 0, NOW, entropy())
    (leaf,) = load_certificates(chain)
    assert certificate_info(leaf).role == WORKER_ROLE
    assert key_matches(leaf, key)
    assert not key_matches(leaf, new_key(entropy(99)))


def _weak_csr() -> bytes:
    key = rsa.generate_private_key(65537, 1024)
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def _foreign_csr() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    return (
        x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, None).public_bytes(Encoding.PEM)
    )


def _forged_csr() -> bytes:
    der = bytearray(x509.load_pem_x509_csr(create_csr(new_key(entropy()))).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("make", [_weak_csr, _foreign_csr, _forged_csr, lambda: b"", lambda: b"nonsense"])
def test_a_bad_request_is_not_signed(make: object) -> None:
    csr = make()  # type: ignore[operator]
    with pytest.raises(InvalidCertificate):
        csr_public_key(csr)
    with pytest.raises(InvalidCertificate):
        a_root().sign_csr(csr, Holder("n", WORKER_ROLE, "c"), 0, NOW, entropy())


@pytest.mark.parametrize("holder", [("", WORKER_ROLE, "c"), ("n", "swarm-king", "c"), ("n", WORKER_ROLE, "")])
def test_nobody_without_name_role_and_cluster_gets_a_certificate(holder: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidCertificate):
        Holder(*holder)


def test_a_root_without_a_key_does_not_sign() -> None:
    root = load_root(a_root().bundle, NOW)
    with pytest.raises(NoSigner):
        root.sign_csr(create_csr(new_key(entropy())), Holder("n", WORKER_ROLE, "c"), 0, NOW, entropy())
    with pytest.raises(NoSigner):
        root.cross_sign(a_root(2).bundle, entropy())


def test_a_chain_ends_at_the_root_and_tells_its_issuer() -> None:
    root = a_root()
    chain = root.verify(a_node(root), NOW)
    assert chain[-1] == root.certificates[0]
    issuer = issuer_identity(chain[1])
    assert issuer.subject == root.certificates[0].subject.public_bytes()
    assert issuer == issuer_identity(root.certificates[0])


def test_a_chain_to_another_root_of_the_same_name_is_unknown() -> None:
    with pytest.raises(UnknownAuthority):
        a_root(2).verify(a_node(a_root(1)), NOW)


@pytest.mark.parametrize("offset", [-3600 - 120, 90 * DAY + 120])
def test_a_chain_out_of_date_is_refused_with_both_times(offset: float) -> None:
    root = a_root()
    with pytest.raises(CertificateOutOfDate, match=r"it is currently \d{4}-\d\d-\d\dT"):
        root.verify(a_node(root), NOW + offset)


def test_an_expired_chain_passes_when_that_is_allowed() -> None:
    root = a_root()
    assert len(root.verify(a_node(root), NOW + 400 * DAY, allow_expired=True)) == 2


def test_even_then_the_chain_must_have_been_good_at_one_moment() -> None:
    old = a_root(1, NOW - 30 * 365 * DAY)
    key = old.signer.key if old.signer else None
    assert key is not None
    late = a_node(old)  # made ten years after its root had ended
    with pytest.raises(CertificateOutOfDate):
        old.verify(late, NOW, allow_expired=True)


def test_a_file_with_a_stranger_in_it_is_refused() -> None:
    root = a_root()
    with pytest.raises(InvalidCertificate, match="not signed by the one after it"):
        root.verify(a_node(root) + a_root(2).bundle, NOW)


def test_a_leaf_is_no_ca() -> None:
    root = a_root()
    (leaf,) = load_certificates(a_node(root))
    with pytest.raises(UnknownAuthority):
        RootCA(b"", (leaf,)).verify([leaf], NOW)
    with pytest.raises(InvalidCertificate, match="signed by itself"):
        load_root(dump_certificates(leaf), NOW)


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(InvalidCertificate):
        a_root().verify([], NOW)
    with pytest.raises(InvalidCertificate, match="no certificates"):
        a_root().verify(b"", NOW)


def test_a_bundle_of_two_roots_trusts_both() -> None:
    both = load_root(a_root(1).bundle + a_root(2).bundle, NOW)
    assert both.verify(a_node(a_root(1)), NOW)[-1] == both.certificates[0]
    assert both.verify(a_node(a_root(2)), NOW)[-1] == both.certificates[1]


def test_openssl_believes_the_certificates_too(tmp_path: Path) -> None:
    root = a_root()
    (tmp_path / "root.pem").write_bytes(root.bundle)
    (tmp_path / "leaf.pem").write_bytes(a_node(root))
    command = ["openssl", "verify", "-x509_strict", "-attime", str(int(NOW)), "-CAfile", "root.pem", "leaf.pem"]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no openssl program here")
    assert done.returncode == 0, done.stderr


def test_the_digest_covers_every_byte_of_the_bundle() -> None:
    root = a_root()
    spaced = load_root(b"\n" + root.bundle, NOW)
    assert spaced.certificates == root.certificates
    assert spaced.digest != root.digest
    assert root.digest_text == "sha256:" + root.digest.hex()


def _signer(root: RootCA) -> bytes:
    assert root.signer is not None
    return dump_key(root.signer.key)


def test_a_root_with_its_signer_is_built_from_pem() -> None:
    root = a_root()
    again = load_root(root.bundle, NOW, signer_cert=root.bundle, signer_key=_signer(root))
    assert a_node(again) == a_node(root)


def test_a_signer_needs_certificate_and_key() -> None:
    root = a_root()
    with pytest.raises(InvalidCertificate, match="or neither"):
        load_root(root.bundle, NOW, signer_cert=root.bundle)
    with pytest.raises(InvalidCertificate, match="or neither"):
        load_root(root.bundle, NOW, signer_key=_signer(root))


def test_a_signer_whose_key_or_root_is_another_is_refused() -> None:
    root, other = a_root(1), a_root(2)
    with pytest.raises(InvalidKey, match="does not belong"):
        load_root(root.bundle, NOW, signer_cert=root.bundle, signer_key=_signer(other))
    with pytest.raises(UnknownAuthority):
        load_root(root.bundle, NOW, signer_cert=other.bundle, signer_key=_signer(other))


@pytest.mark.parametrize(
    "bundle", [b"", b"nothing here", b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"]
)
def test_a_bundle_without_certificates_is_refused(bundle: bytes) -> None:
    with pytest.raises(InvalidCertificate):
        load_root(bundle, NOW)


def test_a_bundle_that_holds_a_key_is_refused() -> None:
    root = a_root()
    with pytest.raises(InvalidCertificate, match="found PRIVATE KEY"):
        load_root(root.bundle + _signer(root), NOW)


def test_an_expired_root_is_refused_unless_allowed() -> None:
    old = a_root(1, NOW - 30 * 365 * DAY).bundle
    with pytest.raises(CertificateOutOfDate):
        load_root(old, NOW)
    assert load_root(old, NOW, allow_expired=True).certificates


def _rotating(old: RootCA, new: RootCA) -> types_pb2.RootCA:
    described = describe_root(old)
    rotation = described.root_rotation
    rotation.ca_cert, rotation.ca_key = new.bundle, _signer(new)
    rotation.cross_signed_ca_cert = old.cross_sign(new.bundle, entropy(5))
    return described


def test_a_cluster_object_gives_back_the_root_it_describes() -> None:
    root = a_root()
    described = describe_root(root)
    assert described.ca_cert_hash == root.digest_text
    assert a_node(root_of_cluster(described, NOW)) == a_node(root)
    described.ca_key = b""
    assert root_of_cluster(described, NOW).signer is None


def test_while_roots_rotate_both_verify_a_new_leaf() -> None:
    old, new = a_root(1), a_root(2)
    rotating = root_of_cluster(_rotating(old, new), NOW)
    issued = a_node(rotating)
    assert rotating.bundle == old.bundle
    assert len(load_certificates(issued)) == 2
    assert old.verify(issued, NOW)[-1] == old.certificates[0]
    leaf = load_certificates(issued)[0]
    assert new.verify([leaf], NOW)[-1] == new.certificates[0]
    assert issuer_identity(old.verify(issued, NOW)[1]) == issuer_identity(new.certificates[0])


def test_a_cross_signed_root_keeps_subject_key_and_dates() -> None:
    old, new = a_root(1), a_root(2, NOW + 5 * DAY)
    (crossed,) = load_certificates(old.cross_sign(new.bundle, entropy(5)))
    (root,) = new.certificates
    assert issuer_identity(crossed) == issuer_identity(root)
    assert crossed.not_valid_before_utc == root.not_valid_before_utc
    assert crossed.not_valid_after_utc == root.not_valid_after_utc
    assert crossed.issuer == old.certificates[0].subject
    crossed.verify_directly_issued_by(old.certificates[0])


def test_a_rotation_to_an_external_root_has_no_signer_here() -> None:
    described = _rotating(a_root(1), a_root(2))
    described.root_rotation.ca_key = b""
    assert root_of_cluster(described, NOW).signer is None


def test_intermediates_must_begin_with_the_signer() -> None:
    old, new = a_root(1), a_root(2)
    crossed = old.cross_sign(new.bundle, entropy(5))
    with pytest.raises(InvalidCertificate, match="first intermediate"):
        load_root(old.bundle, NOW, signer_cert=old.bundle, signer_key=_signer(old), intermediates=crossed)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_a_foreign_root_with_a_longer_key_signs_with_a_longer_digest(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other ca")])
    start = datetime.fromtimestamp(NOW, UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(5)
    )
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=999))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    bundle = dump_certificates(builder.sign(key, hashes.SHA384()))
    root = load_root(bundle, NOW, signer_cert=bundle, signer_key=dump_key(key))
    issued = a_node(root)
    (leaf,) = load_certificates(issued)
    assert leaf.signature_hash_algorithm is not None
    assert leaf.signature_hash_algorithm.digest_size * 8 == {384: 384, 521: 512}[curve.key_size]
    assert root.verify(issued, NOW)


def test_weak_and_foreign_keys_are_refused() -> None:
    for key in (
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP192R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ):
        with pytest.raises(InvalidKey):
            check_public_key(key.public_key())


def test_an_unreadable_key_is_refused_without_quoting_it() -> None:
    with pytest.raises(InvalidKey) as refused:
        load_key(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    assert "c2VjcmV0" not in str(refused.value)


def test_a_certificate_without_role_is_no_credential() -> None:
    with pytest.raises(InvalidCertificate):
        certificate_info(a_root().certificates[0])


def test_normalising_strips_headers_and_line_ends() -> None:
    bundle = a_root().bundle
    messy = b"text before\r\n" + bundle.replace(b"-----\n", b"-----\nNote: x\n\n", 1).replace(b"\n", b"\r\n")
    assert normalize(messy) == bundle
    assert normalize(bundle) == bundle


@given(st.integers(0, 10**9), st.integers(3600, 10**8), st.integers(0, 2**32))
def test_renewal_falls_between_half_and_four_fifths_of_a_life(start: int, length: int, seed: int) -> None:
    wait = renewal_wait(start, start + length, start, random.Random(seed))
    minutes = length // 60
    assert wait % 60 == 0
    assert int(minutes * 0.5) <= wait / 60 < max(int(minutes * 0.8), int(minutes * 0.5) + 1)


def test_a_renewal_that_is_due_is_not_waited_for() -> None:
    assert renewal_wait(0, 7200, 7000, random.Random(1)) == 0
    assert renewal_wait(0, 60, 0, random.Random(1)) == 0
    assert is_expired(10, 11)
    assert not is_expired(10, 10)


@given(st.integers(1, 5000), st.integers(0, 2**32))
def test_backoff_stays_below_its_bound(failures: int, seed: int) -> None:
    for backoff in (ISSUANCE_BACKOFF, RENEWAL_BACKOFF):
        bound = min(backoff.maximum, backoff.base + backoff.factor * 2.0 ** min(failures - 1, 60))
        assert 0 <= backoff.wait(failures, random.Random(seed)) < bound
        assert backoff.wait(0, random.Random(seed)) == 0
