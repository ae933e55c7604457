"""A node in a host program: start it, let it found or join a swarm, use it, stop it.

Rules it owns: making a Node starts nothing; after ``stop`` threads, files and children are as before the start; any
number of nodes live in one process; a question asked here never hangs without limit, and a refusal is the engine's, as
``docker swarm`` shows it. The host's loop, signals, logging and interpreter settings are never touched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from google.protobuf.message import Message

from runtime.errors import Refused
from runtime.protocol import cluster as say
from runtime.protocol.cluster import SwarmInfo
from runtime.stage import Actor, Address
from runtime.stage.answers import forbid_blocking
from runtime.swarm.addresses import IPNetwork
from runtime.wire.pb import objects_pb2
from swarmlet import places, requests
from swarmlet.assembly import Assembly, NodeSettings
from swarmlet.errors import StartError, UsageError
from swarmlet.executors import ExecutorFactory, ProcessExecutor
from swarmlet.subscription import EVENTS_MAX, EventCallback, Subscription

if TYPE_CHECKING:
    from runtime.engine_api.sockets import TlsListener
    from runtime.stage import Stage

M = TypeVar("M", bound=Message)

RECONFIGURE_S: Final = 60.0
ASK_S: Final = 20.0
UPDATE_TRIES: Final = 5
POLL_S: Final = 0.05
TaskFate = Literal["stop", "keep"]


class Node:
    """One node. Usable as a context manager, whose end stops the node and its tasks.

    ``state_dir`` holds everything that lasts; a second start needs nothing else. ``listen`` is where other nodes reach
    this one once it is a manager (port 0: a free one, kept from then on). ``network_subnets_provider`` gives subnets
    whose addresses are never advertised. ``run_dir`` holds the sockets and is found for ``state_dir`` if not given. In
    ``test_mode`` whoever may use the introspection socket may send any of our messages to any actor, by hand. Without
    ``remote_exec`` the swarm's managers cannot look at this node's tasks or run commands beside them.
    Methods may be called from any thread but not from an event loop's (see AsyncNode) or an actor's.
    """

    def __init__(
        self,
        state_dir: str | os.PathLike[str],
        *,
        listen: str = "127.0.0.1:0",
        advertise: str = "",
        default_advertise_addr: str = "",
        network_subnets_provider: Callable[[], Sequence[IPNetwork]] = tuple,
        executor: ExecutorFactory | None = None,
        name: str = "node",
        hostname: str = "",
        run_dir: str | os.PathLike[str] | None = None,
        api_sockets: Sequence[str] = (),
        tls: Sequence[TlsListener] = (),
        group: str = "",
        heartbeat_tick: int = 1,
        election_tick: int = 10,
        metrics: tuple[str, int] | None = None,
        on_event: EventCallback | None = None,
        test_mode: bool = False,
        remote_exec: bool = True,
    ) -> None:
        state = Path(state_dir).absolute()
        run = Path(run_dir).absolute() if run_dir else places.run_directory(os.environ, os.getuid(), state)
        if not 1 <= heartbeat_tick < election_tick:
            raise UsageError("the election tick must be greater than the heartbeat tick, which is at least 1")
        self.listen = listen
        self.advertise = advertise
        self.settings = NodeSettings(
            state_dir=state,
            run_dir=run,
            run_dir_is_ours=not run_dir,
            executor=executor if executor is not None else ProcessExecutor(),
            name=name,
            hostname=hostname,
            default_advertise_addr=default_advertise_addr,
            subnets=network_subnets_provider,
            unix_sockets=tuple(api_sockets) or (str(run / places.API_SOCKET),),
            tls=tuple(tls),
            group=group,
            heartbeat_tick=heartbeat_tick,
            election_tick=election_tick,
            metrics=metrics,
            test_mode=test_mode,
            remote_exec=remote_exec,
        )
        self._on_event = on_event
        self._subscriptions: set[Subscription] = set()
        self._assembly: Assembly | None = None
        self._lock = threading.Lock()

    # Life

    def start(self) -> Node:
        """Starts the node; it is in its swarm again soon after if it was in one. Raises StartError, UsageError."""
        with self._lock:
            if self._assembly is not None:
                raise StartError("the node runs already")
            assembly = Assembly(self.settings)
            assembly.open()
            self._assembly = assembly
        if self._on_event is not None:
            self.subscribe(self._on_event)
        return self

    def stop(self, tasks: TaskFate = "stop") -> None:
        """Stops the node. Its tasks are stopped, each with its grace period, or kept running. Again is nothing."""
        if tasks not in ("stop", "keep"):
            raise UsageError(f"tasks are to stop or to keep running, not {tasks!r}")
        with self._lock:
            assembly, self._assembly = self._assembly, None
            if assembly is not None:
                assembly.close(tasks == "stop")
        for subscription in list(self._subscriptions):
            subscription.close()

    def __enter__(self) -> Node:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it is started and not stopped."""
        return self._assembly is not None

    @property
    def assembly(self) -> Assembly:
        """The parts of the running node. StartError if it does not run."""
        if self._assembly is None:
            raise StartError("the node does not run: call start() first")
        return self._assembly

    # The swarm

    def init(self, *, listen: str = "", advertise: str = "", availability: str = "active") -> str:
        """Founds a swarm with this node as its first manager; the node's id."""
        request = requests.init_request(
            listen or self.listen,
            advertise or self.advertise,
            self.settings.default_advertise_addr,
            availability,
        )
        return str(self.ask(say.Init(request), RECONFIGURE_S))

    def join(
        self, *remotes: str, token: str, listen: str = "", advertise: str = "", availability: str = "active"
    ) -> None:
        """Joins the swarm of the manager at ``remotes`` (``host:port``); its role is the token's."""
        request = requests.join_request(
            listen or self.listen, advertise or self.advertise, remotes, token, availability
        )
        self.ask(say.Join(request), RECONFIGURE_S)

    def leave(self, force: bool = False) -> None:
        """Ends this node's tasks, leaves the swarm and forgets it. A manager must be forced."""
        self.ask(say.Leave(force), RECONFIGURE_S)

    def update(self, change: requests.SpecChange | None = None, *, rotate: str = "") -> None:
        """Changes the swarm: ``change`` is given the cluster's spec to alter, ``rotate`` names roles ("worker manager")
        whose join tokens are made anew. Tried again when somebody else changed the swarm meanwhile."""
        for attempt in range(1, UPDATE_TRIES + 1):
            try:
                self.ask(requests.update_message(self.inspect(), change, rotate))
                return
            except Refused as refused:
                if attempt == UPDATE_TRIES or not requests.out_of_sequence(refused):
                    raise

    def inspect(self) -> objects_pb2.Cluster:
        """The cluster object, keys included: not to be printed. On managers only."""
        cluster: objects_pb2.Cluster = self.ask(say.Inspect())
        return cluster

    def join_token(self, role: str = "worker") -> str:
        """The secret by which a node joins as ``worker`` or ``manager``. On managers only."""
        return requests.token_of(self.inspect(), role)

    def info(self) -> SwarmInfo:
        """What this node knows of its swarm, whatever state it is in."""
        info: SwarmInfo = self.ask(say.Info())
        return info

    def wait_ready(self, timeout: float = 30.0) -> SwarmInfo:
        """Waits until this node is active in its swarm and, on a manager, can be asked. TimeoutError says how it stands
        otherwise."""
        deadline = time.monotonic() + timeout
        while True:
            info = self.info()
            if is_ready(info, self.assembly):
                return info
            if time.monotonic() >= deadline:
                raise TimeoutError(not_ready(info, timeout))
            time.sleep(POLL_S)

    def read_barrier(self) -> int:
        """Returns once this node's manager has every write that was acknowledged before, on any manager: what is read
        here afterwards is linearizable. The index that its view has reached. On managers only; Refused where nobody
        leads, or this one lags too far behind."""
        return int(self.ask(say.ReadBarrier()))

    def control(self, method: str, request: Message, answer: type[M]) -> M:
        """A call of SwarmKit's Control service on this node's manager: ``control("ListTasks", ListTasksRequest(),
        ListTasksResponse)``. Raises Refused as the service does."""
        value = self.ask(say.Control(method, request))
        assert isinstance(value, answer), f"{method} is answered by {type(value).__name__}"
        return value

    def ask(self, message: Any, timeout: float = ASK_S) -> Any:
        """Asks the cluster actor."""
        return self.assembly.cluster.ask(message).result(timeout)

    # For hosts

    @property
    def api_socket(self) -> str:
        """Path of the (first) unix socket of the Engine API: ``docker -H unix://PATH``."""
        return self.settings.unix_sockets[0]

    @property
    def introspection_socket(self) -> str:
        """Path of the socket that ``swarmlet tree --socket`` asks."""
        return str(self.settings.run_dir / places.INTROSPECTION_SOCKET)

    @property
    def stage(self) -> Stage:
        """The node's actor system."""
        stage = self.assembly.stage
        assert stage is not None
        return stage

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where Prometheus finds the metrics, if ``metrics`` named an address; they are at ``/metrics`` of the API's
        sockets too."""
        return self.assembly.metrics_address

    def introspect(self, what: str, **details: Any) -> Any:
        """Asks about the actors and the swarm what the introspection socket can be asked: ``introspect("tree")``,
        ``introspect("actor", path="/cluster")``. ValueError with what is wrong with the question."""
        forbid_blocking()
        watcher = self.assembly.watcher
        assert watcher is not None
        return self.assembly.run(watcher.answer({**details, "ask": what}), ASK_S)

    def subscribe(self, on_event: EventCallback, *, capacity: int = EVENTS_MAX) -> Subscription:
        """Calls ``on_event`` on a thread of its own with what happens to the swarm's objects (on managers) and with
        failures of this node's actors, until the subscription or the node ends. It may take its time: at most
        ``capacity`` events wait for it, the oldest go first, and a gap says how many went."""
        subscription = Subscription(self.assembly, on_event, capacity, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        subscription.start()
        return subscription

    def mount(self, name: str, actor: type[Actor], *arguments: Any) -> Address:
        """Starts an actor of the host's at ``/<name>`` in this node's tree; it ends with the node."""
        if not name.isidentifier():
            raise UsageError(f"{name!r} is no name for an actor: letters, digits and _ only")
        return self.stage.mount(name, actor, *arguments)


def is_ready(info: SwarmInfo, assembly: Assembly) -> bool:
    """Whether a node of which ``info`` was told can be used."""
    if info.local_node_state != "active":
        return False
    assert assembly.stage is not None
    is_manager = "/cluster/node/manager" in assembly.stage.cells
    return info.control_available or not is_manager


def not_ready(info: SwarmInfo, timeout: float) -> str:
    """Why a node is not ready, for people."""
    states = {
        "inactive": "it is in no swarm: init or join one",
        "pending": "it is still starting or joining",
        "active": "its manager does not answer yet",
        "locked": "it is locked",
    }
    because = info.error or states.get(info.local_node_state, info.local_node_state)
    return f"the node is not ready after {timeout:g} s: {because}"
