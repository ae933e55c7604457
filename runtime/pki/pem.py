"""PEM as SwarmKit writes and compares it.

Rules owned here: which blocks a bundle may hold, how a bundle is normalised, and how a block with headers is
laid out. The digest in a join token covers the bytes of the served bundle, so nothing here ever rewrites a
bundle unasked.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.pki.errors import InvalidCertificate, InvalidKey

CERTIFICATE = "CERTIFICATE"

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[ \t]*\r?\n(.*?)-----END \1-----", re.DOTALL)
_WIDTH = 64
_FIRST_HEADER = "Proc-Type"


@dataclass(frozen=True, slots=True)
class Block:
    """One PEM block: its type, its headers and the bytes inside (which may be secret)."""

    type: str
    headers: dict[str, str] = field(repr=False)
    data: bytes = field(repr=False)


def decode_blocks(text: bytes) -> list[Block]:
    """All PEM blocks of a text, in order; what stands between blocks is skipped. ``ValueError`` on a broken one."""
    return [_decode_block(match) for match in _BLOCK.finditer(text)]


def _decode_block(match: re.Match[bytes]) -> Block:
    lines = match.group(2).decode("ascii", "strict").splitlines()
    headers: dict[str, str] = {}
    body = 0
    for body, line in enumerate(lines):  # noqa: B007 - the position is what the loop is for
        name, colon, value = line.partition(":")
        if not colon:
            break
        headers[name.strip()] = value.strip()
    try:
        data = base64.b64decode("".join("".join(lines[body:]).split()), validate=True)
    except binascii.Error:
        raise ValueError("a PEM block is not base64") from None
    return Block(match.group(1).decode(), headers, data)


def encode_block(block: Block) -> bytes:
    """A PEM block with its headers sorted by name, ``Proc-Type`` first as RFC 1421 wants it."""
    names = sorted(block.headers, key=lambda name: (name != _FIRST_HEADER, name))
    for name in names:
        if ":" in name or "\n" in name or "\n" in block.headers[name]:
            raise RuntimeError(f"a PEM header cannot be called {name!r}")
    head = [f"{name}: {block.headers[name]}" for name in names]
    body = base64.b64encode(block.data).decode()
    rows = [body[at : at + _WIDTH] for at in range(0, len(body), _WIDTH)]
    lines = [f"-----BEGIN {block.type}-----", *head, *([""] if head else []), *rows, f"-----END {block.type}-----", ""]
    return "\n".join(lines).encode()


def load_certificates(bundle: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM bundle, in its order.

    ``InvalidCertificate`` when there is none, when a block is something else, or when one cannot be read.
    """
    try:
        blocks = decode_blocks(bundle)
    except ValueError as error:
        raise InvalidCertificate(f"failed to decode PEM: {error}") from None
    if not blocks:
        raise InvalidCertificate("no certificates found in the PEM bundle")
    return tuple(_load_certificate(block) for block in blocks)


def _load_certificate(block: Block) -> x509.Certificate:
    if block.type != CERTIFICATE:
        raise InvalidCertificate(f"expected PEM blocks of type {CERTIFICATE}, found {block.type}")
    try:
        return x509.load_der_x509_certificate(block.data)
    except ValueError as error:
        raise InvalidCertificate(f"failed to parse certificate: {error}") from None


def dump_certificates(*certificates: x509.Certificate) -> bytes:
    """Certificates as one PEM bundle."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def normalize(bundle: bytes) -> bytes:
    """The same PEM blocks without headers and with standard line ends, for comparing and storing issued chains."""
    try:
        blocks = decode_blocks(bundle)
    except ValueError as error:
        raise InvalidCertificate(f"failed to decode PEM: {error}") from None
    return b"".join(encode_block(Block(block.type, {}, block.data)) for block in blocks)


def single_block(text: bytes) -> Block:
    """The first PEM block of a key file; ``InvalidKey`` when there is none."""
    try:
        blocks = decode_blocks(text)
    except ValueError as error:
        raise InvalidKey(f"failed to decode PEM: {error}") from None
    if not blocks:
        raise InvalidKey("no PEM block found in the key file")
    return blocks[0]
