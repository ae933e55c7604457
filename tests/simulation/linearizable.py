"""Is a history of one register linearizable? A bounded search after Wing, Gong and Lowe.

An operation takes effect at one moment between its call and its return. A history is linearizable if moments can be
chosen so that each read gives what the last write before it wrote. Values are unique, times any numbers. An operation
without a return (``math.inf``) may take effect at any later moment; one that never took effect must be left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LIMIT = 200_000
ANYTHING = object()


class Undecided(AssertionError):
    """The search used up its bound: the history is not known to be linearizable, which counts as a failure."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A write of ``value``, or a read that gave it."""

    call: float
    end: float
    write: bool
    value: object
    client: object = None
    expected: object = ANYTHING
    """Of a write that replaces one value alone: that value."""

    @property
    def known(self) -> bool:
        """Whether it returned."""
        return self.end != math.inf


def linearizable(history: Sequence[Operation], initial: object = None, limit: int = LIMIT) -> bool:
    """Searches for an order; raises Undecided after ``limit`` states."""
    operations = sorted(history, key=lambda each: (each.call, each.end))
    everything = (1 << len(operations)) - 1
    seen: set[tuple[int, object]] = set()
    stack: list[tuple[int, object]] = [(0, initial)]
    while stack:
        done, value = stack.pop()
        done = _take_reads(operations, done, value)
        if done == everything:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        if len(seen) > limit:
            raise Undecided(f"{len(operations)} operations: not decided within {limit} states")
        for number in _candidates(operations, done):
            each = operations[number]
            if each.write and each.expected in (ANYTHING, value):
                stack.append((done | 1 << number, each.value))
    return False


def _candidates(operations: Sequence[Operation], done: int) -> list[int]:
    """Which operations may take effect next: those called before any other that is left returned."""
    found: list[int] = []
    earliest = math.inf
    number = (~done & (done + 1)).bit_length() - 1  # the first that is left
    while number < len(operations):
        if not done >> number & 1:
            each = operations[number]
            if each.call > earliest:
                break
            earliest = min(earliest, each.end)
            found.append(number)
        number += 1
    return [number for number in found if operations[number].call <= earliest]


def _take_reads(operations: Sequence[Operation], done: int, value: object) -> int:
    """Reads that fit now may as well take effect now: they change nothing."""
    while True:
        fitting = [n for n in _candidates(operations, done) if not operations[n].write and operations[n].value == value]
        if not fitting:
            return done
        for number in fitting:
            done |= 1 << number
