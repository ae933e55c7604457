"""What was delivered to whom while a test looked: bounded, by path and message type."""

from __future__ import annotations

import fnmatch
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

    @property
    def type(self) -> str:
        """The name of the message's class."""
        return type(self.message).__name__

    def __str__(self) -> str:
        return f"{self.at:.6f} {self.node}: {self.sender or '(edge)'} -> {self.path} {self.type}"


@dataclass(slots=True)
class Trace:
    """Deliveries that match, up to ``limit``; ``lost`` counts those that came after. Ends with its ``with`` block, or
    by ``stop``."""

    simulator: Simulator
    paths: str
    types: str
    limit: int
    deliveries: list[Delivery] = field(default_factory=list)
    lost: int = 0

    def observe(self, cell: Cell, envelope: Envelope) -> None:
        """Is shown each delivery."""
        body, sender = envelope[0], envelope[1]
        where = f"{cell.stage.world.name}:{cell.path}"
        if not fnmatch.fnmatchcase(where, self.paths) or not fnmatch.fnmatchcase(type(body).__name__, self.types):
            return
        if len(self.deliveries) >= self.limit:
            self.lost += 1
            return
        told_by = sender.path if sender is not None else ""
        self.deliveries.append(Delivery(self.simulator.time, cell.stage.world.name, told_by, cell.path, body))

    def stop(self) -> None:
        """Sees nothing more."""
        if self.observe in self.simulator.observers:
            self.simulator.observers.remove(self.observe)

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def __str__(self) -> str:
        lines = [str(each) for each in self.deliveries]
        return "\n".join([*lines, f"({self.lost} more)"] if self.lost else lines)
