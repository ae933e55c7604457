"""Lines of tasks as the log services' messages carry them, and what is asked of logs from those messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from runtime.executor.port import LogLine, LogOptions, Stream
from runtime.wire.pb import logs_pb2


def options_of(options: logs_pb2.LogSubscriptionOptions) -> LogOptions:
    """What to read; no stream named means both. Nanoseconds since 1970."""
    # Numbers that are no stream (0 is "unknown") ask for nothing in particular.
    streams = tuple(stream for stream in Stream if stream.value in options.streams)
    since = options.since.seconds * 1_000_000_000 + options.since.nanos
    return LogOptions(streams or (Stream.STDOUT, Stream.STDERR), options.follow, options.tail, since)


def message_of(context: logs_pb2.LogContext, line: LogLine) -> logs_pb2.LogMessage:
    """One line of the task that ``context`` names."""
    seconds, nanos = divmod(line.timestamp_ns, 1_000_000_000)
    stream = logs_pb2.LOG_STREAM_STDOUT if line.stream is Stream.STDOUT else logs_pb2.LOG_STREAM_STDERR
    stamp = Timestamp(seconds=seconds, nanos=nanos)
    return logs_pb2.LogMessage(context=context, timestamp=stamp, stream=stream, data=line.data)
