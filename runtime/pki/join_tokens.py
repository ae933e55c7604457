"""Join tokens: the secret that admits a node, and the fingerprint by which it knows the cluster.

Rules owned here: the two forms of a token, that a token is compared as a whole and in constant time, and that
the role granted on joining depends on nothing but which token matches.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from runtime.errors import Code, Refused
from runtime.pki.certificates import MANAGER_ROLE, WORKER_ROLE
from runtime.pki.identity import Entropy, from_base36, to_base36

DIGEST_LENGTH = 50
SECRET_LENGTH = 25

_PREFIX = "SWMTKN"
_SECRET_BYTES = 16
_DIGEST_BYTES = 32
_FIELDS = {"1": 4, "2": 5}


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A parsed token: version, SHA-256 of the root bundle, secret, and whether the cluster demands FIPS."""

    version: int
    digest: bytes
    secret: str = field(repr=False)
    fips: bool = False


def new_join_token(bundle: bytes, entropy: Entropy, *, fips: bool = False) -> str:
    """A fresh token for the cluster whose root bundle this is; clusters that demand FIPS get the second form."""
    raw = entropy(_SECRET_BYTES)
    assert len(raw) == _SECRET_BYTES, f"asked for {_SECRET_BYTES} random bytes, got {len(raw)}"
    digest = to_base36(int.from_bytes(hashlib.sha256(bundle).digest(), "big")).rjust(DIGEST_LENGTH, "0")
    secret = to_base36(int.from_bytes(raw, "big")).rjust(SECRET_LENGTH, "0")
    return f"{_PREFIX}-2-1-{digest}-{secret}" if fips else f"{_PREFIX}-1-{digest}-{secret}"


def parse_join_token(token: str) -> JoinToken:
    """Takes a token apart; ``Refused(UNKNOWN, "invalid join token")`` whatever is wrong with it."""
    parts = token.split("-")
    if len(parts) < 2 or parts[0] != _PREFIX or _FIELDS.get(parts[1]) != len(parts):
        raise _malformed()
    digest, secret = parts[-2:]
    if len(digest) != DIGEST_LENGTH or len(secret) != SECRET_LENGTH:
        raise _malformed()
    if parts[1] == "2" and parts[2] not in ("0", "1"):
        raise _malformed()
    try:
        fingerprint = from_base36(digest).to_bytes(_DIGEST_BYTES, "big")
    except (ValueError, OverflowError):
        raise _malformed() from None
    return JoinToken(int(parts[1]), fingerprint, secret, parts[1] == "2" and parts[2] == "1")


def _malformed() -> Refused:
    # The code is a plain failure: the Engine API answers 500 with this bare text, and clients know it so.
    return Refused(Code.UNKNOWN, "invalid join token")


def check_bundle(token: JoinToken, bundle: bytes) -> None:
    """Raises ``Refused`` unless the downloaded root bundle is the one that the token was made for."""
    if not hmac.compare_digest(hashlib.sha256(bundle).digest(), token.digest):
        raise Refused(Code.UNKNOWN, f"remote CA does not match fingerprint. Expected: {token.digest.hex()}")


def match_role(token: str, *, manager: str, worker: str) -> str:
    """The role that a token grants (``swarm-manager`` or ``swarm-worker``).

    ``Refused(INVALID_ARGUMENT)`` when it is neither token of the cluster. An empty stored token matches nothing.
    """
    given = token.encode()
    # Both comparisons are always made, so that the time taken does not tell which token was nearer.
    is_manager = hmac.compare_digest(given, manager.encode()) and bool(manager)
    is_worker = hmac.compare_digest(given, worker.encode()) and bool(worker)
    if is_manager:
        return MANAGER_ROLE
    if is_worker:
        return WORKER_ROLE
    raise no_valid_token()


def no_valid_token() -> Refused:
    """What a cluster says to a token that is none of its own, and to who comes without one."""
    return Refused(Code.INVALID_ARGUMENT, "A valid join token is necessary to join this cluster")
