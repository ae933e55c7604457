"""Certificates of nodes: asking for one, making one, and reading what one says.

Rules owned here: the exact fields of a node certificate and of the root (SwarmKit's ``ca``, through CFSSL's
templates). The organisation is the cluster, the organisational unit the role, the common name the node. Of a signing
request only its public key is trusted: names come from whoever signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.pki.errors import InvalidCertificate, InvalidKey
from runtime.pki.identity import Entropy
from runtime.pki.keys import PrivateKey, PublicKey, check_public_key, deterministic, public_der, signature_hash
from runtime.pki.pem import load_certificates

MANAGER_ROLE = "swarm-manager"
WORKER_ROLE = "swarm-worker"
CA_NAME = "swarm-ca"
ROLES = (MANAGER_ROLE, WORKER_ROLE)

DEFAULT_LIFETIME = 2160 * 3600
"""Seconds for which a node certificate is good (90 days)."""
MIN_LIFETIME = 3600
"""Seconds; a cluster's wish below this is answered with the default."""
BACKDATE = 3600
"""Seconds by which a node certificate starts before it is made, for clocks that are behind."""
ROOT_LIFETIME = 630_720_000
"""Seconds for which a root is good (20 years of 365 days)."""
ROOT_BACKDATE = 300

_SERIAL_BYTES = 20


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a node certificate says about its holder. Dates are unix seconds."""

    node_id: str
    role: str
    organization: str
    not_before: float
    not_after: float

    @property
    def is_manager(self) -> bool:
        """Whether the holder may act as a manager."""
        return self.role == MANAGER_ROLE


def certificate_info(certificate: x509.Certificate) -> CertificateInfo:
    """Reads role, node and cluster; ``InvalidCertificate`` when one is missing: that is no credential."""
    values = []
    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME):
        found = certificate.subject.get_attributes_for_oid(oid)
        if not found or not found[0].value:
            raise InvalidCertificate("node certificate subject must have a common name, a role and an organization")
        values.append(str(found[0].value))
    start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return CertificateInfo(values[0], values[1], values[2], start, end)


def certificate_expiry(pem: bytes) -> float | None:
    """When the first certificate of a PEM bundle ends, in seconds since the epoch; None if it cannot be read."""
    try:
        certificate = load_certificates(pem)[0]
    except InvalidCertificate:
        return None
    return certificate.not_valid_after_utc.timestamp()


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signed a certificate, as nodes report it in NodeTLSInfo: subject and public key, both DER."""

    subject: bytes
    public_key: bytes


def issuer_identity(certificate: x509.Certificate) -> Issuer:
    """The identity under which the holder of ``certificate`` appears as an issuer."""
    return Issuer(certificate.subject.public_bytes(), public_der(certificate_key(certificate)))


def certificate_key(certificate: x509.Certificate) -> PublicKey:
    """The public key of a certificate; ``InvalidCertificate`` when it is of no accepted kind or strength."""
    try:
        return check_public_key(certificate.public_key())
    except (InvalidKey, ValueError) as error:
        raise InvalidCertificate(f"certificate with an unacceptable key: {error}") from None


def key_matches(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether a private key belongs to a certificate."""
    return public_der(certificate_key(certificate)) == public_der(key.public_key())


def create_csr(key: PrivateKey) -> bytes:
    """A signing request in PEM with an empty subject: the signer names the holder, so a request need not."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, signature_hash(key), ecdsa_deterministic=deterministic(key))
    return request.public_bytes(Encoding.PEM)


def csr_public_key(csr: bytes) -> PublicKey:
    """The public key of a PEM signing request that proves possession of it; ``InvalidCertificate`` otherwise."""
    try:
        request = x509.load_pem_x509_csr(csr)
        if not request.is_signature_valid:
            raise InvalidCertificate("the signature of the certificate signing request is wrong")
        if not isinstance(request.signature_hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
            raise InvalidCertificate("the certificate signing request is signed with a weak digest")
        return check_public_key(request.public_key())
    except (ValueError, InvalidKey) as error:
        raise InvalidCertificate(f"failed to parse certificate signing request: {error}") from None


def rounded_minute(now: float) -> datetime:
    """Unix seconds to the nearest whole minute, halves up."""
    return datetime.fromtimestamp(math.floor(now / 60 + 0.5) * 60, UTC)


def new_serial(entropy: Entropy) -> int:
    """A random serial number of 159 bits; a positive one, as X.509 demands."""
    raw = entropy(_SERIAL_BYTES)
    assert len(raw) == _SERIAL_BYTES, f"asked for {_SERIAL_BYTES} random bytes, got {len(raw)}"
    return int.from_bytes(raw, "big") & ~(1 << (8 * _SERIAL_BYTES - 1)) or 1


def root_certificate(
    key: ec.EllipticCurvePrivateKey, common_name: str, now: float, entropy: Entropy
) -> x509.Certificate:
    """A self-signed root with a fresh serial, dated five minutes back and good for twenty years from there."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    start = rounded_minute(now) - timedelta(seconds=ROOT_BACKDATE)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(new_serial(entropy))
        .not_valid_before(start)
        .not_valid_after(start + timedelta(seconds=ROOT_LIFETIME))
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, signature_hash(key), ecdsa_deterministic=deterministic(key))


@dataclass(frozen=True, slots=True)
class Holder:
    """For whom a certificate is issued."""

    node_id: str
    role: str
    cluster_id: str

    def __post_init__(self) -> None:
        if not self.node_id or not self.cluster_id or self.role not in ROLES:
            raise InvalidCertificate(
                f"no certificate for node {self.node_id!r} as {self.role!r} of {self.cluster_id!r}"
            )

    @property
    def dns_names(self) -> list[str]:
        """Names that the certificate is good for: role, node, and for managers the name of the CA service."""
        return [self.role, self.node_id] + ([CA_NAME] if self.role == MANAGER_ROLE else [])

    @property
    def subject(self) -> x509.Name:
        """Organisation, role and node, in this order."""
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.cluster_id),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, self.role),
                x509.NameAttribute(NameOID.COMMON_NAME, self.node_id),
            ]
        )


def leaf_certificate(
    issuer: x509.Certificate,
    key: PrivateKey,
    public_key: PublicKey,
    holder: Holder,
    lifetime: float,
    now: float,
    entropy: Entropy,
) -> x509.Certificate:
    """A node certificate signed with ``key``, the private key of ``issuer``.

    ``lifetime`` is in seconds; less than an hour means the default of 90 days. The certificate starts an hour
    before ``now`` (unix seconds, to the minute) and ends ``lifetime`` after it.
    """
    start = rounded_minute(now) - timedelta(seconds=BACKDATE)
    length = lifetime if lifetime >= MIN_LIFETIME else DEFAULT_LIFETIME
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(holder.subject)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(new_serial(entropy))
        .not_valid_before(start)
        .not_valid_after(start + timedelta(seconds=int(length) + BACKDATE))
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_key_id(issuer), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in holder.dns_names]), critical=False)
    )
    return builder.sign(key, signature_hash(key), ecdsa_deterministic=deterministic(key))


def cross_sign(
    new_root: x509.Certificate, issuer: x509.Certificate, key: PrivateKey, entropy: Entropy
) -> x509.Certificate:
    """``new_root`` signed again by the old root: same subject, key, dates and extensions, another issuer.

    A leaf of the new root is then trusted by nodes that know only the old one, as in SwarmKit's root rotation.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(new_root.subject)
        .issuer_name(issuer.subject)
        .public_key(certificate_key(new_root))
        .serial_number(new_serial(entropy))
        .not_valid_before(new_root.not_valid_before_utc)
        .not_valid_after(new_root.not_valid_after_utc)
    )
    for extension in new_root.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    builder = builder.add_extension(authority_key_id(issuer), critical=False)
    return builder.sign(key, signature_hash(key), ecdsa_deterministic=deterministic(key))


def authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Which key signed: during a rotation two roots carry the same name, and only this tells them apart."""
    try:
        extension = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(certificate_key(issuer))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_encipherment=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
