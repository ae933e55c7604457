"""Encryption at rest for records of our own format.

Rules owned here: AES-256-GCM; every record names the key it is sealed with, so that keys can change while old records
stay readable; and a record is bound to its place, so that one that is moved or swapped does not open.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.disk.errors import CannotUnseal, DiskDamaged

KEY_BYTES = 32
KEY_ID_BYTES = 4

_NONCE_BYTES = 12


def key_id(key: bytes) -> bytes:
    """A short name of a key that tells nothing useful about it."""
    return hmac.digest(key, b"swarmlet data key", "sha256")[:KEY_ID_BYTES]


class Sealer:
    """Seals with the first of its keys and opens with any of them."""

    def __init__(self, keys: Sequence[bytes], entropy: Callable[[int], bytes]) -> None:
        """``keys`` are data keys of 32 bytes, the one to write with first; ``entropy`` gives the nonces."""
        assert keys, "no data key"
        assert all(len(key) == KEY_BYTES for key in keys), f"a data key has {KEY_BYTES} bytes"
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self._entropy = entropy
        self.current = key_id(keys[0])

    def __repr__(self) -> str:
        return f"Sealer({self.current.hex()})"

    def seal(self, data: bytes, place: bytes) -> bytes:
        """Key id, nonce and ciphertext of ``data``; ``place`` must be given again to open it."""
        nonce = self._entropy(_NONCE_BYTES)
        return b"".join((self.current, nonce, self._ciphers[self.current].encrypt(nonce, data, place)))

    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        """The data; ``CannotUnseal`` when its key is not at hand, ``DiskDamaged`` when bytes or place are wrong."""
        name, nonce = sealed[:KEY_ID_BYTES], sealed[KEY_ID_BYTES : KEY_ID_BYTES + _NONCE_BYTES]
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise CannotUnseal(f"a record is sealed with data key {name.hex()}, which this node does not have")
        try:
            return cipher.decrypt(nonce, memoryview(sealed)[KEY_ID_BYTES + _NONCE_BYTES :], place)
        except (InvalidTag, ValueError):
            raise DiskDamaged("a sealed record is not what was written") from None
