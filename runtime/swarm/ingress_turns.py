"""Whose turn it is at a published port: its backends one after the other, those that refused lately last.

Rules owned here: a backend that could not be had is passed over for five seconds, whatever is asked of it, as long as
there is another; where all of them refused they are tried all the same, for one may be back. What is remembered is
bounded by the routes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from runtime.swarm.ingress_tables import Backend

AVOIDED_S: Final = 5.0

P = TypeVar("P", bound=Hashable)


class Turns(Generic[P]):
    """Of several ports; ``clock``: seconds that do not go back."""

    __slots__ = ("_clock", "_refused", "_turns")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._turns: dict[P, int] = {}
        self._refused: dict[Backend, float] = {}

    def order(self, port: P, backends: Sequence[Backend]) -> Iterator[Backend]:
        """All of them, the next one in turn first; who refused lately comes behind the others."""
        first, late = self._turns.get(port, 0), []
        for step in range(len(backends)):
            backend = backends[(first + step) % len(backends)]
            if self.avoids(backend):
                late.append(backend)
                continue
            self._turns[port] = (first + step + 1) % len(backends)
            yield backend
        for step, backend in enumerate(late):
            self._turns[port] = (first + step + 1) % len(backends)
            yield backend

    def refused(self, backend: Backend) -> bool:
        """It could not be had; False if that is known already."""
        known = self.avoids(backend)
        self._refused[backend] = self._clock()
        return not known

    def served(self, backend: Backend) -> None:
        """It could."""
        if self._refused:
            self._refused.pop(backend, None)

    def avoids(self, backend: Backend) -> bool:
        """Whether it refused lately."""
        since = self._refused.get(backend)
        return since is not None and self._clock() < since + AVOIDED_S

    def keep_to(self, ports: Container[P], backends: Iterable[Backend]) -> None:
        """These are all that there are."""
        self._turns = {port: turn for port, turn in self._turns.items() if port in ports}
        if self._refused:
            wanted = set(backends)
            self._refused = {each: since for each, since in self._refused.items() if each in wanted}
