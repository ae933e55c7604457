"""The port's server over ``grpc.aio``: generic handlers, no generated service code.

Rules owned here: messages cross gRPC as bytes and are parsed here, so that a malformed one is an answer and not a
crash; authorisation comes first; no exception of a handler ends the process or leaves a caller waiting; a request is
at most 4 MiB, answers have no limit; the open calls of one connection are bounded by who it is, so that one peer's
long polls cannot fill the server.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from runtime.errors import Code, Refused
from runtime.wire.answering import malformed, serve_call
from runtime.wire.authorise import Peer, authorise, metadata_of, visible
from runtime.wire.endings import cancelled
from runtime.wire.inbound import Ending, InboundCall
from runtime.wire.loop import IoLoop
from runtime.wire.port import MANAGER, Access, Identity, Metadata, Route, Routes, StreamLimits
from runtime.wire.services import METHODS, Method

RECEIVE_MAX = 4 << 20
METADATA_MAX = 32 << 10
DETAILS_MAX = 4096
OPEN_CALLS_MEMBER = 512
OPEN_CALLS_ANONYMOUS = 16
STATUS: Mapping[int, grpc.StatusCode] = {status.value[0]: status for status in grpc.StatusCode}
OPTIONS = (
    ("grpc.max_receive_message_length", RECEIVE_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 65536),
    ("grpc.max_metadata_size", METADATA_MAX),
    ("grpc.absolute_max_metadata_size", 2 * METADATA_MAX),
    ("grpc.so_reuseport", 0),
    ("grpc.enable_http_proxy", 0),
)


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the handler of a call. ``peer_of`` names the caller behind what gRPC reports as its peer; None for a
    connection that did not come through the front."""

    def __init__(
        self,
        io_loop: IoLoop,
        routes: Routes,
        access: Callable[[], Access],
        limits: StreamLimits,
        peer_of: Callable[[str], Peer | None],
    ) -> None:
        self._io_loop = io_loop
        self._access = access
        self._limits = limits
        self._peer_of = peer_of
        self._open: collections.Counter[str] = collections.Counter()
        self._handlers = {path: self._handler(METHODS[path], route) for path, route in routes.items()}

    @property
    def open_calls(self) -> int:
        """How many calls are under way."""
        return self._open.total()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """As gRPC asks; None answers UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)

    def _handler(self, method: Method, route: Route) -> grpc.RpcMethodHandler:
        async def unary(payload: bytes, context: grpc.aio.ServicerContext) -> bytes | None:
            return await self._serve(method, route, payload, context)

        async def stream(payload: bytes, context: grpc.aio.ServicerContext) -> None:
            await self._serve(method, route, payload, context)

        async def upload(_: Any, context: grpc.aio.ServicerContext) -> bytes | None:
            return await self._serve(method, route, None, context)

        if method.client_streaming:
            assert not method.server_streaming, f"{method.path} streams both ways"
            return grpc.stream_unary_rpc_method_handler(upload)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    async def _serve(
        self, method: Method, route: Route, payload: bytes | None, context: grpc.aio.ServicerContext
    ) -> bytes | None:
        """One call from its arrival to its answer."""
        name = context.peer()
        self._open[name] += 1
        try:
            call = _Served(self._io_loop)
            try:
                call.inbound = self._admit(method, route, payload, context, call.wake, name)
            except Refused as refused:
                await _abort(context, refused)
            return await call.run(route, context, method)
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]

    def _admit(
        self,
        method: Method,
        route: Route,
        payload: bytes | None,
        context: grpc.aio.ServicerContext,
        wake: Callable[[], None],
        name: str,
    ) -> InboundCall:
        peer = self._peer_of(name)
        if peer is None:
            raise Refused(Code.UNAVAILABLE, "the connection is gone")
        metadata = metadata_of(context.invocation_metadata() or ())
        identity = authorise(peer, metadata, route.roles, self._access())
        self._check_open(name, identity, peer)
        request = _parse(method, payload)
        return InboundCall(method, request, identity, _seen(metadata), self._limits, wake)

    def _check_open(self, name: str, identity: Identity, peer: Peer) -> None:
        """Bounds the calls of one connection; a manager's carries those of many workers and is not bounded."""
        if identity.local or identity.role == MANAGER or (identity.forwarded and peer.subject is not None):
            return
        most = OPEN_CALLS_MEMBER if identity.role else OPEN_CALLS_ANONYMOUS
        if self._open[name] > most:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"more than {most} calls are open on this connection")


@dataclasses.dataclass(slots=True, eq=False)
class _Served:
    """One call under way: moves pieces from the handler's side to gRPC's."""

    io_loop: IoLoop
    inbound: InboundCall = dataclasses.field(init=False)
    _event: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    _reader: asyncio.Task[None] | None = None
    _confirming: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """From any thread."""
        self.io_loop.call_soon(self._event.set)

    async def run(self, route: Route, context: grpc.aio.ServicerContext, method: Method) -> bytes | None:
        """Runs the handler and carries its answer; a cancel of gRPC's (the caller went, its time is up, the server
        closes) reaches the handler."""
        try:
            serve_call(route.handler, self.inbound)
            return await self._carry(context, method)
        finally:
            self.inbound.cancelled()
            if self._reader is not None:
                self._reader.cancel()
            elif self.inbound.receiver is not None:
                self.inbound.receiver.end(cancelled())

    async def _carry(self, context: grpc.aio.ServicerContext, method: Method) -> bytes | None:
        answer: bytes | None = None
        while True:
            if self._reader is None and self.inbound.receiver is not None:
                self._reader = asyncio.get_running_loop().create_task(self._read(context, method))
            piece = self.inbound.take()
            if piece is None:
                self._event.clear()
                await self._event.wait()
            elif isinstance(piece, Ending):
                if self._confirming is not None:
                    await asyncio.wait([self._confirming])
                if piece.refused is not None:
                    await _abort(context, piece.refused)
                return answer
            elif method.server_streaming:
                await context.write(piece)
            else:
                answer = piece

    async def _read(self, context: grpc.aio.ServicerContext, method: Method) -> None:
        """Hands the items of an upload to its receiver until it ends, fails or is answered."""
        receiver = self.inbound.receiver
        assert receiver is not None
        refused: Refused | None = cancelled()
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                receiver.item(method.request.FromString(data))
            await self._confirm_end(context)
            refused = None
        except DecodeError:
            refused = malformed(method.path)
            self.inbound.fail(refused)
        except grpc.aio.BaseError:
            pass  # reported as cancelled
        finally:
            receiver.end(refused)

    async def _confirm_end(self, context: grpc.aio.ServicerContext) -> None:
        """Makes sure that the end of an upload is the caller's and not a broken call's.

        gRPC reads the same end of items for both, and tells of a cancel only later: a receiver that believed it
        would take half a snapshot for a whole one. Sending the initial metadata settles it. A call that broke has
        closed both directions at once, so that this fails; one that was finished still has its answer to get.
        The answer waits for it, because gRPC allows the metadata once.
        """
        self._confirming = asyncio.ensure_future(context.send_initial_metadata(()))
        self._confirming.add_done_callback(_look_at)
        await asyncio.shield(self._confirming)


def _look_at(future: asyncio.Future[None]) -> None:
    """Takes note of an exception that the reader may not wait for any more."""
    if not future.cancelled():
        future.exception()


def _parse(method: Method, payload: bytes | None) -> Message | None:
    if payload is None:
        return None
    try:
        return method.request.FromString(payload)
    except DecodeError:
        raise malformed(method.path) from None


def _seen(metadata: Metadata) -> Metadata:
    """What handlers see, without what belongs to HTTP and gRPC."""
    return {key: values for key, values in visible(metadata).items() if key != "user-agent"}


async def _abort(context: grpc.aio.ServicerContext, refused: Refused) -> None:
    """Ends the call with a refusal: always raises."""
    code = refused.code if refused.code is not Code.OK else Code.INTERNAL
    await context.abort(STATUS[int(code)], _shortened(refused.text))


def _shortened(text: str) -> str:
    """A text that fits into a header: gRPC turns each byte that is not plain ASCII into three."""
    return text.encode()[:DETAILS_MAX].decode(errors="ignore")
