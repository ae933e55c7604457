"""The node's key file: its private key and, on managers, the keys that seal what is on disk.

Rules owned here: which PEM headers there are and how they are written (SwarmKit's ``manager/deks``), that a key
file under an unlock key is encrypted as a whole (key and headers with the same one), and when a changed unlock key
replaces the one in force. The file is the only place where data keys are kept.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field, replace

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from runtime.pki import pkcs8
from runtime.pki.errors import CannotDecrypt, InvalidKey, InvalidUnlockKey
from runtime.pki.identity import Entropy
from runtime.pki.keys import PrivateKey, check_key
from runtime.pki.pem import Block, encode_block, single_block
from runtime.pki.sealed_record import open_record, seal_record

DATA_KEY_BYTES = 32

_PLAIN, _ENCRYPTED, _SEC1 = "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "EC PRIVATE KEY"
_VERSION, _CURRENT, _PENDING, _ROTATE = "kek-version", "raft-dek", "raft-dek-pending", "raft-dek-needs-rotation"
_LEGACY_HEADERS = ("Proc-Type", "DEK-Info")


@dataclass(frozen=True, slots=True)
class DataKeys:
    """What seals this manager's log: the key in use, the one being changed to, and whether a change is due."""

    current: bytes = field(repr=False)
    pending: bytes = field(default=b"", repr=False)
    needs_rotation: bool = False

    @property
    def in_order(self) -> tuple[bytes, ...]:
        """What opens the log, the one to seal with first."""
        return (self.pending, self.current) if self.pending else (self.current,)

    def begin_rotation(self, entropy: Entropy) -> DataKeys:
        """With a pending key, and the request for one answered. One rotation at a time."""
        assert not self.pending, "a rotation of the data key is already under way"
        return DataKeys(self.current, new_data_key(entropy))

    def finish_rotation(self) -> DataKeys:
        """With the pending key in use; a request made meanwhile stands."""
        assert self.pending, "no rotation of the data key is under way"
        return DataKeys(self.pending, needs_rotation=self.needs_rotation)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key file's content in clear. Workers have no data keys."""

    key: PrivateKey = field(repr=False)
    kek_version: int = 0
    data_keys: DataKeys | None = None


def new_data_key(entropy: Entropy) -> bytes:
    """32 fresh bytes."""
    raw = entropy(DATA_KEY_BYTES)
    assert len(raw) == DATA_KEY_BYTES, f"asked for {DATA_KEY_BYTES} random bytes, got {len(raw)}"
    return raw


def encode_key_file(content: KeyFile, kek: bytes, entropy: Entropy) -> bytes:
    """The file's bytes; an empty ``kek`` leaves key and data keys unencrypted."""
    headers = {_VERSION: str(content.kek_version)}
    keys = content.data_keys
    if keys is not None:
        headers[_CURRENT] = _encode_header(keys.current, kek, entropy)
        if keys.pending:
            headers[_PENDING] = _encode_header(keys.pending, kek, entropy)
        if keys.needs_rotation:
            headers[_ROTATE] = "true"
    if kek:
        return encode_block(Block(_ENCRYPTED, headers, pkcs8.encrypt(content.key, kek, entropy)))
    return encode_block(Block(_PLAIN, headers, pkcs8.encode(content.key)))


def decode_key_file(text: bytes, kek: bytes, *, fips: bool = False) -> KeyFile:
    """Reads a key file.

    ``InvalidUnlockKey`` when it is encrypted and ``kek`` is empty or wrong; ``InvalidKey`` when it is malformed. An
    unlock key for a file that is not encrypted is accepted and not used. FIPS nodes read PKCS#8 only.
    """
    block = single_block(text)
    key = _decode_key(block, kek, fips)
    return KeyFile(key, _kek_version(block.headers), _decode_data_keys(block.headers, kek))


def is_encrypted(text: bytes) -> bool:
    """Whether a key file needs an unlock key."""
    block = single_block(text)
    return block.type == _ENCRYPTED or "ENCRYPTED" in block.headers.get("Proc-Type", "")


def change_kek(content: KeyFile, current: bytes, candidate: bytes, version: int) -> KeyFile | None:
    """The content to write under ``candidate``, or None when nothing is to be done.

    ``version`` is the cluster object's; an older one or an equal key changes nothing, and two keys of one version
    are a contradiction (``InvalidKey``). Locking what was unlocked asks for a new data key as well, because the old
    one has stood on this disk in clear.
    """
    same = hmac.compare_digest(current, candidate)
    if version == content.kek_version and not same:
        raise InvalidKey(f"two unlock keys of the same version {version}")
    if version <= content.kek_version or same:
        return None
    keys = content.data_keys
    if keys is not None and candidate and not current:
        keys = replace(keys, needs_rotation=True)
    return replace(content, kek_version=version, data_keys=keys)


def _encode_header(key: bytes, kek: bytes, entropy: Entropy) -> str:
    return base64.b64encode(seal_record(key, kek, entropy)).decode()


def _decode_header(text: str, kek: bytes) -> bytes:
    try:
        return open_record(base64.b64decode(text, validate=True), kek)
    except binascii.Error:
        raise InvalidKey("a data key in the key file's headers is not base64") from None
    except CannotDecrypt as error:
        raise InvalidUnlockKey(f"the key file's data key cannot be opened: {error}") from None


def _decode_data_keys(headers: dict[str, str], kek: bytes) -> DataKeys | None:
    current, pending = headers.get(_CURRENT, ""), headers.get(_PENDING, "")
    if not current:
        if pending:
            raise InvalidKey("the key file has a pending data key but no current one")
        return None
    opened = _decode_header(pending, kek) if pending else b""
    return DataKeys(_decode_header(current, kek), opened, headers.get(_ROTATE) == "true")


def _kek_version(headers: dict[str, str]) -> int:
    text = headers.get(_VERSION, "0")
    if not (text.isascii() and text.isdigit()):
        raise InvalidKey(f"the key file's {_VERSION} is not a number: {text!r}")
    return int(text)


def _decode_key(block: Block, kek: bytes, fips: bool) -> PrivateKey:
    if block.type == _PLAIN:
        return pkcs8.decode(block.data)
    if block.type == _ENCRYPTED:
        return pkcs8.decrypt(block.data, kek)
    if block.type == _SEC1 and not fips:
        return _decode_sec1(block, kek)
    raise InvalidKey(f"a key file of type {block.type!r} is not supported")


def _decode_sec1(block: Block, kek: bytes) -> PrivateKey:
    """The form of old nodes: SEC1, encrypted (if at all) as in RFC 1423."""
    legacy = {name: block.headers[name] for name in _LEGACY_HEADERS if name in block.headers}
    if legacy and not kek:
        raise InvalidUnlockKey("the node's key is encrypted and no unlock key was given")
    try:
        key = load_pem_private_key(encode_block(Block(_SEC1, legacy, block.data)), kek if legacy else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if legacy:
            raise InvalidUnlockKey("the unlock key does not open the node's key") from None
        raise InvalidKey("the private key is malformed or of an unknown kind") from None
    return check_key(key)
