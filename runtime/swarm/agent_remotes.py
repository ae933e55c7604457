"""Which manager a node turns to: a random choice, weighted by what was experienced with each.

As SwarmKit's remotes: an observation moves a weight half the way towards it, within [-256, 256]; a manager that is new
starts from 0; a weight below 0 still leaves a small chance, so that nobody is given up for good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

WEIGHT_MAX: Final = 256
GOOD: Final = 10
BAD: Final = -10
_CHANCE: Final = 0.001

Remote = tuple[str, str]
"""A manager's node id and address."""


def _clip(weight: float) -> float:
    return max(-WEIGHT_MAX, min(WEIGHT_MAX, weight))


class Remotes:
    """The known managers and their weights."""

    __slots__ = ("_weights",)

    def __init__(self) -> None:
        self._weights: dict[Remote, int] = {}

    def __len__(self) -> int:
        return len(self._weights)

    def __contains__(self, remote: object) -> bool:
        return remote in self._weights

    def weight(self, remote: Remote) -> int:
        """What is thought of a manager; KeyError if it is not known."""
        return self._weights[remote]

    def observe(self, remote: Remote, observation: int) -> None:
        """Learns of a manager, or something about it."""
        old = self._weights.get(remote, 0)
        self._weights[remote] = math.ceil(_clip(0.5 * _clip(observation) + 0.5 * old))

    def observe_if_known(self, remote: Remote, observation: int) -> None:
        """Learns something about a manager that has not been removed meanwhile."""
        if remote in self._weights:
            self.observe(remote, observation)

    def keep_only(self, remotes: Iterable[Remote]) -> None:
        """Forgets every manager that is not listed."""
        listed = frozenset(remotes)
        for gone in [remote for remote in self._weights if remote not in listed]:
            del self._weights[gone]

    def told(self, remotes: Iterable[Remote]) -> None:
        """This is the list now: new ones are thought well of, those not listed are forgotten."""
        listed = list(remotes)
        for remote in listed:
            if remote not in self._weights:
                self.observe(remote, GOOD)
        self.keep_only(listed)

    def select(self, rng: random.Random) -> Remote | None:
        """A manager to turn to; None if none is known."""
        if not self._weights:
            return None
        order = sorted(self._weights)
        mark = rng.random() * sum(self._share(remote) for remote in order)
        for remote in order:
            mark -= self._share(remote)
            if mark < 0:
                return remote
        return order[-1]

    def _share(self, remote: Remote) -> float:
        return max(self._weights[remote], 0) + _CHANCE
