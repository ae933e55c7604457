"""How a running node is asked about itself: msgpack frames over a unix socket, both ways.

A frame is four bytes of length (big endian) and one msgpack map. A request is ``{"version": 2, "ask": NAME, ...}``; its
answer ``{"version": 2, "ok": true, "value": ...}`` or ``{"version": 2, "ok": false, "error": TEXT}``. Some answers go
on: ``{"version": 2, "more": ...}`` any number of times, then ``{"version": 2, "end": TEXT, ...}``. Requests of one
connection are answered in their order. An answer to a version that is not spoken here names the one that is.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack

VERSION: Final = 2
REQUEST_MAX: Final = 64 * 1024
ANSWER_MAX: Final = 64 * 1024 * 1024
HEAD: Final = struct.Struct(">I")


class BadRequest(ValueError):
    """A request that makes no sense; the text is for whoever sent it."""


def encode(message: dict[str, Any]) -> bytes:
    """One frame."""
    body: bytes = msgpack.packb(message)
    return HEAD.pack(len(body)) + body


def frame_length(head: bytes, limit: int) -> int:
    """How many bytes follow; BadRequest if that is more than ``limit``."""
    length: int = HEAD.unpack(head)[0]
    if length > limit:
        raise BadRequest(f"a frame of {length} bytes is too long: at most {limit}")
    return length


def decode(body: bytes) -> dict[str, Any]:
    """The map in a frame; BadRequest for anything else."""
    try:
        message = msgpack.unpackb(body)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        raise BadRequest("a frame is one msgpack map") from None
    if not isinstance(message, dict):
        raise BadRequest("a frame is one msgpack map")
    return message


def decode_request(body: bytes) -> dict[str, Any]:
    """A request of this version; BadRequest for anything else."""
    request = decode(body)
    if request.get("version") != VERSION:
        raise BadRequest(f"version {request.get('version')!r} is not spoken here; version {VERSION} is")
    return checked(request)


def checked(request: dict[str, Any]) -> dict[str, Any]:
    """A request that says what it asks for; BadRequest otherwise."""
    if not isinstance(request.get("ask"), str):
        raise BadRequest("a request says in 'ask' what it asks for")
    return request


def answer(value: Any) -> bytes:
    """A good answer."""
    return encode({"version": VERSION, "ok": True, "value": value})


def refusal(text: str) -> bytes:
    """A bad answer."""
    return encode({"version": VERSION, "ok": False, "error": text})


def more(value: Any) -> bytes:
    """The next piece of an answer that goes on."""
    return encode({"version": VERSION, "more": value})


def end(text: str, **details: Any) -> bytes:
    """The end of an answer that went on, and why."""
    return encode({"version": VERSION, "end": text, **details})
