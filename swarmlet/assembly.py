"""Puts one node together and takes it apart: disk, loop, transport, executor, stage, cluster actor, servers.

Rules it owns: parts come up in an order in which each finds what it stands on, and go in the reverse order; whatever
fails on the way up takes down what was up; the data root is this process's alone from before the first read to after
the last write. Actors end before the tasks do, so that nobody replaces what is being stopped.
"""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import logging
import os
import secrets
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from actors.cluster_actor import ClusterActor, ClusterSettings
from runtime.disk.data_root import refuse_foreign
from runtime.disk.errors import DiskFailed, DiskInUse, ForeignState
from runtime.disk.real import RealDisk
from runtime.engine_api.cluster_backend import ClusterBackend
from runtime.engine_api.sockets import TlsListener
from runtime.errors import Refused
from runtime.executor.port import OnStage
from runtime.introspection import exposition
from runtime.introspection.server import IntrospectionServer
from runtime.protocol.raft import TransferLeadership
from runtime.stage import Actor, Address, Clock, RealClock, Stage, World
from runtime.swarm.addresses import Interface, IPNetwork
from runtime.swarm.ingress_tables import forwards
from runtime.wire.grpc_transport import GrpcTransport
from runtime.wire.https import LoopHttps
from runtime.wire.ingress_proxy import IngressProxy
from runtime.wire.loop import IoLoop
from runtime.wire.netlink import interfaces
from runtime.wire.private_directory import PrivateDirectory
from swarmlet import host, places
from swarmlet.cluster_state import FileClusterState
from swarmlet.errors import StartError
from swarmlet.executors import ExecutorFactory, ExecutorPlace, images_of

if TYPE_CHECKING:
    from runtime.engine_api.pages import Pages
    from runtime.executor.port import Executor

log = logging.getLogger("swarmlet.node")
T = TypeVar("T")

EXECUTOR_STATE: Final = "worker/process"
STAGE_STOP_S: Final = 3.0
HAND_OVER_S: Final = 5.0
CLUSTER: Final = "/cluster"
CONSENSUS: Final = "/cluster/node/manager/raft"
SERVERS_STOP_S: Final = 2.0
REQUESTS_GRACE_S: Final = 0.5
EXECUTOR_CLOSE_S: Final = 3.0
TASKS_STOP_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node is made of; paths are absolute. ``node_class``, ``read_interfaces``, ``dial_from`` (the address that
    connections to other nodes come from) and ``clock`` are for tests."""

    state_dir: Path
    run_dir: Path
    executor: ExecutorFactory
    name: str = "node"
    hostname: str = ""
    default_advertise_addr: str = ""
    subnets: Callable[[], Sequence[IPNetwork]] = tuple
    read_interfaces: Callable[[], Sequence[Interface]] = interfaces
    unix_sockets: tuple[str, ...] = ()
    tls: tuple[TlsListener, ...] = ()
    group: str = ""
    metrics: tuple[str, int] | None = None
    heartbeat_tick: int = 1
    election_tick: int = 10
    test_mode: bool = False
    remote_exec: bool = True
    node_class: type[Actor] | None = None
    run_dir_is_ours: bool = False
    dial_from: str = ""
    clock: Clock = field(default_factory=RealClock)


class Assembly:
    """One running node. ``open`` and ``close`` block and belong to the host's threads, not to an event loop's."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self._loop: IoLoop | None = None
        self.stage: Stage | None = None
        self.backend: ClusterBackend | None = None
        self.watcher: IntrospectionServer | None = None
        self.metrics_address: tuple[str, int] | None = None
        self._cluster: Address | None = None
        self._stop_tasks = True
        self._parts = contextlib.ExitStack()

    @property
    def cluster(self) -> Address:
        """Where the cluster actor is."""
        assert self._cluster is not None, "the node is not open"
        return self._cluster

    @property
    def loop(self) -> IoLoop:
        """Where the node's I/O lives."""
        assert self._loop is not None, "the node is not open"
        return self._loop

    @property
    def introspection_socket(self) -> str:
        """Where the node can be asked about its actors."""
        return str(self.settings.run_dir / places.INTROSPECTION_SOCKET)

    def open(self) -> None:
        """Brings everything up. Raises StartError with what is in the way; then nothing is left of it."""
        try:
            self._open()
        except BaseException as error:
            self._stop_tasks = False  # whatever runs was not started by this life
            self._end()
            if isinstance(error, (DiskInUse, DiskFailed, ForeignState)):
                raise StartError(str(error)) from error
            if isinstance(error, OSError):
                raise StartError(str(error)) from error
            raise

    def close(self, stop_tasks: bool) -> None:
        """Takes everything down; tasks go on unless ``stop_tasks``. Again is nothing."""
        self._stop_tasks = stop_tasks
        self._hand_over()
        self._end()

    def _hand_over(self) -> None:
        """A manager that leads lets another one lead before it goes, so that nobody has to notice its absence first."""
        if self.stage is None:
            return
        question = self.stage.at(CONSENSUS).ask(TransferLeadership())
        with contextlib.suppress(Refused):  # it does not lead, or there is nobody to take over
            question.result(HAND_OVER_S)

    def _end(self) -> None:
        """Ends all parts, and with them the thread and the files that gRPC keeps for the whole process as long as one
        of its objects is left: those refer to each other, so only the collector finds that nobody has them."""
        try:
            self._parts.close()
        finally:
            self.stage = self.backend = self.watcher = self._cluster = None
            gc.collect()

    def _open(self) -> None:
        settings, parts = self.settings, self._parts
        longest = str(settings.run_dir / PrivateDirectory.LONGEST)
        for socket_path in (*settings.unix_sockets, self.introspection_socket, self._control_socket, longest):
            places.check_socket_path(socket_path)
        places.make_private(settings.run_dir, os.getuid())
        if settings.run_dir_is_ours:
            parts.callback(_remove_if_empty, settings.run_dir)
        disk = RealDisk(settings.state_dir)
        places.make_private(settings.state_dir, os.getuid())
        parts.callback(disk.files.lock().release)
        refuse_foreign(disk.files)
        loop = self._loop = IoLoop(f"{settings.name}-io").start()
        parts.callback(loop.stop)
        clock = settings.clock
        transport = GrpcTransport(loop, clock=clock.now, dial_from=settings.dial_from, run_dir=str(settings.run_dir))
        parts.callback(transport.close)
        executor = settings.executor.build(
            ExecutorPlace(loop, settings.state_dir / EXECUTOR_STATE, settings.run_dir, clock)
        )
        parts.callback(self._end_executor, executor)
        hostname = settings.hostname or host.hostname()
        proxy = IngressProxy(loop)
        parts.callback(lambda: self.run(proxy.close(), SERVERS_STOP_S))
        world = World(
            name=settings.name,
            clock=clock,
            transport=transport,
            https=LoopHttps(loop),
            disk=disk,
            executor=executor,
            settings={
                "hostname": hostname,
                "control_socket": self._control_socket,
                "remote_exec": settings.remote_exec,
            },
            host_subnets=self._host_subnets,
            ingress=proxy if forwards(executor.describe()) else None,
        )
        self.stage = Stage(world, name=settings.name, mark=secrets.randbits(20))
        parts.callback(self._end_stage, self.stage)
        if isinstance(executor, OnStage):
            executor.enter(self.stage)
            parts.callback(self._end_tasks_on_stage, executor, self.stage)
        self._cluster = self.stage.mount(
            "cluster", ClusterActor, self._cluster_settings(), FileClusterState(disk.files), self._node_class()
        )
        described, images = executor.describe(), images_of(settings.executor)
        system = host.system_info(hostname, settings.state_dir, settings.executor.name, described, images)
        self.backend = ClusterBackend(self._cluster, transport, self._control_socket, lambda: system, executor)
        parts.callback(loop.call_soon, self.backend.close)
        self._serve(self.backend, self.stage)

    def _host_subnets(self) -> list[IPNetwork]:
        """Where this machine is: around each of its addresses, and what its engine keeps for itself."""
        found = [each for each in self.settings.read_interfaces() if not each.loopback]
        own = [ipaddress.ip_network(str(address)) for each in found for address in each.addresses]
        return [*own, *self.settings.subnets()]

    def _serve(self, backend: ClusterBackend, stage: Stage) -> None:
        # The HTTP library reads the machine's authorities as it is loaded: meanwhile the actors start on their threads.
        from runtime.engine_api.pages import Page
        from runtime.engine_api.server import EngineServer

        settings = self.settings
        about = {"api": list(settings.unix_sockets)}
        watcher = self.watcher = IntrospectionServer(
            stage, self.introspection_socket, about=about, test_mode=settings.test_mode
        )
        self.run(watcher.start())
        self._parts.callback(lambda: self.run(watcher.stop(), SERVERS_STOP_S))
        pages = {"/metrics": Page(exposition.CONTENT_TYPE, watcher.metrics)}
        if settings.metrics is not None:
            self._serve_pages(*settings.metrics, pages)
        engine = EngineServer(
            backend,
            pages=pages,
            unix_paths=settings.unix_sockets,
            tls=settings.tls,
            group=settings.group or None,
            grace_s=REQUESTS_GRACE_S,
        )
        self.run(engine.start())
        self._parts.callback(lambda: self.run(engine.stop(), SERVERS_STOP_S))

    def _serve_pages(self, host_name: str, port: int, pages: Pages) -> None:
        try:
            exposition.require()
        except Refused as missing:
            raise StartError(missing.text) from None
        from runtime.engine_api.pages import PageServer

        server = PageServer(host_name, port, pages)
        self.run(server.start())
        self._parts.callback(lambda: self.run(server.stop(), SERVERS_STOP_S))
        self.metrics_address = server.address

    @property
    def _control_socket(self) -> str:
        return str(self.settings.run_dir / places.CONTROL_SOCKET)

    def _cluster_settings(self) -> ClusterSettings:
        settings = self.settings
        return ClusterSettings(
            name=settings.name,
            interfaces=settings.read_interfaces,
            managed_subnets=settings.subnets,
            free_port=host.free_port,
            source_address=host.source_address,
            default_advertise_addr=settings.default_advertise_addr,
            heartbeat_tick=settings.heartbeat_tick,
            election_tick=settings.election_tick,
        )

    def _node_class(self) -> type[Actor]:
        if self.settings.node_class is not None:
            return self.settings.node_class
        from actors.node_actor import NodeActor  # the whole swarm hangs on it

        return NodeActor

    def _end_stage(self, stage: Stage) -> None:
        if not stage.close(STAGE_STOP_S):
            log.error("some actors of %s did not end in time", self.settings.name)

    def _end_tasks_on_stage(self, executor: Executor, stage: Stage) -> None:
        """Tasks that live on the stage are stopped while there is one, but after the actors that might replace them."""
        stage.end(CLUSTER, STAGE_STOP_S)
        if self._stop_tasks:
            self._stop_all_tasks(executor)
            self._stop_tasks = False

    def _stop_all_tasks(self, executor: Executor) -> None:
        if not _wait(executor.stop_all, TASKS_STOP_S):
            log.error("some tasks of %s did not end within %g s", self.settings.name, TASKS_STOP_S)

    def _end_executor(self, executor: Executor) -> None:
        if self._stop_tasks:
            self._stop_all_tasks(executor)
        if not _wait(executor.close, EXECUTOR_CLOSE_S):
            log.error("the executor of %s did not let go within %g s", self.settings.name, EXECUTOR_CLOSE_S)

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Runs a coroutine on the node's loop and waits for it; raises what it raises, TimeoutError when late."""
        ended = threading.Event()
        outcome: list[T | BaseException] = []

        def done(result: T | BaseException) -> None:
            outcome.append(result)
            ended.set()

        cancel = self.loop.submit(work, done)
        if not ended.wait(timeout):
            cancel()
            raise TimeoutError(f"the loop of {self.settings.name} did not finish within {timeout:g} s")
        result = outcome[0]
        if isinstance(result, BaseException):
            raise result
        return result


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):  # tasks that were kept have their keeper's socket there
        directory.rmdir()


def _wait(begin: Callable[[Callable[[], None]], None], seconds: float) -> bool:
    """Begins something that says when it is done, and waits for that; whether it was done in time."""
    done = threading.Event()
    begin(done.set)
    return done.wait(seconds)
