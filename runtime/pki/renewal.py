"""When a node asks for its next certificate, and how long it waits after a failure.

Rules owned here: renewal at a random point between 50 % and 80 % of a certificate's life, and SwarmKit's one
formula for waiting, used for issuing and for renewing with different numbers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

UNREADABLE_WAIT = 300.0
"""Seconds before the certificate file is looked at again when it could not be read."""
FORCED_PAUSE = 0.5
"""Seconds between a forced renewal being asked for and being made."""


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
