"""The ``filters`` parameter of lists.

Rules: both of its forms are read, ``{"label": {"a=b": true}}`` and ``{"label": ["a=b"]}``; a key that a list does not
know is refused, because ignoring it would show (or let a script delete) more than was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, NoReturn

from runtime.engine_api import jsonio
from runtime.engine_api.errors import bad

Filters = dict[str, list[str]]


def parse(text: str, accepted: Collection[str]) -> Filters:
    """The values of each key in the order given. Raises ApiError 400 for malformed text and for unknown keys."""
    if not text:
        return {}
    try:
        parsed = jsonio.whole(json.loads(text))
    except (ValueError, RecursionError):
        raise bad("invalid filters: not JSON") from None
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        _malformed("an object of filters is wanted")
    filters = {key: _values(key, given) for key, given in parsed.items()}
    for key in filters:
        if key not in accepted:
            raise bad(f"Invalid filter '{key}'")
    return filters


def _values(key: str, given: Any) -> list[str]:
    if isinstance(given, dict):
        return list(given)
    if isinstance(given, list) and all(isinstance(value, str) for value in given):
        return given
    return _malformed(f"the values of '{key}' are neither an object nor an array of strings")


def _malformed(reason: str) -> NoReturn:
    raise bad(f"invalid filters: {reason}")


def labels(values: list[str]) -> dict[str, str]:
    """``key=value`` pairs; a key alone has the empty value, which SwarmKit takes for any."""
    pairs: dict[str, str] = {}
    for value in values:
        key, _, wanted = value.partition("=")
        pairs[key] = wanted
    return pairs


def boolean(filters: Filters, key: str) -> bool:
    """A filter that is true or false. Raises ApiError 400 for another value or for both."""
    found = {value.lower() for value in filters.get(key, [])}
    if found <= {"true", "1"}:
        return bool(found)
    if found <= {"false", "0"}:
        return False
    shown = " ".join(sorted(found))
    raise bad(f"invalid filter '{key}=[{shown}]'")
