"""What is said to the store's one writer, and between it and the consensus below it.

A transaction function is pure: it is given a Transaction, returns the answer, and may be run on any view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.store.events import Commit, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import View

if TYPE_CHECKING:
    from runtime.store.snapshot import Objects

Step = Callable[[Transaction], Any]


@dataclass(frozen=True, slots=True)
class Write:
    """Question: run one transaction. Answered with what ``run`` returned once this node's store has applied it."""

    run: Step


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Question: run steps in order, each whole or not at all, in as few transactions as fit.

    The answer is a list: for each step what it returned, or the Refused it raised.
    """

    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Watch:
    """Asks for commits from the one after ``since`` on (None: from now on), as long as the sender lives."""

    filter: WatchFilter
    since: int | None = None


@dataclass(frozen=True, slots=True)
class AwaitView:
    """Question: answered with its version once the published view holds what ``holds`` looks for, or refused with
    DEADLINE_EXCEEDED after ``within`` seconds. ``holds`` is cheap: it is run on every view."""

    holds: Callable[[View], bool]
    within: float = 10.0


@dataclass(frozen=True, slots=True)
class Watching:
    """The answer to Watch: commits follow from the one after ``version`` on, without a gap."""

    version: int


@dataclass(frozen=True, slots=True)
class Commits:
    """Told to watchers: commits in order, with the events that they asked for."""

    commits: tuple[Commit, ...]


@dataclass(frozen=True, slots=True)
class Propose:
    """Told to the consensus: append this entry.

    ``epoch`` is the one that the consensus named last. An entry of an older epoch is dropped: the store gave it up, and
    everything built on it, when it heard of the new one.
    """

    number: int
    data: bytes = field(repr=False)
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Entries:
    """Told by the consensus: committed entries in order, ``(index, number of the request, data)``."""

    entries: tuple[tuple[int, int, bytes], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProposalRefused:
    """Told by the consensus: the entry of this request was not appended, nor will be, nor will those after it."""

    number: int
    reason: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Leading:
    """Told by the consensus: this node leads, everything up to ``last_index`` is applied, proposals are welcome."""

    term: int
    last_index: int
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class NotLeading:
    """Told by the consensus: proposals are refused; what becomes of those under way is not known here."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Told by the consensus: the store is to equal this snapshot taken at ``index``, which nobody changes any more."""

    index: int
    objects: Objects = field(repr=False)
