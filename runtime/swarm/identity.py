"""Identifiers of stored objects, and the secret part of join tokens.

Rules owned here: a random identifier is 25 characters of ``[0-9a-z]`` (SwarmKit's ``identity`` package), made from
whatever entropy the caller hands in; nothing here reads randomness of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

Entropy = Callable[[int], bytes]
"""A source of randomness: asked for ``n`` it gives exactly ``n`` bytes."""

ID_LENGTH = 25
TOKEN_PREFIX = "SWMTKN"  # noqa: S105 - a public constant of the format, no secret
TOKEN_DIGEST_LENGTH = 50
TOKEN_SECRET_LENGTH = 25

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_BYTES = 17
_SECRET_BYTES = 16


def base36(number: int) -> str:
    """A natural number in base 36, lower-case."""
    assert number >= 0, f"base 36 is for natural numbers, not {number}"
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits)) or "0"


def draw(entropy: Entropy, size: int) -> bytes:
    """``size`` random bytes; a source that gives another number of bytes is broken and ends the caller."""
    raw = entropy(size)
    assert len(raw) == size, f"asked for {size} random bytes, got {len(raw)}"
    return raw


def new_id(entropy: Entropy) -> str:
    """A random identifier, always of 25 characters.

    The top bit of 17 bytes is forced to one, so that the number always has 27 digits; the first digit carries next
    to no randomness for that reason and is left out.
    """
    number = int.from_bytes(draw(entropy, _ID_BYTES), "big") | 1 << (8 * _ID_BYTES - 1)
    return base36(number)[1 : 1 + ID_LENGTH]


def is_id(text: str) -> bool:
    """Whether a text has the form of a random identifier."""
    return len(text) == ID_LENGTH and all(letter in _DIGITS for letter in text)


def token_digest(ca_cert: bytes) -> str:
    """The part of a join token that names the trust root: SHA-256 of the bundle's bytes in 50 base-36 digits."""
    number = int.from_bytes(hashlib.sha256(ca_cert).digest(), "big")
    return base36(number).rjust(TOKEN_DIGEST_LENGTH, "0")


def new_join_token(ca_cert: bytes, entropy: Entropy, *, fips: bool = False) -> str:
    """A fresh join token for a trust root: ``SWMTKN-1-digest-secret``, or version 2 where FIPS is mandatory."""
    secret = base36(int.from_bytes(draw(entropy, _SECRET_BYTES), "big")).rjust(TOKEN_SECRET_LENGTH, "0")
    version = "2-1" if fips else "1"
    return f"{TOKEN_PREFIX}-{version}-{token_digest(ca_cert)}-{secret}"
