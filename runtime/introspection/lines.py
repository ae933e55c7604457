"""Text for a terminal that cannot show all of it."""

from __future__ import annotations

import codecs
from typing import Final

_ASCII: Final = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "▶": ">", "◀": "<", "┘": "'", "…": "."})


def plain(text: str, encoding: str | None) -> str:
    """``text`` as something that writes ``encoding`` can show it: drawn in ASCII if it has no lines, and with escapes
    for what else it does not have."""
    try:
        known = codecs.lookup(encoding or "ascii").name
    except LookupError:
        known = "ascii"
    try:
        text.encode(known)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(known, "backslashreplace").decode(known)
    return text
