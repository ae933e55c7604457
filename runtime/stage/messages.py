"""What the stage itself says to actors that watch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ActorDown:
    """A watched actor failed (it comes back unless ``final``) or ended (``error`` is none)."""

    path: str
    error: BaseException | None
    final: bool


@dataclass(frozen=True, slots=True)
class ActorUp:
    """A watched actor runs again, or for the first time."""

    path: str
    restarts: int
