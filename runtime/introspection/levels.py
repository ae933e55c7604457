"""Levels of loggers that are raised for a while, by several viewers at once."""

from __future__ import annotations

import logging
import threading
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")
LOGGERS: Final = "swarmlet"
"""Whose logger, and those below it, may be given another level."""


class Levels:
    """Levels that were asked for by hand. A logger has the one that was asked for last, by whoever still looks, and its
    own again after the last of them. Loggers are the process's, and so is this: a process may hold several nodes."""

    def __init__(self) -> None:
        self._own: dict[str, int] = {}
        self._asked: dict[str, dict[object, int | str]] = {}
        self._lock = threading.Lock()

    def ask(self, name: str, who: object, level: str) -> None:
        """From now on the logger has this level, one of LEVELS in capitals."""
        logger = logging.getLogger(name)
        with self._lock:
            self._own.setdefault(name, logger.level)
            asked = self._asked.setdefault(name, {})
            asked.pop(who, None)
            asked[who] = level
            logger.setLevel(level)

    def end(self, name: str, who: object) -> None:
        """``who`` does not want it any more."""
        with self._lock:
            asked = self._asked[name]
            del asked[who]
            if not asked:
                del self._asked[name]
            logging.getLogger(name).setLevel(next(reversed(asked.values())) if asked else self._own.pop(name))


LEVELS_ASKED: Final = Levels()
