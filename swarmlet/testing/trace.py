"""What was delivered to whom while a test looked: bounded, by path and message type.

A trace that *follows* takes in, with each delivery that matches, all that came of it, on whatever node: deliveries of
the same trace id, and of those that it goes on in (``Actor.continues``).
"""

from __future__ import annotations

import fnmatch
import threading
from bisect import insort
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


class Following:
    """Picks what came of some deliveries out of all that nodes tell, in whatever order they are heard.

    A trace id is followed from a time on: that of the delivery that fits, or of the link by which another one came to
    go on in it. Of what is not followed the last ``KEPT`` deliveries and links are kept, in case it will be.
    """

    KEPT = 100_000

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._waiting: dict[int, deque[tuple[float, Delivery]]] = {}
        self._links: dict[int, deque[tuple[int, float]]] = {}
        self._order: deque[tuple[dict[int, Any], int]] = deque()

    def delivered(self, delivery: Delivery, ended: float, fits: bool) -> list[Delivery]:
        """A delivery that had been handled at ``ended``: those that are found by it, itself among them."""
        trace = delivery.trace
        since = self._since.get(trace)
        if fits and (since is None or delivery.at < since):
            return [delivery, *self._follow(trace, delivery.at)]
        if since is not None and ended >= since:
            return [delivery]
        self._keep(self._waiting, trace, (ended, delivery))
        return []

    def link(self, cause: int, effect: int, at: float) -> list[Delivery]:
        """One trace went on in another: the deliveries that are found by that."""
        self._keep(self._links, cause, (effect, at))
        since = self._since.get(cause)
        return [] if since is None or at < since else self._follow(effect, at)

    def _follow(self, trace: int, since: float) -> list[Delivery]:
        found: list[Delivery] = []
        due = [(trace, since)]
        while due:
            trace, since = due.pop()
            known = self._since.get(trace)
            if known is not None and known <= since:
                continue
            self._since[trace] = since
            waiting = self._waiting.pop(trace, ())
            found += [delivery for ended, delivery in waiting if ended >= since]
            for ended, delivery in waiting:
                if ended < since:
                    self._keep(self._waiting, trace, (ended, delivery))
            due += [(effect, at) for effect, at in self._links.get(trace, ()) if at >= since]
        return found

    def _keep(self, where: dict[int, Any], trace: int, what: Any) -> None:
        where.setdefault(trace, deque()).append(what)
        self._order.append((where, trace))
        if len(self._order) > self.KEPT:
            oldest, trace = self._order.popleft()
            if kept := oldest.get(trace):
                kept.popleft()
            if not kept:
                oldest.pop(trace, None)


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
    its next life it is not traced. Who follows has every node tell everything, and where traces go on in others, and
    picks out by itself what came of what fits."""

    def __init__(
        self,
        nodes: Mapping[str, str],
        paths: str,
        types: str,
        limit: int,
        clock: Callable[[float], float],
        follow: bool = False,
    ) -> None:
        super().__init__(paths, types, limit)
        self._clock = clock
        self._lock = threading.Lock()
        self._following = Following() if follow else None
        self._links = {name: Link(path) for name, path in nodes.items()}
        self._readers = [self._read(name, link) for name, link in self._links.items()]

    def _read(self, node: str, link: Link) -> threading.Thread:
        limits = {"count": COUNT_MAX, "rate": RATE_MAX, "seconds": SECONDS_MAX}
        following = self._following is not None
        wanted = [] if following else [self.types]  # ticks and the like are of no trace that is followed
        pieces = link.follow("trace", types=wanted, everything=True, links=following, **limits)
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
        with self._lock:
            if "cause" in record:
                assert self._following is not None
                found = self._following.link(record["cause"], record["effect"], self._clock(record["at"]))
            else:
                found = self._found(node, record)
            for each in found:
                self.take(each)

    def _found(self, node: str, record: Mapping[str, Any]) -> list[Delivery]:
        path, kind, begun = record["receiver"], record["type"], self._clock(record["begun"])
        fits = self.fits(node, path, kind)
        if not fits and self._following is None:
            return []
        delivery = Delivery(begun, node, record["sender"], path, kind, None, record["trace"])
        if self._following is None:
            return [delivery]
        return self._following.delivered(delivery, begun + record["took"], fits)

    def take(self, delivery: Delivery) -> None:
        """Keeps it in its place, or counts it: nodes are heard one after the other."""
        if len(self.deliveries) < self.limit:
            insort(self.deliveries, delivery, key=lambda each: each.at)
        else:
            self.lost += 1

    def stop(self) -> None:
        for link in self._links.values():
            link.close()
        for thread in self._readers:
            thread.join()
