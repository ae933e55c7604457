"""RoleManagerActor makes nodes managers and workers as their specs want it, while this manager leads.

It writes observed roles, and has the consensus let go of members that are to be workers or whose nodes were removed.
Certificates follow by themselves: a node renews when it hears of its desired role, and the CA issues for the observed
one. What cannot be done now (the quorum would be lost, a member does not answer) is tried again every five seconds.

Who is to be demoted and leads hands the leadership over first; what is left to do is the next leader's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from actors.store_watcher import StoreWatcher
from runtime.protocol.manager import LeaderContext, MembersChanged
from runtime.protocol.raft import MemberStatus, RemoveMember, TransferLeadership
from runtime.stage import Answer, GiveUp, Policy, Timer, handles
from runtime.store.events import Commit, WatchFilter
from runtime.swarm.roles import RECONCILE_EVERY_S, REMOVAL_TIMEOUT_S, Need, giving_role, need_of, unsettled
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

TRANSFER_TIMEOUT_S = 25.0


class _Reconcile:
    """Five seconds with something left to do."""


class RoleManagerActor(StoreWatcher):
    """Lives below the leader, which tells it the members. Until it has, nothing is done."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects.Node)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self._members: dict[str, MemberStatus] = {}
        self._under_way: set[str] = set()
        self._pending: list[str] = []
        self._timer: Timer | None = None
        self._handing_over = False
        self._trouble: dict[str, str] = {}

    def snapshot(self) -> dict[str, Any]:
        return {
            "pending": len(self._pending),
            "under way": len(self._under_way),
            "handing over": self._handing_over,
            "trouble": "; ".join(f"{node_id}: {text}" for node_id, text in sorted(self._trouble.items())),
        }

    @handles(MembersChanged)
    def members_changed(self, message: MembersChanged) -> None:
        """Who is in the consensus."""
        self._members = {member.node_id: member for member in message.members.values()}
        self._reconcile()

    def commit(self, commit: Commit) -> None:
        for event in commit.events:
            self._reconcile_one(event.object.id)
        self._arm()

    @handles(_Reconcile)
    def reconcile(self, message: _Reconcile) -> None:
        """What could not be done before."""
        self._timer = None
        self._reconcile()

    def _reconcile(self) -> None:
        if self._members:
            for node_id in unsettled(self.view, self._members):
                self._reconcile_one(node_id)
        self._arm()

    def _reconcile_one(self, node_id: str) -> None:
        if not self._members or node_id in self._under_way:
            return
        member = self._members.get(node_id)
        need = need_of(self.view.get(objects.Node, node_id), is_member=member is not None)
        if need is Need.PROMOTION:
            self._give(node_id, types.MANAGER)
        elif need is Need.DEMOTION:
            self._give(node_id, types.WORKER)
        elif need is Need.REMOVAL:
            assert member is not None, "only members are removed"
            self._remove(node_id, member)
        else:
            self._trouble.pop(node_id, None)

    def _give(self, node_id: str, role: types.NodeRole) -> None:
        self._under_way.add(node_id)
        self.write(giving_role(node_id, role), partial(self._given, node_id))

    def _given(self, node_id: str, answer: Answer) -> None:
        """Nothing was written if what stands behind the newest view is otherwise already: its commit is waited for."""
        if answer.error is None and answer.value is False:
            self._under_way.discard(node_id)
            self._arm()
        else:
            self._done(node_id, answer)

    def _remove(self, node_id: str, member: MemberStatus) -> None:
        raft = self.context.raft
        assert raft is not None, "a leader has a consensus"
        self._under_way.add(node_id)
        if node_id == self.context.node_id:
            self._handing_over = True
            self.ask(raft, TransferLeadership(), partial(self._handed_over, node_id, member), TRANSFER_TIMEOUT_S)
        else:
            self.ask(raft, RemoveMember(member.raft_id), partial(self._removed, node_id), REMOVAL_TIMEOUT_S)

    def _removed(self, node_id: str, answer: Answer) -> None:
        """Without waiting to be told: the group is without it."""
        if answer.error is None:
            self._members.pop(node_id, None)
        self._done(node_id, answer)

    def _handed_over(self, node_id: str, member: MemberStatus, answer: Answer) -> None:
        """Another manager leads, and does the rest; or none would, and this one is to be removed where it stands."""
        self._handing_over = False
        raft = self.context.raft
        if answer.error is not None and raft is not None:
            self.ask(raft, RemoveMember(member.raft_id), partial(self._removed, node_id), REMOVAL_TIMEOUT_S)
        else:
            self._done(node_id, answer)

    def _done(self, node_id: str, answer: Answer) -> None:
        """On with the next step, or another try later."""
        self._under_way.discard(node_id)
        if answer.error is None:
            self._reconcile_one(node_id)
        else:
            self._trouble[node_id] = str(answer.error)
        self._arm()

    def _arm(self) -> None:
        self._pending = unsettled(self.view, self._members)
        if self._timer is None and (self._pending or self._under_way):
            self._timer = self.after(RECONCILE_EVERY_S, _Reconcile())
