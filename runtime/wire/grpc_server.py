"""The port's server over gRPC's core: generic handlers, no generated service code.

Rules owned here: messages cross gRPC as bytes and are parsed here, so that a malformed one is an answer and not a
crash; authorisation comes first; no exception of a handler ends the process or leaves a caller waiting; a request is
at most 4 MiB, answers have no limit; the open calls of one connection are bounded by who it is, so that one peer's
long polls cannot fill the server.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from runtime.errors import Code, Refused
from runtime.wire.answering import malformed, serve_call
from runtime.wire.authorise import Peer, authorise, metadata_of, visible
from runtime.wire.endings import cancelled
from runtime.wire.grpc_core import CoreCall
from runtime.wire.inbound import Ending, InboundCall
from runtime.wire.port import MANAGER, Access, Identity, Metadata, Route, Routes, StreamLimits
from runtime.wire.services import METHODS, Method

logger = logging.getLogger("swarmlet.wire")

RECEIVE_MAX = 4 << 20
METADATA_MAX = 32 << 10
DETAILS_MAX = 4096
OPEN_CALLS_MEMBER = 512
OPEN_CALLS_ANONYMOUS = 16
OPTIONS = (
    ("grpc.max_receive_message_length", RECEIVE_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 65536),
    ("grpc.max_metadata_size", METADATA_MAX),
    ("grpc.absolute_max_metadata_size", 2 * METADATA_MAX),
    ("grpc.so_reuseport", 0),
    ("grpc.enable_http_proxy", 0),
)


class Service:
    """Finds the handler of a call. ``peer_of`` names the caller behind what gRPC reports as its peer; None for a
    connection that did not come through the front."""

    def __init__(
        self,
        routes: Routes,
        access: Callable[[], Access],
        limits: StreamLimits,
        peer_of: Callable[[str], Peer | None],
    ) -> None:
        self._routes = {path: (METHODS[path], route) for path, route in routes.items()}
        self._access = access
        self._limits = limits
        self._peer_of = peer_of
        self._open: collections.Counter[str] = collections.Counter()

    @property
    def open_calls(self) -> int:
        """How many calls are under way."""
        return self._open.total()

    def begin(self, core: CoreCall) -> None:
        """One call has arrived."""
        found = self._routes.get(core.method)
        served = _Served(core, found[0] if found is not None else None)
        core.on_close(lambda: self._closed(served))
        if found is None:
            served.refuse(Refused(Code.UNIMPLEMENTED, "Method not found!"))
        elif found[0].client_streaming:
            self._serve(served, *found, None)
        else:
            core.receive(lambda payload: self._serve(served, *found, payload))

    def _closed(self, served: _Served) -> None:
        served.closed()
        if served.counted:
            name = served.core.peer
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]

    def _serve(self, served: _Served, method: Method, route: Route, payload: bytes | None) -> None:
        if served.gone:
            return  # its caller gave up before it had said what it wants
        served.counted = True
        self._open[served.core.peer] += 1
        try:
            inbound = self._admit(served, method, route, payload)
        except Refused as refused:
            served.refuse(refused)
        except Exception as error:
            logger.exception("%s could not be admitted", method.path)
            served.refuse(Refused(Code.INTERNAL, f"{method.path} failed with {type(error).__name__}"))
        else:
            served.run(inbound, route)

    def _admit(self, served: _Served, method: Method, route: Route, payload: bytes | None) -> InboundCall:
        core = served.core
        peer = self._peer_of(core.peer)
        if peer is None:
            raise Refused(Code.UNAVAILABLE, "the connection is gone")
        metadata = metadata_of(core.metadata)
        identity = authorise(peer, metadata, route.roles, self._access())
        self._check_open(core.peer, identity, peer)
        request = None if method.client_streaming else _parse(method, payload)
        return InboundCall(method, request, identity, _seen(metadata), self._limits, served.wake)

    def _check_open(self, name: str, identity: Identity, peer: Peer) -> None:
        """Bounds the calls of one connection; a manager's carries those of many workers and is not bounded."""
        if identity.local or identity.role == MANAGER or (identity.forwarded and peer.subject is not None):
            return
        most = OPEN_CALLS_MEMBER if identity.role else OPEN_CALLS_ANONYMOUS
        if self._open[name] > most:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"more than {most} calls are open on this connection")


class _Served:
    """One call under way: moves pieces from the handler's side to gRPC's. What gRPC reports comes on the server's
    thread, ``wake`` from any."""

    __slots__ = (
        "_answer",
        "_ended",
        "_inbound",
        "_lock",
        "_method",
        "_reading",
        "_sending",
        "core",
        "counted",
        "gone",
    )

    def __init__(self, core: CoreCall, method: Method | None) -> None:
        self.core = core
        self.counted = False
        self.gone = False  # nobody hears anything more
        self._method = method
        self._lock = threading.Lock()
        self._inbound: InboundCall | None = None
        self._answer: bytes | None = None
        self._reading = False
        self._sending = False
        self._ended = False  # the last word was said

    def run(self, inbound: InboundCall, route: Route) -> None:
        """Gives the call to its handler."""
        self._inbound = inbound
        serve_call(route.handler, inbound)

    def closed(self) -> None:
        """The call is over. Where the caller went, its time was up or the server closes, the handler hears of it."""
        self.gone = True
        if self._inbound is not None:
            self._inbound.cancelled()
            if self._inbound.receiver is not None:
                self._inbound.receiver.end(cancelled())

    def refuse(self, refused: Refused) -> None:
        """Ends a call that no handler has seen."""
        with self._lock:
            self._end(refused)

    def wake(self) -> None:
        """Starts what can be started; what is under way looks again when it is over."""
        with self._lock:
            if not self._reading and self._inbound is not None and self._inbound.receiver is not None:
                self._reading = True
                self.core.receive(self._came)
            if not self._sending:
                self._send_next()

    def _send_next(self) -> None:
        assert self._inbound is not None
        assert self._method is not None
        while not self._ended and not self.gone:
            piece = self._inbound.take()
            if piece is None:
                return
            if isinstance(piece, Ending):
                self._end(piece.refused)
            elif self._method.server_streaming:
                self._sending = True
                self.core.send(piece, self._sent)
                return
            else:
                self._answer = piece

    def _sent(self, event: Any) -> None:
        with self._lock:
            self._sending = not event.success  # what could not be sent is the last that was tried
            if event.success:
                self._send_next()

    def _end(self, refused: Refused | None) -> None:
        self._ended = True
        if refused is None:
            self.core.end(self._answer, int(Code.OK))
        else:
            code = refused.code if refused.code is not Code.OK else Code.INTERNAL
            self.core.end(None, int(code), _shortened(refused.text))

    # Uploads

    def _came(self, payload: bytes | None) -> None:
        """Hands an item of an upload to its receiver, and asks for the next."""
        assert self._inbound is not None
        assert self._method is not None
        receiver = self._inbound.receiver
        assert receiver is not None
        if payload is None:
            self._confirm_end()
            return
        try:
            item = self._method.request.FromString(payload)
        except DecodeError:
            refused = malformed(self._method.path)
            self._inbound.fail(refused)
            receiver.end(refused)
            return
        receiver.item(item)
        self.core.receive(self._came)

    def _confirm_end(self) -> None:
        """Makes sure that the end of an upload is the caller's and not a broken call's.

        gRPC reads the same end of items for both, and tells of a cancel only later: a receiver that believed it
        would take half a snapshot for a whole one. Sending the initial metadata settles it. A call that broke has
        closed both directions at once, so that this fails; one that was finished still has its answer to get.
        The answer waits for it, because gRPC allows the metadata once.
        """
        with self._lock:
            if not self._ended and not self.gone:
                self._sending = True
                self.core.send_metadata(self._confirmed)

    def _confirmed(self, event: Any) -> None:
        assert self._inbound is not None
        assert self._inbound.receiver is not None
        self._inbound.receiver.end(None if event.success else cancelled())
        self._sent(event)


def _parse(method: Method, payload: bytes | None) -> Message:
    if payload is None:
        raise malformed(method.path)  # the caller ended without a request
    try:
        return method.request.FromString(payload)
    except DecodeError:
        raise malformed(method.path) from None


def _seen(metadata: Metadata) -> Metadata:
    """What handlers see, without what belongs to HTTP and gRPC."""
    return {key: values for key, values in visible(metadata).items() if key != "user-agent"}


def _shortened(text: str) -> str:
    """A text that fits into a header: gRPC turns each byte that is not plain ASCII into three."""
    return text.encode()[:DETAILS_MAX].decode(errors="ignore")
