"""What must hold of five cores at every step, whatever happens to them: Raft's safety properties, each incrementally.

Each check is told what just happened and compares it with what was ever seen, so that one step costs a few look-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.raft.types import Entry, HardState


class Violation(AssertionError):
    """A property does not hold."""


def chained(before: int, entry: Entry) -> int:
    """The hash of a log that ends with this entry, of the hash of the log before it."""
    return hash((before, entry.index, entry.term, entry.type, entry.data))


@dataclass(slots=True)
class Chain:
    """The rolling hashes of one member's log: ``hashes[i]`` is that of the log up to ``base + i``."""

    base: int = 0
    hashes: list[int] = field(default_factory=lambda: [0])

    def at(self, index: int) -> int | None:
        """The hash up to an index; None outside of what is known."""
        place = index - self.base
        return self.hashes[place] if 0 <= place < len(self.hashes) else None

    @property
    def last(self) -> int:
        """The last index."""
        return self.base + len(self.hashes) - 1

    def copy(self) -> Chain:
        """The same for another life."""
        return Chain(self.base, list(self.hashes))


@dataclass(slots=True)
class Invariants:
    """All that was ever seen, over all members and their lives."""

    leaders: dict[int, int] = field(default_factory=dict)
    votes: dict[tuple[int, int], int] = field(default_factory=dict)
    logs: dict[tuple[int, int], int] = field(default_factory=dict)
    applied: dict[int, tuple[int, int]] = field(default_factory=dict)
    promised: dict[int, HardState] = field(default_factory=dict)
    checks: int = 0

    def elected(self, member: int, term: int, chain: Chain, term_at: int) -> None:
        """Election safety, and leader completeness: the newest applied entry is in the new leader's log."""
        self.checks += 1
        if self.leaders.setdefault(term, member) != member:
            raise Violation(f"election safety: {self.leaders[term]:x} and {member:x} both lead in term {term}")
        # A candidate that hears late of the votes it got leads in a term that is over: it need not hold what later
        # terms committed, and nobody follows it.
        if self.applied and term == max(self.leaders):
            newest = max(self.applied)
            if newest > chain.last or (chain.at(newest) not in (None, self.applied[newest][1])):
                raise Violation(f"leader completeness: {member:x} leads in term {term} without applied entry {newest}")

    def appended(self, member: int, chain: Chain, entries: Sequence[Entry], leads: bool) -> None:
        """Log matching; a leader's log only grows."""
        first = entries[0].index
        if leads and first <= chain.last:
            raise Violation(f"leader append-only: leader {member:x} overwrites entry {first} of {chain.last}")
        place = first - chain.base
        if not 0 < place <= len(chain.hashes):
            raise Violation(f"{member:x} appends {first} to a log of {chain.base} to {chain.last}")
        del chain.hashes[place:]
        for entry in entries:
            self.checks += 1
            chain.hashes.append(chained(chain.hashes[-1], entry))
            key = entry.index, entry.term
            if self.logs.setdefault(key, chain.hashes[-1]) != chain.hashes[-1]:
                raise Violation(f"log matching: entry {key} of {member:x} or one before it is another elsewhere")

    def apply(self, member: int, entry: Entry, chain: Chain) -> None:
        """State-machine safety: nobody applies anything else at this index."""
        self.checks += 1
        known = chain.at(entry.index)
        if known is None:
            raise Violation(f"{member:x} applies entry {entry.index}, which is not in its log")
        mine = entry.term, known
        if self.applied.setdefault(entry.index, mine) != mine:
            raise Violation(f"state-machine safety: {member:x} applies another entry at {entry.index}")

    def voted(self, member: int, term: int, candidate: int) -> None:
        """One vote a term, over all lives."""
        self.checks += 1
        if self.votes.setdefault((member, term), candidate) != candidate:
            raise Violation(f"{member:x} votes for {candidate:x} and {self.votes[member, term]:x} in term {term}")

    def kept(self, member: int, state: HardState) -> None:
        """What is durable never goes back."""
        self.checks += 1
        before = self.promised.get(member, HardState())
        if state.term < before.term or (state.term == before.term and before.vote and state.vote != before.vote):
            raise Violation(f"vote durability: {member:x} kept {state} after {before}")
        self.promised[member] = state

    def loaded(self, member: int, state: HardState) -> None:
        """A new life finds what was durable."""
        before = self.promised.get(member, HardState())
        if (state.term, state.vote) != (before.term, before.vote) and state.term <= before.term:
            raise Violation(f"vote durability: {member:x} came back with {state} after {before}")
