"""A subscription to the swarm's events, as an asynchronous iterator.

Rules: events come in order and none is left out silently; what waits for a slow reader is bounded, beyond the bound a
gap is told and the stream ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from runtime.engine_api.events import NANOS, gap
from runtime.protocol.cluster import SwarmEvent

if TYPE_CHECKING:
    from runtime.engine_api.questions import Landing

WAITING_MAX: Final = 10_000
"""Events that may wait for a reader."""


class EventStream:
    """What has come and was not read yet. ``events`` and ``end`` come from any thread, the rest lives on the loop."""

    __slots__ = ("_ended", "_filled", "_landing", "_max", "_waiting")

    def __init__(self, landing: Landing, waiting_max: int = WAITING_MAX) -> None:
        self._landing = landing
        self._waiting: deque[SwarmEvent] = deque()
        self._max = waiting_max
        self._ended = False
        self._filled = asyncio.Event()

    def events(self, batch: tuple[SwarmEvent, ...]) -> None:
        """As ``EventSubscriber.events``."""
        self._landing.put(self._take, batch)

    def end(self) -> None:
        """As ``EventSubscriber.end``."""
        self._landing.put(self._finish, None)

    def _take(self, batch: tuple[SwarmEvent, ...]) -> None:
        if self._ended:
            return
        if len(self._waiting) + len(batch) > self._max:
            lost = f"more than {self._max} events wait for a slow reader"
            self._waiting.append(gap("", lost, time.time_ns()))
            self._ended = True
        else:
            self._waiting += batch
        self._filled.set()

    def _finish(self, _nothing: None) -> None:
        self._ended = True
        self._filled.set()

    async def read(self, until_ns: int | None = None) -> AsyncIterator[SwarmEvent]:
        """Each event once, then the end; also the end when ``until_ns`` (unix time) has come and nothing waits."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._ended:
                return
            self._filled.clear()
            try:
                async with asyncio.timeout(None if until_ns is None else max(0.0, (until_ns - time.time_ns()) / NANOS)):
                    await self._filled.wait()
            except TimeoutError:
                return
