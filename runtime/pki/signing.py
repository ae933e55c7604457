"""The cluster's certificate authority, on the leader: who is admitted, what is signed, what is told.

Rules owned here (SwarmKit's ``ca/server``): a caller with a certificate renews, whatever token it sends; anybody else
is admitted by a join token, which alone decides the role; a certificate is signed from the node's object (key from
its request, names from the cluster); a failure that another moment may mend leaves the node waiting, any other is
written down as FAILED. Steps are checked again inside the transaction that writes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from runtime.errors import Code, Refused
from runtime.pki.certificates import DEFAULT_LIFETIME, MANAGER_ROLE, MIN_LIFETIME, WORKER_ROLE, Holder
from runtime.pki.cfssl import node_request
from runtime.pki.errors import InvalidCertificate, InvalidKey
from runtime.pki.identity import Entropy
from runtime.pki.join_tokens import match_role
from runtime.pki.pem import normalize
from runtime.pki.root import NoSigner, RootCA, root_of_cluster
from runtime.pki.rotation import external_urls
from runtime.wire.pb import ca_pb2, objects_pb2, specs_pb2, types_pb2

STOPPED = "CA signer is stopped"
ID_TRIES = 4

_STATUS = types_pb2.IssuanceStatus
_FINAL = (_STATUS.ISSUED, _STATUS.FAILED, _STATUS.ROTATE)
_ROLE_OF = {types_pb2.WORKER: WORKER_ROLE, types_pb2.MANAGER: MANAGER_ROLE}
_KIND_OF = {role: kind for kind, role in _ROLE_OF.items()}

T = TypeVar("T", bound=objects_pb2.Node | objects_pb2.Cluster)


class Tx(Protocol):
    """What the steps below need of a store's transaction."""

    def get(self, kind: type[T], id: str) -> T | None:
        """The object with this id."""

    def create(self, obj: objects_pb2.Node) -> object:
        """Adds a node."""

    def update(self, obj: objects_pb2.Node) -> object:
        """Replaces a node by its newer self."""


class NotNow(Exception):
    """It cannot be signed at this moment; the node stays as it is and is tried again."""


def is_final(node: objects_pb2.Node) -> bool:
    """Whether who asks for the status is to be answered now."""
    return node.certificate.status.state in _FINAL


def is_waiting(node: objects_pb2.Node) -> bool:
    """Whether a certificate is to be signed for this node."""
    state = node.certificate.status.state
    accepted = node.spec.membership == specs_pb2.NodeSpec.ACCEPTED
    return state == _STATUS.RENEW or (state == _STATUS.PENDING and accepted)


def status_of(node: objects_pb2.Node) -> ca_pb2.NodeCertificateStatusResponse:
    """The answer to NodeCertificateStatus."""
    return ca_pb2.NodeCertificateStatusResponse(status=node.certificate.status, certificate=node.certificate)


def issuing(
    cluster_id: str, request: ca_pb2.IssueNodeCertificateRequest, member: str, ids: Sequence[str]
) -> Callable[[Tx], ca_pb2.IssueNodeCertificateResponse]:
    """The transaction behind IssueNodeCertificate.

    ``member`` is the caller's node id if it showed a certificate of this cluster, ``ids`` are random ones for a new
    node, of which the first that is free is taken. Refuses with INVALID_ARGUMENT (no request, no token that fits),
    NOT_FOUND (the member is no more) and ABORTED (there are no tokens yet).
    """
    if not request.csr:
        raise Refused(Code.INVALID_ARGUMENT, Code.INVALID_ARGUMENT.title)

    def run(tx: Tx) -> ca_pb2.IssueNodeCertificateResponse:
        node = _renewed(tx, member, request.csr) if member else _admitted(tx, cluster_id, request, ids)
        return ca_pb2.IssueNodeCertificateResponse(node_id=node.id, node_membership=node.spec.membership)

    return run


def _renewed(tx: Tx, node_id: str, csr: bytes) -> objects_pb2.Node:
    stored = tx.get(objects_pb2.Node, node_id)
    if stored is None:
        raise Refused(Code.NOT_FOUND, f"node {node_id} not found when attempting to renew certificate")
    node = objects_pb2.Node()
    node.CopyFrom(stored)
    node.certificate.Clear()
    node.certificate.csr, node.certificate.cn, node.certificate.role = csr, node_id, stored.role
    node.certificate.status.state = _STATUS.RENEW
    tx.update(node)
    return node


def granted_role(cluster: objects_pb2.Cluster | None, token: str) -> types_pb2.NodeRole:
    """The role that a join token grants: INVALID_ARGUMENT for none, ABORTED while the cluster has no tokens."""
    if cluster is None or not cluster.root_ca.HasField("join_tokens"):
        raise Refused(Code.ABORTED, STOPPED)
    tokens = cluster.root_ca.join_tokens
    return _KIND_OF[match_role(token, manager=tokens.manager, worker=tokens.worker)]


def _admitted(
    tx: Tx, cluster_id: str, request: ca_pb2.IssueNodeCertificateRequest, ids: Sequence[str]
) -> objects_pb2.Node:
    cluster = tx.get(objects_pb2.Cluster, cluster_id)
    role = granted_role(cluster, request.token)
    assert cluster is not None
    node_id = next((each for each in ids if tx.get(objects_pb2.Node, each) is None), None)
    if node_id is None:
        raise Refused(Code.ALREADY_EXISTS, "object already exists")
    node = objects_pb2.Node(id=node_id, role=role, VXLANUDPPort=cluster.VXLANUDPPort)
    node.spec.desired_role, node.spec.membership = role, specs_pb2.NodeSpec.ACCEPTED
    node.spec.availability = request.availability
    node.certificate.csr, node.certificate.cn, node.certificate.role = request.csr, node_id, role
    node.certificate.status.state = _STATUS.PENDING
    tx.create(node)
    return node


def unlock_key_of(cluster: objects_pb2.Cluster) -> ca_pb2.GetUnlockKeyResponse:
    """The answer to GetUnlockKey: the managers' key while they lock themselves, and of which version it is."""
    response = ca_pb2.GetUnlockKeyResponse(version=cluster.meta.version)
    if cluster.spec.encryption_config.auto_lock_managers:
        keys = (each.key for each in cluster.unlock_keys if each.subsystem == MANAGER_ROLE)
        response.unlock_key = next(keys, b"")
    return response


class Authority:
    """Signs for the cluster object that it was shown last. Rebuilt only when that object's root has changed."""

    def __init__(self, cluster_id: str) -> None:
        self._cluster_id = cluster_id
        self._described: bytes | None = None
        self._shown: types_pb2.RootCA | None = None
        self._root: RootCA | None = None
        self._lifetime = 0.0
        self._external = False
        self.trouble = ""
        self.urls: tuple[str, ...] = ()
        self.external_roots: tuple[bytes, ...] = ()

    def learn(self, cluster: objects_pb2.Cluster, now: float) -> bool:
        """Takes over what the cluster object says; True when that may let waiting nodes be signed."""
        before = self._external, self.urls
        self._external = has_external_authority(cluster)
        self._see_external(cluster)
        changed = before != (self._external, self.urls)
        self._lifetime = node_lifetime(cluster)
        described = _without_tokens(cluster.root_ca)
        if described != self._described:
            self._described, changed = described, True
            self._shown = types_pb2.RootCA()
            self._shown.CopyFrom(cluster.root_ca)
            self._load(now)
        return changed

    def _load(self, now: float) -> None:
        if self._shown is None:
            return
        try:
            self._root, self.trouble = root_of_cluster(self._shown, now), ""
        except (InvalidCertificate, InvalidKey) as error:
            # Nobody can be served under such a root, and nobody is to blame who asks: all wait for a better one.
            self._root, self.trouble = None, f"the cluster's root cannot be used: {error}"

    def _see_external(self, cluster: objects_pb2.Cluster) -> None:
        root = cluster.root_ca
        wanted = root.root_rotation.ca_cert if root.HasField("root_rotation") else root.ca_cert
        self.urls = ()
        with contextlib.suppress(InvalidCertificate):  # a root that cannot be read has nobody to sign for it
            self.urls = external_urls(cluster.spec.ca_config.external_cas, normalize(root.ca_cert), normalize(wanted))
        self.external_roots = (wanted, root.ca_cert) if wanted != root.ca_cert else (wanted,)

    def _usable(self, now: float) -> RootCA:
        """The root; one that was not valid when it was shown is tried again: clocks are set right, and time passes."""
        if self._root is None:
            self._load(now)
        if self._root is None:
            raise NotNow(self.trouble or "the cluster's root is not known yet")
        return self._root

    def external_request(self, node: objects_pb2.Node, now: float) -> bytes:
        """What an external CA is asked for a node that waits.

        ``NotNow`` while the root cannot be used, ``InvalidCertificate`` when the request can't be granted.
        """
        self._usable(now)
        return node_request(node.certificate.csr, self._holder(node))

    def taken(self, issued: bytes) -> bytes:
        """An external CA's certificate with the intermediates that nodes need beside it."""
        return normalize(issued + (self._root.intermediates if self._root is not None else b""))

    def _holder(self, node: objects_pb2.Node) -> Holder:
        role = _ROLE_OF.get(node.certificate.role)
        if role is None:
            raise InvalidCertificate(f"node {node.id} asks for the unknown role {node.certificate.role}")
        return Holder(node.certificate.cn, role, self._cluster_id)

    def sign(self, node: objects_pb2.Node, now: float, entropy: Entropy) -> bytes:
        """The certificate for a node that waits: PEM of leaf and intermediates.

        ``NotNow`` when there is no signer at the moment, ``InvalidCertificate`` when the request can't be granted.
        """
        if self._external:
            raise NotNow("an external CA signs for this cluster, and none that is listed can be asked over https")
        root = self._usable(now)
        holder = self._holder(node)
        try:
            issued = root.sign_csr(node.certificate.csr, holder, self._lifetime, now, entropy)
        except NoSigner as error:
            raise NotNow(str(error)) from None
        return normalize(issued)


def node_lifetime(cluster: objects_pb2.Cluster) -> float:
    """Seconds for which node certificates are issued; a wish below an hour is answered with 90 days."""
    wish = cluster.spec.ca_config.node_cert_expiry
    seconds = wish.seconds + wish.nanos / 1e9
    return seconds if seconds >= MIN_LIFETIME else DEFAULT_LIFETIME


def has_external_authority(cluster: objects_pb2.Cluster) -> bool:
    """Whether an external CA (CFSSL's protocol) signs for the root that leaves are issued under.

    One without a certificate of its own is for the present root; during a rotation the new one counts.
    """
    root = cluster.root_ca
    wanted = root.root_rotation.ca_cert if root.HasField("root_rotation") else root.ca_cert
    for each in cluster.spec.ca_config.external_cas:
        asked = each.protocol == types_pb2.ExternalCA.CFSSL and bool(each.url)
        if asked and _same_pem(each.ca_cert or root.ca_cert, wanted):
            return True
    return False


def _same_pem(one: bytes, other: bytes) -> bool:
    try:
        return normalize(one) == normalize(other)
    except InvalidCertificate:
        return False


def _without_tokens(root: types_pb2.RootCA) -> bytes:
    bare = types_pb2.RootCA()
    bare.CopyFrom(root)
    bare.ClearField("join_tokens")
    return bare.SerializeToString(deterministic=True)


def recording(node_id: str, csr: bytes, certificate: bytes, error: str = "") -> Callable[[Tx], bool]:
    """The step that writes a signed certificate down, or (without one) why there is none.

    It changes nothing (False) when the node is gone or asks for something else by now: that is signed for itself.
    """

    def run(tx: Tx) -> bool:
        stored = tx.get(objects_pb2.Node, node_id)
        if stored is None or stored.certificate.csr != csr or not is_waiting(stored):
            return False
        node = objects_pb2.Node()
        node.CopyFrom(stored)
        node.certificate.certificate = certificate
        node.certificate.status.state = _STATUS.ISSUED if certificate else _STATUS.FAILED
        node.certificate.status.err = error
        tx.update(node)
        return True

    return run
