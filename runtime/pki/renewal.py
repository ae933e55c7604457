"""When a node asks for its next certificate, and how long it waits after a failure.

Rules owned here: renewal at a random point between 50 % and 80 % of a certificate's life, and SwarmKit's one
formula for waiting, used for issuing and for renewing with different numbers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime

FORCED_PAUSE = 0.5
"""Seconds between a forced renewal being asked for and being made."""
FRESH_PAUSE = 60.0
"""Seconds at least from one renewal to the next that nobody asked for: to a clock that runs far ahead of the CA's
every new certificate is due at once."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits after failures; all in seconds."""

    base: float
    factor: float
    maximum: float

    def wait(self, failures: int, rng: random.Random) -> float:
        """Uniform in [0, min(maximum, base + factor * 2^(failures - 1))); nothing after no failure."""
        if failures <= 0:
            return 0.0
        # Beyond 2^40 the maximum has long been reached; a float overflow after a thousand failures has not.
        return rng.random() * min(self.maximum, self.base + self.factor * 2.0 ** min(failures - 1, 40))


ISSUANCE_BACKOFF = Backoff(1.0, 1.0, 30.0)
RENEWAL_BACKOFF = Backoff(5.0, 5.0, 3600.0)


def renewal_wait(not_before: float, not_after: float, now: float, rng: random.Random) -> float:
    """Seconds until renewal, drawn anew at each call; 0 when the drawn moment has passed. Times are unix seconds."""
    minutes = int((not_after - not_before) // 60)
    lower, upper = int(minutes * 0.5), int(minutes * 0.8)
    drawn = lower if upper - lower < 1 else rng.randrange(lower, upper)
    return max(0.0, not_before + drawn * 60 - now)


def is_expired(not_after: float, now: float) -> bool:
    """Whether renewals are now retried with backoff instead of by schedule."""
    return now > not_after


def out_of_date(not_before: float, not_after: float, now: float) -> str:
    """What an operator has to hear about a certificate that does not hold now, with both times; empty if it holds."""
    if now > not_after:
        return (
            f"The certificate of this node expired on {_stamp(not_after)}, and it is {_stamp(now)} now. Its tasks run "
            "on. A manager that is alone renews its certificate by itself; any other node gets a new one with "
            '"docker swarm join --token TOKEN MANAGER:2377" on this node, which makes it a new node of the swarm.'
        )
    if now < not_before:
        return (
            f"The certificate of this node is not valid before {_stamp(not_before)}, and it is {_stamp(now)} now: the "
            "clock of this machine, or that of the manager that issued it, is wrong. Its tasks run on."
        )
    return ""


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Renewal:
    """When to renew next, as SwarmKit's renewer decides it.

    A renewal that was asked for goes on with growing waits until it succeeds, and, when a role was named, until the
    certificate says that role. One runs at a time; what is asked for meanwhile follows it.
    """

    def __init__(self) -> None:
        self.expected_role = ""
        self.failures = 0
        self.forced = False
        self.running = False
        self._asked_meanwhile = False
        self._fresh = False

    def ask(self, expected_role: str) -> bool:
        """A renewal is asked for; True when it is due after ``FORCED_PAUSE``, False when it follows the one running.

        Without a role the one that is waited for stays.
        """
        self.forced = True
        self.expected_role = expected_role or self.expected_role
        self._asked_meanwhile = self.running
        return not self.running

    def wait(self, not_before: float, not_after: float, now: float, rng: random.Random) -> float:
        """Seconds until the next renewal; all times are unix seconds."""
        if self._asked_meanwhile:
            return FORCED_PAUSE
        backoff = RENEWAL_BACKOFF.wait(self.failures, rng)
        if self.forced or is_expired(not_after, now):
            return backoff
        # Past the drawn moment the schedule says "now" each time: a failure must still be waited after.
        return max(backoff, FRESH_PAUSE if self._fresh else 0.0, renewal_wait(not_before, not_after, now, rng))

    def begin(self) -> None:
        """A renewal goes out."""
        self.running = True
        self._asked_meanwhile = self._fresh = False

    def failed(self) -> None:
        """It came to nothing."""
        self.running = False
        self.failures += 1

    def succeeded(self, role: str) -> bool:
        """The certificate was renewed and says ``role``; False when that is not the role that is waited for."""
        self.running = False
        if self.expected_role and role != self.expected_role:
            self.failures += 1
            return False
        self.failures = 0
        self._fresh = True
        self.forced = self._asked_meanwhile
        return True
