"""A subscription to logs over the transport, as an asynchronous iterator.

Rules: batches come in order and none is left out silently; what waits for a slow reader is bounded, beyond the bound
the stream ends with RESOURCE_EXHAUSTED; whoever stops reading cancels the call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from runtime.errors import Code, Refused
from runtime.wire.services import path

if TYPE_CHECKING:
    from runtime.engine_api.questions import Landing
    from runtime.wire.pb.logs_pb2 import SubscribeLogsMessage, SubscribeLogsRequest
    from runtime.wire.port import Channel

SUBSCRIBE: Final = path("Logs", "SubscribeLogs")
WAITING_BYTES_MAX: Final = 64 << 20
"""Bytes of batches that may wait for a reader, beyond the newest batch."""


class LogStream:
    """What has come of one subscription and was not read yet. Lives on the event loop."""

    __slots__ = ("_batches", "_bytes", "_ended", "_error", "_filled", "_max")

    def __init__(self, bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._batches: deque[SubscribeLogsMessage] = deque()
        self._bytes = 0
        self._max = bytes_max
        self._ended = False
        self._error: Refused | None = None
        self._filled = asyncio.Event()

    def item(self, batch: SubscribeLogsMessage) -> None:
        """A batch came."""
        if self._ended:
            return
        if self._bytes > self._max:
            self.end(Refused(Code.RESOURCE_EXHAUSTED, f"more than {self._max} bytes of logs wait for a slow reader"))
            return
        self._bytes += batch.ByteSize()
        self._batches.append(batch)
        self._filled.set()

    def end(self, error: Refused | None) -> None:
        """Nothing more comes. The first end counts; what came before it is still read."""
        if not self._ended:
            self._ended, self._error = True, error
            self._filled.set()

    async def batches(self) -> AsyncIterator[SubscribeLogsMessage]:
        """Each batch once, then the end: raises the Refused that ended the subscription."""
        while True:
            while self._batches:
                batch = self._batches.popleft()
                self._bytes -= batch.ByteSize()
                yield batch
            if self._ended:
                break
            self._filled.clear()
            await self._filled.wait()
        if self._error is not None:
            raise self._error


async def subscribe(
    channel: Channel, landing: Landing, request: SubscribeLogsRequest, bytes_max: int = WAITING_BYTES_MAX
) -> AsyncIterator[SubscribeLogsMessage]:
    """The batches of a subscription; closing the iterator cancels it."""
    stream = LogStream(bytes_max)
    cancel = channel.stream(
        SUBSCRIBE,
        request,
        on_item=lambda batch: landing.put(stream.item, batch),
        on_end=lambda error: landing.put(stream.end, error),
    )
    try:
        async for batch in stream.batches():
            yield batch
    finally:
        cancel()
