"""A certificate authority for tests: roots and node certificates as SwarmKit shapes them."""

from __future__ import annotations

import datetime
import functools

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.wire.port import CA_NAME, MANAGER, WORKER, Credentials

CLUSTER = "cluster0000000000000000000"
DAY = datetime.timedelta(days=1)


class Authority:
    """One root, or an intermediate under a parent. ``issue`` gives (chain PEM, key PEM)."""

    def __init__(self, parent: Authority | None = None, common_name: str = CA_NAME) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer = parent or self
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(parent.certificate.subject if parent is not None else name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3650 * DAY)
            .not_valid_after(now + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(issuer.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, node_id: str, role: str, organization: str = CLUSTER, start: float = -1.0, end: float = 90.0
    ) -> tuple[bytes, bytes]:
        """A leaf that holds from ``start`` to ``end`` days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        attributes = [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, node_id),
        ]
        names = [role, node_id] + ([CA_NAME] if role == MANAGER else [])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([attribute for attribute in attributes if attribute.value]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start * DAY)
            .not_valid_after(now + end * DAY)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem, private

    def credentials(self, node_id: str, role: str, **shape: object) -> Credentials:
        """Credentials of a fresh leaf under this root."""
        certificate, key = self.issue(node_id, role, **shape)  # type: ignore[arg-type]
        return Credentials(self.pem, certificate, key)

    def manager(self, node_id: str = "manager1") -> Credentials:
        """A manager's credentials."""
        return self.credentials(node_id, MANAGER)

    def worker(self, node_id: str = "worker1") -> Credentials:
        """A worker's credentials."""
        return self.credentials(node_id, WORKER)


@functools.cache
def authority() -> Authority:
    """The root that most tests share."""
    return Authority()


@functools.cache
def stranger() -> Authority:
    """Another root, that nobody trusts."""
    return Authority()
