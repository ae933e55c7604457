"""The server's side of one call: the state that both transports share, so that both keep the port's rules alike.

A call is *open* until its first ending: an answer, a refusal, a cancel, or a reader that is too slow. Handlers push
from any thread; the transport pulls with ``take`` whenever its ``wake`` was called. Messages are serialised when they
are pushed, in the pusher's thread: that isolates them and keeps that work off the I/O loop.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
from collections.abc import Callable

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.wire.port import Call, Identity, Metadata, OnEnd, OnItem, StreamLimits
from runtime.wire.services import Method

logger = logging.getLogger("swarmlet.wire")


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a call ends for its caller: well (None) or refused."""

    refused: Refused | None


ENDED_WELL = Ending(None)


class Receiver:
    """Where the items of an upload go; made by ``receive``, fed by the transport on its own thread. A callback that
    raises fails the call: the caller must not wait for an answer that won't come."""

    __slots__ = ("_call", "_ended", "_on_end", "_on_item")

    def __init__(self, call: InboundCall, on_item: OnItem, on_end: OnEnd) -> None:
        self._call = call
        self._on_item = on_item
        self._on_end = on_end
        self._ended = False

    def item(self, message: Message) -> None:
        """Hands on one item, unless the end was reported."""
        if not self._ended:
            self._guard(lambda: self._on_item(message))

    def end(self, refused: Refused | None) -> None:
        """Reports the end, once."""
        if not self._ended:
            self._ended = True
            self._guard(lambda: self._on_end(refused))

    def _guard(self, report: Callable[[], None]) -> None:
        try:
            report()
        except Exception as error:
            logger.exception("the receiver of %s failed", self._call.method)
            text = f"the receiver of {self._call.method} failed with {type(error).__name__}"
            self._call.fail(Refused(Code.INTERNAL, text))


class InboundCall(Call):
    """A call as handlers see it. ``wake`` is called from any thread, without a lock held, when there is something
    to ``take`` or a receiver was given; it must run nothing of the call's."""

    __slots__ = (
        "_bytes",
        "_cancel_callbacks",
        "_cancelled",
        "_ending",
        "_identity",
        "_limits",
        "_lock",
        "_metadata",
        "_method",
        "_queue",
        "_request",
        "_wake",
        "receiver",
    )

    def __init__(
        self,
        method: Method,
        request: Message | None,
        identity: Identity,
        metadata: Metadata,
        limits: StreamLimits,
        wake: Callable[[], None],
    ) -> None:
        self._method = method
        self._request = request
        self._identity = identity
        self._metadata = metadata
        self._limits = limits
        self._wake = wake
        self._lock = threading.Lock()
        self._queue: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._ending: Ending | None = None
        self._cancelled = False
        self._cancel_callbacks: list[Callable[[], None]] = []
        self.receiver: Receiver | None = None

    @property
    def method(self) -> str:
        return self._method.path

    @property
    def request(self) -> Message:
        if self._request is None:
            raise RuntimeError(f"{self._method.path} is an upload: its items come by receive")
        return self._request

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def metadata(self) -> Metadata:
        return self._metadata

    @property
    def over(self) -> bool:
        """Whether the call has its ending (what was sent before may still wait)."""
        return self._ending is not None

    def reply(self, message: Message) -> bool:
        if self._method.server_streaming:
            raise RuntimeError(f"{self._method.path} is a stream: it is answered by send and end")
        return self._push(message, ENDED_WELL)

    def send(self, item: Message) -> bool:
        if not self._method.server_streaming:
            raise RuntimeError(f"{self._method.path} is no stream: it is answered by reply")
        return self._push(item, None)

    def end(self) -> bool:
        if not self._method.server_streaming:
            raise RuntimeError(f"{self._method.path} is no stream: it is answered by reply")
        return self._close(ENDED_WELL)

    def fail(self, refused: Refused) -> bool:
        return self._close(Ending(refused))

    def on_cancel(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self._cancelled:
                if self._ending is None:
                    self._cancel_callbacks.append(callback)
                return
        callback()

    def receive(self, on_item: OnItem, on_end: OnEnd) -> None:
        if not self._method.client_streaming:
            raise RuntimeError(f"{self._method.path} is no upload: it has a request")
        with self._lock:
            if self.receiver is not None:
                raise RuntimeError(f"{self._method.path} has a receiver already")
            self.receiver = Receiver(self, on_item, on_end)
        self._wake()

    def cancelled(self) -> None:
        """The transport's word that the caller is gone, its time is up or the server closes: drops what waits."""
        self._abort(Ending(Refused(Code.CANCELLED, "the call was cancelled")))

    def take(self) -> bytes | Ending | None:
        """The next piece for the caller: a serialised message, then the ending (again and again), or None."""
        with self._lock:
            if not self._queue:
                return self._ending
            piece = self._queue.popleft()
            self._bytes -= len(piece)
            return piece

    def _push(self, message: Message, ending: Ending | None) -> bool:
        if self.over:
            return False
        data = message.SerializeToString(deterministic=True)
        with self._lock:
            if self._ending is not None:
                return False
            if not self._full(len(data)):
                self._queue.append(data)
                self._bytes += len(data)
                if ending is not None:
                    self._ending = ending
                    self._cancel_callbacks.clear()
                waiting = 0
            else:
                waiting = len(self._queue)
        if waiting:
            text = f"the reader of {self._method.path} is too slow: {waiting} messages wait for it"
            self._abort(Ending(Refused(Code.RESOURCE_EXHAUSTED, text)))
            return False
        self._wake()
        return True

    def _full(self, size: int) -> bool:
        """Whether one more would pass the bounds; a single item always fits, however large."""
        if not self._queue:
            return False
        return len(self._queue) >= self._limits.items_max or self._bytes + size > self._limits.bytes_max

    def _close(self, ending: Ending) -> bool:
        with self._lock:
            if self._ending is not None:
                return False
            self._ending = ending
            self._cancel_callbacks.clear()
        self._wake()
        return True

    def _abort(self, ending: Ending) -> None:
        """Ends the call against the handler's will: waiting items go, the handler's callbacks run."""
        with self._lock:
            if self._ending is not None:
                return
            self._ending = ending
            self._cancelled = True
            self._queue.clear()
            callbacks, self._cancel_callbacks = self._cancel_callbacks, []
        self._wake()
        for callback in callbacks:
            callback()
