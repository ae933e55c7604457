"""Waiting for something that happens elsewhere: the one place where tests of the real world let time pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_FIRST_S, PAUSE_LAST_S = 0.005, 0.1


def until(
    condition: Callable[[], T], what: str = "it is so", seconds: float = 60.0, *, tell: Callable[[], str] = str
) -> T:
    """Waits for something to hold; what it then is.

    It is asked often at first and ten times a second in the end. The limit is reached only where it never comes about;
    then ``what``, the last answer and what ``tell`` says of the surroundings are the failure.
    """
    limit, pause = time.monotonic() + seconds, PAUSE_FIRST_S
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < limit, f"not within {seconds:g} s: {what}; it is {value!r}\n{tell()}".rstrip()
        time.sleep(pause)
        pause = min(pause * 1.5, PAUSE_LAST_S)
