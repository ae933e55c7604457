"""Durations as people write them: ``1h30m``, ``90s``, ``500ms``."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS_NS: Final = {
    "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000,
    "m": 60_000_000_000, "h": 3_600_000_000_000,
}  # fmt: skip
INT64_MAX: Final = 2**63 - 1


def parse_duration(text: str) -> int:
    """``1h30m``, ``1m30s``, ``500ms`` in nanoseconds. Raises ValueError for anything else, negative ones included."""
    position, total = 0, Decimal(0)
    while position < len(text):
        match = _DURATION.match(text, position)
        if match is None:
            break
        total += Decimal(match.group(1)) * _UNITS_NS[match.group(2)]
        position = match.end()
    if not text or (position < len(text) and text != "0") or total > INT64_MAX:
        raise ValueError(f"{text!r} is no duration, such as 10s or 1m30s")
    return int(total)
