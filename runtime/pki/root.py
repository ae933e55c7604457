"""The root CA of a cluster: what is trusted, and, on managers that hold the key, who signs.

Rules owned here: which bundles may be trusted at all, which signer fits them, and how a cluster object's
RootCA (with or without a rotation under way) becomes a root. The digest covers the exact bytes of the bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509

from runtime.pki.certificates import (
    CA_NAME,
    Holder,
    certificate_key,
    cross_sign,
    csr_public_key,
    issuer_identity,
    key_matches,
    leaf_certificate,
    root_certificate,
)
from runtime.pki.chain import Chain, check_dates, check_signature_algorithm, is_issued_by, verify_chain
from runtime.pki.errors import InvalidCertificate, InvalidKey
from runtime.pki.identity import Entropy
from runtime.pki.keys import PrivateKey, dump_key, load_key, new_key
from runtime.pki.pem import dump_certificates, load_certificates
from runtime.wire.pb import types_pb2


class NoSigner(Exception):
    """This root has no private key here; certificates must be asked for elsewhere."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The one certificate and key that sign for a root."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class RootCA:
    """Trusted roots (``bundle`` as served, ``certificates`` parsed), what is appended to leaves, maybe a signer."""

    bundle: bytes = field(repr=False)
    certificates: tuple[x509.Certificate, ...]
    intermediates: bytes = field(default=b"", repr=False)
    signer: Signer | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the bundle's bytes; line ends and blanks count."""
        return hashlib.sha256(self.bundle).digest()

    @property
    def digest_text(self) -> str:
        """The digest as the cluster object stores it, ``sha256:<hex>``."""
        return f"sha256:{self.digest.hex()}"

    def verify(self, chain: bytes | Sequence[x509.Certificate], now: float, *, allow_expired: bool = False) -> Chain:
        """The verified chain of a PEM file or of parsed certificates; see ``chain.verify_chain``."""
        certificates = load_certificates(chain) if isinstance(chain, bytes) else chain
        return verify_chain(certificates, self.certificates, now, allow_expired=allow_expired)

    def sign_csr(self, csr: bytes, holder: Holder, lifetime: float, now: float, entropy: Entropy) -> bytes:
        """Issues a node certificate for the key in ``csr``: PEM of the leaf and of the intermediates.

        ``NoSigner`` when the key is not here, ``InvalidCertificate`` when the request is bad. Lifetime in seconds.
        """
        if self.signer is None:
            raise NoSigner("no valid signer found")
        public_key = csr_public_key(csr)
        leaf = leaf_certificate(self.signer.certificate, self.signer.key, public_key, holder, lifetime, now, entropy)
        return dump_certificates(leaf) + self.intermediates

    def cross_sign(self, new_root: bytes, entropy: Entropy) -> bytes:
        """PEM of another root signed by this one with the same subject, key and dates."""
        if self.signer is None:
            raise NoSigner("no valid signer found")
        certificates = load_certificates(new_root)
        if len(certificates) != 1:
            raise InvalidCertificate(f"only a single certificate can be cross-signed, not {len(certificates)}")
        return dump_certificates(cross_sign(certificates[0], self.signer.certificate, self.signer.key, entropy))


def create_root(entropy: Entropy, now: float, common_name: str = CA_NAME) -> RootCA:
    """A new root with its signer, as the first manager of a cluster makes it (``now`` in unix seconds)."""
    key = new_key(entropy)
    certificate = root_certificate(key, common_name, now, entropy)
    return RootCA(dump_certificates(certificate), (certificate,), signer=Signer(certificate, key))


def load_root(
    bundle: bytes,
    now: float,
    *,
    signer_cert: bytes = b"",
    signer_key: bytes = b"",
    intermediates: bytes = b"",
    allow_expired: bool = False,
) -> RootCA:
    """Builds a root from PEM, checking everything that SwarmKit checks.

    ``InvalidCertificate`` or ``InvalidKey`` says what does not fit.
    Signer certificate and key come together or not at all.
    """
    roots = load_certificates(bundle)
    for root in roots:
        _check_root(root, now, allow_expired)
    between = load_certificates(intermediates) if intermediates else ()
    if between:
        verify_chain(between, roots, now, allow_expired=allow_expired)
    if bool(signer_cert) != bool(signer_key):
        raise InvalidCertificate("must provide both the signing cert and the signing key, or neither")
    if not signer_cert:
        return RootCA(bundle, roots, intermediates)
    signer = _load_signer(signer_cert, signer_key, roots, between, now)
    return RootCA(bundle, roots, intermediates, signer)


def _check_root(root: x509.Certificate, now: float, allow_expired: bool) -> None:
    if not allow_expired:
        check_dates(root, now)
    check_signature_algorithm(root)
    certificate_key(root)
    if not is_issued_by(root, root):
        raise InvalidCertificate("a root certificate must be a CA that is signed by itself")


def _load_signer(
    certificate_pem: bytes,
    key_pem: bytes,
    roots: Sequence[x509.Certificate],
    between: Sequence[x509.Certificate],
    now: float,
) -> Signer:
    certificates = load_certificates(certificate_pem)
    key = load_key(key_pem)
    certificate = certificates[0]
    if not key_matches(certificate, key):
        raise InvalidKey("the signing key does not belong to the signing certificate")
    check_dates(certificate, now)
    if certificate in roots:
        path: Sequence[x509.Certificate] = ()
    else:
        path = (certificate, *certificates[1:]) if certificate not in between else (certificate,)
        verify_chain(path, roots, now)
    if between and issuer_identity(between[0]) != issuer_identity(certificate):
        raise InvalidCertificate(
            "the first intermediate must have the same subject and public key as the signing certificate"
        )
    return Signer(certificate, key)


def root_of_cluster(root: types_pb2.RootCA, now: float) -> RootCA:
    """The root that a cluster object describes.

    While a rotation is under way trust stays with the old root, and leaves are signed with the new key under its
    cross-signed certificate, which goes along as an intermediate; so nodes that know either root can verify them.
    """
    if root.HasField("root_rotation"):
        rotation = root.root_rotation
        crossed = rotation.cross_signed_ca_cert
        signer = crossed if rotation.ca_key else b""
        return load_root(root.ca_cert, now, signer_cert=signer, signer_key=rotation.ca_key, intermediates=crossed)
    signer = root.ca_cert if root.ca_key else b""
    return load_root(root.ca_cert, now, signer_cert=signer, signer_key=root.ca_key)


def describe_root(root: RootCA) -> types_pb2.RootCA:
    """The cluster object's RootCA for a root without rotation; join tokens are the caller's to add."""
    key = dump_key(root.signer.key) if root.signer else b""
    return types_pb2.RootCA(ca_cert=root.bundle, ca_key=key, ca_cert_hash=root.digest_text)
