"""The world of a node: clock, randomness, entropy, and the ports to network, disk and processes.

Actors and the pure rooms reach the real world through this alone, so that the same classes run in production and
under virtual time, and so that a crash, a pause or a skewed clock happens to one node.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from runtime.executor.port import Executor
    from runtime.wire.https import Https
    from runtime.wire.port import Transport


class Clock(Protocol):
    """Two readings in seconds: one that only grows, and the time of day since 1970."""

    def monotonic(self) -> float: ...

    def now(self) -> float: ...


class IngressEdge(Protocol):
    """Takes what comes for published services and hands it on (``runtime.wire.ingress_proxy`` does)."""

    def apply(self, routes: Any, done: Callable[[Any], None]) -> None:
        """Takes over routes; ``done`` hears of the ports that cannot be listened on, from any thread."""


class RealClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return time.time()


@dataclass(slots=True)
class World:
    """What one node may touch.

    ``entropy(n)`` gives n bytes for ids and key material; ``random`` serves jitter and choices. A port that a node
    has no use for may be absent (a message test needs neither network nor disk). ``host_subnets()`` are the IP networks
    that this machine is on (``ipaddress`` objects).
    """

    name: str = "node"
    clock: Clock = field(default_factory=RealClock)
    random: random.Random = field(default_factory=random.SystemRandom)
    entropy: Callable[[int], bytes] = os.urandom
    transport: Transport | None = None
    https: Https | None = None
    disk: Any = None
    executor: Executor | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    host_subnets: Callable[[], Sequence[Any]] = tuple
    ingress: IngressEdge | None = None
