"""What an engineer may do to a running actor, and how all of it is undone.

Rules owned here: an act must be asked for in write mode and is logged with who asked; a restart begins what a failure
would begin (an actor whose failures are its parent's is restarted with its parent, one that a failure ends is not); a
suspension and a raised log level have a time and end with it, with the viewer who asked for them, or by ``clear``,
whichever comes first; of several who suspend an actor the last one counts. Messages are sent by hand in test mode only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from runtime.introspection.bodies import NotReplayable, from_plain
from runtime.introspection.levels import LEVELS, LEVELS_ASKED, LOGGERS
from runtime.introspection.protocol import BadRequest
from runtime.stage import Stage
from runtime.stage.cell import Cell, Life
from runtime.stage.policy import Restart

log = logging.getLogger("swarmlet.introspection")

SECONDS_MAX: Final = 600.0


class Viewer:
    """Who looks through one connection, and what ends with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._undo: dict[object, Callable[[], None]] = {}

    def owes(self, key: object, undo: Callable[[], None]) -> None:
        """``undo`` is called once: by ``settle``, or at this viewer's end. What this key owed before is settled now."""
        self.settle(key)
        self._undo[key] = undo

    @property
    def in_debt(self) -> bool:
        """Whether anything ends with this viewer."""
        return bool(self._undo)

    def settle(self, key: object) -> bool:
        """Undoes one thing now; whether there was one."""
        undo = self._undo.pop(key, None)
        if undo is not None:
            undo()
        return undo is not None

    def end(self) -> int:
        """Undoes everything; how much there was."""
        keys = list(self._undo)
        return sum(self.settle(key) for key in keys)


class Acts:
    """The acts on one stage; all methods belong to the server's event loop."""

    def __init__(self, stage: Stage, test_mode: bool = False) -> None:
        self._stage = stage
        self._test_mode = test_mode
        self._suspended_by: dict[Cell, set[Viewer]] = {}
        self._known: dict[str, Callable[[Cell, dict[str, Any], Viewer], str]] = {
            "restart": self._restart,
            "suspend": self._suspend,
            "resume": self._resume,
            "send": self._send,
        }

    def carry_out(self, request: dict[str, Any], cell: Cell | None, viewer: Viewer) -> str:
        """Does what is asked and says what was done. BadRequest if it may not be."""
        name = str(request.get("act", ""))
        if request.get("write") is not True:
            raise BadRequest("this changes the running node: ask for it in write mode")
        if name == "log-level":
            done = self._log_level(request, viewer)
        else:
            act = self._known.get(name)
            if act is None:
                raise BadRequest(f"nothing is known of the act {name[:100]!r}")
            if cell is None:
                raise BadRequest("an act names the path of an actor")
            done = act(cell, request, viewer)
        log.warning("by hand, from %s: %s", viewer.name, done)
        return done

    def _restart(self, cell: Cell, request: dict[str, Any], viewer: Viewer) -> str:
        whole = fails_as(cell)
        if whole.policy.restart is Restart.TEMPORARY:
            raise BadRequest(f"{whole.path} ends when it fails, and is not started again")
        if whole.life not in (Life.RUNNING, Life.DOWN):
            raise BadRequest(f"{whole.path} is {whole.life.value}: it can be restarted while it runs or is down")
        whole.control(whole.begin_again)
        why = f": {cell.path} does not begin alone" if whole is not cell else ""
        return f"{whole.path} begins a new life{why}"

    def _suspend(self, cell: Cell, request: dict[str, Any], viewer: Viewer) -> str:
        seconds, key = _seconds(request), ("suspend", cell.path)
        timer = asyncio.get_running_loop().call_later(seconds, viewer.settle, key)

        def resume() -> None:
            timer.cancel()
            holders = self._suspended_by[cell]
            holders.remove(viewer)
            if not holders:
                del self._suspended_by[cell]
                cell.suspend(False)
                log.warning("%s is resumed", cell.path)

        viewer.owes(key, resume)
        self._suspended_by.setdefault(cell, set()).add(viewer)
        cell.suspend(True)
        return f"{cell.path} is suspended for {seconds:g} s"

    def _resume(self, cell: Cell, request: dict[str, Any], viewer: Viewer) -> str:
        for holder in list(self._suspended_by.get(cell, ())):
            holder.settle(("suspend", cell.path))
        return f"{cell.path} is resumed"

    def _log_level(self, request: dict[str, Any], viewer: Viewer) -> str:
        name, level, seconds = str(request.get("logger", LOGGERS)), str(request.get("level", "")), _seconds(request)
        if name != LOGGERS and not name.startswith(f"{LOGGERS}."):
            raise BadRequest(f"only loggers at and below {LOGGERS!r} are ours")
        if level not in LEVELS:
            raise BadRequest(f"a log level is one of {', '.join(LEVELS)}")
        timer = asyncio.get_running_loop().call_later(seconds, viewer.settle, ("level", name))

        def lower() -> None:
            timer.cancel()
            LEVELS_ASKED.end(name, viewer)

        viewer.owes(("level", name), lower)
        LEVELS_ASKED.ask(name, viewer, level.upper())
        return f"{name} logs at level {level} for {seconds:g} s"

    def _send(self, cell: Cell, request: dict[str, Any], viewer: Viewer) -> str:
        if not self._test_mode:
            raise BadRequest("messages are sent by hand in test mode only")
        try:
            message = from_plain(request.get("message"), self._stage.at)
        except (NotReplayable, TypeError, ValueError, KeyError, AttributeError) as why:
            raise BadRequest(f"this is no message: {why}") from None
        cell.address.tell(message)
        return f"{cell.path} was told a {type(message).__name__}"


def fails_as(cell: Cell) -> Cell:
    """The actor whose life a failure of this one ends: its own, or that of whoever answers for all its failures."""
    while cell.parent is not None and Exception in cell.policy.escalates:
        cell = cell.parent
    return cell


def _seconds(request: dict[str, Any]) -> float:
    seconds = request.get("seconds", 30)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= SECONDS_MAX:
        raise BadRequest(f"a time is a number of seconds above 0, at most {SECONDS_MAX:g}")
    return float(seconds)
