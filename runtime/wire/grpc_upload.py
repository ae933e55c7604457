"""Client streams over ``grpc.aio``: items that are queued (``GrpcUpload``), and items that are fetched (``pour``)."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Iterator
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.wire.loop import IoLoop
from runtime.wire.port import DEFAULT_LIMITS, Cancel, Upload


class GrpcUpload(Upload):
    """The sending side of a client stream: a bounded queue that a task writes from."""

    __slots__ = (
        "_bytes",
        "_event",
        "_finished",
        "_io_loop",
        "_lock",
        "_method",
        "_over",
        "_queue",
        "_slow",
        "cancel_call",
    )

    def __init__(self, io_loop: IoLoop, method: str) -> None:
        self._io_loop = io_loop
        self._method = method
        self._lock = threading.Lock()
        self._queue: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._finished = False
        self._over = False
        self._slow = False
        self._event = asyncio.Event()
        self.cancel_call: Cancel | None = None

    def send(self, item: Message) -> bool:
        data = item.SerializeToString(deterministic=True)
        with self._lock:
            if self._over or self._finished or self._slow:
                return False
            full = bool(self._queue) and self._bytes + len(data) > DEFAULT_LIMITS.bytes_max
            if full or len(self._queue) >= DEFAULT_LIMITS.items_max:
                self._slow = True
            else:
                self._queue.append(data)
                self._bytes += len(data)
        self._io_loop.call_soon(self._event.set)
        return not self._slow

    def finish(self) -> None:
        with self._lock:
            self._finished = True
        self._io_loop.call_soon(self._event.set)

    def cancel(self) -> None:
        if self.cancel_call is not None:
            self.cancel_call()

    def over(self, outcome: Message | Refused) -> Message | Refused:
        """Nothing is taken any more."""
        with self._lock:
            self._over = True
            self._queue.clear()
        return outcome

    async def run(self, call: Any) -> Message:
        """Writes until the end or until the peer answers, and returns its answer."""
        call.add_done_callback(lambda _: self._event.set())
        while not call.done():
            piece, last = self._next()
            if piece is not None:
                if not await written(call, piece):
                    break  # answered before the end: the answer tells
            elif last:
                await call.done_writing()
                break
            else:
                self._event.clear()
                await self._event.wait()
        answer: Message = await call
        return answer

    def _next(self) -> tuple[bytes | None, bool]:
        with self._lock:
            if self._slow:
                raise Refused(Code.RESOURCE_EXHAUSTED, f"the receiver of {self._method} is too slow")
            if not self._queue:
                return None, self._finished
            piece = self._queue.popleft()
            self._bytes -= len(piece)
            return piece, False


async def written(call: Any, data: bytes) -> bool:
    """Writes one item as soon as flow control lets it; False if the call has ended, whose answer then tells why.

    Not by ``call.write``: where the peer ends the call while a write is under way, that puts INTERNAL in the place of
    the peer's own status if the status has not arrived yet, and there is no other way to hear it.
    """
    if call.done():
        return False
    await call.wait_for_connection()
    try:
        await call._cython_call.send_serialized_message(data)
    except grpc.aio.InternalError:
        return False
    except asyncio.CancelledError:
        call.cancel()
        raise
    return not call.done()


async def pour(call: Any, items: Iterator[Message], item_timeout: float) -> Message:
    """Writes items as fast as flow control lets it, and returns the peer's answer; ``item_timeout`` is as in the port.

    An exception of ``items`` passes through. Of items there is at any time one in memory here.
    """
    limit = _Limit(call)
    count = 0
    try:
        for item in items:
            limit.within(item_timeout)
            if not await written(call, item.SerializeToString(deterministic=True)):
                break  # answered before the end: the answer tells
            count += 1
        else:
            await call.done_writing()
        limit.within(item_timeout * max(count, 1))
        answer: Message = await call
        return answer
    except (asyncio.CancelledError, grpc.aio.BaseError):
        if limit.passed:
            raise Refused(Code.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
        raise
    finally:
        limit.lift()


class _Limit:
    """Breaks a call off when the time given last has passed."""

    __slots__ = ("_call", "_timer", "passed")

    def __init__(self, call: Any) -> None:
        self._call = call
        self._timer: asyncio.TimerHandle | None = None
        self.passed = False

    def within(self, seconds: float) -> None:
        """From now on."""
        self.lift()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._pass)

    def lift(self) -> None:
        """No limit any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        self._call.cancel()
