"""The unlock key (the key encryption key of managers) in the form that people copy.

Rule owned here: ``SWMKEY-1-`` and the unpadded standard base64 of the bytes; nothing else is accepted.
"""

from __future__ import annotations

import base64
import binascii

from runtime.errors import Code, Refused
from runtime.pki.identity import Entropy

UNLOCK_KEY_BYTES = 32
UNLOCK_KEY_PREFIX = "SWMKEY-1-"


class UnlockKeyBox:
    """The unlock key that a node was given or has come to stand under, for as long as the process lives.

    It is on no disk: a node's actor that starts again in the same process finds it here, another process is locked.
    Empty means that nothing is locked. Replaced as a whole; shown by no repr.
    """

    __slots__ = ("key",)

    def __init__(self, key: bytes = b"") -> None:
        self.key = key

    def __repr__(self) -> str:
        return "UnlockKeyBox(...)"


def new_unlock_key(entropy: Entropy) -> bytes:
    """32 fresh bytes."""
    raw = entropy(UNLOCK_KEY_BYTES)
    assert len(raw) == UNLOCK_KEY_BYTES, f"asked for {UNLOCK_KEY_BYTES} random bytes, got {len(raw)}"
    return raw


def format_unlock_key(key: bytes) -> str:
    """The form for people; an unlocked cluster's empty key gives the bare prefix."""
    return UNLOCK_KEY_PREFIX + base64.b64encode(key).decode().rstrip("=")


def parse_unlock_key(text: str) -> bytes:
    """The bytes behind the form for people; ``Refused(INVALID_ARGUMENT, "invalid key string")`` otherwise."""
    body = text.removeprefix(UNLOCK_KEY_PREFIX)
    if body == text or "=" in body:
        raise _malformed()
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _malformed() from None
    # Base64 ends in spare bits that must be nought; a lenient reading would give one key several texts.
    if format_unlock_key(key) != text:
        raise _malformed()
    return key


def _malformed() -> Refused:
    return Refused(Code.INVALID_ARGUMENT, "invalid key string")
