"""MaybeEncryptedRecord: a value sealed with a key, or marked as not sealed.

Rules owned here: secretbox is written, secretbox and Fernet are read (SwarmKit's ``manager/encryption``); keys
shorter than 32 bytes are padded with zeros and longer ones cut.
"""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken
from google.protobuf.message import DecodeError

from runtime.pki import secretbox
from runtime.pki.errors import CannotDecrypt
from runtime.pki.identity import Entropy
from runtime.wire.pb import types_pb2

_Record = types_pb2.MaybeEncryptedRecord


def seal_record(data: bytes, key: bytes, entropy: Entropy) -> bytes:
    """The serialised record of ``data``; without a key it is stored as it is and marked so."""
    if not key:
        record = _Record(algorithm=_Record.NONE, data=data)
    else:
        nonce = entropy(secretbox.NONCE_BYTES)
        sealed = secretbox.seal(_fit(key), nonce, data)
        record = _Record(algorithm=_Record.SECRETBOX_SALSA20_POLY1305, data=sealed, nonce=nonce)
    return record.SerializeToString(deterministic=True)


def open_record(serialized: bytes, key: bytes) -> bytes:
    """What was sealed; ``CannotDecrypt`` when the key is missing or wrong, or the record is malformed."""
    try:
        record = _Record.FromString(serialized)
    except DecodeError:
        raise CannotDecrypt("a sealed record is malformed") from None
    if record.algorithm == _Record.NONE:
        return record.data
    if not key:
        raise CannotDecrypt("a record is sealed and there is no key for it")
    if record.algorithm == _Record.SECRETBOX_SALSA20_POLY1305:
        return secretbox.unseal(_fit(key), record.nonce, record.data)
    if record.algorithm == _Record.FERNET_AES_128_CBC:
        return _open_fernet(record.data, _fit(key))
    raise CannotDecrypt(f"a record is sealed with the unknown algorithm {record.algorithm}")


def _open_fernet(token: bytes, key: bytes) -> bytes:
    try:
        return Fernet(base64.urlsafe_b64encode(key)).decrypt(token)
    except InvalidToken:
        raise CannotDecrypt("a sealed record does not open with this key") from None


def _fit(key: bytes) -> bytes:
    return key[: secretbox.KEY_BYTES].ljust(secretbox.KEY_BYTES, b"\0")
