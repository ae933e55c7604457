"""Connections and calls of the in-memory transport: the part that works message by message.

Rules owned here: each direction of a connection keeps its order whatever delays are drawn; at most ``WINDOW`` items
of a stream are under way, the rest wait in the call's bounded buffer; messages cross as bytes; whatever ends a
connection ends each of its calls once on each side.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError, Message

from runtime.errors import Code, Refused
from runtime.wire.answering import malformed, serve_call, unknown_method
from runtime.wire.authorise import Peer, Subject, authorise, metadata_of, visible
from runtime.wire.endings import cancelled, closed, deadline, reset
from runtime.wire.inbound import Ending, InboundCall
from runtime.wire.port import (
    DEFAULT_LIMITS,
    Headers,
    OnItem,
    Routes,
)
from runtime.wire.services import Method

if TYPE_CHECKING:
    from runtime.wire.memory import MemoryServer, MemoryTransport
    from runtime.wire.memory_channel import MemoryChannel

WINDOW = 64
Outcome = Callable[["Message | None", "Refused | None"], None]


class Pipe:
    """One direction of a connection: things to do at the far end, in order."""

    __slots__ = ("_connection", "_held", "_queue", "source", "target")

    def __init__(self, connection: Connection, source: str, target: str) -> None:
        self._connection = connection
        self._queue: collections.deque[Callable[[], None]] = collections.deque()
        self._held = 0
        self.source = source
        self.target = target

    def push(self, fn: Callable[[], None]) -> None:
        """Has ``fn`` run at the far end after this direction's delay."""
        network = self._connection.transport.network
        self._queue.append(fn)
        network.schedule(network.delay(self.source, self.target), self._arrive)

    def resume(self) -> None:
        """After a healed cut: what was held sets out again."""
        held, self._held = self._held, 0
        network = self._connection.transport.network
        for _ in range(held):
            network.schedule(network.delay(self.source, self.target), self._arrive)

    def _arrive(self) -> None:
        """One arrival takes the oldest message, not its own: delays differ, the order does not."""
        if self._connection.broken:
            return
        if self._connection.half_dead:
            self._connection.break_off(reset())
        elif self._connection.transport.network.blocked(self.source, self.target):
            self._held += 1
        else:
            self._queue.popleft()()


class Connection:
    """What a handshake made: who the peers are (for good), and the calls under way."""

    def __init__(
        self, transport: MemoryTransport, server_host: str, listener: MemoryServer, subject: Subject | None
    ) -> None:
        network = transport.network
        self.transport = transport
        self.listener = listener
        self.subject = subject
        self.number = network.next_number()
        self.client = transport.host
        self.server = server_host
        self.client_address = f"{transport.host}:{32768 + self.number % 28000}"
        self.broken = False
        self.up = Pipe(self, self.client, self.server)
        self.down = Pipe(self, self.server, self.client)
        self.calls: dict[int, MemoryCall] = {}
        self._drained: Callable[[], None] | None = None
        network.attach(self)

    @property
    def peer(self) -> Peer:
        """The direct caller, as the server sees it."""
        return self.listener.peer(self)

    def resume(self) -> None:
        """Lets both directions go on after a heal."""
        self.up.resume()
        self.down.resume()

    @property
    def half_dead(self) -> bool:
        """Whether an end's process is gone; the other end learns of it from what it sends, or hears a reset."""
        return self.transport.crashed or self.listener.crashed

    def hang_up(self) -> None:
        """The client closes: the server hears of it when that arrives."""
        self.up.push(lambda: self.break_off(cancelled()))

    def remove(self, call: MemoryCall) -> None:
        """Forgets a call that is over on both sides."""
        self.calls.pop(call.number, None)
        if self._drained is not None and not self.calls:
            self.break_off(closed())

    def drain(self, drained: Callable[[], None]) -> None:
        """Breaks off when the last call is over, at once if there is none; then ``drained``."""
        self._drained = drained
        if not self.calls:
            self.break_off(closed())

    def break_off(self, refused: Refused) -> None:
        """Ends the connection and every call of it, for both ends."""
        if self.broken:
            return
        self.broken = True
        self.transport.network.detach(self)
        calls, self.calls = list(self.calls.values()), {}
        for call in calls:
            call.finish(None, refused)
            call.abandon(refused)
        if self._drained is not None:
            self._drained()


class MemoryCall:
    """One call, both ends: the client's outcome and the server's ``InboundCall``."""

    __slots__ = (
        "_answered",
        "_inbound",
        "_input",
        "_input_end",
        "_metadata",
        "_on_item",
        "_outcome",
        "_outgoing",
        "_payload",
        "_pumping",
        "_under_way",
        "channel",
        "connection",
        "done",
        "method",
        "number",
        "on_taken",
    )

    def __init__(
        self,
        channel: MemoryChannel,
        method: Method,
        payload: bytes,
        metadata: Headers,
        on_item: OnItem | None,
        outcome: Outcome,
    ) -> None:
        self.channel = channel
        self.method = method
        self.number = channel.transport.network.next_number()
        self.connection: Connection | None = None
        self.done = False
        self.on_taken: Callable[[], None] | None = None
        """Called at the client's end for each item that the receiver has taken."""
        self._payload = payload
        self._metadata = metadata_of(metadata)
        self._on_item = on_item
        self._outcome = outcome
        self._inbound: InboundCall | None = None
        self._outgoing: collections.deque[bytes | Ending] = collections.deque()
        self._answered = False
        self._input: collections.deque[bytes] = collections.deque()
        self._input_end: Ending | None = None
        self._pumping = False
        self._under_way = 0

    # The client's end.

    def start(self, connection: Connection) -> None:
        """Sends the request over a connection that stands; a lost call is decided here."""
        network = connection.transport.network
        link = network.link(connection.client, connection.server)
        self.connection = connection
        connection.calls[self.number] = self
        if network.chance(link.drop):
            network.lost += 1
            if network.chance(0.5):
                connection.up.push(self._serve)
            network.schedule(link.latency * 2, self._lose)
            return
        connection.up.push(self._serve)
        self._flush_input()
        unary = not (self.method.client_streaming or self.method.server_streaming)
        if unary and network.chance(link.duplicate) and self.method.service != "Control":
            network.repeated += 1
            connection.up.push(self._serve_again)

    def finish(self, message: Message | None, refused: Refused | None) -> None:
        """The client's outcome: the first one counts."""
        if not self.done:
            self.done = True
            self.channel.forget(self)
            if not self.channel.transport.crashed:
                self._outcome(message, refused)

    def cancel(self, refused: Refused | None = None) -> None:
        """The client gives up: it hears ``refused``, the server hears a cancel when that arrives."""
        if self.done:
            return
        self.finish(None, refused or cancelled())
        if self.connection is not None and not self.connection.broken:
            self.connection.up.push(lambda: self.abandon(cancelled()))

    def expire(self) -> None:
        """The client's time is up."""
        if not self.done:
            self.cancel(deadline())

    def push_input(self, piece: bytes | Ending) -> bool:
        """Queues one item of an upload, or its end; False if too much waits for the other side."""
        if len(self._outgoing) + len(self._input) >= DEFAULT_LIMITS.items_max:
            return False
        if not self._outgoing:
            self.channel.transport.network.schedule(0.0, self._flush_input)
        self._outgoing.append(piece)
        return True

    def _flush_input(self) -> None:
        connection = self.connection
        while connection is not None and not connection.broken and self._outgoing:
            piece = self._outgoing.popleft()
            connection.up.push(lambda piece=piece: self._take_input(piece))  # type: ignore[misc]

    def _lose(self) -> None:
        self.finish(None, Refused(Code.UNAVAILABLE, "connection reset by peer"))
        self.abandon(cancelled())

    def _deliver(self, data: bytes) -> None:
        self._under_way -= 1
        if not self._answered:
            self._schedule_pump()
        if self.done:
            return
        message = self.method.response.FromString(data)
        if self._on_item is not None:
            self._on_item(message)
        else:
            self.finish(message, None)

    def _deliver_end(self, ending: Ending) -> None:
        if self.connection is not None:
            self.connection.remove(self)
        if ending.refused is None and not self.method.server_streaming:
            return
        self.finish(None, ending.refused)

    # The server's end.

    def abandon(self, refused: Refused) -> None:
        """The caller is gone, as far as the server can see."""
        if self._inbound is not None and not self._server_gone:
            self._inbound.cancelled()
            self._close_input(Ending(refused))
        if self.connection is not None:
            self.connection.remove(self)

    def _serve(self) -> None:
        inbound = self._accept(self._schedule_pump)
        if isinstance(inbound, Refused):
            self._answer_end(Ending(inbound))
            return
        self._inbound = inbound
        self._drain_input()
        serve_call(self._routes[self.method.path].handler, inbound)

    def _serve_again(self) -> None:
        """The same request once more; its answer goes nowhere."""
        inbound = self._accept(lambda: None)
        if isinstance(inbound, InboundCall):
            serve_call(self._routes[self.method.path].handler, inbound)

    @property
    def _server_gone(self) -> bool:
        return self.connection is not None and self.connection.listener.crashed

    @property
    def _routes(self) -> Routes:
        assert self.connection is not None
        return self.connection.listener.routes

    def _accept(self, wake: Callable[[], None]) -> InboundCall | Refused:
        assert self.connection is not None
        listener = self.connection.listener
        route = listener.routes.get(self.method.path)
        if listener.closed:
            return closed()
        if route is None:
            return unknown_method(self.method.path)
        try:
            identity = authorise(self.connection.peer, self._metadata, route.roles, listener.access())
            request = None if self.method.client_streaming else self.method.request.FromString(self._payload)
        except Refused as refused:
            return refused
        except DecodeError:
            return malformed(self.method.path)
        return InboundCall(self.method, request, identity, visible(self._metadata), listener.limits, wake)

    def _schedule_pump(self) -> None:
        if not self._pumping:
            self._pumping = True
            self.channel.transport.network.schedule(0.0, self._pump)

    def _pump(self) -> None:
        """Puts what the window allows under way, and takes input once there is a receiver."""
        self._pumping = False
        connection = self.connection
        if self._inbound is None or connection is None:
            return
        self._drain_input()
        if self._answered or connection.broken:
            return
        while self._under_way < WINDOW:
            piece = self._inbound.take()
            if isinstance(piece, bytes):
                self._under_way += 1
                connection.down.push(lambda data=piece: self._deliver(data))  # type: ignore[misc]
                continue
            if piece is not None:
                self._answer_end(piece)
            return

    def _answer_end(self, ending: Ending) -> None:
        assert self.connection is not None
        self._answered = True
        self._close_input(Ending(cancelled()))
        self.connection.down.push(lambda: self._deliver_end(ending))

    def _take_input(self, piece: bytes | Ending) -> None:
        if isinstance(piece, Ending):
            self._close_input(piece)
        elif self._input_end is None:
            self._input.append(piece)
            self._drain_input()

    def _close_input(self, ending: Ending) -> None:
        if self._input_end is None:
            self._input_end = ending
        self._drain_input()

    def _drain_input(self) -> None:
        inbound = self._inbound
        receiver = inbound.receiver if inbound is not None else None
        if inbound is None or receiver is None:
            return
        try:
            while self._input:
                receiver.item(self.method.request.FromString(self._input.popleft()))
                if self.on_taken is not None and self.connection is not None:
                    self.connection.down.push(self.on_taken)
        except DecodeError:
            self._input.clear()
            refused = malformed(self.method.path)
            receiver.end(refused)
            inbound.fail(refused)
            return
        if self._input_end is not None:
            receiver.end(self._input_end.refused)
