"""What the actors of a manager are given, and what its parts tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runtime.disk.ballast import Space
    from runtime.pki.root import RootCA
    from runtime.protocol.raft import MemberStatus
    from runtime.stage.address import Address
    from runtime.store.view import Published
    from runtime.wire.port import Credentials


@dataclass(frozen=True, slots=True)
class ManagerSetup:
    """What a manager is started with. Addresses are ``host:port``; ``root`` has its signer only on the node that made
    the cluster, and only until the cluster object holds it. ``force_new_cluster`` names an order to make a
    cluster of this manager alone. ``certificate`` keeps the key file. Without a
    log it joins the managers at ``join_addrs``."""

    node_id: str
    cluster_id: str
    credentials: Credentials
    root: RootCA
    data_keys: tuple[bytes, ...] = field(repr=False)
    listen_addr: str = "0.0.0.0:2377"
    advertise_addr: str = ""
    control_socket: str = ""
    availability: str = "active"
    heartbeat_tick: int = 1
    election_tick: int = 10
    address_pool: tuple[str, ...] = ()
    subnet_size: int = 0
    vxlan_port: int = 0
    force_new_cluster: str = ""
    certificate: Address | None = None
    join_addrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaderContext:
    """What every actor of the leader's subtree knows: who it works for, and the store.

    ``published`` holds the newest committed view, ``store`` takes writes and watches; ``credentials`` are this
    manager's own, to call others as itself; ``raft`` answers questions about membership and leadership; ``manager``
    hears what an operator has to be told (`AuthorityTrouble`).
    """

    node_id: str
    cluster_id: str
    store: Address
    published: Published
    credentials: Credentials
    raft: Address | None = None
    manager: Address | None = None


@dataclass(frozen=True, slots=True)
class AuthorityTrouble:
    """Told by the leader's certificate authority, again in each of its rounds: why no external CA signs now, and how
    many nodes wait for that; without a text they sign again."""

    text: str
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class AskPublished:
    """Question: where this manager's newest committed view is (``Published``), for readers of the same process."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Told to the manager: its servers answer; ``addr`` is the remote one with its real port."""

    addr: str


@dataclass(frozen=True, slots=True)
class LeaderReady:
    """Told to the manager by its leader's subtree: the cluster object is there and every part was started."""


@dataclass(frozen=True, slots=True)
class ManagerReady:
    """Told to the node: the control API answers. ``listen_addr`` is the remote address with its real port."""

    listen_addr: str


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """Told to whoever shows the managers, whenever anything of it changes: the members of the consensus group by raft
    id, who leads them and whom the leader reaches. (A host hears of the group alone: the moment ``member``.)"""

    members: Mapping[int, MemberStatus]


@dataclass(frozen=True, slots=True)
class LeaderIs:
    """Told to whoever turns to the leader: where it is (``addr`` empty: nobody knows), or that it is ``here`` and its
    subtree runs."""

    addr: str
    here: bool


@dataclass(frozen=True, slots=True)
class ToLeader:
    """Question: make this call at the leader, as this manager itself. The answer is the response, the refusal, or
    ``LEADS_HERE`` if this node has come to lead meanwhile and nothing was called."""

    method: str
    request: Message


LEADS_HERE = "leads here"


@dataclass(frozen=True, slots=True)
class ManagerRemoved:
    """Told to the node: the other managers removed this one, and its log is gone."""


@dataclass(frozen=True, slots=True)
class EndManager:
    """Question to a manager before it is stopped: let another one lead; with ``discard`` forget the log too. Answered
    when that is done, or could not be."""

    discard: bool = False


@dataclass(frozen=True, slots=True)
class MakeBackup:
    """Question: the bytes of a backup of this manager (see ``runtime.disk.backup``), which are a secret."""


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Told to the store and the control API on each change: how much there is to write to."""

    space: Space


@dataclass(frozen=True, slots=True)
class Serve:
    """Told to the control API: it may (or may not) answer now."""

    ready: bool
