"""Private keys: made from given entropy, used for repeatable signatures, judged by strength.

Rules owned here: keys of this swarm are ECDSA on P-256; foreign roots may be ECDSA on P-256, P-384 or P-521, or
RSA of 2048 bits and more. Keys and signatures depend on the inputs alone, so that a simulated cluster issues
the same certificates, byte for byte, each time it is run.
"""

from __future__ import annotations

from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from runtime.pki.errors import InvalidKey
from runtime.pki.identity import Entropy

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Hash: TypeAlias = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

RSA_MIN_BITS = 2048
CURVES = ("secp256r1", "secp384r1", "secp521r1")

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# 64 bits more than the order has, so that the reduction favours no scalar by more than 2^-64 (FIPS 186-5, A.2.1).
_SCALAR_BYTES = 40


def new_key(entropy: Entropy) -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key; the same entropy gives the same key."""
    raw = entropy(_SCALAR_BYTES)
    assert len(raw) == _SCALAR_BYTES, f"asked for {_SCALAR_BYTES} random bytes, got {len(raw)}"
    return ec.derive_private_key(int.from_bytes(raw, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def load_key(pem: bytes) -> PrivateKey:
    """A private key from unencrypted PEM; ``InvalidKey`` when it is unreadable, of another kind or too weak."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's text may quote what it read; a key file's content does not belong in an error text.
        raise InvalidKey("the private key is malformed, encrypted or of an unknown kind") from None
    return check_key(key)


def dump_key(key: PrivateKey) -> bytes:
    """A private key as unencrypted PKCS#8 PEM, the form in which the cluster object stores the root key."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def check_key(key: object) -> PrivateKey:
    """The key itself when it is of an accepted kind and strength, ``InvalidKey`` otherwise."""
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        check_public_key(key.public_key())
        return key
    raise InvalidKey("only RSA and ECDSA keys are supported")


def check_public_key(key: object) -> PublicKey:
    """The public key itself when it is of an accepted kind and strength, ``InvalidKey`` otherwise."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < RSA_MIN_BITS:
            raise InvalidKey(f"RSA keys need at least {RSA_MIN_BITS} bits, this one has {key.key_size}")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in CURVES:
            raise InvalidKey(f"ECDSA keys must be on P-256, P-384 or P-521, not on {key.curve.name}")
        return key
    raise InvalidKey("only RSA and ECDSA keys are supported")


def public_der(key: PublicKey) -> bytes:
    """The SubjectPublicKeyInfo of a public key in DER, by which issuers are compared."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signature_hash(key: PrivateKey) -> Hash:
    """The digest that a signer of this size uses: stronger keys take a longer digest."""
    bits = key.key_size
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return hashes.SHA512() if bits > 384 else hashes.SHA384() if bits > 256 else hashes.SHA256()
    return hashes.SHA512() if bits >= 4096 else hashes.SHA384() if bits >= 3072 else hashes.SHA256()


def deterministic(key: PrivateKey) -> bool | None:
    """What to hand to a builder's ``ecdsa_deterministic``: RFC 6979 nonces where the library offers them."""
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    try:
        ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        return None
    return True
