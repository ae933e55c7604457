"""What was delivered to whom while a test looked: bounded, by path and message type.

A trace that *follows* takes in, with each delivery that matches, all that came of it, on whatever node: deliveries of
the same trace id, and of those that it goes on in (``Actor.continues``).
"""

from __future__ import annotations

import fnmatch
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.stage.cell import Cell
    from runtime.stage.mailbox import Envelope
    from runtime.stage.simulator import Simulator


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message: when, on which node, from whom (empty for edges) to whom, and itself."""

    at: float
    node: str
    sender: str
    path: str
    message: Any
    trace: int = 0

    @property
    def type(self) -> str:
        """The name of the message's class."""
        return type(self.message).__name__

    def __str__(self) -> str:
        return f"{self.at:.6f} {self.node}: {self.sender or '(edge)'} -> {self.path} {self.type}"


@dataclass(slots=True)
class Trace:
    """Deliveries that match, up to ``limit``; ``lost`` counts those that came after. With ``follow`` also what came of
    them. Ends with its ``with`` block, or by ``stop``."""

    simulator: Simulator
    paths: str
    types: str
    limit: int
    follow: bool = False
    deliveries: list[Delivery] = field(default_factory=list)
    lost: int = 0
    _followed: set[int] = field(default_factory=set)
    _in_hand: deque[Delivery] = field(default_factory=lambda: deque(maxlen=1))

    def begin(self) -> Trace:
        """Sees deliveries from now on."""
        self.simulator.observers.append(self.observe)
        if self.follow:
            self.simulator.linkers.append(self.link)
        return self

    def observe(self, cell: Cell, envelope: Envelope) -> None:
        """Is shown each delivery."""
        body, sender, trace = envelope[0], envelope[1], envelope[4]
        where = f"{cell.stage.world.name}:{cell.path}"
        fits = fnmatch.fnmatchcase(where, self.paths) and fnmatch.fnmatchcase(type(body).__name__, self.types)
        if not fits and not self.follow:
            return
        told_by = sender.path if sender is not None else ""
        delivery = Delivery(self.simulator.time, cell.stage.world.name, told_by, cell.path, body, trace)
        if fits or trace in self._followed:
            self._followed.add(trace)
            self._take(delivery)
        else:
            self._in_hand.append(delivery)

    def link(self, cause: int, effect: int) -> None:
        """One trace goes on in another: that of the message in hand, or of what is told over it."""
        if cause in self._followed and effect not in self._followed:
            self._followed.add(effect)
            if self._in_hand and self._in_hand[0].trace == effect:
                self._take(self._in_hand.pop())

    def _take(self, delivery: Delivery) -> None:
        if len(self.deliveries) < self.limit:
            self.deliveries.append(delivery)
        else:
            self.lost += 1

    def stop(self) -> None:
        """Sees nothing more."""
        if self.observe in self.simulator.observers:
            self.simulator.observers.remove(self.observe)
        if self.link in self.simulator.linkers:
            self.simulator.linkers.remove(self.link)

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def __str__(self) -> str:
        lines = [str(each) for each in self.deliveries]
        return "\n".join([*lines, f"({self.lost} more)"] if self.lost else lines)
