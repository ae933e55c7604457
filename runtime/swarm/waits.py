"""One thing that waits, as those say it who own the waiting."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """``subject`` is the id of a service, task or node; ``who`` acts next; ``seconds`` is when it does so by itself at
    the latest, None when something else has to happen first."""

    subject: str
    who: str
    why: str
    seconds: float | None = None
