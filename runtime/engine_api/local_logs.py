"""The log of one task of this node, read from its agent without any manager, as an asynchronous iterator.

Rules: the same bounds as a subscription's (`log_stream`); whoever stops reading breaks the reading off; a log that
cannot be read ends with the reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from runtime.engine_api.log_stream import LogStream
from runtime.errors import Code, Refused
from runtime.executor.log_messages import message_of, options_of
from runtime.protocol.cluster import LocalLogs
from runtime.wire.pb import logs_pb2

if TYPE_CHECKING:
    from runtime.engine_api.questions import Landing
    from runtime.executor.port import LogLine
    from runtime.wire.pb.objects_pb2 import Task


async def read(
    ask: Callable[[LocalLogs], Awaitable[Any]], landing: Landing, task: Task, options: logs_pb2.LogSubscriptionOptions
) -> AsyncIterator[logs_pb2.SubscribeLogsMessage]:
    """The lines of a task; ``ask`` asks the cluster layer, lines come on any thread."""
    stream = LogStream()
    context = logs_pb2.LogContext(service_id=task.service_id, node_id=task.node_id, task_id=task.id)

    def line(each: LogLine) -> None:
        landing.put(stream.item, logs_pb2.SubscribeLogsMessage(messages=[message_of(context, each)]))

    def ended(error: str | None) -> None:
        landing.put(stream.end, Refused(Code.UNKNOWN, error) if error else None)

    cancel = await ask(LocalLogs(task.id, options_of(options), line, ended))
    if cancel is None:  # nothing was ever started
        stream.end(None)
    try:
        async for batch in stream.batches():
            yield batch
    finally:
        if cancel is not None:
            cancel()
