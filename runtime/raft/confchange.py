"""Configuration changes: one voter at a time, or any number through a joint configuration (thesis 4).

Pure: a change takes a configuration with its progress map and gives new ones, or is refused. Rules kept here: a
simple change moves at most one voter; in a joint configuration both halves have a say; a voter of the outgoing half
that is to become a learner does so only when that half is left (``learners_next``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.raft.progress import Inflights, Progress
from runtime.raft.types import NOBODY, ConfState


class ChangeType(enum.IntEnum):
    """What happens to one node; the numbers are the wire's."""

    ADD_NODE = 0
    REMOVE_NODE = 1
    UPDATE_NODE = 2
    ADD_LEARNER = 3


class Transition(enum.IntEnum):
    """How a change goes through a joint configuration: if needed and left by itself, always, or left on request."""

    AUTO = 0
    JOINT_IMPLICIT = 1
    JOINT_EXPLICIT = 2


@dataclass(frozen=True, slots=True)
class ConfChange:
    """A proposed change. ``v1`` says that it travels in the old encoding, which holds exactly one."""

    changes: tuple[tuple[ChangeType, int], ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""
    v1: bool = False
    id: int = 0

    @property
    def leaves_joint(self) -> bool:
        """True if this is the request to leave a joint configuration: it changes nothing else."""
        return not self.v1 and not self.changes and self.transition is Transition.AUTO

    def enters_joint(self) -> bool | None:
        """None if no joint configuration is needed, else whether it is left by itself."""
        if self.transition is Transition.AUTO and len(self.changes) <= 1:
            return None
        return self.transition is not Transition.JOINT_EXPLICIT


class ChangeRefused(Exception):
    """A configuration change that cannot be applied to the present configuration."""


@dataclass(slots=True)
class Config:
    """A membership. ``outgoing`` is empty unless it is joint."""

    voters: set[int] = field(default_factory=set)
    outgoing: set[int] = field(default_factory=set)
    learners: set[int] = field(default_factory=set)
    learners_next: set[int] = field(default_factory=set)
    auto_leave: bool = False

    @property
    def joint(self) -> bool:
        """True in a joint configuration."""
        return bool(self.outgoing)

    def all_voters(self) -> list[int]:
        """The voters of both halves, ascending."""
        return sorted(self.voters | self.outgoing)

    def copy(self) -> Config:
        """Another one with the same members."""
        return Config(
            set(self.voters), set(self.outgoing), set(self.learners), set(self.learners_next), self.auto_leave
        )

    def state(self) -> ConfState:
        """As plain data, each list ascending."""
        return ConfState(
            tuple(sorted(self.voters)),
            tuple(sorted(self.outgoing)),
            tuple(sorted(self.learners)),
            tuple(sorted(self.learners_next)),
            self.auto_leave,
        )


ProgressMap = dict[int, Progress]
Changes = Sequence[tuple[ChangeType, int]]


class Changer:
    """Applies changes to copies of a configuration and its progress map."""

    def __init__(
        self, config: Config, progress: ProgressMap, last_index: int, inflights: Callable[[], Inflights]
    ) -> None:
        self.config = config.copy()
        self.progress = {id: each.copy() for id, each in progress.items()}
        self._last_index = last_index
        self._inflights = inflights

    def take(self, change: ConfChange) -> None:
        """A committed change, in the way that it asks for."""
        auto_leave = change.enters_joint()
        if change.leaves_joint:
            self.leave_joint()
        elif auto_leave is not None:
            self.enter_joint(auto_leave, change.changes)
        else:
            self.simple(change.changes)

    def enter_joint(self, auto_leave: bool, changes: Changes) -> None:
        """The present voters become the outgoing half, the changes make the incoming one."""
        if self.config.joint:
            raise ChangeRefused("config is already joint")
        if not self.config.voters:
            raise ChangeRefused("can't make a zero-voter config joint")
        self.config.outgoing = set(self.config.voters)
        self._apply(changes)
        self.config.auto_leave = auto_leave

    def leave_joint(self) -> None:
        """The outgoing half has no say any more."""
        if not self.config.joint:
            raise ChangeRefused("can't leave a non-joint config")
        config = self.config
        for id in config.learners_next:
            config.learners.add(id)
            self.progress[id].learner = True
        config.learners_next = set()
        for id in config.outgoing:
            if id not in config.voters and id not in config.learners:
                del self.progress[id]
        config.outgoing = set()
        config.auto_leave = False

    def simple(self, changes: Changes) -> None:
        """Changes that together move at most one voter."""
        if self.config.joint:
            raise ChangeRefused("can't apply simple config change in joint config")
        before = set(self.config.voters)
        self._apply(changes)
        if len(before ^ self.config.voters) > 1:
            raise ChangeRefused("more than one voter changed without entering joint config")

    def _apply(self, changes: Changes) -> None:
        steps = {
            ChangeType.ADD_NODE: self._make_voter,
            ChangeType.ADD_LEARNER: self._make_learner,
            ChangeType.REMOVE_NODE: self._remove,
        }
        for change, id in changes:
            step = steps.get(change)
            if step is not None and id != NOBODY:
                step(id)
        if not self.config.voters:
            raise ChangeRefused("removed all voters")

    def _make_voter(self, id: int) -> None:
        if id not in self.progress:
            self._add(id, learner=False)
            return
        self.progress[id].learner = False
        self.config.learners.discard(id)
        self.config.learners_next.discard(id)
        self.config.voters.add(id)

    def _make_learner(self, id: int) -> None:
        present = self.progress.get(id)
        if present is None:
            self._add(id, learner=True)
            return
        if present.learner:
            return
        self._remove(id)
        self.progress[id] = present
        if id in self.config.outgoing:
            self.config.learners_next.add(id)
        else:
            present.learner = True
            self.config.learners.add(id)

    def _remove(self, id: int) -> None:
        if id not in self.progress:
            return
        self.config.voters.discard(id)
        self.config.learners.discard(id)
        self.config.learners_next.discard(id)
        if id not in self.config.outgoing:
            del self.progress[id]

    def _add(self, id: int, learner: bool) -> None:
        (self.config.learners if learner else self.config.voters).add(id)
        # A newcomer counts as active, so that the leader does not step down over it before it was heard of once.
        self.progress[id] = Progress(max(self._last_index, 1), self._inflights(), learner, recent_active=True)


def restore(changer: Changer, state: ConfState) -> None:
    """Builds a configuration from plain data, by the changes that lead there from an empty one."""
    incoming = [(ChangeType.REMOVE_NODE, id) for id in state.voters_outgoing]
    incoming += [(ChangeType.ADD_NODE, id) for id in state.voters]
    incoming += [(ChangeType.ADD_LEARNER, id) for id in (*state.learners, *state.learners_next)]
    if not state.voters_outgoing:
        for change in incoming:
            changer.simple([change])
        return
    for id in state.voters_outgoing:
        changer.simple([(ChangeType.ADD_NODE, id)])
    changer.enter_joint(state.auto_leave, incoming)
