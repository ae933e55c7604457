"""The port's ``Channel`` over ``grpc.aio``.

Rules owned here: what gRPC reports becomes ``Refused`` with its code and text; a connection that failed is explained
by the outbound splice, which knows why; each outcome is reported once; nothing keeps a connection alive artificially
(SwarmKit's peers answer keepalive with GOAWAY); a channel fails at once while it cannot connect, and tries again soon;
an upload that ends well without an answer has an empty one (so SwarmKit ends PublishLogs).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from runtime.errors import Code, NotSent, Refused
from runtime.wire.endings import cancelled
from runtime.wire.grpc_upload import GrpcUpload, pour
from runtime.wire.loop import IoLoop
from runtime.wire.originate import Originator
from runtime.wire.port import Cancel, Channel, Done, Headers, OnEnd, OnItem, Upload
from runtime.wire.services import METHODS, Method

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
    """Calls to one peer. ``address`` is the unix socket that gRPC dials: the originator's, or the peer's own."""

    __slots__ = (
        "_address",
        "_authority",
        "_channel",
        "_closed",
        "_forget",
        "_io_loop",
        "_lock",
        "_opening",
        "_originator",
        "_stubs",
        "_tasks",
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
        self._channel: grpc.aio.Channel | None = None
        self._opening: asyncio.Lock | None = None
        self._stubs: dict[tuple[str, bool], Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def peer_certificate(self) -> bytes | None:
        return self._originator.peer_certificate if self._originator is not None else None

    def unary(self, method: str, request: Message, *, timeout: float, done: Done, metadata: Headers = ()) -> Cancel:
        payload = request.SerializeToString(deterministic=True)

        async def run() -> Message:
            stub = await self._stub(method, one_item=True)
            cut_off, joined = self._cut_off()
            try:
                answer: Message = await stub(payload, timeout=timeout, metadata=tuple(metadata))
            except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
                refused = self._refused(method, error)
                if cut_off and self._cut_off() == (True, joined):
                    refused = NotSent(refused.code, refused.text)
                raise refused from None
            return answer

        return self._submit(run(), lambda outcome: done(self._single(method, outcome)))

    def stream(
        self, method: str, request: Message, *, on_item: OnItem, on_end: OnEnd, metadata: Headers = ()
    ) -> Cancel:
        payload = request.SerializeToString(deterministic=True)

        async def run() -> None:
            stub = await self._stub(method)
            call = stub(payload, metadata=tuple(metadata))
            try:
                async for item in call:
                    on_item(item)
            finally:
                call.cancel()

        def ended(outcome: BaseException | None) -> None:
            on_end(None if outcome is None else self._refused(method, outcome))

        return self._submit(run(), ended)

    def upload(self, method: str, *, done: Done, timeout: float | None = None, metadata: Headers = ()) -> Upload:
        upload = GrpcUpload(self._io_loop, method)

        async def run() -> Message:
            stub = await self._stub(method)
            call = stub(timeout=timeout, metadata=tuple(metadata))
            try:
                return await upload.run(call)
            finally:
                call.cancel()

        upload.cancel_call = self._submit(run(), lambda outcome: done(upload.over(self._single(method, outcome))))
        return upload

    def upload_items(
        self, method: str, items: Iterator[Message], *, item_timeout: float, done: Done, metadata: Headers = ()
    ) -> Cancel:
        async def run() -> Message:
            stub = await self._stub(method)
            call = stub(metadata=tuple(metadata))
            try:
                return await pour(call, items, item_timeout)
            finally:
                call.cancel()

        return self._submit(run(), lambda outcome: done(self._single(method, outcome)))

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
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._channel is not None:
            await self._channel.close()
        if self._originator is not None:
            await self._originator.close()

    def _cut_off(self) -> tuple[bool, int]:
        """Whether no connection to the peer is there, and how many there were so far."""
        originator = self._originator
        return (originator.connections == 0, originator.joined) if originator is not None else (False, 0)

    def _submit(self, coro: Any, done: Callable[[Any], None]) -> Cancel:
        async def tracked() -> Any:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                return await coro
            finally:
                self._tasks.discard(task)

        def finished(outcome: Any) -> None:
            coro.close()  # a task that was cancelled before it began has not touched it
            done(outcome)

        return self._io_loop.submit(tracked(), finished)

    async def _stub(self, method: str, *, one_item: bool = False) -> Any:
        """gRPC's callable for a method; opens the channel on the first use."""
        if self._closed:
            raise cancelled()
        if self._channel is None:
            await self._open()
        stub = self._stubs.get((method, one_item))
        if stub is None:
            stub = self._stubs[method, one_item] = self._make_stub(METHODS[method], one_item)
        return stub

    async def _open(self) -> None:
        self._opening = self._opening or asyncio.Lock()
        async with self._opening:
            if self._channel is not None or self._closed:
                return
            if self._originator is not None:
                await self._originator.start()
            self._channel = grpc.aio.insecure_channel(f"unix:{self._address}", options=options(self._authority))

    def _make_stub(self, method: Method, one_item: bool) -> Any:
        if self._channel is None:
            raise cancelled()
        if method.client_streaming:
            kind = self._channel.unary_unary if one_item else self._channel.stream_unary
            return kind(method.path, response_deserializer=lambda data: method.response.FromString(data or b""))
        kind = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        return kind(method.path, response_deserializer=method.response.FromString)

    def _single(self, method: str, outcome: Message | BaseException) -> Message | Refused:
        return outcome if isinstance(outcome, Message) else self._refused(method, outcome)

    def _refused(self, method: str, error: BaseException) -> Refused:
        """An exception as the port says it."""
        if isinstance(error, Refused):
            return error
        if isinstance(error, asyncio.CancelledError):
            return cancelled()
        if isinstance(error, grpc.aio.AioRpcError):
            return self._explained(error)
        if isinstance(error, RuntimeError) and not self._io_loop.running:
            return Refused(Code.CANCELLED, "the I/O loop has stopped")
        logger.error("a call of %s failed", method, exc_info=error)
        return Refused(Code.INTERNAL, f"the call of {method} failed with {type(error).__name__}")

    def _explained(self, error: grpc.aio.AioRpcError) -> Refused:
        code = Code(error.code().value[0])
        failure = self._originator.failure if self._originator is not None else None
        if code is Code.UNAVAILABLE and failure is not None:
            return Refused(code, failure)
        return Refused(code, error.details() or code.title)
