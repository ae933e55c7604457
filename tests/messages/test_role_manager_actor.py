"""RoleManagerActor: promotions, demotions through the consensus, the leader's own, members that are lost or removed."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from actors.role_manager_actor import RoleManagerActor
from actors.store_watcher import StoreWatcher
from runtime.errors import Refused, precondition
from runtime.protocol.manager import MembersChanged
from runtime.protocol.raft import MemberStatus, RemoveMember, TransferLeadership
from runtime.protocol.store import Write
from runtime.stage import Actor, GiveUp, Policy, handles
from runtime.swarm.roles import RECONCILE_EVERY_S
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.messages.part_bench import PartBench

M, W = types.MANAGER, types.WORKER
QUORUM = precondition("can't remove member from the raft: this would result in a loss of quorum")


class Group(Actor):
    """Stands where the consensus does: lets members go, or refuses, as the test wants it."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench

    @handles(RemoveMember)
    def remove(self, message: RemoveMember) -> None:
        self.bench.asked.append(message)
        if self.bench.silent:
            self.defer()
            return
        if self.bench.refusals:
            raise self.bench.refusals.popleft()
        self.bench.members.pop(message.raft_id, None)
        if self.bench.tells:
            self.bench.tell_members()

    @handles(TransferLeadership)
    def transfer(self, message: TransferLeadership) -> bool:
        self.bench.asked.append(message)
        if self.bench.refusals:
            raise self.bench.refusals.popleft()
        return True


class Nothing(StoreWatcher):
    """The bench's own part, of which nothing is asked."""

    policy = Policy(give_up=GiveUp.NEVER)


class Bench(PartBench):
    """``n1`` leads; ``members`` are in the consensus."""

    def __init__(self, *nodes: objects.Node, members: tuple[str, ...] = ("n1",), told: bool = True) -> None:
        super().__init__(Nothing, *nodes)
        self.members = {
            number: MemberStatus(number, node_id, f"10.0.0.{number}:2377", node_id == "n1", True)
            for number, node_id in enumerate(members, 1)
        }
        self.asked: list[Any] = []
        self.refusals: deque[Refused] = deque()
        self.silent = False
        self.tells = True
        context = replace(self.context, raft=self.stage.mount("consensus", Group, self))
        self.address = self.stage.mount("roles", RoleManagerActor, context)
        if told:
            self.tell_members()
        self.simulator.run_for(0.1)

    def tell_members(self) -> None:
        self.address.tell(MembersChanged(dict(self.members)))

    def want(self, node_id: str, role: types.NodeRole) -> None:
        """What ``docker node promote`` and ``demote`` write."""
        self.edit(objects.Node, node_id, lambda each: setattr(each.spec, "desired_role", role))
        self.simulator.run_for(0.1)

    def role(self, node_id: str) -> int:
        found = self.published.view.get(objects.Node, node_id)
        assert found is not None
        return int(found.role)

    def snapshot(self) -> Any:
        cell = self.address.resolve()
        assert cell is not None
        return cell.instance.snapshot()


def node(id: str, role: types.NodeRole = W, desired: types.NodeRole | None = None) -> objects.Node:
    made = objects.Node(id=id, role=role)
    made.spec.desired_role = role if desired is None else desired
    return made


def test_a_promotion_is_written_when_it_is_wanted() -> None:
    bench = Bench(node("n1", M), node("n2"))
    bench.want("n2", M)
    assert bench.role("n2") == M
    assert bench.asked == []
    assert bench.snapshot()["pending"] == 0


@pytest.mark.parametrize("earlier", ["role", "wish"])
def test_what_is_on_the_way_already_is_waited_for_and_not_asked_for_again_and_again(earlier: str) -> None:
    """An earlier life wrote the role, or somebody takes the wish back, and without a quorum neither is committed."""
    bench = Bench(node("n1", M), node("n2", W, desired=M), told=False)
    bench.held = True

    def write(tx: Any) -> None:
        new = objects.Node()
        new.CopyFrom(tx.get(objects.Node, "n2"))
        if earlier == "role":
            new.role = M
        else:
            new.spec.desired_role = W
        tx.update(new)

    bench.store.tell(Write(write))
    bench.simulator.settle()
    writes: list[Any] = []
    bench.simulator.observers.append(lambda _cell, told: writes.append(told[1]) if isinstance(told[0], Write) else None)
    bench.tell_members()
    bench.simulator.run_for(0.5)
    assert writes == [bench.address]
    bench.simulator.run_for(3 * RECONCILE_EVERY_S)
    assert 2 <= len(writes) <= 5
    bench.release()
    bench.simulator.run_for(1.0)
    assert bench.role("n2") == (M if earlier == "role" else W)
    assert bench.snapshot()["pending"] == 0


def test_what_was_wanted_before_this_leader_is_done_once_the_members_are_known() -> None:
    bench = Bench(node("n1", M), node("n2", W, M), node("n3", M, W), members=("n1", "n3"), told=False)
    bench.simulator.run_for(60)
    assert (bench.role("n2"), bench.role("n3"), bench.asked) == (W, M, [])
    bench.tell_members()
    bench.simulator.run_for(0.1)
    assert (bench.role("n2"), bench.role("n3"), bench.asked) == (M, W, [RemoveMember(2)])


@pytest.mark.parametrize("tells", [True, False], ids=["members told", "members told later"])
def test_a_demotion_leaves_the_consensus_first(tells: bool) -> None:
    bench = Bench(node("n1", M), node("n2", M), members=("n1", "n2"))
    bench.tells = tells
    bench.want("n2", W)
    assert bench.asked == [RemoveMember(2)]
    assert bench.role("n2") == W
    bench.tell_members()
    bench.simulator.run_for(30)
    assert bench.asked == [RemoveMember(2)]


def test_a_demotion_that_would_cost_the_quorum_waits_and_the_role_stays() -> None:
    bench = Bench(node("n1", M), node("n2", M), node("n3", M), members=("n1", "n2", "n3"))
    bench.refusals.extend([QUORUM, QUORUM])
    bench.want("n2", W)
    assert bench.role("n2") == M
    assert "loss of quorum" in bench.snapshot()["trouble"]
    bench.simulator.run_for(RECONCILE_EVERY_S)
    assert bench.role("n2") == M
    bench.simulator.run_for(RECONCILE_EVERY_S)
    assert bench.role("n2") == W
    assert bench.snapshot()["trouble"] == ""


def test_a_wish_that_is_taken_back_meanwhile_is_forgotten() -> None:
    bench = Bench(node("n1", M), node("n2", M), members=("n1", "n2"))
    bench.refusals.append(QUORUM)
    bench.want("n2", W)
    bench.want("n2", M)
    bench.simulator.run_for(60)
    assert bench.role("n2") == M
    assert bench.asked == [RemoveMember(2)]
    assert (bench.snapshot()["pending"], bench.snapshot()["trouble"]) == (0, "")


def test_a_consensus_that_does_not_answer_is_asked_again() -> None:
    bench = Bench(node("n1", M), node("n2", M), members=("n1", "n2"))
    bench.silent = True
    bench.want("n2", W)
    bench.silent = False
    bench.simulator.run_for(3 * RECONCILE_EVERY_S)
    assert bench.role("n2") == W


def test_a_leader_that_is_demoted_hands_over_and_leaves_the_rest_to_the_next() -> None:
    bench = Bench(node("n1", M), node("n2", M), members=("n1", "n2"))
    bench.want("n1", W)
    assert bench.asked[0] == TransferLeadership()
    assert RemoveMember(1) not in bench.asked
    assert bench.role("n1") == M


def test_a_leader_that_nobody_takes_over_from_tries_to_be_removed_where_it_stands() -> None:
    bench = Bench(node("n1", M), node("n2", M), members=("n1", "n2"))
    bench.refusals.append(precondition("nobody can lead"))
    bench.want("n1", W)
    assert bench.asked == [TransferLeadership(), RemoveMember(1)]
    assert bench.role("n1") == W


def test_the_member_of_a_node_that_is_removed_is_put_out() -> None:
    bench = Bench(node("n1", M), node("n2", M), members=("n1", "n2"))
    bench.remove(objects.Node, "n2")
    bench.simulator.run_for(0.1)
    assert bench.asked == [RemoveMember(2)]


def test_a_member_whose_node_was_gone_before_this_leader_is_put_out() -> None:
    bench = Bench(node("n1", M), members=("n1", "gone"))
    assert bench.asked == [RemoveMember(2)]


def test_a_worker_that_is_removed_is_nobodys_matter() -> None:
    bench = Bench(node("n1", M), node("n2"))
    bench.remove(objects.Node, "n2")
    bench.simulator.run_for(30)
    assert bench.asked == []


def test_a_role_that_the_store_refuses_is_written_later() -> None:
    bench = Bench(node("n1", M), node("n2"))
    bench.want("n2", W)
    bench.held = True
    bench.store.tell(_promote("n2"))
    bench.simulator.run_for(0.1)
    bench.commit_up_to(bench.proposed[0].number)
    bench.simulator.run_for(0.1)
    bench.refuse()
    assert bench.role("n2") == W
    bench.held = False
    bench.simulator.run_for(RECONCILE_EVERY_S + 0.1)
    assert bench.role("n2") == M


def _promote(node_id: str) -> Any:
    from runtime.protocol.store import Write

    def run(tx: Any) -> None:
        changed = objects.Node()
        changed.CopyFrom(tx.get(objects.Node, node_id))
        changed.spec.desired_role = M
        tx.update(changed)

    return Write(run)
