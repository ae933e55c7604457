"""Log messages as bytes: frames for clients that tell the streams apart, bare lines for terminals.

Rules: a frame is one byte of stream (1 stdout, 2 stderr, 3 the daemon itself), three zeros, the payload's length in
four bytes big-endian, the payload; one message is one frame. Inside: timestamp, details, line, a space between them.
"""

from __future__ import annotations

import struct
import urllib.parse
from typing import TYPE_CHECKING, Final

from runtime.engine_api.convert import common

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from runtime.wire.pb.logs_pb2 import LogMessage

STDOUT: Final = 1
STDERR: Final = 2
SYSTEM: Final = 3
_HEAD: Final = struct.Struct(">B3xI")


def frame(stream: int, payload: bytes) -> bytes:
    """``payload`` with the header that says which stream it belongs to."""
    return _HEAD.pack(stream, len(payload)) + payload


def payload(message: LogMessage, timestamps: bool, details: bool) -> bytes:
    """A message's line as asked for."""
    head = stamp(message.timestamp) + " " if timestamps else ""
    if details:
        head += detail_text(message) + " "
    return head.encode() + message.data if head else message.data


def stamp(timestamp: Timestamp) -> str:
    """RFC 3339 with nine digits, so that lines sort as text."""
    return f"{common.whole_seconds(timestamp.seconds)}.{timestamp.nanos:09d}Z"


def detail_text(message: LogMessage) -> str:
    """Where the line came from and what its logger adds, sorted by key and escaped as in a query."""
    context = message.context
    pairs = [
        ("com.docker.swarm.node.id", context.node_id),
        ("com.docker.swarm.service.id", context.service_id),
        ("com.docker.swarm.task.id", context.task_id),
        *((attr.key, attr.value) for attr in message.attrs),
    ]
    quote = urllib.parse.quote_plus
    return ",".join(f"{quote(key)}={quote(value)}" for key, value in sorted(pairs, key=lambda pair: pair[0]))
