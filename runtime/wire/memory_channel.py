"""The calling side of the in-memory transport: connecting, the handshake, and the port's ``Channel``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from runtime.errors import Code, NotSent, Refused
from runtime.wire.authorise import Subject
from runtime.wire.certificates import parse_chain, verify
from runtime.wire.endings import cancelled, not_begun
from runtime.wire.memory_call import Connection, MemoryCall
from runtime.wire.memory_upload import MemoryPour, MemoryUpload
from runtime.wire.port import Cancel, Channel, Credentials, Done, Headers, OnEnd, OnItem, Upload
from runtime.wire.services import METHODS

if TYPE_CHECKING:
    from runtime.wire.memory import MemoryServer, MemoryTransport

CONNECT_RETRY = 1.0


def _unavailable(text: str) -> Refused:
    return NotSent(Code.UNAVAILABLE, text)


class MemoryChannel(Channel):
    """Calls from one host to one address; one connection at a time, made anew after a loss."""

    __slots__ = (
        "_address",
        "_calls",
        "_certificate",
        "_closed",
        "_connecting",
        "_connection",
        "_credentials",
        "_host",
        "_pending",
        "_server_name",
        "_verify",
        "transport",
    )

    def __init__(
        self,
        transport: MemoryTransport,
        host: str,
        address: str,
        credentials: Credentials | None,
        server_name: str | None,
        verify: bool,
    ) -> None:
        if verify and credentials is None and not address.startswith("unix:"):
            raise ValueError(f"{host}:{address}: without credentials there is no root to verify the peer by")
        self.transport = transport
        self._host = host
        self._address = address
        self._credentials = credentials
        self._server_name = server_name
        self._verify = verify
        self._connection: Connection | None = None
        self._connecting = False
        self._pending: dict[int, MemoryCall] = {}
        self._calls: dict[int, MemoryCall] = {}
        self._certificate: bytes | None = None
        self._closed = False

    @property
    def peer_certificate(self) -> bytes | None:
        return self._certificate

    def unary(self, method: str, request: Message, *, timeout: float, done: Done, metadata: Headers = ()) -> Cancel:
        if METHODS[method].client_streaming:
            upload = self.upload(method, done=done, timeout=timeout, metadata=metadata)
            upload.send(request)
            upload.finish()
            return upload.cancel
        call = self._single(method, request.SerializeToString(deterministic=True), done, metadata)
        return self._launch(call, timeout)

    def stream(
        self, method: str, request: Message, *, on_item: OnItem, on_end: OnEnd, metadata: Headers = ()
    ) -> Cancel:
        payload = request.SerializeToString(deterministic=True)
        call = MemoryCall(self, METHODS[method], payload, metadata, on_item, lambda _, refused: on_end(refused))
        return self._launch(call, None)

    def upload(self, method: str, *, done: Done, timeout: float | None = None, metadata: Headers = ()) -> Upload:
        call = self._single(method, b"", done, metadata)
        self._launch(call, timeout)
        return MemoryUpload(call)

    def upload_items(
        self, method: str, items: Iterator[Message], *, item_timeout: float, done: Done, metadata: Headers = ()
    ) -> Cancel:
        call = self._single(method, b"", done, metadata)
        cancel = self._launch(call, None)
        self.transport.network.schedule(0.0, MemoryPour(call, items, item_timeout).next)
        return cancel

    def close(self) -> None:
        self._closed = True
        self.transport.network.schedule(0.0, self._hang_up)

    def forget(self, call: MemoryCall) -> None:
        """A call has its outcome."""
        self._calls.pop(call.number, None)
        self._pending.pop(call.number, None)

    def _single(self, method: str, payload: bytes, done: Done, metadata: Headers) -> MemoryCall:
        def outcome(message: Message | None, refused: Refused | None) -> None:
            answer = message if refused is None else refused
            assert answer is not None, f"{method} ended without an answer"
            done(answer)

        return MemoryCall(self, METHODS[method], payload, metadata, None, outcome)

    def _launch(self, call: MemoryCall, timeout: float | None) -> Cancel:
        network = self.transport.network
        network.schedule(0.0, lambda: self._begin(call))
        if timeout is not None:
            network.schedule(timeout, call.expire)
        return lambda: network.schedule(0.0, call.cancel)

    def _begin(self, call: MemoryCall) -> None:
        if self._closed:
            call.finish(None, cancelled())
        if call.done or self.transport.crashed:
            return
        self._calls[call.number] = call
        if self._connection is not None and not self._connection.broken and not self._connection.listener.closed:
            call.start(self._connection)
            return
        self._pending[call.number] = call
        if not self._connecting:
            self._connecting = True
            network = self.transport.network
            there = network.delay(self.transport.host, self._host)
            back = network.delay(self._host, self.transport.host)
            network.schedule(there + back, lambda: self._establish(network.connect_timeout))

    def _establish(self, left: float) -> None:
        """Shakes hands, or waits for a link that is cut; ``left`` in seconds."""
        network, here = self.transport.network, self.transport.host
        if self.transport.crashed or not self._pending:
            self._connecting = False
            return
        if (network.blocked(here, self._host) or network.blocked(self._host, here)) and left > 0:
            step = min(CONNECT_RETRY, left)
            network.schedule(step, lambda: self._establish(left - step))
            return
        self._connecting = False
        try:
            connection = self._handshake(left)
        except Refused as refused:
            for call in list(self._pending.values()):
                call.finish(None, refused)
            return
        self._connection = connection
        pending, self._pending = list(self._pending.values()), {}
        for call in pending:
            call.start(connection)

    def _handshake(self, left: float) -> Connection:
        where = self._address if self._address.startswith("unix:") else f"{self._host}:{self._address}"
        if left <= 0:
            raise _unavailable(f"connecting to {where} timed out")
        listener = self.transport.network.find(self._host, self._address)
        if listener is None:
            raise _unavailable(f"connecting to {where}: connection refused")
        try:
            subject = self._shake_hands(listener)
        except Refused as refused:
            raise _unavailable(f"connecting to {where}: {refused.text}") from refused
        return Connection(self.transport, self._host, listener, subject)

    def _shake_hands(self, listener: MemoryServer) -> Subject | None:
        """Checks the server's certificate here and this side's there; returns this side's verified subject."""
        if listener.credentials is None:
            return None
        theirs = listener.credentials.material
        self._certificate = parse_chain(theirs.certificate).der
        mine = self._credentials.material if self._credentials is not None else None
        if self._verify:
            assert mine is not None
            verify(theirs.certificate, mine.roots, self.transport.clock(), self._server_name)
        if mine is None or not mine.certificate:
            return None
        try:
            return verify(mine.certificate, theirs.roots, listener.clock()).subject
        except Refused as refused:
            raise _unavailable(f"the peer refused this node's certificate: {refused.text}") from refused

    def _hang_up(self) -> None:
        for number, call in list(self._calls.items()):
            call.finish(None, not_begun() if number in self._pending else cancelled())
        if self._connection is not None and not self._connection.broken:
            self._connection.hang_up()
            self._connection = None
