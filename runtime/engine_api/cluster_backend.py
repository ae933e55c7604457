"""The backend that asks the cluster: questions to the ClusterActor's address, logs over the local control socket.

Rules it owns:
- A change is one message. Once it is sent it is carried out, whether or not whoever asked still waits: so nothing is
  half-applied when a client hangs up.
- An address that nobody answers at is the engine's 503, in the engine's words; an answer that does not come is the
  deadline's error. Names and texts of actors stay inside.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api import local_logs, log_stream, remote_access
from runtime.engine_api.backend import CONTROL_TIMEOUT_S, SystemInfo
from runtime.engine_api.errors import ApiError, status_and_text
from runtime.engine_api.event_stream import EventStream
from runtime.engine_api.execs import Execs
from runtime.engine_api.questions import Landing, Questions
from runtime.errors import Code, Refused
from runtime.executor.inspection import NotShown, Showing
from runtime.protocol import cluster as say
from runtime.protocol.agent import AwaitTask, InspectTask
from runtime.protocol.cluster import ClusterError, InitRequest, JoinRequest, SwarmInfo
from runtime.stage.answers import ActorUnavailable

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runtime.executor.inspection import Look
    from runtime.protocol.agent import Until
    from runtime.protocol.cluster import SwarmEvent
    from runtime.stage.address import Address
    from runtime.wire.pb.control_pb2 import KeyRotation
    from runtime.wire.pb.logs_pb2 import LogSubscriptionOptions, SubscribeLogsMessage, SubscribeLogsRequest
    from runtime.wire.pb.objects_pb2 import Cluster, Task
    from runtime.wire.pb.specs_pb2 import ClusterSpec
    from runtime.wire.pb.types_pb2 import TaskStatus
    from runtime.wire.port import Channel, Transport

RECONFIGURE_TIMEOUT_S: Final = 30.0
"""For init, join, leave and unlock: a join alone may take 20 s, and each waits until the one before it is over."""
STATUS_TIMEOUT_S: Final = 2.0
"""For a ping, which clients send before everything else and soon give up."""
AGAIN_S: Final = 0.2
RESTARTING: Final = "The cluster layer of this daemon is starting again, please try again in a moment."


class ClusterBackend:
    """``Backend`` over ``cluster``, the address of a ClusterActor. All methods belong to one event loop.

    ``control_socket`` is the path of this node's control socket, ``system`` tells of the host whenever it is asked,
    ``executor`` is who runs the tasks.
    """

    def __init__(
        self,
        cluster: Address,
        transport: Transport,
        control_socket: str,
        system: Callable[[], SystemInfo],
        executor: object = None,
    ) -> None:
        self._cluster = cluster
        self._transport = transport
        self._control_socket = control_socket
        self._system = system
        self._engine = executor if isinstance(executor, Showing) else None
        self._landing: Landing | None = None
        self._questions: Questions | None = None
        self._logs_channel: Channel | None = None
        self._access_channel: Channel | None = None
        self.execs = Execs()

    @property
    def landing(self) -> Landing:
        """As ``Backend.landing``."""
        if self._landing is None:
            self._begin()
        assert self._landing is not None
        return self._landing

    def close(self) -> None:
        """Ends log subscriptions and commands, and forgets the connections to the control socket."""
        self.execs.close()
        if self._logs_channel is not None:
            self._logs_channel.close()
            self._logs_channel = None
        if self._access_channel is not None:
            self._access_channel.close()
            self._access_channel = None

    async def _ask(self, message: Any, seconds: float = CONTROL_TIMEOUT_S, absent: str = RESTARTING) -> Any:
        try:
            return await (self._questions or self._begin()).ask(self._cluster, message, seconds)
        except ActorUnavailable:
            raise ClusterError("unavailable", absent) from None

    def _begin(self) -> Questions:
        loop = asyncio.get_running_loop()
        self._landing = Landing(loop)
        self._questions = Questions(loop, self._landing)
        return self._questions

    async def control(self, method: str, request: Message, timeout_s: float = CONTROL_TIMEOUT_S) -> Message:
        """As ``Backend.control``; without a manager that answers, the engine's text of a manager that starts."""
        answer: Message = await self._ask(say.Control(method, request), timeout_s, say.NOT_MANAGER_STARTING)
        return answer

    async def read_barrier(self) -> None:
        """As ``Backend.read_barrier``."""
        await self._ask(say.ReadBarrier(), CONTROL_TIMEOUT_S, say.NOT_MANAGER_STARTING)

    async def swarm_init(self, request: InitRequest) -> str:
        """As ``Backend.swarm_init``."""
        return str(await self._ask(say.Init(request), RECONFIGURE_TIMEOUT_S))

    async def swarm_join(self, request: JoinRequest) -> None:
        """As ``Backend.swarm_join``."""
        await self._ask(say.Join(request), RECONFIGURE_TIMEOUT_S)

    async def swarm_leave(self, force: bool) -> None:
        """As ``Backend.swarm_leave``."""
        await self._ask(say.Leave(force), RECONFIGURE_TIMEOUT_S)

    async def swarm_update(self, version: int, spec: ClusterSpec, rotation: KeyRotation) -> None:
        """As ``Backend.swarm_update``."""
        await self._ask(say.Update(version, spec, rotation), absent=say.NOT_MANAGER_STARTING)

    async def swarm_inspect(self) -> Cluster:
        """As ``Backend.swarm_inspect``."""
        cluster: Cluster = await self._ask(say.Inspect(), absent=say.NOT_MANAGER_STARTING)
        return cluster

    async def swarm_unlock(self, key: str) -> None:
        """As ``Backend.swarm_unlock``."""
        await self._ask(say.Unlock(key), RECONFIGURE_TIMEOUT_S)

    async def swarm_unlock_key(self) -> str:
        """As ``Backend.swarm_unlock_key``."""
        return str(await self._ask(say.UnlockKey(), absent=say.NOT_MANAGER_STARTING))

    async def swarm_info(self) -> SwarmInfo:
        """As ``Backend.swarm_info``: a cluster layer that does not answer is state ``error`` with its reason."""
        try:
            info: SwarmInfo = await self._ask(say.Info())
        except Refused as refused:
            return SwarmInfo(local_node_state="error", error=status_and_text(refused)[1])
        return info

    async def swarm_status(self) -> str:
        """As ``Backend.swarm_status``."""
        try:
            return str(await self._ask(say.Status(), STATUS_TIMEOUT_S))
        except Refused:
            return ""

    async def system(self) -> SystemInfo:
        """The host and this daemon."""
        return self._system()

    @property
    def has_engine(self) -> bool:
        """As ``Backend.has_engine``."""
        return self._engine is not None

    async def engine(self, path: str, query: Mapping[str, str]) -> Any:
        """As ``Backend.engine``."""
        if self._engine is None:
            return None
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        landing = self.landing
        work = self._engine.show(path, query, lambda result: landing.put(lambda value: _told(told, value), result))
        try:
            shown = await told
        finally:
            work.cancel()
        if isinstance(shown, NotShown):
            raise ApiError(shown.status, shown.text)
        if isinstance(shown, Refused):
            raise shown
        return shown

    async def local_network(self, term: str) -> str | None:
        """None: this daemon makes no networks of its own."""
        return None

    async def logs(self, request: SubscribeLogsRequest) -> AsyncIterator[SubscribeLogsMessage]:
        """As ``Backend.logs``, from this node's own manager, which passes on to the leader."""
        if self._landing is None:
            self._begin()
        assert self._landing is not None
        if self._logs_channel is None:
            self._logs_channel = self._transport.connect("unix:" + self._control_socket, None)
        batches = log_stream.subscribe(self._logs_channel, self._landing, request)
        async with contextlib.aclosing(batches):  # type: ignore[type-var]
            async for batch in batches:
                yield batch

    async def local_logs(self, task: Task, options: LogSubscriptionOptions) -> AsyncIterator[SubscribeLogsMessage]:
        """As ``Backend.local_logs``."""
        if self._landing is None:
            self._begin()
        assert self._landing is not None
        lines = local_logs.read(self._ask, self._landing, task, options)
        async with contextlib.aclosing(lines):  # type: ignore[type-var]
            async for batch in lines:
                yield batch

    async def look(self, task: Task, question: Look) -> Any:
        """As ``Backend.look``."""
        return await self._ask(say.ToTask(task.id, InspectTask(question)))

    async def look_elsewhere(self, task: Task, question: Look | None) -> Any:
        """As ``Backend.look_elsewhere``, by way of this node's own manager, which passes on to the leader."""
        landing = self.landing
        if self._access_channel is None:
            self._access_channel = self._transport.connect("unix:" + self._control_socket, None)
        return await remote_access.ask(self._access_channel, landing, task.id, question)

    async def await_task(self, task: Task, until: Until) -> int:
        """As ``Backend.await_task``: asked again when a life of the task's actor ends before the task does."""
        while True:
            code = await self._await_once(task, until)
            if code is not None:
                return code
            await asyncio.sleep(AGAIN_S)

    async def _await_once(self, task: Task, until: Until) -> int | None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int | None] = loop.create_future()
        questions = self._questions or self._begin()
        assert self._landing is not None
        landing = self._landing

        def on_end(code: int | None) -> None:
            landing.put(lambda value: _told(ended, value), code)

        cancel = None
        try:
            question = say.ToTask(task.id, AwaitTask(until, on_end))
            cancel = await questions.ask(self._cluster, question, CONTROL_TIMEOUT_S)
            return await ended
        except ActorUnavailable:
            return None
        except Refused as refused:
            if refused.code is Code.NOT_FOUND:
                return 0  # it was removed meanwhile
            raise
        finally:
            if cancel is not None:
                cancel()

    async def events(self, since_ns: int | None, until_ns: int | None) -> AsyncIterator[SwarmEvent]:
        """As ``Backend.events``."""
        if self._landing is None:
            self._begin()
        assert self._landing is not None
        stream = EventStream(self._landing)
        try:
            await self._ask(say.SubscribeEvents(stream, since_ns))
            async for event in stream.read(until_ns):
                yield event
        finally:
            self._cluster.tell(say.UnsubscribeEvents(stream))

    async def local_tasks(self) -> Sequence[tuple[Task, TaskStatus]]:
        """As ``Backend.local_tasks``."""
        tasks: Sequence[tuple[Task, TaskStatus]] = await self._ask(say.LocalTasks())
        return tasks


def _told(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
