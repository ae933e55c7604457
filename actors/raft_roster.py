"""Who the members of the consensus group are, as far as one manager knows, and which of them it reaches.

Not an actor: RaftActor owns it and changes it in its own turns. ``version`` grows with every change, so that whoever
tells others of the members need not compare them again after every message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from runtime.disk.raft_records import Member


class Roster:
    """``members`` are those that the applied log knows, ``removed`` the raft ids that never come back."""

    def __init__(self) -> None:
        self.version = 0
        self._members: dict[int, Member] = {}
        self._removed: set[int] = set()
        self._coming: dict[int, Member] = {}
        self._reached: dict[int, bool] = {}

    @property
    def members(self) -> Mapping[int, Member]:
        """The members, by raft id; always the same mapping."""
        return self._members

    @property
    def removed(self) -> Set[int]:
        """Who was removed; always the same set."""
        return self._removed

    def add(self, member: Member) -> None:
        """A member is there, or is reached elsewhere."""
        self._members[member.raft_id] = member
        self.version += 1

    def remove(self, raft_id: int) -> None:
        """A member is none any more, for good."""
        self._members.pop(raft_id, None)
        self._removed.add(raft_id)
        self.version += 1

    def restore(self, members: Iterable[Member], removed: Iterable[int]) -> None:
        """What a snapshot says takes the place of the members; who was removed stays so."""
        self._members.clear()
        self._members.update((each.raft_id, each) for each in members)
        self._removed.update(removed)
        self.version += 1

    def expect(self, coming: Mapping[int, Member]) -> None:
        """These are to be members: their addresses are needed to get that far."""
        self._coming.update(coming)
        self.version += 1

    def recall(self, coming: Mapping[int, Member]) -> None:
        """The same from an old source: what is known of one of them already is newer."""
        self._coming = {**coming, **self._coming}
        self.version += 1

    @property
    def expecting(self) -> bool:
        """Whether anybody was ever expected."""
        return bool(self._coming)

    def mark(self, raft_id: int, reached: bool) -> None:
        """A member was reached, or was not."""
        if self._reached.get(raft_id) is not reached:
            self._reached[raft_id] = reached
            self.version += 1

    def reaches(self, raft_id: int) -> bool:
        """Whether a member was reached when last tried."""
        return self._reached.get(raft_id, False)

    def knows(self, raft_id: int) -> bool:
        """Whether this is a member, or one that is to be."""
        return raft_id not in self._removed and (raft_id in self._members or raft_id in self._coming)

    def known(self) -> dict[int, Member]:
        """The members, and those that are to be."""
        coming = {id: member for id, member in self._coming.items() if id not in self._removed}
        return {**coming, **self._members}
