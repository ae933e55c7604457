"""What is said to the cluster layer: the operations on this node's membership, and what it tells of itself.

The texts and kinds are the engine's: its clients show them to people and match them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from runtime.errors import Code, Refused

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runtime.executor.port import LogOptions, OnEnd, OnLine
    from runtime.protocol.agent import AwaitTask, InspectTask
    from runtime.wire.pb.control_pb2 import KeyRotation
    from runtime.wire.pb.objects_pb2 import Cluster
    from runtime.wire.pb.specs_pb2 import ClusterSpec

CODES = {
    "unavailable": Code.UNAVAILABLE,
    "invalid": Code.INVALID_ARGUMENT,
    "forbidden": Code.PERMISSION_DENIED,
    "unauthorized": Code.UNAUTHENTICATED,
    "conflict": Code.ALREADY_EXISTS,
    "notfound": Code.NOT_FOUND,
    "unimplemented": Code.UNIMPLEMENTED,
    "plain": Code.UNKNOWN,
}


class ClusterError(Refused):
    """A refusal by the cluster layer itself, shown without gRPC's prefix. ``kind`` is one of ``CODES``."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(CODES[kind], text)
        self.args = (kind, text)
        self.kind = kind

    def __str__(self) -> str:
        return self.text


class CertificateExpired(ClusterError):
    """The node's certificate does not hold now. The node runs, and may join its swarm anew."""

    def __init__(self, text: str) -> None:
        super().__init__("plain", text)


class NodeRemoved(ClusterError):
    """The managers have removed this node from the swarm, and take it back under no certificate that it has."""

    def __init__(self, text: str) -> None:
        super().__init__("plain", text)

    @classmethod
    def of(cls, node_id: str, *, manager: bool) -> NodeRemoved:
        """With what to do about it."""
        leave = "docker swarm leave --force" if manager else "docker swarm leave"
        return cls(
            f"Node {node_id} was removed from the swarm. Its tasks run on until it leaves: run "
            f'"{leave}" on this node, then "docker swarm join" to make it a new node of the swarm.'
        )


NO_SWARM = "This node is not part of a swarm"
SWARM_EXISTS = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
JOIN_TIMEOUT = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. "
    'Use the "docker info" command to see the current swarm status of your node.'
)
ADMISSION_TIMEOUT = (
    "Timeout was reached before a certificate was issued. Nothing was changed: this node is what it was, and its tasks "
    "run on."
)
LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)
LEAVE_LOCKED = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
NOT_LOCKED = "swarm is not locked"
WRONG_UNLOCK_KEY = "swarm could not be unlocked: invalid key provided"
UNLOCK_TIMEOUT = (
    "Timeout was reached before the unlocked node was ready. It goes on starting in the background. "
    'Use the "docker info" command to see the current swarm status of your node.'
)
NOT_MANAGER_WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
    "Please run this command on a manager node or promote the current node to a manager."
)
NOT_MANAGER_NO_NODE = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
NOT_MANAGER_STARTING = (
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
)


class LocalNodeState(enum.Enum):
    """Where this node stands, as ``docker info`` shows it."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class InitRequest:
    """``POST /swarm/init`` as it came in: nothing resolved, nothing checked but JSON types.

    ``spec`` holds the swarm spec of the request, zero where the request said nothing. Two of its fields
    have a zero that means something; ``history_limit`` and ``keep_old_snapshots`` are None when absent.
    ``default_addr_pool`` is None for an absent or null pool, which differs from an empty one when shown.
    """

    listen_addr: str
    advertise_addr: str
    data_path_addr: str
    data_path_port: int
    force_new_cluster: bool
    spec: ClusterSpec
    auto_lock_managers: bool
    availability: str
    default_addr_pool: tuple[str, ...] | None
    subnet_size: int
    history_limit: int | None = None
    keep_old_snapshots: int | None = None


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """``POST /swarm/join`` as it came in. ``join_token`` is a secret and stays out of the repr."""

    listen_addr: str
    advertise_addr: str
    data_path_addr: str
    remote_addrs: tuple[str, ...]
    availability: str
    join_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RemoteManager:
    """A manager that this node knows by address (``host:port``); the id is empty until it is known."""

    node_id: str
    addr: str


@dataclass(frozen=True, slots=True)
class SwarmInfo:
    """What this node knows of its swarm; always available, whatever state the node is in.

    ``local_node_state`` is inactive, pending, active, error or locked. ``error`` is empty when all is well.
    ``nodes`` and ``managers`` are counts, 0 where they are not known. ``cluster`` is None unless this node
    is an active manager. ``warnings`` are sentences for the operator besides those the API derives itself.
    """

    local_node_state: str = "inactive"
    node_id: str = ""
    node_addr: str = ""
    control_available: bool = False
    error: str = ""
    remote_managers: tuple[RemoteManager, ...] = ()
    nodes: int = 0
    managers: int = 0
    cluster: Cluster | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Init:
    """Question: make this node the first manager of a new swarm. Answer: its node id."""

    request: InitRequest


@dataclass(frozen=True, slots=True)
class Join:
    """Question: join a swarm. Answered once this node is ready, or refused after 20 s while joining goes on."""

    request: JoinRequest


@dataclass(frozen=True, slots=True)
class Leave:
    """Question: leave the swarm and forget it."""

    force: bool


@dataclass(frozen=True, slots=True)
class Update:
    """Question: replace the cluster's spec if ``version`` is its present one, rotate what ``rotation`` says."""

    version: int
    spec: ClusterSpec
    rotation: KeyRotation


@dataclass(frozen=True, slots=True)
class Inspect:
    """Question: the cluster object."""


@dataclass(frozen=True, slots=True)
class Info:
    """Question: a SwarmInfo. Always answered."""


@dataclass(frozen=True, slots=True)
class Status:
    """Question: the LocalNodeState as text, with the role when it is active (``active/manager``). Answered at once."""


@dataclass(frozen=True, slots=True)
class Unlock:
    """Question: start a locked manager with its unlock key (its text form, a secret)."""

    key: str

    def __repr__(self) -> str:
        return "Unlock(...)"


@dataclass(frozen=True, slots=True)
class UnlockKey:
    """Question: the present unlock key, empty when autolock is off."""


@dataclass(frozen=True, slots=True)
class Control:
    """Question: a call of SwarmKit's Control service by its bare name, with its request message."""

    method: str
    request: Message


@dataclass(frozen=True, slots=True)
class ReadBarrier:
    """Question: the index of this manager's own view, once that holds every write acknowledged before now, on any
    manager. Refused with UNAVAILABLE where nobody leads, DEADLINE_EXCEEDED where this manager lags too far behind."""


@dataclass(frozen=True, slots=True)
class GetWarnings:
    """Question to the control API: Standing, for whoever asks how the swarm is."""


@dataclass(frozen=True, slots=True)
class Standing:
    """``warnings`` are sentences for an operator; ``error`` says that the swarm takes no orders now, else empty."""

    warnings: tuple[str, ...] = ()
    error: str = ""


class ConfigEventKind(enum.Enum):
    """What happened to this node's part in the cluster."""

    NODE_READY = "node ready"
    NODE_LEFT = "node left"
    CONTROL_CONNECTION = "control connection changed"


@dataclass(frozen=True, slots=True)
class ConfigEvent:
    """Told to whoever asked with ``SubscribeConfigEvents``."""

    kind: ConfigEventKind
    detail: Any = None


@dataclass(frozen=True, slots=True)
class SubscribeConfigEvents:
    """Asks for config events, for as long as the sender lives."""


@dataclass(frozen=True, slots=True)
class SwarmEvent:
    """One event. ``time_ns`` is unix time; ``labels`` are the object's, for filters alone."""

    type: str
    action: str
    id: str
    attributes: Mapping[str, str]
    time_ns: int
    labels: Mapping[str, str]
    scope: str = "swarm"

    @property
    def is_gap(self) -> bool:
        """Whether this says that events are missing here."""
        return self.type == "daemon"


class EventSubscriber(Protocol):
    """Whoever reads the swarm's events. Both methods may be called from any thread and must hand the matter on."""

    def events(self, batch: tuple[SwarmEvent, ...]) -> None:
        """Events in their order."""

    def end(self) -> None:
        """No more will come; the last event said why."""


@dataclass(frozen=True, slots=True)
class SubscribeEvents:
    """Question: send events to ``subscriber`` from now on, and first what is kept from ``since_ns`` on (None:
    nothing). Answered with None once it is so."""

    subscriber: EventSubscriber
    since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class UnsubscribeEvents:
    """No more events for this subscriber. Again is nothing."""

    subscriber: EventSubscriber


@dataclass(frozen=True, slots=True)
class LocalLogs:
    """Question: read the log of a task of this node, whatever its role. Answered as ``ReadLogs`` of the task; refused
    with NOT_FOUND where there is no such task. The callbacks are called from any thread."""

    task_id: str
    options: LogOptions
    on_line: OnLine
    on_end: OnEnd


@dataclass(frozen=True, slots=True)
class ToTask:
    """Question for a task of this node, whatever its role, which answers it; refused with NOT_FOUND where there is no
    such task."""

    task_id: str
    question: InspectTask | AwaitTask


@dataclass(frozen=True, slots=True)
class LocalTasks:
    """Question: the tasks of this node, as its agent holds them: pairs of (Task, TaskStatus), shared, not to be
    changed."""
