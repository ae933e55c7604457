"""What a failed run leaves behind: its seed, its faults, the last deliveries, how to run it again, and fewer faults.

A fault has a number, in the order in which they were injected. A run from which some faults are left out (``skip``) is
otherwise the same run; ``shrink`` finds faults without which it still fails.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Number = TypeVar("Number", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that was injected ``at`` so many seconds; one that was left out has ``skipped``."""

    number: int
    at: float
    kind: str
    what: str
    skipped: bool = False

    @property
    def text(self) -> str:
        """What it is, without its time."""
        return f"#{self.number} {self.kind} {self.what}".rstrip() + (" (left out)" * self.skipped)

    def __str__(self) -> str:
        number, _, text = self.text.partition(" ")
        return f"{number} {self.at:.6f} {text}"


def shrink(faults: Sequence[Number], fails: Callable[[frozenset[Number]], bool], runs: int = 60) -> frozenset[Number]:
    """The numbers of faults that a failing run can do without: first in halves, then one at a time, each tried once
    more by ``fails(skip)``, at most ``runs`` times."""
    skip: frozenset[Number] = frozenset()
    size = max(1, len(faults) // 2)
    while size and runs > 0:
        left = [number for number in faults if number not in skip]
        for start in range(0, len(left), size):
            tried = skip | set(left[start : start + size])
            if runs > 0 and fails(tried):
                skip = tried
            runs -= 1
        size //= 2
    return skip


def describe(
    seed: int,
    where: str,
    time: float,
    faults: Sequence[Fault],
    last: Sequence[str],
    again: str,
    remembered: str = "deliveries",
) -> str:
    """The report of a failed run, for people."""
    lines = [f"seed {seed}, {where}, after {time:.3f} s", f"faults ({len(faults)}):"]
    lines += [f"  {fault}" for fault in faults] or ["  none"]
    if last:
        lines += [f"last {len(last)} {remembered}:", *(f"  {line}" for line in last)]
    lines.append(f"run it again: {again}")
    return "\n".join(lines)
