"""The port's ``Channel`` over gRPC's core.

Rules owned here: what gRPC reports becomes ``Refused`` with its code and text; a connection that failed is explained
by the outbound splice, which knows why; each outcome is reported once; nothing keeps a connection alive artificially
(SwarmKit's peers answer keepalive with GOAWAY); a channel fails at once while it cannot connect, and tries again soon.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message

from runtime.errors import Code, NotSent, Refused
from runtime.wire.endings import cancelled
from runtime.wire.grpc_core_client import CoreChannel, Status
from runtime.wire.grpc_outgoing import Ended, Items, Outgoing, Request
from runtime.wire.grpc_upload import Pour, Queued, QueuedUpload
from runtime.wire.loop import IoLoop
from runtime.wire.originate import Originator
from runtime.wire.port import Cancel, Channel, Done, Headers, OnEnd, OnItem, Upload

logger = logging.getLogger("swarmlet.wire")

METADATA_MAX = 32 << 10
RECONNECT_MIN_MS = 100
RECONNECT_MAX_MS = 2000


def options(authority: str) -> tuple[tuple[str, Any], ...]:
    """A channel's options. Each has connections of its own: gRPC would share them by address alone."""
    return (
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_MAX),
        ("grpc.absolute_max_metadata_size", 2 * METADATA_MAX),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.default_authority", authority),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MIN_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
    )


class GrpcChannel(Channel):
    """Calls to one peer. ``address`` is the unix socket that gRPC dials: the originator's, or the peer's own.

    It opens with its first call, and is one task from then on: calls are none.
    """

    __slots__ = (
        "_address",
        "_authority",
        "_calls",
        "_closed",
        "_core",
        "_empty",
        "_forget",
        "_io_loop",
        "_life",
        "_lock",
        "_originator",
    )

    def __init__(
        self,
        io_loop: IoLoop,
        address: str,
        authority: str,
        originator: Originator | None,
        forget: Callable[[GrpcChannel], None],
    ) -> None:
        self._io_loop = io_loop
        self._address = address
        self._authority = authority
        self._originator = originator
        self._forget = forget
        self._lock = threading.Lock()
        self._closed = False
        self._calls: set[Outgoing] = set()
        self._core: CoreChannel | None = None
        self._life: asyncio.Task[None] | None = None
        self._empty: asyncio.Event | None = None  # there from the first call on

    @property
    def peer_certificate(self) -> bytes | None:
        return self._originator.peer_certificate if self._originator is not None else None

    def unary(self, method: str, request: Message, *, timeout: float, done: Done, metadata: Headers = ()) -> Cancel:
        return self._submit(Request(method, request, timeout, metadata, _answer_to(done)))

    def stream(
        self, method: str, request: Message, *, on_item: OnItem, on_end: OnEnd, metadata: Headers = ()
    ) -> Cancel:
        return self._submit(Items(method, request, metadata, on_item, _end_to(on_end)))

    def upload(self, method: str, *, done: Done, timeout: float | None = None, metadata: Headers = ()) -> Upload:
        queued = Queued(method, timeout, metadata, _answer_to(done))
        self._submit(queued)
        return QueuedUpload(self._io_loop, queued)

    def upload_items(
        self, method: str, items: Iterator[Message], *, item_timeout: float, done: Done, metadata: Headers = ()
    ) -> Cancel:
        return self._submit(Pour(method, items, item_timeout, metadata, _answer_to(done)))

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._io_loop.submit(self.shut())

    async def shut(self) -> None:
        """Ends what is under way, on the loop's thread, and waits for it."""
        self._closed = True
        self._forget(self)
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])

    def _submit(self, call: Outgoing) -> Cancel:
        if not self._io_loop.call_soon(lambda: self._start(call)):
            call.end(Refused(Code.CANCELLED, "the I/O loop has stopped"))
        return lambda: self._cancel(call)

    def _cancel(self, call: Outgoing) -> None:
        self._io_loop.call_soon(call.cancel)

    def _start(self, call: Outgoing) -> None:
        """Has a call set out, once the channel is open."""
        if self._closed:
            call.end(cancelled())
            return
        self._calls.add(call)
        call.gone = self._gone
        if self._core is not None:
            self._begin(self._core, call)
        elif self._life is None:
            self._empty = asyncio.Event()
            self._life = asyncio.get_running_loop().create_task(self._live(self._empty))

    def _begin(self, core: CoreChannel, call: Outgoing) -> None:
        before = self._connected()
        call.explain = lambda status, reason: self._explained(status, reason, before)
        call.begin(core)

    def _gone(self, call: Outgoing) -> None:
        self._calls.discard(call)
        if not self._calls and self._empty is not None:
            self._empty.set()

    async def _live(self, empty: asyncio.Event) -> None:
        """From the first call to the end of the channel, or of the loop."""
        try:
            await self._open()
            await asyncio.get_running_loop().create_future()  # until it is cancelled
        except OSError as error:
            logger.exception("no channel could be opened")
            self._life = None  # the next call tries again
            self._end_all(Refused(Code.INTERNAL, f"no channel could be opened: {error.strerror or error}"))
        except asyncio.CancelledError:
            self._closed = True
            self._end_all(cancelled())
            while self._calls:
                empty.clear()
                await empty.wait()
            if self._core is not None:
                self._core.close()
                self._core = None
            if self._originator is not None:
                await self._originator.close()

    async def _open(self) -> None:
        if self._originator is not None:
            await self._originator.start()
        self._core = core = CoreChannel(f"unix:{self._address}", options(self._authority))
        for call in list(self._calls):
            self._begin(core, call)

    def _end_all(self, reason: Refused) -> None:
        for call in list(self._calls):
            call.cancel(reason)

    def _connected(self) -> tuple[int, int]:
        """How many connections to the peer are there, and were so far; of one's own socket nothing is known."""
        originator = self._originator
        return (originator.connections, originator.joined) if originator is not None else (1, 0)

    def _explained(self, status: Status, reason: Refused | None, before: tuple[int, int]) -> Refused:
        """Why a call failed: ``reason`` on this side, or what gRPC says and the splice knows better."""
        failure = self._originator.failure if self._originator is not None else None
        if reason is not None:
            refused = reason
        elif status.code is Code.UNAVAILABLE and failure is not None:
            refused = Refused(status.code, failure)
        else:
            refused = Refused(status.code, status.details or status.code.title)
        never = before[0] == 0 and self._connected() == before
        return NotSent(refused.code, refused.text) if never else refused


def _answer_to(done: Done) -> Ended:
    """For calls whose good end is a message."""

    def ended(outcome: Message | Refused | None) -> None:
        assert outcome is not None
        done(outcome)

    return ended


def _end_to(on_end: OnEnd) -> Ended:
    """For streams, whose good end is none."""

    def ended(outcome: Message | Refused | None) -> None:
        assert not isinstance(outcome, Message)
        on_end(outcome)

    return ended
