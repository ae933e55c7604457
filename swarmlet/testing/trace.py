"""What was delivered to whom while a test looked: bounded, by path and message type.

A trace that *follows* takes in, with each delivery that matches, all that came of it, on whatever node: deliveries of
the same trace id, and of those that it goes on in (``Actor.continues``).
"""

from __future__ import annotations

import fnmatch
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from runtime.introspection.client import Link, NoAnswer
from runtime.introspection.tracing import COUNT_MAX, RATE_MAX, SECONDS_MAX

if TYPE_CHECKING:
    from runtime.stage.cell import Cell
    from runtime.stage.mailbox import Envelope
    from runtime.stage.simulator import Simulator


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message: when, on which node, from whom (empty for edges) to whom, of which class, and itself (None over real
    sockets: messages do not leave their process)."""

    at: float
    node: str
    sender: str
    path: str
    type: str
    message: Any = None
    trace: int = 0

    def __str__(self) -> str:
        return f"{self.at:.6f} {self.node}: {self.sender or '(edge)'} -> {self.path} {self.type}"


@dataclass(slots=True)
class Trace:
    """Deliveries that match, up to ``limit``; ``lost`` counts those that came after, ``ended`` says which nodes told no
    more and why. Ends with its ``with`` block, or by ``stop``."""

    paths: str
    types: str
    limit: int
    deliveries: list[Delivery] = field(default_factory=list)
    lost: int = 0
    ended: list[str] = field(default_factory=list)

    def fits(self, node: str, path: str, kind: str) -> bool:
        """Whether a delivery is one of those that were asked for."""
        return fnmatch.fnmatchcase(f"{node}:{path}", self.paths) and fnmatch.fnmatchcase(kind, self.types)

    def take(self, delivery: Delivery) -> None:
        """Keeps it, or counts it."""
        if len(self.deliveries) < self.limit:
            self.deliveries.append(delivery)
        else:
            self.lost += 1

    def stop(self) -> None:
        """Sees nothing more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def __str__(self) -> str:
        lines = [str(each) for each in self.deliveries]
        more = [f"({self.lost} more)"] if self.lost else []
        return "\n".join([*lines, *more, *self.ended])


class SimulatedTrace(Trace):
    """Under virtual time: sees each delivery as it is made."""

    def __init__(self, simulator: Simulator, paths: str, types: str, limit: int, follow: bool) -> None:
        super().__init__(paths, types, limit)
        self.simulator = simulator
        self.follow = follow
        self._followed: set[int] = set()
        self._in_hand: deque[Delivery] = deque(maxlen=1)
        simulator.observers.append(self.observe)
        if follow:
            simulator.linkers.append(self.link)

    def observe(self, cell: Cell, envelope: Envelope) -> None:
        """Is shown each delivery."""
        body, sender, trace = envelope[0], envelope[1], envelope[4]
        node, kind = cell.stage.world.name, type(body).__name__
        fits = self.fits(node, cell.path, kind)
        if not fits and not self.follow:
            return
        told_by = sender.path if sender is not None else ""
        delivery = Delivery(self.simulator.time, node, told_by, cell.path, kind, body, trace)
        if fits or trace in self._followed:
            self._followed.add(trace)
            self.take(delivery)
        else:
            self._in_hand.append(delivery)

    def link(self, cause: int, effect: int) -> None:
        """One trace goes on in another: that of the message in hand, or of what is told over it."""
        if cause in self._followed and effect not in self._followed:
            self._followed.add(effect)
            if self._in_hand and self._in_hand[0].trace == effect:
                self.take(self._in_hand.pop())

    def stop(self) -> None:
        if self.observe in self.simulator.observers:
            self.simulator.observers.remove(self.observe)
        if self.link in self.simulator.linkers:
            self.simulator.linkers.remove(self.link)


class SocketTrace(Trace):
    """Over real sockets: each node that is up tells by its introspection socket what it has handled, a moment later.
    ``clock`` turns a node's monotonic seconds into the test's. A node that ends takes its part of the trace along; in
    its next life it is not traced."""

    def __init__(
        self, nodes: Mapping[str, str], paths: str, types: str, limit: int, clock: Callable[[float], float]
    ) -> None:
        super().__init__(paths, types, limit)
        self._clock = clock
        self._lock = threading.Lock()
        self._links = {name: Link(path) for name, path in nodes.items()}
        self._readers = [self._read(name, link) for name, link in self._links.items()]

    def _read(self, node: str, link: Link) -> threading.Thread:
        limits = {"count": COUNT_MAX, "rate": RATE_MAX, "seconds": SECONDS_MAX}
        pieces = link.follow("trace", types=[self.types], everything=True, **limits)
        next(pieces)  # from here on nothing is missed

        def read() -> None:
            try:
                for piece in pieces:
                    for record in piece.get("more", ()):
                        self._told(node, record)
                    if "end" in piece:
                        self.ended.append(f"{node}: {piece['end']}")
            except (NoAnswer, OSError):
                return  # the trace was stopped, or the node is gone

        thread = threading.Thread(target=read, name=f"trace-{node}", daemon=True)
        thread.start()
        return thread

    def _told(self, node: str, record: Mapping[str, Any]) -> None:
        path, kind = record["receiver"], record["type"]
        if self.fits(node, path, kind):
            at, trace = self._clock(record["begun"]), record["trace"]
            with self._lock:
                self.take(Delivery(at, node, record["sender"], path, kind, None, trace))

    def stop(self) -> None:
        for link in self._links.values():
            link.close()
        for thread in self._readers:
            thread.join()
