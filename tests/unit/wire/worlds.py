"""Two worlds under one face, so that one suite holds for both transports: virtual time in memory, and real sockets."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from runtime.errors import Refused
from runtime.wire.grpc_transport import GrpcTransport
from runtime.wire.loop import IoLoop
from runtime.wire.memory import MemoryNetwork
from runtime.wire.port import Access, Call, Channel, Credentials, Handler, Server, StreamLimits
from runtime.wire.services import routes
from tests.unit.wire.authority import CLUSTER, authority


class VirtualTime:
    """A queue of callbacks in order of time; ties in order of their scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran = 0
        self._start = time.time()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def schedule(self, delay: float, fn: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._order), fn))

    def clock(self) -> float:
        """Unix seconds."""
        return self._start + self.now

    def step(self) -> bool:
        """Runs the next callback; False if there is none."""
        if not self._queue:
            return False
        self.now, _, fn = heapq.heappop(self._queue)
        self.ran += 1
        fn()
        return True

    def run(self, seconds: float) -> None:
        """Runs what falls into the next ``seconds``."""
        until = self.now + seconds
        while self._queue and self._queue[0][0] <= until:
            self.step()
        self.now = until


class Outcome:
    """Collects what a call reports."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.results: list[Any] = []

    def item(self, message: Message) -> None:
        assert not self.results, "an item after the end"
        self.items.append(message)

    def done(self, result: Message | Refused | None) -> None:
        self.results.append(result)

    @property
    def result(self) -> Any:
        """The one result."""
        assert len(self.results) == 1, self.results
        return self.results[0]

    @property
    def over(self) -> bool:
        return bool(self.results)


class World:
    """What the shared suite needs of a transport."""

    patience = 5.0
    """Seconds of its time after which something that has not happened never will."""

    def transport(self, name: str) -> Any:
        raise NotImplementedError

    def address(self, name: str) -> str:
        """Where a node of that name listens, with port 0."""
        raise NotImplementedError

    def wait(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Lets things happen until the condition holds; fails after ``seconds``, or when patience is at its end."""
        raise NotImplementedError

    def settle(self) -> None:
        """Lets what is under way arrive."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def serve(
        self,
        handlers: dict[str, Handler],
        *,
        credentials: Credentials | None = None,
        access: Callable[[], Access] = lambda: Access(CLUSTER),
        limits: StreamLimits | None = None,
        name: str = "server",
    ) -> Server:
        return self.transport(name).serve(  # type: ignore[no-any-return]
            self.address(name),
            routes(handlers),
            access=access,
            credentials=credentials or authority().manager(),
            limits=limits or StreamLimits(),
        )

    def connect(self, server: Server, credentials: Credentials | None, name: str = "client", **how: Any) -> Channel:
        return self.transport(name).connect(server.address, credentials, **how)  # type: ignore[no-any-return]

    def ask(
        self, channel: Channel, method: str, request: Message, *, timeout: float | None = None, metadata: Any = ()
    ) -> Any:
        """One unary call to its end."""
        outcome, deadline = Outcome(), self.patience if timeout is None else timeout
        channel.unary(method, request, timeout=deadline, done=outcome.done, metadata=metadata)
        self.wait(lambda: outcome.over, deadline + self.patience)
        return outcome.result


class MemoryWorld(World):
    def __init__(self, seed: int = 1, **settings: Any) -> None:
        self.time = VirtualTime()
        self.network = MemoryNetwork(self.time.schedule, random.Random(seed), clock=self.time.clock, **settings)
        self._transports: dict[str, Any] = {}

    def transport(self, name: str) -> Any:
        if name not in self._transports:
            self._transports[name] = self.network.transport(name)
        return self._transports[name]

    def crash(self, name: str) -> None:
        self.network.crash(name)
        del self._transports[name]

    def address(self, name: str) -> str:
        return f"{name}:0"

    def wait(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        until = self.time.now + (self.patience if seconds is None else seconds)
        while not condition():
            assert self.time.now <= until, f"not within {seconds or self.patience} s"
            assert self.time.step(), "nothing more will happen"

    def settle(self) -> None:
        self.time.run(0.1)

    def close(self) -> None:
        pass


class SocketWorld(World):
    patience = 30.0  # of real seconds, on a machine that may be busy

    def __init__(self) -> None:
        self.io = IoLoop("test-io").start()
        self._transports: dict[str, GrpcTransport] = {}

    def transport(self, name: str) -> GrpcTransport:
        if name not in self._transports:
            self._transports[name] = GrpcTransport(self.io)
        return self._transports[name]

    def address(self, name: str) -> str:
        return "127.0.0.1:0"

    def wait(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        until = time.monotonic() + (self.patience if seconds is None else seconds)
        while not condition():
            assert time.monotonic() < until, f"not within {seconds or self.patience} s"
            self.settle()

    def settle(self) -> None:
        """A round of the loop: everything that it had to do before is done."""
        passed = threading.Event()
        self.io.loop.call_soon_threadsafe(lambda: self.io.loop.call_later(0.002, passed.set))
        assert passed.wait(self.patience)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()
        self.io.stop()


class Recorder:
    """A handler that keeps its calls for the test to answer."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.cancelled: list[Call] = []

    def __call__(self, call: Call) -> None:
        call.on_cancel(lambda: self.cancelled.append(call))
        self.calls.append(call)
