"""What is said between the cluster layer, the node, and those that watch its roles and its control connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.stage.address import Address


@dataclass(frozen=True, slots=True)
class StartConfig:
    """How a node is started. The first block is what ``docker-state.json`` keeps; the rest lives with the process.

    ``default_address_pool`` is None after a join, a tuple (perhaps empty) after an init. Tokens and keys are secrets
    and appear in no repr.
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
    force_new_cluster: bool = False
    availability: str = "active"
    heartbeat_tick: int = 1
    election_tick: int = 10
    join_token: str = field(default="", repr=False)
    lock_key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class NodeReady:
    """The node's agent has a session and, on a manager, the control connection answers."""

    node_id: str
    role: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node says of itself. ``manager`` is true while a manager runs here, whether or not it can be asked."""

    node_id: str
    role: str
    ready: bool
    manager: bool
    remotes: tuple[tuple[str, str], ...] = ()


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
