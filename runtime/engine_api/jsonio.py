"""JSON on the wire: strict reading of bodies, writing in the engine's dialect.

Rules it owns:
- An absent body is the zero value, not an error. A present one is a JSON object, complete, with nothing behind it.
- No number outside JSON (NaN, Infinity), no text outside Unicode gets in: lone surrogates become U+FFFD as in Go.
- Written JSON is compact, ends with a newline, and escapes nothing for HTML.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from runtime.engine_api.errors import ApiError, bad

JsonObject = dict[str, Any]

MAX_BODY: Final = 10 * 1024 * 1024
"""Bytes of a request's body; the largest legal one is a config of 1000 KiB in base64."""

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode


def encode(value: object) -> bytes:
    """``value`` as an answer's body."""
    return (_encode(value) + "\n").encode()


def too_large() -> ApiError:
    """The refusal of a body over ``MAX_BODY``."""
    return bad(f"request body too large: more than {MAX_BODY} bytes")


def decode(body: bytes, content_type: str) -> JsonObject:
    """The object in a request's body, empty for an absent body or ``null``. Raises ApiError 400 for anything else."""
    if not body:
        return {}
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise bad(f"unsupported Content-Type header ({content_type}): must be 'application/json'")
    value = _parse(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(f"invalid JSON: the body must be an object, got {kind_of(value)}")
    return value


def _parse(body: bytes) -> Any:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise bad(f"invalid JSON: not UTF-8 at byte {error.start}") from None
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise _syntax(error) from None
    except RecursionError:
        raise bad("invalid JSON: nested too deeply") from None
    except ValueError as error:
        raise bad(f"invalid JSON: {error}") from None
    return whole(value) if "\\u" in text else value


def _syntax(error: json.JSONDecodeError) -> ApiError:
    if error.msg == "Extra data":
        return bad("unexpected content after JSON")
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        return bad("invalid JSON: got EOF while reading request body")
    return bad(f"invalid JSON: {error.msg} at character {error.pos}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_decoder = json.JSONDecoder(parse_constant=_no_constant)


def whole(value: Any) -> Any:
    """``value`` with lone surrogates replaced, which an escape can write and protobuf cannot hold."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {whole(key): whole(item) for key, item in value.items()}
    return value


def kind_of(value: object) -> str:
    """What a JSON value is, in words for an error."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names: tuple[tuple[type, str], ...] = (
        (int, "an integer"), (float, "a fraction"), (str, "a string"), (list, "an array"), (dict, "an object"),
    )  # fmt: skip
    return next(name for kind, name in names if isinstance(value, kind))
