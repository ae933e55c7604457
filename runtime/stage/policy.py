"""When a failed actor comes back, and when its parent has to answer for it.

Pure rules, no clock of their own. The reconnect delay is 100 ms, doubles to 30 s and is forgotten after 30 s
without a failure. More than five failures within 60 s are the parent's matter, unless the policy says otherwise.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field


class Restart(enum.Enum):
    """Which ends of an actor bring it back: every one, only failures, or none."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class Strategy(enum.Enum):
    """Which children start again when one of them failed."""

    ONE_FOR_ONE = "one for one"
    ONE_FOR_ALL = "one for all"
    REST_FOR_ONE = "rest for one"


class GiveUp(enum.Enum):
    """What follows too many failures: the parent fails, nothing, or the actor stays down and says so."""

    ESCALATE = "escalate"
    NEVER = "never"
    STAY_DOWN = "stay down"


class Overflow(enum.Enum):
    """What a full mailbox does: tells the sender, or forgets its oldest message (both are counted)."""

    REFUSE = "refuse"
    DROP_OLDEST = "drop oldest"


@dataclass(frozen=True, slots=True)
class Policy:
    """How an actor lives. ``children_survive``: its failure leaves its children running.

    ``escalates`` names errors that fail the parent at once. ``down_after_two`` names errors of which the second within
    ``within`` seconds keeps the actor down. ``own_thread`` is for actors that may wait on a disk.
    """

    restart: Restart = Restart.PERMANENT
    strategy: Strategy = Strategy.ONE_FOR_ONE
    give_up: GiveUp = GiveUp.ESCALATE
    max_restarts: int = 5
    within: float = 60.0
    children_survive: bool = False
    escalates: tuple[type[BaseException], ...] = ()
    down_after_two: tuple[type[BaseException], ...] = ()
    own_thread: bool = False
    capacity: int | None = None
    overflow: Overflow = Overflow.REFUSE


class Verdict(enum.Enum):
    """What is decided about a failed actor."""

    RESTART = "restart"
    STOP = "stop"
    ESCALATE = "escalate"
    STAY_DOWN = "stay down"


INITIAL_DELAY = 0.1
MAX_DELAY = 30.0
FORGET_AFTER = 30.0


@dataclass(slots=True)
class ReconnectDelay:
    """The delay before the next start: 100 ms, doubling to 30 s, forgotten after 30 s well."""

    initial: float = INITIAL_DELAY
    maximum: float = MAX_DELAY
    forget_after: float = FORGET_AFTER
    _next: float = 0.0
    _last: float | None = None

    def next(self, now: float) -> float:
        """The delay in seconds for a failure at monotonic time ``now``."""
        if self._last is None or now - self._last > self.forget_after + self._next:
            self._next = self.initial
        else:
            self._next = min(self._next * 2, self.maximum)
        self._last = now
        return self._next

    def reset(self) -> None:
        """Forgets earlier failures."""
        self._last = None


@dataclass(slots=True)
class Failures:
    """The failures of one actor, as its supervisor counts them."""

    delay: ReconnectDelay = field(default_factory=ReconnectDelay)
    total: int = 0
    recent: deque[float] = field(default_factory=deque)
    _last_grave: float | None = None

    def judge(self, policy: Policy, error: BaseException, now: float) -> tuple[Verdict, float]:
        """Decides about a failure at monotonic time ``now``; the delay counts for a restart only."""
        self.total += 1
        self.recent.append(now)
        while self.recent and now - self.recent[0] > policy.within:
            self.recent.popleft()
        if policy.restart is Restart.TEMPORARY:
            return Verdict.STOP, 0.0
        delay = self.delay.next(now)
        if isinstance(error, policy.escalates):
            return Verdict.ESCALATE, delay
        if isinstance(error, policy.down_after_two):
            before, self._last_grave = self._last_grave, now
            again = before is not None and now - before <= policy.within
            return (Verdict.STAY_DOWN if again else Verdict.RESTART), delay
        if len(self.recent) <= policy.max_restarts or policy.give_up is GiveUp.NEVER:
            return Verdict.RESTART, delay
        self.recent.clear()
        return (Verdict.STAY_DOWN if policy.give_up is GiveUp.STAY_DOWN else Verdict.ESCALATE), delay
