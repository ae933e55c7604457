"""Client streams over gRPC's core: items that are queued (``QueuedUpload``), and items that are fetched (``Pour``)."""

from __future__ import annotations

import asyncio
import collections
import logging
import threading
from collections.abc import Iterator

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.wire.endings import deadline
from runtime.wire.grpc_core_client import CoreChannel, CoreClientCall
from runtime.wire.grpc_outgoing import FAILED, Ended, Outgoing
from runtime.wire.loop import IoLoop
from runtime.wire.port import DEFAULT_LIMITS, Headers, Upload

logger = logging.getLogger("swarmlet.wire")


class Queued(Outgoing):
    """Sends what lies in a bounded queue, and is told by ``look`` that there is something new in it."""

    __slots__ = ("_bytes", "_finished", "_lock", "_queue", "_sending", "_slow", "_timeout")

    def __init__(self, method: str, timeout: float | None, metadata: Headers, ended: Ended) -> None:
        super().__init__(method, metadata, ended)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._queue: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._finished = False
        self._slow = False
        self._sending = False

    def put(self, item: Message) -> bool:
        """Queues an item, from any thread; False where it is not taken."""
        data = item.SerializeToString(deterministic=True)
        with self._lock:
            if self.over or self._finished or self._slow:
                return False
            full = bool(self._queue) and self._bytes + len(data) > DEFAULT_LIMITS.bytes_max
            if full or len(self._queue) >= DEFAULT_LIMITS.items_max:
                self._slow = True
            else:
                self._queue.append(data)
                self._bytes += len(data)
            return not self._slow

    def finish(self) -> None:
        """No more items, from any thread."""
        with self._lock:
            self._finished = True

    def look(self) -> None:
        """Sends the next item, unless one is on its way."""
        if self._slow:
            self.cancel(Refused(Code.RESOURCE_EXHAUSTED, f"the receiver of {self.method.path} is too slow"))
        if self._call is None or self._sending or self._slow:
            return
        with self._lock:
            piece = self._queue.popleft() if self._queue else None
            self._bytes -= len(piece or b"")
            last = piece is None and self._finished
        self._sending = piece is not None or last  # there is nothing behind the last
        if piece is not None:
            self._call.send(piece, self._sent)
        elif last:
            self._call.finish()

    def end(self, outcome: Message | Refused | None) -> None:
        """Reports the outcome; what was not sent is dropped, and nothing is taken any more."""
        super().end(outcome)
        with self._lock:
            self._queue.clear()

    def begin(self, channel: CoreChannel) -> None:
        """Sets out, and sends what lies there already."""
        super().begin(channel)
        self.look()

    def _begin(self, channel: CoreChannel) -> CoreClientCall:
        call = channel.call(self.method.path, self._timeout)
        call.upload(self.metadata, self._answered)
        return call

    def _sent(self, good: bool) -> None:
        """The next one; after what could not be sent the peer's answer follows, which tells why."""
        self._sending = not good
        self.look()


class QueuedUpload(Upload):
    """What whoever uploads holds of a ``Queued``; from any thread."""

    __slots__ = ("_call", "_io_loop")

    def __init__(self, io_loop: IoLoop, call: Queued) -> None:
        self._io_loop = io_loop
        self._call = call

    def send(self, item: Message) -> bool:
        taken = self._call.put(item)
        self._io_loop.call_soon(self._call.look)
        return taken

    def finish(self) -> None:
        self._call.finish()
        self._io_loop.call_soon(self._call.look)

    def cancel(self) -> None:
        self._io_loop.call_soon(self._call.cancel)


class Pour(Outgoing):
    """Sends items as fast as flow control lets it; ``item_timeout`` is as in the port. Of items there is at any time
    one in memory here."""

    __slots__ = ("_count", "_item_timeout", "_items", "_timer")

    def __init__(
        self, method: str, items: Iterator[Message], item_timeout: float, metadata: Headers, ended: Ended
    ) -> None:
        super().__init__(method, metadata, ended)
        self._items = items
        self._item_timeout = item_timeout
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, channel: CoreChannel) -> None:
        """Sets out with the first item."""
        super().begin(channel)
        self._next(True)

    def end(self, outcome: Message | Refused | None) -> None:
        """Reports the outcome; nothing more is fetched, and what there was to fetch is let go."""
        self._within(None)
        self._items = iter(())
        super().end(outcome)

    def _begin(self, channel: CoreChannel) -> CoreClientCall:
        call = channel.call(self.method.path, None)
        call.upload(self.metadata, self._answered)
        return call

    def _next(self, good: bool) -> None:
        """One more item; after what could not be sent the peer's answer follows, which tells why."""
        if not good or self._call is None or self._reason is not None:
            return
        try:
            item = next(self._items, None)
        except Refused as refused:
            self.cancel(refused)
        except Exception as error:
            logger.exception(FAILED, self.method.path)
            self._failed(error)
        else:
            self._send(item)

    def _send(self, item: Message | None) -> None:
        assert self._call is not None
        if item is None:
            self._call.finish()
            self._within(self._item_timeout * max(self._count, 1))
        else:
            self._count += 1
            self._call.send(item.SerializeToString(deterministic=True), self._next)
            self._within(self._item_timeout)

    def _within(self, seconds: float | None) -> None:
        """Breaks off unless the next step comes in time; None for no limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    def _late(self) -> None:
        self.cancel(deadline())
