"""Identifiers and the base-36 form that they share with join tokens.

Rules owned here: what a random identifier looks like, and that a cluster which demands FIPS says so in the
first five characters of its identifier (SwarmKit's ``identity`` package).
"""

from __future__ import annotations

from collections.abc import Callable

Entropy = Callable[[int], bytes]
"""A source of key material: asked for ``n`` it gives exactly ``n`` bytes that nobody can guess."""

ID_LENGTH = 25
FIPS_PREFIX = "FIPS."

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_BYTES = 17


def to_base36(number: int) -> str:
    """The lower-case base-36 form of a number that is not negative."""
    if number < 0:
        raise RuntimeError(f"base 36 is for natural numbers, not {number}")
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits)) or "0"


def from_base36(text: str) -> int:
    """The number behind a base-36 text; ``ValueError`` when a character is not ``[0-9a-z]``."""
    if not text or any(letter not in _DIGITS for letter in text):
        raise ValueError("not a base-36 number")
    return int(text, 36)


def new_id(entropy: Entropy) -> str:
    """A random identifier: 25 characters of ``[0-9a-z]``, as SwarmKit makes them.

    The top bit of 17 random bytes is set so that the number always has 27 digits in base 36; the first one,
    which is nearly constant for that reason, is left out.
    """
    raw = entropy(_ID_BYTES)
    assert len(raw) == _ID_BYTES, f"asked for {_ID_BYTES} random bytes, got {len(raw)}"
    number = int.from_bytes(raw, "big") | 1 << (8 * _ID_BYTES - 1)
    return to_base36(number)[1 : 1 + ID_LENGTH]


def new_cluster_id(entropy: Entropy, *, fips: bool = False) -> str:
    """A random cluster identifier; one that demands FIPS carries the prefix ``FIPS.``."""
    return (FIPS_PREFIX if fips else "") + new_id(entropy)


def demands_fips(cluster_id: str) -> bool:
    """Whether a cluster (the O of its certificates) admits only nodes in FIPS mode."""
    return cluster_id.startswith(FIPS_PREFIX)
