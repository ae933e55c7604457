"""The keeper's wire format: frames of a length and a msgpack value, over a private unix socket.

A client's frame is ``[number, method, arguments]``; the keeper answers ``[number, True, result]`` or
``[number, False, {"code": ..., "text": ...}]``, in any order. ``number`` is the client's, above 0. The first call is
``hello``; VERSION has to be equal on both sides, for a keeper outlives the release that started it: methods and
arguments may be added within a version, never changed.

Imported by the keeper, so: the standard library's small modules and msgpack, nothing else.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

VERSION = 1
FRAME_MAX = 16 << 20
_LENGTH = struct.Struct(">I")


class BrokenFrame(Exception):
    """What came is no frame; the connection is of no more use."""


def encode(value: Any) -> bytes:
    """One frame. BrokenFrame if it would be longer than FRAME_MAX bytes."""
    body: bytes = msgpack.packb(value)
    if len(body) > FRAME_MAX:
        raise BrokenFrame(f"a frame of {len(body)} bytes; {FRAME_MAX} are allowed")
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Turns bytes as they arrive into values."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The values completed by ``data``. BrokenFrame if a length or a body is none."""
        self._buffer += data
        values: list[Any] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > FRAME_MAX:
                raise BrokenFrame(f"a frame of {length} bytes; {FRAME_MAX} are allowed")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            values.append(_unpack(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return values


def _unpack(body: bytes) -> Any:
    try:
        return msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise BrokenFrame(f"a frame that is not msgpack: {error}") from error
