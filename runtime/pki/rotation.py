"""What becomes of a cluster's root CA when its spec changes, and how a rotation of it comes to its end.

Rules owned here: the order in which a wish is decided (SwarmKit's ``ca_rotation``), with its texts; that a new root is
cross-signed by the old one; which nodes have not moved yet, how many of them are asked at a time, and that the new
root takes over, with new join tokens, in one transaction and only if it is still the one that all have moved to.

A decision may need to know something of the world (whether an external CA answers, what it signs). It is a generator:
it yields such a question, is sent the answer, and returns the root.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from runtime.errors import Code, Refused, invalid
from runtime.pki.certificates import Issuer, issuer_identity, key_matches
from runtime.pki.chain import check_dates
from runtime.pki.errors import InvalidCertificate, InvalidKey
from runtime.pki.identity import Entropy
from runtime.pki.join_tokens import new_join_token
from runtime.pki.keys import load_key
from runtime.pki.pem import load_certificates, normalize
from runtime.pki.root import RootCA, create_root, describe_root, load_root
from runtime.wire.pb import objects_pb2, types_pb2

ROTATE_EVERY = 3.0
ROTATE_BATCH = 30
"""Nodes that are asked to renew at a time, and seconds between: a leader signs for all of them."""
MIN_ROOT_LIFE = 365 * 86400.0
"""Seconds that a root which somebody brings must still be good for."""

KEY_WITHOUT_CERT = "if a signing CA key is provided, the signing CA cert must also be provided"
SAME_KEY = "the desired CA certificate must have another key than the current one"
OUT_OF_SEQUENCE = "update out of sequence"

_STATUS = types_pb2.IssuanceStatus
_ASKED = (_STATUS.RENEW, _STATUS.PENDING, _STATUS.ROTATE)

T = TypeVar("T", bound=objects_pb2.Node | objects_pb2.Cluster)


class Tx(Protocol):
    """What the steps below need of a store's transaction."""

    def get(self, kind: type[T], id: str) -> T | None:
        """The object with this id."""

    def update(self, obj: objects_pb2.Node | objects_pb2.Cluster) -> object:
        """Replaces an object by its newer self."""


# Questions of a decision


@dataclass(frozen=True, slots=True)
class Reachable:
    """Does one of these (https URLs) answer with a certificate under ``root``? Answer: True or False."""

    urls: tuple[str, ...]
    root: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CrossSign:
    """Have one of these URLs sign ``new_root`` as a CA. Answer: its certificate in PEM, or a Refused."""

    urls: tuple[str, ...]
    root: bytes = field(repr=False)
    new_root: RootCA


Decision = Generator[Reachable | CrossSign, Any, types_pb2.RootCA]


def decide_root(present: types_pb2.RootCA, config: types_pb2.CAConfig, now: float, entropy: Entropy) -> Decision:
    """What ``present`` becomes under ``config``: itself, with another key, or with a rotation under way.

    ``now`` is unix seconds. Refuses with INVALID_ARGUMENT what cannot be, with INTERNAL what the old root cannot sign.
    """
    wanted, key = _normalized(config.signing_ca_cert), config.signing_ca_key
    if key and not wanted:
        raise invalid(KEY_WITHOUT_CERT)
    current = _normalized(present.ca_cert)
    old_authorities: tuple[str, ...] = ()
    if not present.ca_key:
        if wanted == current and key:
            _checked(config, wanted, now)
            return _with_key(present, key, config.force_rotate)
        old_authorities = yield from _reachable(config, current, current, "current")
    if not wanted:
        if config.force_rotate != present.last_forced_rotation:
            return (yield from _begin(present, create_root(entropy, now), old_authorities, config, now, entropy))
        if present.HasField("root_rotation") and not present.root_rotation.ca_key:
            yield from _reachable(config, current, _normalized(present.root_rotation.ca_cert), "next")
        return present
    new = _checked(config, wanted, now)
    if not key:
        yield from _reachable(config, current, wanted, "desired")
    if wanted == current:
        return _with_key(present, key, config.force_rotate)
    if key and key == present.ca_key:
        raise invalid(SAME_KEY)
    if present.HasField("root_rotation") and _normalized(present.root_rotation.ca_cert) == wanted:
        changed = _copy(present)
        changed.root_rotation.ca_key = key
        changed.last_forced_rotation = config.force_rotate
        return changed
    return (yield from _begin(present, new, old_authorities, config, now, entropy))


def _normalized(pem: bytes) -> bytes:
    """What is no PEM counts as nothing, as in SwarmKit."""
    try:
        return normalize(pem)
    except InvalidCertificate:
        return b""


def _copy(root: types_pb2.RootCA) -> types_pb2.RootCA:
    copied = types_pb2.RootCA()
    copied.CopyFrom(root)
    return copied


def _with_key(present: types_pb2.RootCA, key: bytes, force_rotate: int) -> types_pb2.RootCA:
    """The present root under another key (or under none); a rotation away from it is given up."""
    changed = _copy(present)
    changed.ca_key = key
    changed.ClearField("root_rotation")
    changed.last_forced_rotation = force_rotate
    return changed


def _checked(config: types_pb2.CAConfig, wanted: bytes, now: float) -> RootCA:
    """The root that somebody brings: one certificate, signed by itself, good for a year, with its key if any."""
    key = config.signing_ca_key
    try:
        certificates = load_certificates(wanted)
        if len(certificates) > 1:
            raise invalid("the desired CA certificate cannot contain multiple certificates")
        check_dates(certificates[0], now)
        if certificates[0].not_valid_after_utc.timestamp() < now + MIN_ROOT_LIFE:
            raise invalid("CA certificate expires too soon")
        if key and not key_matches(certificates[0], load_key(key)):
            raise invalid("certificate key mismatch")
        return load_root(wanted, now, signer_cert=wanted if key else b"", signer_key=key)
    except (InvalidCertificate, InvalidKey) as error:
        raise invalid(str(error)) from None


def _reachable(
    config: types_pb2.CAConfig, current: bytes, root: bytes, which: str
) -> Generator[Reachable, bool, tuple[str, ...]]:
    urls = external_urls(config.external_cas, current, root)
    if not urls or not (yield Reachable(urls, root)):
        raise invalid(
            f"there must be at least one valid, reachable external CA corresponding to the {which} CA certificate"
        )
    return urls


def external_urls(authorities: Iterable[types_pb2.ExternalCA], current: bytes, root: bytes) -> tuple[str, ...]:
    """Where the external CAs for ``root`` are (both normalised PEM); one without a certificate is for ``current``.

    Only CFSSL's protocol over https counts.
    """
    return tuple(
        each.url
        for each in authorities
        if each.protocol == types_pb2.ExternalCA.CFSSL
        and _is_https(each.url)
        and (_normalized(each.ca_cert) if each.ca_cert else current) == root
    )


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _begin(
    present: types_pb2.RootCA,
    new: RootCA,
    old_authorities: tuple[str, ...],
    config: types_pb2.CAConfig,
    now: float,
    entropy: Entropy,
) -> Decision:
    described = describe_root(new)
    if present.ca_key:
        try:
            old = load_root(present.ca_cert, now, signer_cert=present.ca_cert, signer_key=present.ca_key)
            crossed = old.cross_sign(new.bundle, entropy)
        except (InvalidCertificate, InvalidKey) as error:
            raise Refused(Code.INTERNAL, f"unable to generate a cross-signed certificate authority: {error}") from None
    elif new.signer is None:
        raise invalid("rotating from one external CA to a different external CA is not supported")
    else:
        answer = yield CrossSign(old_authorities, present.ca_cert, new)
        if isinstance(answer, Refused):
            raise Refused(Code.INTERNAL, f"unable to generate a cross-signed certificate authority: {answer.text}")
        crossed = answer
    changed = _copy(present)
    changed.root_rotation.CopyFrom(
        types_pb2.RootRotation(ca_cert=described.ca_cert, ca_key=described.ca_key, cross_signed_ca_cert=crossed)
    )
    changed.last_forced_rotation = config.force_rotate
    return changed


class DecidedRoot:
    """A decision that is taken over by the very state of the root that it was made for, and by no other."""

    def __init__(self, base: types_pb2.RootCA) -> None:
        self._base = base
        self.outcome: types_pb2.RootCA | Refused | None = None

    def __call__(self, cluster: objects_pb2.Cluster, spec: object) -> types_pb2.RootCA:
        """The root to write; raises what the decision refused with."""
        if cluster.root_ca != self._base:
            raise Refused(Code.UNKNOWN, OUT_OF_SEQUENCE)
        if isinstance(self.outcome, Refused):
            raise self.outcome
        assert self.outcome is not None, "the decision is not made yet"
        return self.outcome


# The way to the end


def desired_issuer(root: types_pb2.RootCA) -> Issuer:
    """Under whom every node's certificate must be before the rotation is over."""
    return issuer_identity(load_certificates(root.root_rotation.ca_cert)[0])


def has_moved(node: objects_pb2.Node, issuer: Issuer) -> bool:
    """Whether a node said that its certificate is one of the new root's."""
    said = node.description.tls_info
    return said.cert_issuer_subject == issuer.subject and said.cert_issuer_public_key == issuer.public_key


def to_ask(nodes: Iterable[objects_pb2.Node], issuer: Issuer, limit: int = ROTATE_BATCH) -> list[str]:
    """The ids of the nodes to ask now: those that have not moved, and of which nothing is asked or under way yet."""
    waiting: Iterator[str] = (
        node.id for node in nodes if not has_moved(node, issuer) and node.certificate.status.state not in _ASKED
    )
    return [node_id for node_id, _ in zip(waiting, range(limit), strict=False)]


def asking(node_id: str, issuer: Issuer) -> Callable[[Tx], bool]:
    """The step that has a node renew its certificate; False when that is no longer needed."""

    def run(tx: Tx) -> bool:
        stored = tx.get(objects_pb2.Node, node_id)
        if stored is None or not to_ask([stored], issuer):
            return False
        node = objects_pb2.Node()
        node.CopyFrom(stored)
        node.certificate.status.state = _STATUS.ROTATE
        tx.update(node)
        return True

    return run


def same_rotation(one: types_pb2.RootCA, other: types_pb2.RootCA) -> bool:
    """Whether two states of the root are of the same rotation; tokens may have been changed meanwhile."""
    return one.ca_cert == other.ca_cert and one.root_rotation == other.root_rotation


def finishing(cluster_id: str, rotated: types_pb2.RootCA, entropy: Entropy) -> Callable[[Tx], bool]:
    """The step that puts the new root in force, with new join tokens; False if it is no longer this rotation's."""
    bundle = rotated.root_rotation.ca_cert
    root = types_pb2.RootCA(ca_cert=bundle, ca_key=rotated.root_rotation.ca_key)
    root.ca_cert_hash = RootCA(bundle, ()).digest_text
    fresh: Sequence[bytes] = [entropy(16), entropy(16)]

    def run(tx: Tx) -> bool:
        stored = tx.get(objects_pb2.Cluster, cluster_id)
        if stored is None or not stored.root_ca.HasField("root_rotation") or not same_rotation(stored.root_ca, rotated):
            return False
        cluster = objects_pb2.Cluster()
        cluster.CopyFrom(stored)
        cluster.root_ca.CopyFrom(root)
        cluster.root_ca.last_forced_rotation = stored.root_ca.last_forced_rotation
        tokens = cluster.root_ca.join_tokens
        tokens.worker = new_join_token(bundle, lambda _: fresh[0], fips=stored.fips)
        tokens.manager = new_join_token(bundle, lambda _: fresh[1], fips=stored.fips)
        tx.update(cluster)
        return True

    return run
