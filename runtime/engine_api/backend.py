"""The port between the Engine API and the cluster: what the HTTP side may ask, and in which shapes.

Rules it owns:
- The HTTP side holds no state of its own; whatever it answers came through this port.
- A refusal of the control service is ``Refused`` (a gRPC code and a text), one of the cluster layer is
  ``ClusterError`` (a kind and a text). Any other exception is a failure and is answered with status 500.
- Protobuf objects handed out are shared and immutable: nobody here changes one.
- Cancelling a call (a client hung up, the server stops) must free what the call held.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runtime.engine_api.execs import Execs
    from runtime.engine_api.questions import Landing
    from runtime.executor.inspection import Look
    from runtime.protocol.agent import Until
    from runtime.protocol.cluster import InitRequest, JoinRequest, SwarmEvent, SwarmInfo
    from runtime.wire.pb.control_pb2 import KeyRotation
    from runtime.wire.pb.logs_pb2 import LogSubscriptionOptions, SubscribeLogsMessage, SubscribeLogsRequest
    from runtime.wire.pb.objects_pb2 import Cluster, Task
    from runtime.wire.pb.specs_pb2 import ClusterSpec
    from runtime.wire.pb.types_pb2 import TaskStatus

CONTROL_TIMEOUT_S = 20.0
"""How long one call of the control service may take, as the engine's swarmRequestTimeout."""


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """The host and this daemon. Memory is in bytes; ``image_names`` are what the executor can run.

    ``features`` names what is true of this host and executor among the flags of ``GET /info`` (``MemoryLimit``,
    ``IPv4Forwarding``, ...); clients warn their users of those that are missing.
    ``plugins`` are the kind (``Log``, ``Network``, ``Volume``) and name of what the executor says of its node.
    """

    name: str
    ncpu: int
    mem_total: int
    server_version: str
    root_dir: str
    executor: str
    os_type: str = "linux"
    operating_system: str = ""
    architecture: str = ""
    kernel_version: str = ""
    git_commit: str = ""
    build_time: str = ""
    daemon_id: str = ""
    features: frozenset[str] = frozenset()
    image_names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    plugins: tuple[tuple[str, str], ...] = ()


class Backend(Protocol):
    """What the Engine API asks of the cluster. Every method may be called concurrently, on one event loop."""

    async def control(self, method: str, request: Message, timeout_s: float = CONTROL_TIMEOUT_S) -> Message:
        """Call SwarmKit's Control service: ``method`` is its bare name, for example ``CreateService``.

        The answer is that method's response message. Raises Refused as the service does
        (a deadline is ``Refused(DEADLINE_EXCEEDED, "context deadline exceeded")``),
        ClusterError where this node is no active manager.
        """

    async def read_barrier(self) -> None:
        """Returns once what this node's manager answers holds every write acknowledged before, on any manager."""

    async def swarm_init(self, request: InitRequest) -> str:
        """Make this node the first manager of a new swarm; the answer is its node id."""

    async def swarm_join(self, request: JoinRequest) -> None:
        """Join a swarm; returns when the node is ready, raises ClusterError after 20 seconds without."""

    async def swarm_leave(self, force: bool) -> None:
        """Leave the swarm and forget it."""

    async def swarm_update(self, version: int, spec: ClusterSpec, rotation: KeyRotation) -> None:
        """Replace the cluster's spec if ``version`` is its present one, and rotate what ``rotation`` says."""

    async def swarm_inspect(self) -> Cluster:
        """The cluster object. Keys in it are the caller's to redact."""

    async def swarm_unlock(self, key: str) -> None:
        """Start a locked manager with its unlock key (``SWMKEY-1-...`` text as typed)."""

    async def swarm_unlock_key(self) -> str:
        """The present unlock key, empty when autolock is off."""

    async def swarm_info(self) -> SwarmInfo:
        """What this node knows of its swarm. Never raises: trouble is told in ``SwarmInfo.error``."""

    async def swarm_status(self) -> str:
        """The ``Swarm`` header: inactive, pending, error, locked, active/worker or active/manager.

        Empty if the cluster layer does not say so in time: a ping is answered all the same, without the header.
        """

    async def system(self) -> SystemInfo:
        """The host and this daemon."""

    @property
    def has_engine(self) -> bool:
        """Whether a container engine runs this node's tasks."""

    async def engine(self, path: str, query: Mapping[str, str]) -> Any:
        """What the container engine that runs this node's tasks answers to a GET; None if none does. Raises ApiError in
        the engine's words, Refused if it cannot be asked."""

    async def local_network(self, term: str) -> str | None:
        """The name of the network that exists on this node alone and is called ``term``; None if there is none."""

    def logs(self, request: SubscribeLogsRequest) -> AsyncIterator[SubscribeLogsMessage]:
        """Log messages as they come. Refusals are raised by the first step; closing the iterator unsubscribes."""
        ...

    def events(self, since_ns: int | None, until_ns: int | None) -> AsyncIterator[SwarmEvent]:
        """What happens to the swarm's objects, first what is kept from ``since_ns`` on; nothing on a worker. Ends when
        ``until_ns`` has come and what was kept is told. Refusals are raised by the first step; closing the iterator
        unsubscribes."""
        ...

    def local_logs(self, task: Task, options: LogSubscriptionOptions) -> AsyncIterator[SubscribeLogsMessage]:
        """The log of one of this node's tasks, from its agent, whatever the node's role. As ``logs`` otherwise."""
        ...

    async def look(self, task: Task, question: Look) -> Any:
        """What the executor of one of this node's tasks says of it. Raises Refused: FAILED_PRECONDITION if it does not
        run, UNIMPLEMENTED if it cannot be looked at."""

    async def look_elsewhere(self, task: Task, question: Look | None) -> Any:
        """The same of a task of another node, at a manager; without a question, whether one could be asked. Raises
        Refused with what is in the way."""

    @property
    def execs(self) -> Execs:
        """Commands beside tasks."""

    @property
    def landing(self) -> Landing:
        """Brings what other threads say to the event loop."""

    async def await_task(self, task: Task, until: Until) -> int:
        """Waits until that holds of one of this node's tasks; its exit code."""

    async def local_tasks(self) -> Sequence[tuple[Task, TaskStatus]]:
        """The tasks of this node as its agent knows them, whatever the node's role; none out of a swarm."""
