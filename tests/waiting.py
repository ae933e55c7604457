"""Waiting for something outside this process's control, with a limit that is only reached when it never comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    what: str = "",
    seconds: float = 20.0,
    *,
    every: float = 0.02,
    seen: Callable[[], str] = str,
) -> T:
    """Waits for something to hold; what it then is. ``what``, and ``seen`` when it never came, are for the failure."""
    limit = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < limit, f"not within {seconds:g} s: {what}; it is {value!r}\n{seen()}"
        time.sleep(every)
