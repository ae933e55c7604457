"""Reading one field of a JSON object as the type it must have.

Rules it owns: null and absent are the same and mean the zero value; a wrong type is ApiError 400 naming the field's
path; integers are integers (no 1.0, no true) within the range of the Go type they stand for. ``path`` is the path
of the object with a trailing dot (or empty at the top), so that success costs no string work.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, NoReturn

from runtime.engine_api.errors import bad
from runtime.engine_api.jsonio import JsonObject, kind_of

I64_MIN: Final = -(1 << 63)
I64_MAX: Final = (1 << 63) - 1
U64_MAX: Final = (1 << 64) - 1
U32_MAX: Final = (1 << 32) - 1
I32_MAX: Final = (1 << 31) - 1


def wrong(path: str, key: str, wanted: str, value: object) -> NoReturn:
    """Refuse ``value``, which is not ``wanted``."""
    raise bad(f"invalid JSON: {path}{key} must be {wanted}, got {kind_of(value)}")


def text(obj: JsonObject, key: str, path: str) -> str:
    """A string."""
    value = obj.get(key)
    if value is None:
        return ""
    return value if type(value) is str else wrong(path, key, "a string", value)


def flag(obj: JsonObject, key: str, path: str) -> bool:
    """A boolean."""
    value = obj.get(key)
    if value is None:
        return False
    return value if type(value) is bool else wrong(path, key, "a boolean", value)


def integer(obj: JsonObject, key: str, path: str, low: int = I64_MIN, high: int = I64_MAX) -> int:
    """An integer in ``low..high``, 64 bit signed unless told."""
    return maybe_integer(obj, key, path, low, high) or 0


def maybe_integer(obj: JsonObject, key: str, path: str, low: int = I64_MIN, high: int = I64_MAX) -> int | None:
    """An integer whose absence differs from zero."""
    value = obj.get(key)
    if value is None:
        return None
    if type(value) is not int:
        wrong(path, key, "an integer", value)
    if not low <= value <= high:
        raise bad(f"invalid JSON: {path}{key} must be from {low} to {high}, got {str(value)[:24]}")
    return value


def unsigned(obj: JsonObject, key: str, path: str) -> int:
    """A 64 bit unsigned integer."""
    return maybe_integer(obj, key, path, 0, U64_MAX) or 0


def u32(obj: JsonObject, key: str, path: str) -> int:
    """A 32 bit unsigned integer."""
    return maybe_integer(obj, key, path, 0, U32_MAX) or 0


def number(obj: JsonObject, key: str, path: str) -> float:
    """A number that fits a 32 bit float."""
    value = obj.get(key)
    if value is None:
        return 0.0
    if type(value) is not float and type(value) is not int:
        wrong(path, key, "a number", value)
    if abs(value) > 3.4028234663852886e38:
        raise bad(f"invalid JSON: {path}{key} is out of range")
    return float(value)


def child(obj: JsonObject, key: str, path: str) -> JsonObject | None:
    """An object, None when absent: the two differ wherever a message's presence means something."""
    value = obj.get(key)
    if value is None or type(value) is dict:
        return value
    wrong(path, key, "an object", value)


def listing(obj: JsonObject, key: str, path: str) -> list[Any]:
    """An array of anything."""
    value = obj.get(key)
    if value is None:
        return []
    return value if type(value) is list else wrong(path, key, "an array", value)


def texts(obj: JsonObject, key: str, path: str) -> list[str]:
    """An array of strings; a null in it is an empty string."""
    if obj.get(key) is None:
        return []
    values = listing(obj, key, path)
    for index, value in enumerate(values):
        if type(value) is not str and value is not None:
            wrong(path, f"{key}[{index}]", "a string", value)
    return [value or "" for value in values] if None in values else values


def children(obj: JsonObject, key: str, path: str) -> list[JsonObject]:
    """An array of objects; a null in it is an empty object."""
    if obj.get(key) is None:
        return []
    values = listing(obj, key, path)
    for index, value in enumerate(values):
        if value is not None and type(value) is not dict:
            wrong(path, f"{key}[{index}]", "an object", value)
    return [{} if value is None else value for value in values]


def mapping(obj: JsonObject, key: str, path: str) -> dict[str, str]:
    """An object of strings; a null in it is an empty string."""
    value = child(obj, key, path)
    if not value:
        return {}
    for name, item in value.items():
        if type(item) is not str and item is not None:
            wrong(path, f"{key}.{name}", "a string", item)
    return {name: item or "" for name, item in value.items()} if None in value.values() else value


def octets(obj: JsonObject, key: str, path: str) -> bytes:
    """Bytes in base64 of the standard alphabet with padding; line breaks in it are skipped."""
    value = text(obj, key, path)
    try:
        return base64.b64decode(value.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        raise bad(f"invalid JSON: {path}{key} is not base64") from None
