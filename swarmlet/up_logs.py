"""Follows the output of a stack's tasks and hands it on as lines.

Rules it owns: output is followed from its first line in this run; a subscription that breaks is begun anew after a
while and from where it broke; the reason is told once until it changes; a full buffer drops the oldest lines and says
how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from runtime.errors import Refused
from runtime.wire.pb import logs_pb2
from swarmlet.up_view import printable

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from runtime.engine_api.cluster_backend import ClusterBackend
    from runtime.wire.loop import IoLoop

AGAIN_S: Final = 2.0
LINES_MAX: Final = 10_000


class LogFollower:
    """Follows the services of which it is told. ``take`` may be called from any thread."""

    def __init__(self, loop: IoLoop, backend: ClusterBackend, since: Timestamp) -> None:
        self._loop = loop
        self._backend = backend
        self._since = since
        self._lines: deque[tuple[str, str]] = deque(maxlen=LINES_MAX)
        self._dropped = 0
        self._trouble = ""
        self._told = ""
        self._following: tuple[str, ...] = ()
        self._cancel: Callable[[], None] | None = None

    def follow(self, service_ids: tuple[str, ...]) -> None:
        """Follows exactly these services from now on."""
        if service_ids == self._following:
            return
        self.close()
        self._following = service_ids
        if service_ids:
            self._cancel = self._loop.submit(self._run(service_ids))

    def take(self) -> tuple[list[tuple[str, str]], str]:
        """(task id, line) since the last call, and trouble that was not told yet (empty if there is none)."""
        lines: list[tuple[str, str]] = []
        while self._lines:
            lines.append(self._lines.popleft())
        trouble = self._trouble if self._trouble != self._told else ""
        self._told = self._trouble
        dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.insert(0, ("", f"{dropped} lines of output were left out"))
        return lines, trouble

    def close(self) -> None:
        """Follows nothing any more."""
        cancel, self._cancel = self._cancel, None
        self._following = ()
        if cancel is not None:
            cancel()

    async def _run(self, service_ids: tuple[str, ...]) -> None:
        while True:
            request = logs_pb2.SubscribeLogsRequest(
                selector=logs_pb2.LogSelector(service_ids=service_ids),
                options=logs_pb2.LogSubscriptionOptions(
                    follow=True,
                    streams=(logs_pb2.LOG_STREAM_STDOUT, logs_pb2.LOG_STREAM_STDERR),
                    since=self._since,
                ),
            )
            try:
                async for batch in self._backend.logs(request):
                    self._trouble = ""
                    self._take_in(batch)
            except Refused as refused:
                self._trouble = refused.text
            await asyncio.sleep(AGAIN_S)

    def _take_in(self, batch: logs_pb2.SubscribeLogsMessage) -> None:
        for message in batch.messages:
            if len(self._lines) == LINES_MAX:
                self._dropped += 1
            # One nanosecond later, so that the last line does not come again when the subscription is renewed.
            self._since.FromNanoseconds(message.timestamp.ToNanoseconds() + 1)
            text = printable(message.data.decode("utf-8", "replace"))
            self._lines.append((message.context.task_id, text))
