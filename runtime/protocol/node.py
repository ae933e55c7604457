"""What is said between the cluster layer, the node, and those that watch its roles and its control connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from runtime.pki.unlock_key import UnlockKeyBox

if TYPE_CHECKING:
    from runtime.pki.node_identity import NodeIdentity
    from runtime.stage.address import Address


@dataclass(frozen=True, slots=True)
class StartConfig:
    """How a node is started. The first block is what ``docker-state.json`` keeps; the rest lives with the process.

    ``default_address_pool`` is None after a join, a tuple (perhaps empty) after an init. ``force_new_cluster`` names an
    order to make a new cluster of this manager alone, which is carried out once. ``admitted`` is an identity that was
    issued already, for a node that joins with it. Tokens and keys are secrets and appear in no repr.
    """

    local_addr: str = ""
    remote_addr: str = ""
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    default_address_pool: tuple[str, ...] | None = None
    subnet_size: int = 0
    data_path_port: int = 0
    join_in_progress: bool = False

    join_addr: str = ""
    force_new_cluster: str = ""
    availability: str = "active"
    heartbeat_tick: int = 1
    election_tick: int = 10
    join_token: str = field(default="", repr=False)
    lock: UnlockKeyBox = field(default_factory=UnlockKeyBox, compare=False)
    admitted: NodeIdentity | None = None


@dataclass(frozen=True, slots=True)
class NodeIdentified:
    """The node has a certificate: who it is, and as what it takes part, ready or not."""

    node_id: str
    role: str


@dataclass(frozen=True, slots=True)
class NodeReady:
    """The node's agent has a session and, on a manager, the control connection answers."""

    node_id: str
    role: str


@dataclass(frozen=True, slots=True)
class ManagersKnown:
    """Told to the cluster: the managers that the node knows, as (node id, address); an id may not be known yet."""

    remotes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NodeTrouble:
    """Told to the cluster: a part of the node is down, for good or before the node was ready, for this reason."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class NodeLocked:
    """Told to the node by its certificate's keeper, and by it to the cluster: the key file needs another unlock key
    than the one that is known. Nothing of the swarm was read, and nothing runs."""


@dataclass(frozen=True, slots=True)
class NodeMended:
    """Told to the cluster: the certificate of which there was trouble holds again, or the swarm has this node after
    all."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node says of itself. ``manager`` is true while a manager runs here, whether or not it can be asked;
    ``trouble`` is what an operator has to hear of, as NodeTrouble said it."""

    node_id: str
    role: str
    ready: bool
    manager: bool
    remotes: tuple[tuple[str, str], ...] = ()
    trouble: BaseException | None = None


@dataclass(frozen=True, slots=True)
class GetNodeStatus:
    """Question: a NodeStatus."""


@dataclass(frozen=True, slots=True)
class ControlConnection:
    """Told to subscribers on each change, and once at the start: where the control API answers now, if anywhere."""

    control: Address | None


@dataclass(frozen=True, slots=True)
class SubscribeControlConnection:
    """Asks the connection's keeper for ControlConnection, for as long as the sender lives."""


@dataclass(frozen=True, slots=True)
class LeaveNode:
    """Question: drop all assignments and end the tasks of this node. Answered when they are gone."""


class ClusterState(Protocol):
    """What lasts of the cluster layer: ``docker-state.json`` and the state directory that holds it."""

    def load(self) -> StartConfig | None:
        """What was saved; None if this node is in no swarm. Refused if the state may be neither used nor lost."""

    def save(self, config: StartConfig) -> None:
        """Replaces what was saved, atomically."""

    def clear(self) -> None:
        """Removes everything that this node kept of its swarm."""


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Question: is a service of that name ready? Answer: True or False."""

    service: str


@dataclass(frozen=True, slots=True)
class RoleObserved:
    """The node's certificate says this role now (``swarm-manager`` or ``swarm-worker``)."""

    role: str


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """What a session said of this node: the role it is to have, and whether its certificate is to be renewed now."""

    desired_role: str
    rotate: bool = False


@dataclass(frozen=True, slots=True)
class ManagerEnded:
    """The manager of this node ended without an error; ``removed`` says that the quorum removed it."""

    removed: bool


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """Told to the watcher of roles: what sessions say from now on is newer than anything before."""


@dataclass(frozen=True, slots=True)
class StartManager:
    """Told to the node: it is to run a manager."""


@dataclass(frozen=True, slots=True)
class StopManager:
    """Told to the node: its manager is to end and its raft data to go."""


@dataclass(frozen=True, slots=True)
class RenewCertificate:
    """Told to the node: renew the certificate now; ``expected_role`` is empty if any role will do."""

    expected_role: str = ""
