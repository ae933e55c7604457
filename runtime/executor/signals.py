"""Signals by the names and numbers that people write."""

from __future__ import annotations

import signal


def signal_number(text: str) -> int:
    """A signal by name (with or without SIG, in any case, also RTMIN+n) or number. ValueError if it is none."""
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if name.isascii() and name.isdigit() and 0 < int(name) < signal.NSIG:
        return int(name)
    if f"SIG{base}" in signal.Signals.__members__ and (not plus or (base == "RTMIN" and offset.isdigit())):
        number = int(signal.Signals[f"SIG{base}"]) + int(offset or 0)
        if number < signal.NSIG:
            return number
    raise ValueError(f"{text} is no signal")
