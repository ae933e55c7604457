"""Majorities, alone and joint (thesis 4.3): what is decided when both halves of a configuration must agree."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping


class Vote(enum.Enum):
    """How a vote stands."""

    PENDING = "pending"
    LOST = "lost"
    WON = "won"


def majority_committed(voters: Collection[int], acked: Callable[[int], int]) -> int | None:
    """The highest index that a majority has acknowledged; None without voters (anything is)."""
    if not voters:
        return None
    indices = sorted(acked(voter) for voter in voters)
    return indices[len(indices) - (len(indices) // 2 + 1)]


def joint_committed(incoming: Collection[int], outgoing: Collection[int], acked: Callable[[int], int]) -> int:
    """The highest index that both majorities have acknowledged."""
    found = [majority_committed(half, acked) for half in (incoming, outgoing)]
    return min((index for index in found if index is not None), default=0)


def majority_vote(voters: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """How a vote among these voters stands; without voters it is won."""
    if not voters:
        return Vote.WON
    needed = len(voters) // 2 + 1
    granted = sum(votes.get(voter) is True for voter in voters)
    missing = sum(voter not in votes for voter in voters)
    if granted >= needed:
        return Vote.WON
    return Vote.PENDING if granted + missing >= needed else Vote.LOST


def joint_vote(incoming: Collection[int], outgoing: Collection[int], votes: Mapping[int, bool]) -> Vote:
    """Won when both halves are, lost when one is."""
    results = {majority_vote(incoming, votes), majority_vote(outgoing, votes)}
    if Vote.LOST in results:
        return Vote.LOST
    return Vote.PENDING if Vote.PENDING in results else Vote.WON
