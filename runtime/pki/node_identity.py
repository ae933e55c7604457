"""Who a node is: certificate, key file and trusted root as one piece, and how such a piece comes to be.

Rules owned here: what a node does at its start with what it finds on disk; what a founder makes; which issued
certificate is taken over; which root may replace the present one; and under which unlock key the key file stands.
Nothing here touches a disk: who does must write certificate and key before anybody uses them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from runtime.errors import Code, Refused
from runtime.pki.certificates import (
    DEFAULT_LIFETIME,
    MANAGER_ROLE,
    ROLES,
    CertificateInfo,
    Holder,
    certificate_info,
    create_csr,
    key_matches,
)
from runtime.pki.chain import is_issued_by
from runtime.pki.errors import InvalidCertificate, InvalidKey
from runtime.pki.identity import Entropy, demands_fips, new_cluster_id, new_id
from runtime.pki.key_file import DataKeys, KeyFile, decode_key_file, encode_key_file, is_encrypted
from runtime.pki.keys import PrivateKey, dump_key, new_key
from runtime.pki.pem import load_certificates, normalize
from runtime.pki.root import RootCA, create_root, load_root

MANDATORY_FIPS = "node is not FIPS-enabled but cluster requires FIPS"


class Start(enum.Enum):
    """What a node does first."""

    READY = "ready"
    DOWNLOAD_ROOT = "download the root"
    REQUEST = "request a certificate"
    FOUND = "found a cluster"
    DAMAGED = "damaged"


_STARTS = {
    # (root on disk, certificate and key on disk, joins)
    (True, True, False): Start.READY,
    (True, True, True): Start.READY,
    (False, False, True): Start.DOWNLOAD_ROOT,
    (False, True, True): Start.DOWNLOAD_ROOT,
    (True, False, True): Start.REQUEST,
    (False, False, False): Start.FOUND,
    (True, False, False): Start.FOUND,
    (False, True, False): Start.DAMAGED,  # founding would put a root in place that this certificate is not of
}


def first_step(*, has_root: bool, has_certificate: bool, joins: bool) -> Start:
    """What follows from what is on disk and from whether this node was told to join (as SwarmKit's node)."""
    return _STARTS[has_root, has_certificate, joins]


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A node's certificate (PEM, leaf first) with what belongs to it. ``kek`` is empty on a node without a lock."""

    root: RootCA
    certificate: bytes = field(repr=False)
    key_file: KeyFile
    info: CertificateInfo
    kek: bytes = field(default=b"", repr=False)

    @property
    def private_key(self) -> bytes:
        """The private key as unencrypted PEM, for TLS."""
        return dump_key(self.key_file.key)

    def encode_key(self, entropy: Entropy) -> bytes:
        """The key file's bytes."""
        return encode_key_file(self.key_file, self.kek, entropy)

    def with_data_keys(self, keys: DataKeys | None) -> NodeIdentity:
        """The same node with other data keys in its key file."""
        return replace(self, key_file=replace(self.key_file, data_keys=keys))

    def with_root(self, root: RootCA) -> NodeIdentity:
        """The same node under another root; the signer is left out."""
        return replace(self, root=replace(root, signer=None))


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A fresh key and the request for a certificate of it."""

    key: PrivateKey = field(repr=False)
    csr: bytes = field(repr=False)


def new_request(entropy: Entropy) -> SigningRequest:
    """A new key with its signing request."""
    key = new_key(entropy)
    return SigningRequest(key, create_csr(key))


def pair_fits(certificate: bytes, key: bytes, kek: bytes) -> bool:
    """Whether a certificate file belongs to a key file; ``InvalidUnlockKey`` or ``InvalidKey`` when that can't be
    told because the key file does not open."""
    content = decode_key_file(key, kek)
    try:
        return key_matches(load_certificates(certificate)[0], content.key)
    except InvalidCertificate:
        return False


def read_identity(
    root: RootCA, certificate: bytes, key: bytes, kek: bytes, now: float, *, allow_expired: bool = False
) -> NodeIdentity:
    """The identity that stands on disk.

    ``InvalidCertificate`` (``CertificateOutOfDate``, ``UnknownAuthority``) when the chain must not be used,
    ``InvalidUnlockKey`` when the node is locked, ``Refused`` when its cluster demands FIPS. An unlock key that the
    file does not need is not put into use.
    """
    content = decode_key_file(key, kek)
    info = _checked_info(root, certificate, now, allow_expired=allow_expired)
    used = kek if is_encrypted(key) else b""
    return NodeIdentity(replace(root, signer=None), certificate, content, info, used)


def found_identity(root: RootCA | None, entropy: Entropy, now: float) -> tuple[NodeIdentity, RootCA]:
    """The first manager of a new cluster, with new ids, and the root that signs for it.

    ``root`` is one with a signer that an operator put on disk, or None for a new one.
    """
    signer = root if root is not None and root.signer is not None else create_root(entropy, now)
    request = new_request(entropy)
    holder = Holder(new_id(entropy), MANAGER_ROLE, new_cluster_id(entropy))
    certificate = signer.sign_csr(request.csr, holder, DEFAULT_LIFETIME, now, entropy)
    return accept_issued(certificate, request, signer, now), signer


def accept_issued(
    issued: bytes, request: SigningRequest, root: RootCA, now: float, previous: NodeIdentity | None = None
) -> NodeIdentity:
    """The identity with a certificate that was just issued; data keys and lock of ``previous`` stay.

    ``InvalidCertificate`` when it is not for our key, not under our root, not in date, or not for this node.
    """
    certificate = normalize(issued)
    info = _checked_info(root, certificate, now)
    if not key_matches(load_certificates(certificate)[0], request.key):
        raise InvalidCertificate("the issued certificate is for another key than the one that was sent")
    if previous is None:
        return NodeIdentity(replace(root, signer=None), certificate, KeyFile(request.key), info)
    if info.node_id != previous.info.node_id:
        raise InvalidCertificate(f"node {previous.info.node_id} was issued a certificate for node {info.node_id}")
    return replace(
        previous.with_root(root),
        certificate=certificate,
        info=info,
        key_file=replace(previous.key_file, key=request.key),
    )


def _checked_info(root: RootCA, certificate: bytes, now: float, *, allow_expired: bool = False) -> CertificateInfo:
    info = certificate_info(root.verify(certificate, now, allow_expired=allow_expired)[0])
    if info.role not in ROLES:
        raise InvalidCertificate(f"a node certificate has the unknown role {info.role!r}")
    if demands_fips(info.organization):
        raise Refused(Code.FAILED_PRECONDITION, MANDATORY_FIPS)
    return info


def under_unlock_key(identity: NodeIdentity, kek: bytes, version: int) -> NodeIdentity:
    """The identity with its key file under the unlock key that a manager was told; a worker's is never encrypted.

    An answer older than what the key file stands under changes nothing. Locking what was unlocked asks for a new data
    key, because the old one has stood on disk in clear.
    """
    content = identity.key_file
    if not identity.info.is_manager:
        return replace(identity, kek=b"", key_file=replace(content, kek_version=0))
    if version < content.kek_version:
        return identity
    keys = content.data_keys
    if keys is not None and kek and not identity.kek:
        keys = replace(keys, needs_rotation=True)
    return replace(identity, kek=kek, key_file=replace(content, kek_version=version, data_keys=keys))


def keep_newer_unlock_key(new: NodeIdentity, present: NodeIdentity) -> NodeIdentity:
    """``new`` under the unlock key of ``present`` where that one is of a newer version: it changed while the
    certificate was asked for. A worker's key file stands under none."""
    if not new.info.is_manager or new.key_file.kek_version >= present.key_file.kek_version:
        return new
    return replace(new, kek=present.kek, key_file=replace(new.key_file, kek_version=present.key_file.kek_version))


def is_signed_by(identity: NodeIdentity, bundle: bytes, now: float) -> bool:
    """Whether a root in ``bundle`` signed the present certificate itself. Then it is no older than the root that is
    trusted: under an older one a certificate is good by a cross-signed twin of the newer root."""
    try:
        roots = load_root(bundle, now).certificates
    except (InvalidCertificate, InvalidKey):
        return False
    leaf = load_certificates(identity.certificate)[0]
    return any(is_issued_by(leaf, root) for root in roots)


def root_for(identity: NodeIdentity, bundle: bytes, now: float) -> RootCA:
    """The root in ``bundle`` if it may take the place of the present one: the present certificate must be good
    under it. ``InvalidCertificate`` or ``InvalidKey`` otherwise."""
    root = load_root(bundle, now)
    root.verify(identity.certificate, now)
    return root
