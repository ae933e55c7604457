"""What goes wrong in one run, drawn from its seed before it begins: a list of numbered faults, each with its time.

Half of the runs get few kinds of faults, half many; how much of each kind is drawn too. Leaving a fault out changes
nothing else of the list, which is what lets a failing run be shrunk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_FAULTS = 15
LEAST_KINDS = 4


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault ``at`` so many virtual seconds, for ``seconds`` if it lasts; ``args`` are its kind's own."""

    number: int
    at: float
    kind: str
    seconds: float
    args: Mapping[str, Any]

    def __str__(self) -> str:
        args = " ".join(f"{name}={value}" for name, value in self.args.items())
        return f"#{self.number} {self.at:.3f} {self.kind} {args} for {self.seconds:.3f} s"


@dataclass(frozen=True, slots=True)
class Kind:
    """How often a kind strikes when it is chosen (at least, at most), how long (at least, at most), and its
    arguments."""

    often: tuple[int, int]
    lasting: tuple[float, float] = (0.0, 0.0)
    args: Callable[[random.Random], dict[str, Any]] = lambda rng: {}


def draw(rng: random.Random, kinds: Mapping[str, Kind], seconds: float) -> list[Planned]:
    """The faults of a run that lasts so many seconds: at least 15 of at least 4 kinds."""
    few = rng.random() < 0.5
    names = list(kinds)
    while True:
        count = rng.randint(LEAST_KINDS, len(names) // 2) if few else rng.randint(len(names) // 2, len(names))
        chosen = sorted(rng.sample(names, count))
        drawn = [(name, kinds[name]) for name in chosen for _ in range(rng.randint(*kinds[name].often))]
        if len(drawn) >= LEAST_FAULTS and len({name for name, _ in drawn}) >= LEAST_KINDS:
            break
    timed = sorted((rng.uniform(0.0, seconds), number, name, kind) for number, (name, kind) in enumerate(drawn))
    return [
        Planned(number, at, name, rng.uniform(*kind.lasting), kind.args(rng))
        for number, (at, _order, name, kind) in enumerate(timed)
    ]


def without(faults: Sequence[Planned], skip: frozenset[int]) -> list[Planned]:
    """The same faults but for some."""
    return [fault for fault in faults if fault.number not in skip]
