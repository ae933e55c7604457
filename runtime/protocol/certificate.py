"""What is said between the node and the keeper of its certificate, besides what ``node`` and ``agent`` hold.

The keeper also takes ``RenewCertificate``, ``Managers`` and ``RootSeen``, and tells ``CertificateRenewed``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runtime.pki.unlock_key import UnlockKeyBox
from runtime.wire.port import Credentials

if TYPE_CHECKING:
    from runtime.pki.node_identity import NodeIdentity
    from runtime.pki.root import RootCA


def _nobody() -> Credentials:
    return Credentials(b"")


@dataclass(frozen=True, slots=True)
class CertificateSetup:
    """How a node comes by its certificate: from disk, by joining at ``join_addr``, or by founding a cluster.

    ``admitted`` is an identity that was issued to this node before it began, and stands on no disk yet.
    ``remotes`` are (node id, address) of known managers. ``lock`` has what opens the key file of a
    locked manager, and is kept up to date.
    ``force_new_cluster`` lets an expired certificate pass. ``credentials`` are filled in place and stay the same
    object through all lives of the keeper, so that whoever was given them always holds the newest.
    """

    join_addr: str = ""
    join_token: str = field(default="", repr=False)
    remotes: tuple[tuple[str, str], ...] = ()
    availability: str = ""
    lock: UnlockKeyBox = field(default_factory=UnlockKeyBox)
    force_new_cluster: bool = False
    credentials: Credentials = field(default_factory=_nobody)
    admitted: NodeIdentity | None = None


@dataclass(frozen=True, slots=True)
class Identified:
    """Told once in each life of the keeper: who this node is.

    ``root`` has its signer only on the node that made it, in the life that made it, or where an operator put the
    root's key on disk.
    """

    node_id: str
    role: str
    cluster_id: str
    credentials: Credentials
    root: RootCA


@dataclass(frozen=True, slots=True)
class GetAdmitted:
    """Question: have a swarm admit this machine, as ``setup`` says, ``within`` so many seconds. The answer is the
    NodeIdentity that was issued; nothing was done with it yet."""

    setup: CertificateSetup
    within: float


@dataclass(frozen=True, slots=True)
class CertificateTrouble:
    """Told to the node: its certificate does not hold at this time, for this reason; empty once it does again."""

    text: str


@dataclass(frozen=True, slots=True)
class GetDataKeys:
    """Question: the DataKeys that seal this manager's log; made, and kept in the key file, when there are none."""


@dataclass(frozen=True, slots=True)
class UnlockKeyIs:
    """Question: keep the key file under this unlock key (empty: under none) from ``version`` of the cluster object on.
    Answered with True if the data key is to be changed, once the file is as it should be. Ignored by workers."""

    key: bytes = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class RootAgreed:
    """The cluster object in this manager's own store names this root (PEM). The store may lag behind what sessions
    said: the root is taken only where the node's certificate was signed by it."""

    root_pem: bytes


@dataclass(frozen=True, slots=True)
class BeginDataKeyRotation:
    """Question: put a new data key beside the present one, if a change is due. Answer: the DataKeys as they are then;
    without a pending one nothing is to be changed."""


@dataclass(frozen=True, slots=True)
class FinishDataKeyRotation:
    """Question: nothing is sealed with the old data key any more; forget it. Answer: the DataKeys."""


@dataclass(frozen=True, slots=True)
class DropDataKeys:
    """Question: forget the data keys, for what they sealed is gone. Answered when the key file is without them."""
