"""What is said between the node and the keeper of its certificate, besides what ``node`` and ``agent`` hold.

The keeper also takes ``RenewCertificate``, ``Managers`` and ``RootSeen``, and tells ``CertificateRenewed``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runtime.wire.port import Credentials

if TYPE_CHECKING:
    from runtime.pki.root import RootCA


def _nobody() -> Credentials:
    return Credentials(b"")


@dataclass(frozen=True, slots=True)
class CertificateSetup:
    """How a node comes by its certificate: from disk, by joining at ``join_addr``, or by founding a cluster.

    ``remotes`` are (node id, address) of known managers. ``lock_key`` opens the key file of a locked manager.
    ``force_new_cluster`` lets an expired certificate pass. ``credentials`` are filled in place and stay the same
    object through all lives of the keeper, so that whoever was given them always holds the newest.
    """

    join_addr: str = ""
    join_token: str = field(default="", repr=False)
    remotes: tuple[tuple[str, str], ...] = ()
    availability: str = ""
    lock_key: bytes = field(default=b"", repr=False)
    force_new_cluster: bool = False
    credentials: Credentials = field(default_factory=_nobody)


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
class GetDataKeys:
    """Question: the DataKeys that seal this manager's log; made, and kept in the key file, when there are none."""


@dataclass(frozen=True, slots=True)
class DropDataKeys:
    """Question: forget the data keys, for what they sealed is gone. Answered when the key file is without them."""
