"""PKCS#8 private keys in DER, plain or encrypted the way SwarmKit reads them.

Rules owned here: PBES2 with PBKDF2-HMAC-SHA1 (2048 iterations, 8 bytes of salt, the digest left to its default)
and AES-256-CBC. The library's own writer cannot be told to use this digest nor be handed its salt, so the few DER
structures are put together here; reading is the library's.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from runtime.pki.errors import InvalidKey, InvalidUnlockKey
from runtime.pki.identity import Entropy
from runtime.pki.keys import PrivateKey, check_key

ITERATIONS = 2048
SALT_BYTES = 8

_IV_BYTES = 16
_KEY_BYTES = 32
_SEQUENCE, _OCTETS, _INTEGER = 0x30, 0x04, 0x02
_OID_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_OID_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_OID_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def encode(key: PrivateKey) -> bytes:
    """The plain PKCS#8 form."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def decode(der: bytes) -> PrivateKey:
    """A key from its plain form; ``InvalidKey`` when it cannot be read."""
    try:
        return check_key(load_der_private_key(der, None))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidKey("the private key is malformed or of an unknown kind") from None


def encrypt(key: PrivateKey, password: bytes, entropy: Entropy) -> bytes:
    """The encrypted form; salt and IV come from ``entropy``."""
    salt, iv = entropy(SALT_BYTES), entropy(_IV_BYTES)
    derived = PBKDF2HMAC(hashes.SHA1(), _KEY_BYTES, salt, ITERATIONS).derive(password)  # noqa: S303 - the format's
    padder = PKCS7(algorithms.AES.block_size).padder()
    padded = padder.update(encode(key)) + padder.finalize()
    cipher = Cipher(algorithms.AES(derived), modes.CBC(iv)).encryptor()
    sealed = cipher.update(padded) + cipher.finalize()
    iterations = _tlv(_INTEGER, ITERATIONS.to_bytes(2, "big"))
    derivation = _sequence(_OID_PBKDF2, _sequence(_tlv(_OCTETS, salt), iterations))
    scheme = _sequence(_OID_AES_256_CBC, _tlv(_OCTETS, iv))
    return _sequence(_sequence(_OID_PBES2, _sequence(derivation, scheme)), _tlv(_OCTETS, sealed))


def decrypt(der: bytes, password: bytes) -> PrivateKey:
    """A key from its encrypted form; ``InvalidUnlockKey`` when the password does not open it."""
    if not password:
        raise InvalidUnlockKey("the node's key is encrypted and no unlock key was given")
    try:
        key = load_der_private_key(der, password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # A wrong password and a damaged file cannot be told apart: both end in padding or DER that is wrong.
        raise InvalidUnlockKey("the unlock key does not open the node's key") from None
    return check_key(key)


def _sequence(*parts: bytes) -> bytes:
    return _tlv(_SEQUENCE, b"".join(parts))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
