"""Text for a terminal: without what would command it, and for one that cannot show all of it.

What is shown comes from tasks, other nodes and their names too: none of that may move the cursor, rename the window or
turn the direction of writing.
"""

from __future__ import annotations

import codecs
import re
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


_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_COMMANDS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """``text`` without colours, and with other control characters as one reads them (``^[``); ends of lines and tabs
    stay."""
    return _COMMANDS.sub(_visible, _COLOUR.sub("", text)) if _COMMANDS.search(text) else text


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"^{chr(code ^ 0x40)}" if code < 0x80 else f"\\u{code:04x}"
