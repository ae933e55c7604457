"""A page as a file: what is on it as text, in the directory in which the console was started."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Final

from runtime.introspection.lines import harmless
from runtime.introspection.render import columns
from runtime.introspection.writing import write_private
from swarmlet.console.views import Table

SAME_SECOND_MAX: Final = 100
"""So many pages of one name may be saved within a second."""


def as_text(shown: Table | str) -> str:
    """What a page shows, whole: no row is left out for want of room, no cell is cut."""
    if isinstance(shown, str):
        return f"{harmless(shown)}\n"
    table = [shown.columns, *(tuple(harmless(cell) for cell in row.cells) for row in shown.rows)]
    return "\n".join(filter(None, (columns(table, shown.right), shown.closing, ""))) + "\n"


def save(name: str, shown: Table | str, now: datetime.datetime) -> Path:
    """Writes it to a new file of mode 0600; where. OSError if that cannot be."""
    stem = f"swarmlet-{name}-{now:%Y%m%dT%H%M%S}"
    data = as_text(shown).encode("utf-8")
    for number in range(SAME_SECOND_MAX):
        path = Path.cwd() / (f"{stem}-{number}.txt" if number else f"{stem}.txt")
        try:
            write_private(os.fspath(path), data)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(f"{stem} is there {SAME_SECOND_MAX} times")
