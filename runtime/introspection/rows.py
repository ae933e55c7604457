"""The live tree of a stage as rows, read from counters that are kept in passing: no actor is asked or stopped.

A row is a plain mapping, so that it goes over a socket as it is: ``path``, ``actor`` (its class), ``state`` (of its
life, or ``suspended``), ``depth`` and ``highest`` (messages waiting now and at most), ``oldest_s`` (how long the first
of them waits), ``handled``, ``failed`` (messages), ``busy_s`` (in handlers, in all), ``restarts``, ``last_error``,
``handling`` (the type of the message in hand) and ``handling_s`` (for how long).
"""

from __future__ import annotations

from typing import Any

from runtime.introspection.redact import ERROR_MAX
from runtime.stage import Stage
from runtime.stage.cell import Cell, Life

Row = dict[str, Any]


def rows(stage: Stage) -> list[Row]:
    """All actors of a stage, parents before children."""
    now = stage.read_nanos()
    return [row(cell, now) for cell in stage.walk()]


def row(cell: Cell, now: int) -> Row:
    """One actor. Its own thread goes on meanwhile: each figure is true, together they may be a moment apart."""
    # list() of a dict's values is one step for the interpreter; iterating over it would not be.
    stats = list(cell.tally.stats.values())
    oldest = cell.mailbox.oldest()
    handling = cell.handling
    return {
        "path": cell.path,
        "actor": cell.cls.__name__,
        "state": "suspended" if cell.suspended and cell.life is Life.RUNNING else cell.life.value,
        "depth": cell.mailbox.depth,
        "highest": max(cell.mailbox.highest, cell.mailbox.depth),
        "oldest_s": _seconds(now - oldest) if oldest is not None else 0.0,
        "handled": sum(each.count for each in stats),
        "failed": sum(each.failed for each in stats),
        "restarts": cell.failures.total,
        "last_error": cell.last_error[:ERROR_MAX],
        "busy_s": round(sum(each.busy_s for each in stats), 6),
        "handling": type(handling[0]).__name__ if handling is not None else "",
        "handling_s": _seconds(now - cell.handling_since) if handling is not None else 0.0,
    }


def _seconds(nanos: int) -> float:
    return round(max(0, nanos) / 1e9, 3)


def totals(stage: Stage) -> Row:
    """What concerns the stage as a whole."""
    seen = stage.observations
    return {
        "name": stage.name,
        "clock": stage.read_clock(),
        "actors": len(stage.cells),
        "dead_letters": seen.dead_letters,
        "late_answers": seen.late_answers,
        "refused_full": seen.refused_full,
        "crashes": len(seen.crashes),
    }
