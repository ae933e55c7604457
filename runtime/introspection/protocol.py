"""How a running node is asked about itself: one JSON object a line over a unix socket, both ways.

A request is ``{"version": 1, "ask": NAME, ...}``; its answer ``{"version": 1, "ok": true, "value": ...}`` or
``{"version": 1, "ok": false, "error": TEXT}``. Requests of one connection are answered in their order. An answer to a
version that is not spoken here names the one that is.
"""

from __future__ import annotations

import json
from typing import Any, Final

VERSION: Final = 1
REQUEST_MAX: Final = 64 * 1024
ANSWER_MAX: Final = 64 * 1024 * 1024


class BadRequest(ValueError):
    """A request that makes no sense; the text is for whoever sent it."""


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def decode_request(line: bytes) -> dict[str, Any]:
    """A request of this version; BadRequest for anything else."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRequest("a request is one JSON object a line") from None
    if not isinstance(request, dict):
        raise BadRequest("a request is one JSON object a line")
    if request.get("version") != VERSION:
        raise BadRequest(f"version {request.get('version')!r} is not spoken here; version {VERSION} is")
    if not isinstance(request.get("ask"), str):
        raise BadRequest("a request says in 'ask' what it asks for")
    return request


def answer(value: Any) -> bytes:
    """A good answer."""
    return encode({"version": VERSION, "ok": True, "value": value})


def refusal(text: str) -> bytes:
    """A bad answer."""
    return encode({"version": VERSION, "ok": False, "error": text})
