"""What keeps an actor from its messages, in words: read from its counters, as the actor itself cannot say it then.

It is told with an answer that lacks something for its sake: an actor that did not answer a question, or a manager whose
consensus does not go on, so that what it knows of the swarm may be old.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from runtime.introspection.redact import redact
from runtime.introspection.sequence import duration
from runtime.stage import Stage
from runtime.stage.cell import Cell, Life

LATE_S: Final = 2.0
KNOWS: Final = ("/cluster/node/manager/raft", "/cluster/node/manager/raft/log", "/cluster/node/manager/store")
"""Without these a manager hears of no commit."""


def standing(cell: Cell, now: int) -> str:
    """What keeps an actor from its messages for two seconds or more, or will until somebody ends it; empty where
    nothing does. ``now`` is in nanoseconds."""
    oldest, handling = cell.mailbox.oldest(), cell.handling
    waited = (now - oldest) / 1e9 if oldest is not None else 0.0
    waiting = f"its messages wait for {duration(waited)}" if waited >= LATE_S else ""
    if cell.life is not Life.RUNNING:
        return f"{cell.life.value}: {redact(cell.last_error)}" if cell.last_error else cell.life.value
    if cell.suspended:
        return ", ".join(filter(None, ("suspended", waiting)))
    took = (now - cell.handling_since) / 1e9
    if handling is not None and took >= LATE_S:
        return f"stuck at {type(handling[0]).__name__} for {duration(took)}"
    return waiting


def kept(stage: Stage, paths: Iterable[str] = KNOWS) -> dict[str, str]:
    """Those of the actors that something keeps from their messages, with what it is."""
    now = stage.read_nanos()
    found = {path: standing(cell, now) for path in paths if (cell := stage.cells.get(path)) is not None}
    return {path: why for path, why in found.items() if why}
