"""The same node for asyncio: nothing here ever blocks the host's loop.

Rules it owns: questions are answered on the loop that asked; what must block (starting, stopping) runs on a thread that
lives just as long, so that none is left behind; a cancelled question is forgotten, a cancelled stop goes on to its end.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from google.protobuf.message import Message

from runtime.errors import Refused
from runtime.protocol import cluster as say
from runtime.protocol.cluster import SwarmInfo
from runtime.stage import Actor, Address, Answer, AskTimeout, Reply
from runtime.wire.pb import objects_pb2
from swarmlet import requests
from swarmlet.node import ASK_S, POLL_S, RECONFIGURE_S, UPDATE_TRIES, Node, TaskFate, is_ready, not_ready
from swarmlet.subscription import EVENTS_MAX, EventCallback, Subscription

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class AsyncNode:
    """A Node whose methods are awaited; arguments are those of Node. ``async with`` starts it and stops it."""

    def __init__(self, state_dir: str | os.PathLike[str], **settings: Any) -> None:
        self.node = Node(state_dir, **settings)

    async def start(self) -> AsyncNode:
        """As Node.start."""
        await _apart(self.node.start)
        return self

    async def stop(self, tasks: TaskFate = "stop") -> None:
        """As Node.stop; shielded from cancellation."""
        await asyncio.shield(asyncio.ensure_future(_apart(lambda: self.node.stop(tasks))))

    async def __aenter__(self) -> AsyncNode:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def init(self, *, listen: str = "", advertise: str = "", availability: str = "active") -> str:
        """As Node.init."""
        node = self.node
        request = requests.init_request(
            listen or node.listen, advertise or node.advertise, node.settings.default_advertise_addr, availability
        )
        return str(await self.ask(say.Init(request), RECONFIGURE_S))

    async def join(
        self, *remotes: str, token: str, listen: str = "", advertise: str = "", availability: str = "active"
    ) -> None:
        """As Node.join."""
        node = self.node
        request = requests.join_request(
            listen or node.listen, advertise or node.advertise, remotes, token, availability
        )
        await self.ask(say.Join(request), RECONFIGURE_S)

    async def leave(self, force: bool = False) -> None:
        """As Node.leave."""
        await self.ask(say.Leave(force), RECONFIGURE_S)

    async def update(self, change: requests.SpecChange | None = None, *, rotate: str = "") -> None:
        """As Node.update."""
        for attempt in range(1, UPDATE_TRIES + 1):
            try:
                await self.ask(requests.update_message(await self.inspect(), change, rotate))
                return
            except Refused as refused:
                if attempt == UPDATE_TRIES or not requests.out_of_sequence(refused):
                    raise

    async def inspect(self) -> objects_pb2.Cluster:
        """As Node.inspect."""
        cluster: objects_pb2.Cluster = await self.ask(say.Inspect())
        return cluster

    async def join_token(self, role: str = "worker") -> str:
        """As Node.join_token."""
        return requests.token_of(await self.inspect(), role)

    async def info(self) -> SwarmInfo:
        """As Node.info."""
        info: SwarmInfo = await self.ask(say.Info())
        return info

    async def wait_ready(self, timeout: float = 30.0) -> SwarmInfo:  # noqa: ASYNC109 - as Node.wait_ready
        """As Node.wait_ready."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not is_ready(info := await self.info(), self.node.assembly):
            if loop.time() >= deadline:
                raise TimeoutError(not_ready(info, timeout))
            await asyncio.sleep(POLL_S)
        return info

    async def read_barrier(self) -> int:
        """As Node.read_barrier."""
        return int(await self.ask(say.ReadBarrier()))

    async def control(self, method: str, request: Message, answer: type[M]) -> M:
        """As Node.control."""
        value = await self.ask(say.Control(method, request))
        assert isinstance(value, answer), f"{method} is answered by {type(value).__name__}"
        return value

    async def ask(self, message: Any, seconds: float = ASK_S) -> Any:
        """As Node.ask."""
        cluster = self.node.assembly.cluster
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def deliver(answer: Answer) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, future, answer)

        cluster.send(message, None, Reply(deliver), 0)
        try:
            async with asyncio.timeout(seconds):
                answer = await future
        except TimeoutError:
            raise AskTimeout(cluster.path, seconds) from None
        return answer.get()

    @property
    def running(self) -> bool:
        """As Node.running."""
        return self.node.running

    @property
    def api_socket(self) -> str:
        """As Node.api_socket."""
        return self.node.api_socket

    @property
    def introspection_socket(self) -> str:
        """As Node.introspection_socket."""
        return self.node.introspection_socket

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """As Node.metrics_address."""
        return self.node.metrics_address

    async def introspect(self, what: str, **details: Any) -> Any:
        """As Node.introspect."""
        assembly = self.node.assembly
        watcher = assembly.watcher
        assert watcher is not None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def done(outcome: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_arrive, future, outcome)

        cancel = assembly.loop.submit(watcher.answer({**details, "ask": what}), done)
        try:
            async with asyncio.timeout(ASK_S):
                return await future
        finally:
            cancel()

    def subscribe(self, on_event: EventCallback, *, capacity: int = EVENTS_MAX) -> Subscription:
        """As Node.subscribe: called on a thread; ``loop.call_soon_threadsafe`` leads to the loop."""
        return self.node.subscribe(on_event, capacity=capacity)

    def mount(self, name: str, actor: type[Actor], *arguments: Any) -> Address:
        """As Node.mount."""
        return self.node.mount(name, actor, *arguments)


def _arrive(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _settle(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


async def _apart(work: Callable[[], T]) -> T:
    """Runs something that blocks on a thread of its own. The loop's thread pool would outlive the node."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = (work(), None)
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            outcome = (None, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    thread = threading.Thread(target=run, name="swarmlet-apart", daemon=True)
    thread.start()
    value = await future
    thread.join()  # it has nothing left to do
    return value
