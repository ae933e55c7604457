"""RoleWatcherActor owns everything about this node's role.

It knows the observed role (what the certificate says) and the desired role (what sessions say), and tells the node
when to renew its certificate and when to start or end its manager. Where SwarmKit's node waits on conditions, here are
states:

    WORKER    no manager runs
    MANAGER   a manager runs
    ENDING    the certificate became a worker's and the manager is told to end: until it has, another one cannot start
    WAITING   the manager ended by itself without an error: the certificate of a worker should follow within 16 s.
              If it does not: a manager that the quorum did not remove starts again; one that was removed has its
              renewal forced and gets another 16 s, after which it is taken for promoted again and starts. It starts
              earlier if it is wanted back for sure: something newer than the removal says so (a changed wish, or a
              session that was opened since), and a certificate that was asked for after that is a manager's. So does
              one that was promoted again at once, or whose log is older than a cluster that was made anew.

It never touches certificates, raft data or the manager itself.
"""

from __future__ import annotations

import enum

from runtime.protocol.agent import RenewSession
from runtime.protocol.node import (
    ManagerEnded,
    NodeChanged,
    RenewCertificate,
    RoleObserved,
    SessionOpened,
    StartManager,
    StopManager,
)
from runtime.stage import Actor, Address, GiveUp, Policy, Timer, handles

MANAGER = "swarm-manager"
WORKER = "swarm-worker"
ROLE_CHANGE_TIMEOUT = 16.0


class State(enum.Enum):
    """What runs on this node; see above."""

    WORKER = "worker"
    MANAGER = "manager"
    ENDING = "ending"
    WAITING = "waiting"


class _RoleOverdue:
    """16 s passed without the certificate of a worker."""


class RoleWatcherActor(Actor):
    """Starts in ``role``, the one of the certificate that the node came up with."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, node: Address, role: str) -> None:
        super().__init__()
        self.node = node
        self.observed = role
        self.desired = role
        self.state = State.WORKER
        self._removed = False
        self._renewal_forced = False
        self._newer_session = False
        self._wanted_back = False
        self._overdue: Timer | None = None

    def started(self) -> None:
        self._follow_observed()

    def snapshot(self) -> dict[str, object]:
        return {"observed": self.observed, "desired": self.desired, "state": self.state.value}

    @handles(NodeChanged)
    def node_changed(self, message: NodeChanged) -> None:
        """Edge-triggered: only a change of the desired role asks for a certificate of that role."""
        changed = message.desired_role != self.desired
        self.desired = message.desired_role
        waits = self.state is State.WAITING and self._removed
        before = self._wanted_back
        self._wanted_back = waits and self.desired == MANAGER and (before or changed or self._newer_session)
        if changed or self._wanted_back is not before:
            self.tell(self.node, RenewCertificate(self.desired))
        elif message.rotate:
            self.tell(self.node, RenewCertificate())

    @handles(SessionOpened)
    def session_opened(self, message: SessionOpened) -> None:
        """Its manager has seen whatever removed this one."""
        self._newer_session = True

    @handles(RoleObserved)
    def role_observed(self, message: RoleObserved) -> None:
        """A renewed certificate says which role this node has now."""
        self.observed = message.role
        if self._wanted_back and message.role == MANAGER:
            self._start_manager()
        else:
            self._follow_observed()

    @handles(ManagerEnded)
    def manager_ended(self, message: ManagerEnded) -> None:
        """The manager ended as it was told to; or by itself: a worker's certificate should be under way."""
        if self.state is State.ENDING or self.observed == WORKER:
            self.state = State.WORKER
            self._follow_observed()  # it may be to start again by now
            return
        self.state = State.WAITING
        self._removed = message.removed
        self._renewal_forced = self._newer_session = self._wanted_back = False
        if message.removed:
            self.tell(self.node, RenewSession())
        self._overdue = self.after(ROLE_CHANGE_TIMEOUT, _RoleOverdue())

    @handles(_RoleOverdue)
    def role_overdue(self, message: _RoleOverdue) -> None:
        """16 s without a worker's certificate."""
        if self.state is not State.WAITING:
            return
        if self._removed and not self._renewal_forced:
            self._renewal_forced = True
            self.tell(self.node, RenewCertificate())
            self._overdue = self.after(ROLE_CHANGE_TIMEOUT, _RoleOverdue())
        else:
            self._start_manager()

    def _follow_observed(self) -> None:
        if self.observed == MANAGER and self.state is State.WORKER:
            self._start_manager()
        elif self.observed == WORKER and self.state is State.MANAGER:
            self.state = State.ENDING
            self.tell(self.node, StopManager())
        elif self.observed == WORKER and self.state is State.WAITING:
            self.state = State.WORKER
            self._cancel_overdue()

    def _start_manager(self) -> None:
        self._cancel_overdue()
        self.state, self._wanted_back = State.MANAGER, False
        self.tell(self.node, StartManager())

    def _cancel_overdue(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
