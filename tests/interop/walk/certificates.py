"""Roots as people make them with their tools, and nodes' certificates whose time has passed."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.interop.peers import Peer
from tests.interop.test_keys import certificates

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DAY = datetime.timedelta(days=1)
PEOPLES_FILES = (
    ("cert", "other_key"), ("nonsense", "key"), ("cert", "nonsense"), ("expired_cert", "key"), ("leaf_cert", "key"),
    ("weak_cert", "weak_key"), ("cert", "empty"),
)  # fmt: skip
"""Pairs of files that are no root and its key."""


def write_files(folder: Path) -> dict[str, str]:
    """A root ``cert`` with its ``key``, and what is wrong in `PEOPLES_FILES`; paths by name, and ``pem`` as text."""
    key, other, weak = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()), _weak()
    past = datetime.datetime.now(datetime.UTC) - 10 * DAY
    contents = {
        "cert": root(key),
        "key": dump(key),
        "other_key": dump(other),
        "expired_cert": root(key, past - 10 * DAY, past),
        "leaf_cert": root(key, authority=False),
        "weak_cert": root(weak),
        "weak_key": dump(weak),
        "nonsense": b"nonsense\n",
        "empty": b"",
    }
    for name, content in contents.items():
        (folder / f"{name}.pem").write_bytes(content)
    return {"pem": contents["cert"].decode().strip(), **{name: str(folder / f"{name}.pem") for name in contents}}


def _weak() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def dump(key: Key) -> bytes:
    """A key as PEM, as OpenSSL writes it."""
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption())


def root(
    key: Key, begin: datetime.datetime | None = None, end: datetime.datetime | None = None, *, authority: bool = True
) -> bytes:
    """A certificate that signs itself, as PEM."""
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "people's root")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin or now - DAY)
        .not_valid_after(end or now + 3650 * DAY)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def expire(peer: Peer, key_file: str) -> None:
    """Puts a certificate in a stopped node's place that is its own but for its time, which is past; ``key_file`` holds
    the key of the root."""
    path = certificates(peer) / "swarm-node.crt"
    first, *rest = x509.load_pem_x509_certificates(path.read_bytes())
    signer = serialization.load_pem_private_key(Path(key_file).read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(first.subject)
        .issuer_name(first.issuer)
        .public_key(first.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now - DAY)
    )
    for extension in first.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    made = [builder.sign(signer, hashes.SHA256()), *rest]
    path.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in made))
