"""Waiting for a swarm to get somewhere, with a line whenever it got further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from swarmlet.engine_link import Engine, NoAnswer, Refused

POLL_S: Final = 0.5
SERVER_ERROR: Final = 500


class TimedOut(Exception):
    """It did not come to pass in time; the text says what is missing."""


def until(
    engine: Engine, missing: Callable[[], str], timeout_s: float, say: Callable[[str], None], about: str = ""
) -> None:
    """Asks until nothing is ``missing`` any more, and says each new answer; TimedOut with the last one, which is
    ``about`` something. A manager that does not answer for a while, or has no leader to ask, is asked again."""
    deadline, last = engine.clock() + timeout_s, ""
    while text := _asked(missing):
        if engine.clock() >= deadline:
            raise TimedOut(f"{about + ' ' if about else ''}after {timeout_s:g} s: {text}")
        if text != last:
            say(f"    {text}")
            last = text
        engine.rest(POLL_S)


def _asked(missing: Callable[[], str]) -> str:
    try:
        return missing()
    except NoAnswer as error:
        return str(error)
    except Refused as refused:
        if refused.status < SERVER_ERROR:
            raise
        return str(refused)
