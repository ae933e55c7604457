"""NaCl's secretbox (XSalsa20-Poly1305), for the data keys in a node's key file and nothing else.

The format of that file is SwarmKit's, and no library that we depend on has this cipher. Sealed values are a few dozen
bytes, so plain Python is fast enough; the authenticator, where timing matters, is the library's. Bulk data is sealed
elsewhere, with AES-GCM.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from runtime.pki.errors import CannotDecrypt

KEY_BYTES = 32
NONCE_BYTES = 24
TAG_BYTES = 16

_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF
_BLOCK_BYTES = 64
# The four quarter-rounds over columns, then the four over rows (Salsa20 specification, sections 4 and 5).
_QUARTERS = (
    (0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11),
    (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14),
)  # fmt: skip


def _rotate(word: int, bits: int) -> int:
    word &= _MASK
    return (word << bits | word >> (32 - bits)) & _MASK


def _rounds(start: tuple[int, ...]) -> list[int]:
    """Twenty rounds (ten double rounds) of Salsa20 without the final addition."""
    state = list(start)
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            state[b] ^= _rotate(state[a] + state[d], 7)
            state[c] ^= _rotate(state[b] + state[a], 9)
            state[d] ^= _rotate(state[c] + state[b], 13)
            state[a] ^= _rotate(state[d] + state[c], 18)
    return state


def _matrix(key: bytes, block: bytes) -> tuple[int, ...]:
    """The 4x4 start: constants on the diagonal, key halves around the 16 bytes of ``block``."""
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", block)
    return (_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3])


def _hsalsa20(key: bytes, block: bytes) -> bytes:
    """The subkey that stretches Salsa20's nonce: diagonal and middle words of the rounds."""
    state = _rounds(_matrix(key, block))
    return struct.pack("<8I", *(state[at] for at in (0, 5, 10, 15, 6, 7, 8, 9)))


def _keystream(key: bytes, nonce: bytes, length: int) -> bytes:
    """XSalsa20's stream for a 24-byte nonce, from its beginning."""
    subkey, blocks = _hsalsa20(key, nonce[:16]), []
    for counter in range((length + _BLOCK_BYTES - 1) // _BLOCK_BYTES):
        start = _matrix(subkey, nonce[16:] + counter.to_bytes(8, "little"))
        blocks.append(struct.pack("<16I", *((a + b) & _MASK for a, b in zip(start, _rounds(start), strict=True))))
    return b"".join(blocks)[:length]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def seal(key: bytes, nonce: bytes, message: bytes) -> bytes:
    """Authenticator (16 bytes) and ciphertext. The nonce must never be used twice with one key."""
    assert len(key) == KEY_BYTES, f"a secretbox key has {KEY_BYTES} bytes, not {len(key)}"
    assert len(nonce) == NONCE_BYTES, f"a secretbox nonce has {NONCE_BYTES} bytes, not {len(nonce)}"
    stream = _keystream(key, nonce, KEY_BYTES + len(message))
    ciphertext = _xor(message, stream[KEY_BYTES:])
    return Poly1305.generate_tag(stream[:KEY_BYTES], ciphertext) + ciphertext


def unseal(key: bytes, nonce: bytes, sealed: bytes) -> bytes:
    """The message, or ``CannotDecrypt`` when key, nonce or a single bit is wrong."""
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES or len(sealed) < TAG_BYTES:
        raise CannotDecrypt("a sealed record has the wrong form")
    tag, ciphertext = sealed[:TAG_BYTES], sealed[TAG_BYTES:]
    stream = _keystream(key, nonce, KEY_BYTES + len(ciphertext))
    try:
        Poly1305.verify_tag(stream[:KEY_BYTES], ciphertext, tag)
    except InvalidSignature:
        raise CannotDecrypt("a sealed record does not open with this key") from None
    return _xor(ciphertext, stream[KEY_BYTES:])
