"""What of an actor's declared state may be shown: bounded in size, without anything that looks like a secret.

Actors declare their state without secrets (``Actor.snapshot``); this is the second wall, for the day one forgets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "(hidden)"
ERROR_MAX: Final = 500
TEXT_MAX: Final = 500
ITEMS_MAX: Final = 50
DEPTH_MAX: Final = 4
_SECRET_NAMES: Final = re.compile(
    r"token|secret|passw|credential|private|unlock|(^|[_\s-])(key|keys|kek|pem)($|[_\s-])", re.I
)
_SECRET_TEXTS: Final = re.compile(
    r"SWMTKN-\S+|SWMKEY-\S+|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S
)


def hide(text: str) -> str:
    """The text without what looks like a join token, an unlock key or a private key."""
    return _SECRET_TEXTS.sub(HIDDEN, text)


def redact(value: Any, depth: int = 0) -> Any:
    """A copy of ``value`` made of plain types that JSON knows, cut to size, with secrets replaced by ``(hidden)``."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)  # msgpack knows no more
    if isinstance(value, str):
        return hide(value[: TEXT_MAX * 4])[:TEXT_MAX]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"({len(value)} bytes)"
    if depth >= DEPTH_MAX:
        return "(...)"
    if isinstance(value, Mapping):
        return _mapping(value, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = list(value)
        shown = [redact(item, depth + 1) for item in items[:ITEMS_MAX]]
        return shown if len(items) <= ITEMS_MAX else [*shown, f"({len(items) - ITEMS_MAX} more)"]
    return f"({type(value).__name__})"


def _mapping(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for index, (key, inner) in enumerate(list(value.items())):
        if index == ITEMS_MAX:
            shown["..."] = f"({len(value) - ITEMS_MAX} more)"
            break
        name = str(key)[:TEXT_MAX]
        plain = inner is None or isinstance(inner, (bool, int, float))
        shown[name] = HIDDEN if _SECRET_NAMES.search(name) and not plain and inner != "" else redact(inner, depth + 1)
    return shown
