"""The logs of services and tasks.

Rules: everything that can be refused is refused before the stream begins; what goes wrong afterwards is told inside
it, on the daemon's own stream. ``tail`` counts per task. With a terminal there are no frames, because the client
copies bytes. The subscription ends with the stream, however that ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runtime.engine_api import frames, resolve
from runtime.engine_api.call import Call, Stream
from runtime.engine_api.errors import bad, plain, status_and_text
from runtime.errors import Refused
from runtime.wire.pb import logs_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from runtime.wire.pb.logs_pb2 import SubscribeLogsMessage

MULTIPLEXED: Final = "application/vnd.docker.multiplexed-stream"
RAW: Final = "application/vnd.docker.raw-stream"
TAIL_MAX: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Look:
    """How the lines are to look."""

    timestamps: bool
    details: bool
    framed: bool


async def service_logs(call: Call) -> Stream:
    """``GET /services/{id}/logs``."""
    options = options_of(call)
    found = await resolve.find(call.backend, resolve.SERVICE, call.target)
    selector = logs_pb2.LogSelector(service_ids=[found.id])
    return stream(call, selector, options, found.spec.task.container.tty)


async def task_logs(call: Call) -> Stream:
    """``GET /tasks/{id}/logs``."""
    options = options_of(call)
    found = await resolve.find(call.backend, resolve.TASK, call.target)
    selector = logs_pb2.LogSelector(task_ids=[found.id])
    return stream(call, selector, options, found.spec.container.tty)


def options_of(call: Call) -> logs_pb2.LogSubscriptionOptions:
    """What is asked of the logs. Raises ApiError for a query that asks for nothing or for nonsense."""
    streams = [
        stream
        for name, stream in (("stdout", logs_pb2.LOG_STREAM_STDOUT), ("stderr", logs_pb2.LOG_STREAM_STDERR))
        if call.loose(name)
    ]
    if not streams:
        raise bad("must specify at least one of 'stdout' or 'stderr'")
    options = logs_pb2.LogSubscriptionOptions(
        streams=streams, follow=call.loose("follow"), tail=tail_of(call.query("tail"))
    )
    if since := call.query("since"):
        set_since(options.since, since)
    return options


def tail_of(text: str) -> int:
    """The last n lines as SwarmKit counts them, which is -(n + 1); 0 is everything."""
    if text in ("", "all"):
        return 0
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 18:
        raise plain('tail value must be a positive integer or "all"')
    if text.startswith("-") and int(digits):
        raise plain("negative tail values not supported")
    return -(min(int(digits), TAIL_MAX) + 1)


def set_since(target: Timestamp, text: str) -> None:
    """Unix seconds with up to nine digits of fraction."""
    seconds, _, fraction = text.partition(".")
    whole = seconds.removeprefix("-")
    numbers = whole + fraction
    if not (whole and numbers.isascii() and numbers.isdecimal()) or len(whole) > 12:
        raise bad(f'invalid value for "since": {text!r} is no unix time')
    target.seconds = int(seconds)
    target.nanos = int(fraction[:9].ljust(9, "0"))


def stream(call: Call, selector: logs_pb2.LogSelector, options: logs_pb2.LogSubscriptionOptions, tty: bool) -> Stream:
    """The logs of what is selected, as the query wants them to look; ``tty`` of what was selected."""
    request = logs_pb2.SubscribeLogsRequest(selector=selector, options=options)
    return as_stream(call, call.backend.logs(request), tty)


def as_stream(call: Call, messages: AsyncIterator[SubscribeLogsMessage], tty: bool) -> Stream:
    """Messages as the query wants them to look."""
    look = Look(call.loose("timestamps"), call.loose("details"), framed=not tty)
    framed_type = MULTIPLEXED if call.version >= (1, 42) else RAW
    return Stream(RAW if tty else framed_type, pieces(messages, look))


async def pieces(messages: AsyncIterator[SubscribeLogsMessage], look: Look) -> AsyncGenerator[bytes, None]:
    """The stream's bytes, one piece a log line. A refusal on the way becomes the last piece."""
    async with contextlib.AsyncExitStack() as stack:
        close = getattr(messages, "aclose", None)
        if close is not None:
            stack.push_async_callback(close)
        try:
            async for batch in messages:
                for message in batch.messages:
                    line = frames.payload(message, look.timestamps, look.details)
                    yield frames.frame(message.stream, line) if look.framed else line
        except Refused as refused:
            text = f"Error grabbing logs: {status_and_text(refused)[1]}\n".encode()
            yield frames.frame(frames.SYSTEM, text) if look.framed else text


ROUTES = {"GET /services/*/logs": service_logs, "GET /tasks/*/logs": task_logs}
